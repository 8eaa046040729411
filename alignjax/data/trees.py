"""OpenAssistant's messages and trees: prompts and replies to them as threads.

Two shapes tell the same. A file of messages has one per row, each with the id
of the message that it answers; a file of trees has one tree per row, with the
replies inside. Messages are joined over the whole file, wherever they stand.

  prompter  "Hi"                      the thread to "Not bad." is
  ├─ assistant  rank 0  "How are      user "Hi", assistant "How are you?",
  │  │                   you?"        user "And you?", assistant "Not bad."
  │  └─ prompter  "And you?"
  │     └─ assistant  "Not bad."
  └─ assistant  rank 1  "What?"
"""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

from alignjax.data import chat
from alignjax.data import judged
from alignjax.data import records
from alignjax.data import rows
from alignjax.data import rules

BadRecord = rules.BadRecord
Unusable = rules.Unusable


@dataclasses.dataclass(eq=False)
class Message:
  """A message, what it answers, and what answers it."""

  id: str
  parent_id: str | None
  role: str  # 'user' or 'assistant'.
  text: str
  rank: int | None  # 0 for the best of the replies to one message.
  where: str
  problem: Unusable | None = None  # Why the message itself is left out.
  parent: 'Message | None' = None
  replies: list['Message'] = dataclasses.field(default_factory=list)

  def thread(self) -> tuple[chat.Message, ...]:
    """The turns from the first prompt to this message."""
    turns, message = [], self
    while message is not None:
      turns.append({'role': message.role, 'content': message.text})
      message = message.parent
    return tuple(reversed(turns))


def read_message(
    record: dict[str, Any], where: str, field: str = ''
) -> Message:
  """One message of a file.

  Args:
    record: Its fields.
    where: 'file:line'.
    field: Where in the record it stands, 'prompt.replies[0]' say, if not on
      top.

  Raises:
    BadRecord: A field is missing or of another type.
  """
  prefix = field + '.' if field else ''
  values = {}
  for name in ('message_id', 'role', 'text'):
    if name not in record:
      raise BadRecord(
          'missing field',
          f"{where}: field '{prefix}{name}' is missing; a message needs it; add"
          ' it.',
      )
    values[name] = rows.check_text(record[name], prefix + name, where)
  parent = record.get('parent_id')
  if parent is not None:
    parent = rows.check_text(parent, prefix + 'parent_id', where)
  message = Message(
      values['message_id'], parent,
      chat.read_role(values['role'], prefix + 'role', where),
      values['text'], _rank(record.get('rank'), prefix + 'rank', where), where)
  message.problem = _problem(record, message, prefix)
  return message


def read_tree(record: dict[str, Any], where: str) -> list[Message]:
  """The messages of a tree, each before its replies."""
  messages, todo = [], [(record.get('prompt'), 'prompt', None)]
  while todo:
    value, field, parent = todo.pop()
    if not isinstance(value, dict):
      raise BadRecord(
          'wrong type',
          f"{where}: field '{field}' is {records.show(value)}; a message must"
          ' be an object; rewrite it, or take the tree out.',
      )
    message = read_message(value, where, field)
    # Inside a tree the place says what is answered; the ids only name it.
    message.parent_id = parent
    messages.append(message)
    replies = value.get('replies')
    if replies is not None and not isinstance(replies, list):
      raise BadRecord(
          'wrong type',
          f"{where}: field '{field}.replies' is {records.show(replies)}; it"
          ' must be a list of messages; rewrite it.',
      )
    todo += reversed([
        (reply, _below(field, i), message.id)
        for i, reply in enumerate(replies or [])])
  return messages


