"""Turns of a conversation: lists of messages, and transcripts as text.

A message is `{'role': 'system' | 'user' | 'assistant', 'content': str}`, and a
conversation a tuple of them. Anything else is refused with its field and line.
"""

from collections.abc import Sequence
import re
from typing import Any

from alignjax.data import records
from alignjax.data import rules

Message = dict[str, str]
Prompt = str | tuple[Message, ...]

ROLES = {
    'system': 'system',
    'user': 'user',
    'human': 'user',       # ShareGPT, HH-RLHF.
    'prompter': 'user',    # OpenAssistant.
    'assistant': 'assistant',
    'gpt': 'assistant',    # ShareGPT.
    'chatgpt': 'assistant',
    'bing': 'assistant',   # ShareGPT's copies of other assistants.
    'bard': 'assistant',
    'model': 'assistant',  # Gemma.
}

_TURN = re.compile(r'(?:\A\s*|\n\n)(Human|Assistant):')


def is_transcript(text: Any) -> bool:
  """Whether a text starts as an HH-RLHF transcript does."""
  return isinstance(text, str) and text.lstrip().startswith('Human:')


def transcript_to_messages(
    text: str, field: str, where: str
) -> tuple[Message, ...]:
  """The turns of `\\n\\nHuman: ...\\n\\nAssistant: ...`, stripped.

  Two turns of one speaker in a row stay two turns.
  """
  if not is_transcript(text):
    raise rules.BadRecord(
        'no transcript',
        f"{where}: field '{field}' is {records.show(text)}; a transcript"
        " starts with 'Human:'; add the human's turn.",
    )
  parts = _TURN.split(text)[1:]
  return tuple(
      {'role': ROLES[speaker.lower()], 'content': content.strip()}
      for speaker, content in zip(parts[::2], parts[1::2], strict=True)
  )


def read_messages(value: Any, field: str, where: str) -> tuple[Message, ...]:
  """Checks a list of messages and gives their roles our names.

  `{'from': 'gpt', 'value': ...}` is read like `{'role': 'assistant',
  'content': ...}`.
  """
  if not isinstance(value, list) or not value:
    raise rules.BadRecord(
        'wrong type',
        f"{where}: field '{field}' is {records.show(value)}; it must be a list"
        ' of one or more messages, such as {"role": "user", "content": "..."};'
        ' rewrite it.',
    )
  return tuple(
      _read_message(message, f'{field}[{i}]', where)
      for i, message in enumerate(value)
  )


def read_turns(value: Any, field: str, where: str) -> tuple[Message, ...]:
  """A list of texts, the user's first and then by turns, as messages."""
  if not isinstance(value, list) or not value or not all(
      isinstance(text, str) for text in value):
    raise rules.BadRecord(
        'wrong type',
        f"{where}: field '{field}' is {records.show(value)}; it must be a list"
        " of texts, the user's first and then by turns; rewrite it.",
    )
  roles = 'user', 'assistant'
  return tuple(
      {'role': roles[i % 2], 'content': text} for i, text in enumerate(value))


def split_response(
    messages: Sequence[Message], field: str, where: str
) -> tuple[tuple[Message, ...], str]:
  """The turns before the last one, and the last one: the assistant's.

  Raises:
    BadRecord: No turn is the assistant's, the last one is not, or no user's
      turn comes before it.
  """
  roles = [message['role'] for message in messages]
  if 'assistant' not in roles:
    rule = 'no assistant turn'
    problem = "has no assistant turn; a response must end it; add one"
  elif roles[-1] != 'assistant':
    rule = "last turn not the assistant's"
    problem = (
        f"ends with the {roles[-1]}'s turn; the last turn must be the"
        " assistant's; add it, or take the last turn out"
    )
  elif 'user' not in roles:
    rule = 'no user turn'
    problem = (
        'has no user turn; a response answers one; add it, or give the field'
        " 'prompt'"
    )
  else:
    return tuple(messages[:-1]), messages[-1]['content']
  raise rules.BadRecord(rule, f"{where}: field '{field}' {problem}.")


def drop_response(
    messages: Sequence[Message], field: str, where: str
) -> tuple[Message, ...]:
  """The turns up to the last one that is not the assistant's."""
  kept = list(messages)
  while kept and kept[-1]['role'] == 'assistant':
    kept.pop()
  check_user_turn(kept, field, where)
  return tuple(kept)


def check_user_turn(messages: Sequence[Message], field: str, where: str):
  """BadRecord unless someone asks something."""
  if not any(message['role'] == 'user' for message in messages):
    raise rules.BadRecord(
        'no user turn',
        f"{where}: field '{field}' has no user turn before a response; a prompt"
        ' needs one; add it.',
    )


def read_role(role: str, field: str, where: str) -> str:
  """Our name for a role: 'system', 'user' or 'assistant'."""
  if role.lower() not in ROLES:
    raise rules.BadRecord(
        'unknown role',
        f"{where}: field '{field}' is {records.show(role)}; a role is one of"
        f" {', '.join(ROLES)}; rename it.",
    )
  return ROLES[role.lower()]


def _read_message(message: Any, field: str, where: str) -> Message:
  if not isinstance(message, dict):
    raise rules.BadRecord(
        'wrong type',
        f"{where}: field '{field}' is {records.show(message)}; a message must"
        ' be an object such as {"role": "user", "content": "..."}; rewrite it.',
    )
  # From Arrow, either pair may be there and null.
  names = ('role', 'content')
  if message.get('from') is not None and message.get('role') is None:
    names = ('from', 'value')
  role, content = (message.get(name) for name in names)
  for name, value in zip(names, (role, content), strict=True):
    if name not in message:
      raise rules.BadRecord(
          'missing field',
          f"{where}: field '{field}.{name}' is missing; it must be text; write"
          ' it, or take the row out.',
      )
    if not isinstance(value, str):
      raise rules.BadRecord(
          'wrong type',
          f"{where}: field '{field}.{name}' is {records.show(value)}; it must"
          ' be text; write it, or take the row out.',
      )
  return {'role': read_role(role, f'{field}.{names[0]}', where),
          'content': content}
