"""Records of many shapes become demonstrations, preferences and prompts.

The shape is read off the fields of a file's first record and holds for the
whole file. docs/data.md has the table of what each reader makes of each shape,
and the rules: records that are not what they claim to be (a field is missing,
null or of the wrong type, no turn is the assistant's) stop the run with their
line, or are dropped under `on_bad_record='skip'`. Records that are well formed
and teach nothing are dropped. Each is counted by the name of its rule.

A real file holds a few of these. More than `max_dropped` of a file's records
means that the file is not what it was taken for, and stops the run too.
"""

import dataclasses
import os

from alignjax.data import chat
from alignjax.data import judged
from alignjax.data import reading
from alignjax.data import rows
from alignjax.data import rules
from alignjax.data import shapes
from alignjax.data import trees

Format = shapes.Format
OnBadRecord = reading.OnBadRecord
Reading = reading.Reading
sniff = shapes.sniff
summarize_dropped = reading.summarize_dropped


@dataclasses.dataclass(frozen=True)
class Demonstration:
  """A prompt and the response to imitate."""

  prompt: chat.Prompt
  response: str
  where: str        # 'file:line'
  source: str = ''  # The field of that name: who or what wrote the response.


@dataclasses.dataclass(frozen=True)
class Preference:
  """A prompt and two responses, one preferred."""

  prompt: chat.Prompt
  chosen: str
  rejected: str
  where: str
  strength: int = 0  # 3: significantly better, ... 0: negligibly, or unsure.


@dataclasses.dataclass(frozen=True)
class Unpaired:
  """A prompt and a response that is desirable or not."""

  prompt: chat.Prompt
  response: str
  desirable: bool
  where: str


@dataclasses.dataclass(frozen=True)
class Ranking:
  """A prompt and K ranked responses."""

  prompt: chat.Prompt
  responses: tuple[str, ...]
  ranks: tuple[int, ...]  # 0 for the best; equal ones tie.
  where: str


@dataclasses.dataclass(frozen=True)
class PromptOnly:
  """A prompt to sample from."""

  prompt: chat.Prompt
  where: str


@dataclasses.dataclass(frozen=True)
class Document:
  """A text, all of which is to be learnt."""

  text: str
  where: str


def demonstrations(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
) -> tuple[list[Demonstration], Reading]:
  """The demonstrations of a file; of preferences, the chosen responses.

  Args:
    path: A file or a folder of records; files.py tells which.
    split: Which split of a folder of several.
    max_dropped: The share of the file's records, in [0, 1], that may be
      dropped.
    on_bad_record: 'error' stops at the first record that is not what it should
      be; 'skip' drops it by the name of its rule.

  Returns:
    The demonstrations in the file's order, and what was read and dropped;
    `str()` of it is one line for people.

  Raises:
    InputError: A record that cannot be read, or too many that are dropped.
  """

  def read(record, format_, where, repairs):
    if format_ in shapes.PREFERENCES:
      prompt, response = rows.read_side(record, 'chosen', format_, where)
    elif format_ in shapes.RANKINGS:
      prompt, response = judged.best_of(
          judged.read_ranking(record, format_, where, repairs))
    elif format_ == Format.STEPWISE:
      prompt, response, are_right = judged.read_steps(record, where, repairs)
      judged.check_steps(are_right)
    elif format_ in shapes.LABELED:
      raise rules.WrongShape(
          f"{where}: field 'label' marks responses good or bad, and a"
          ' demonstration must be good; keep the good rows and remove the'
          " field 'label'."
      )
    else:
      prompt, response = rows.read_response(record, format_, where)
    source = record.get('source')
    yield Demonstration(
        prompt, response, where, source if isinstance(source, str) else '')

  def read_trees(messages):
    for message in messages:
      for reply in trees.best_replies(message):
        yield Demonstration(
            message.thread(), reply.text, reply.where), _chain(reply)

  return reading.read_file(
      path, read, 'demonstrations', split=split, max_dropped=max_dropped,
      on_bad_record=on_bad_record, read_trees=read_trees)