def join(
    messages: list[Message],
) -> tuple[list[Message], list[tuple[Message, Unusable | BadRecord]]]:
  """Links the messages of a file to what they answer.

  Args:
    messages: In the file's order; their links are set.

  Returns:
    The messages that are of use, in the file's order, and the others with what
    is wrong with each. A message below one that is left out is left out too.
  """
  by_id: dict[str, Message] = {}
  left_out: dict[int, tuple[Message, Unusable | BadRecord]] = {}
  for message in messages:
    if message.id in by_id:
      left_out[id(message)] = message, BadRecord(
          'repeated message',
          f"{message.where}: field 'message_id' is {records.show(message.id)},"
          f' as at {by_id[message.id].where}; take one of them out.',
      )
    else:
      by_id[message.id] = message
  children: dict[str, list[Message]] = {}
  roots = []
  for message in by_id.values():
    if message.parent_id is None:
      roots.append(message)
    else:
      children.setdefault(message.parent_id, []).append(message)
  for root in roots:
    _visit(root, children, left_out)
  for message in by_id.values():
    if message.parent_id is not None and message.parent_id not in by_id:
      left_out[id(message)] = message, _no_parent(message, 'is not in the file')
      _visit(message, children, left_out)
  seen = {id(m) for root in roots for m in _walk(root)} | left_out.keys()
  for message in by_id.values():
    if id(message) not in seen:  # In a circle, or below one.
      left_out[id(message)] = message, _no_parent(
          message, 'leads round in a circle')
  kept = [message for message in messages if id(message) not in left_out]
  order = [left_out[id(m)] for m in messages if id(m) in left_out]
  return kept, order


def best_replies(message: Message) -> list[Message]:
  """The replies to imitate: the best ranked, or all where none is ranked."""
  replies = [reply for reply in message.replies if reply.role == 'assistant']
  ranks = [reply.rank for reply in replies if reply.rank is not None]
  return [reply for reply in replies
          if not ranks or reply.rank == min(ranks)]


def ranked_replies(message: Message) -> list[Message]:
  """The replies that have a rank, in the order of the file."""
  return [reply for reply in message.replies
          if reply.role == 'assistant' and reply.rank is not None]


def _visit(root: Message, children: dict, left_out: dict) -> None:
  """Links all that hangs on a message, and leaves out what it must."""
  todo = [root]
  while todo:
    message = todo.pop()
    if id(message) not in left_out:
      problem = _why_left_out(message, left_out)
      if problem is not None:
        left_out[id(message)] = message, problem
      elif message.parent is not None:
        message.parent.replies.append(message)
    for reply in reversed(children.get(message.id, [])):
      reply.parent = message
      todo.append(reply)


def _why_left_out(
    message: Message, left_out: dict
) -> Unusable | BadRecord | None:
  if message.problem is not None:
    return message.problem
  if message.parent is None:
    if message.role == 'assistant':
      return BadRecord(
          'no user turn',
          f"{message.where}: field 'role' is \"assistant\" in a first message;"
          ' a thread begins with a prompt; add it.',
      )
    return None
  if id(message.parent) in left_out:
    return Unusable(
        'below a dropped message',
        f"field 'parent_id' is {records.show(message.parent_id)}, which is left"
        ' out; a thread needs all its messages',
    )
  return None


def _walk(root: Message) -> Iterator[Message]:
  todo = [root]
  while todo:
    message = todo.pop()
    yield message
    todo += message.replies


def _no_parent(message: Message, problem: str) -> BadRecord:
  return BadRecord(
      'no parent',
      f"{message.where}: field 'parent_id' is"
      f' {records.show(message.parent_id)}, which {problem}; add the message'
      ' that it names.',
  )


def _problem(
    record: dict[str, Any], message: Message, prefix: str
) -> Unusable | None:
  """Why a message is left out by itself."""
  if record.get('deleted') is True:
    return Unusable('deleted', f"field '{prefix}deleted' is true")
  if record.get('review_result') is False:
    return Unusable('failed review', f"field '{prefix}review_result' is false")
  if not message.text.strip():
    kind = 'response' if message.role == 'assistant' else 'prompt'
    return Unusable(
        f'empty {kind}',
        f"field '{prefix}text' is {records.show(message.text)}; a {kind} needs"
        ' text',
    )
  return None


def _below(field: str, i: int) -> str:
  """Where a reply stands; of deep ones only how they end."""
  name = f'{field}.replies[{i}]'
  return name if len(name) <= 100 else '...' + name[-97:]


def _rank(rank: Any, field: str, where: str) -> int | None:
  """A rank; None or NaN, as tables have it, where there is none."""
  if rank is None or (isinstance(rank, float) and math.isnan(rank)):
    return None
  if isinstance(rank, float) and rank.is_integer():
    rank = int(rank)
  if not judged.is_rank(rank):
    raise BadRecord(
        'bad score',
        f"{where}: field '{field}' is {records.show(rank)}; it must be a whole"
        ' number, 0 for the best, or null; rewrite it.',
    )
  return rank