def preferences(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
) -> tuple[list[Preference], Reading]:
  """The preference pairs of a file; see `demonstrations`.

  Chosen and rejected may repeat the prompt, as transcripts and conversations
  do; the prompt is then what stands before the last assistant turn. K ranked
  responses give a pair for any two of unequal rank.
  """

  def read(record, format_, where, repairs):
    if format_ in shapes.RANKINGS:
      ranked = judged.read_ranking(record, format_, where, repairs)
      for pair in judged.pairs_of(ranked):
        yield Preference(*pair, where)
    else:
      pair = _read_pair(record, format_, where)
      yield Preference(*pair, where, judged.read_strength(record, where))

  def read_trees(messages):
    for message, ranked, replies in _ranked_replies(messages):
      # Of equal texts the best ranked stays, as in `merge_equal`.
      by_text = {reply.text: reply.where for reply in sorted(
          replies, key=lambda reply: reply.rank, reverse=True)}
      for prompt, chosen, rejected in judged.pairs_of(ranked):
        yield (Preference(prompt, chosen, rejected, by_text[chosen]),
               _chain(message) + replies)

  return reading.read_file(
      path, read, 'pairs', split=split, max_dropped=max_dropped,
      on_bad_record=on_bad_record, read_trees=read_trees)


def unpaired(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
) -> tuple[list[Unpaired], Reading]:
  """Responses with a label; a preference pair gives one of each."""

  def read(record, format_, where, repairs):
    if format_ in shapes.PREFERENCES:
      prompt, chosen, rejected = _read_pair(record, format_, where)
      yield Unpaired(prompt, chosen, True, where)
      yield Unpaired(prompt, rejected, False, where)
    elif format_ == Format.STEPWISE:
      yield Unpaired(*judged.read_steps(record, where, repairs), where)
    elif format_ in shapes.LABELED:
      label = judged.read_label(record, where, repairs)
      prompt, response = rows.read_response(record, format_, where)
      yield Unpaired(prompt, response, label, where)
    else:
      raise rows.wrong_shape(where, format_, "field 'label'")

  return reading.read_file(
      path, read, 'labeled responses', split=split, max_dropped=max_dropped,
      on_bad_record=on_bad_record)


def rankings(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
) -> tuple[list[Ranking], Reading]:
  """Prompts with ranked responses; a preference pair is a ranking of two."""

  def read(record, format_, where, repairs):
    if format_ in shapes.RANKINGS:
      yield Ranking(
          *judged.read_ranking(record, format_, where, repairs), where)
    elif format_ in shapes.PREFERENCES:
      prompt, chosen, rejected = _read_pair(record, format_, where)
      yield Ranking(prompt, (chosen, rejected), (0, 1), where)
    else:
      raise rows.wrong_shape(where, format_, "fields 'responses' and 'ranks'")

  def read_trees(messages):
    for message, ranked, replies in _ranked_replies(messages):
      yield Ranking(*ranked, message.where), _chain(message) + replies

  return reading.read_file(
      path, read, 'rankings', split=split, max_dropped=max_dropped,
      on_bad_record=on_bad_record, read_trees=read_trees)


def prompts(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
) -> tuple[list[PromptOnly], Reading]:
  """The prompts of a file of any known shape; see `demonstrations`."""

  def read(record, format_, where, repairs):
    yield PromptOnly(rows.read_prompt(record, format_, where), where)

  def read_trees(messages):
    for message in messages:
      if message.role == 'user':
        yield PromptOnly(message.thread(), message.where), _chain(message)

  return reading.read_file(
      path, read, 'prompts', split=split, max_dropped=max_dropped,
      on_bad_record=on_bad_record, read_trees=read_trees)


def documents(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
) -> tuple[list[Document], Reading]:
  """The texts of a file of texts, for `tokenize_documents`."""

  def read(record, format_, where, repairs):
    if format_ != Format.TEXT:
      raise rows.wrong_shape(where, format_, "field 'text' alone")
    yield Document(rows.read_document(record, where), where)

  return reading.read_file(
      path, read, 'documents', split=split, max_dropped=max_dropped,
      on_bad_record=on_bad_record)


def _read_pair(record, format_: Format, where: str):
  """(prompt, chosen, rejected), whose scores, if any, say the same."""
  if format_ not in shapes.PREFERENCES:
    raise rows.wrong_shape(where, format_, "fields 'chosen' and 'rejected'")
  pair = rows.read_pair(record, format_, where)
  judged.check_scores(record, where)
  return pair


def _chain(message: trees.Message) -> list[trees.Message]:
  """The messages of the thread that ends with this one."""
  chain = []
  while message is not None:
    chain.append(message)
    message = message.parent
  return chain


def _ranked_replies(messages):
  """(message, ranking of the replies to it, these) where two or more differ."""
  for message in messages:
    replies = trees.ranked_replies(message)
    ranked = judged.merge_equal(judged.Ranked(
        message.thread(), tuple(reply.text for reply in replies),
        tuple(reply.rank for reply in replies)))
    if len(set(ranked.ranks)) > 1:
      yield message, ranked, replies
