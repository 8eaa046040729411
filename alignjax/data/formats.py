"""Records of many shapes become demonstrations, preferences and prompts.

The shape is read off the fields of a file's first record and holds for the
whole file. Rows that cannot be what they claim to be (a field is missing, null
or of the wrong type, no turn is the assistant's) stop the run with their line.
Rows that are well formed and teach nothing are dropped by name and counted:

  empty prompt      the prompt has no text
  empty response    a response has no text
  equal responses   chosen and rejected are the same
  prompts differ    chosen and rejected answer different prompts

A real file holds a few of these. More than `max_dropped` of a file's rows means
that the file is not what it was taken for, and stops the run too.
"""

import collections
import dataclasses
import enum
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from alignjax import types
from alignjax.data import chat, records

Prompt = str | tuple[chat.Message, ...]


@dataclasses.dataclass(frozen=True)
class Demonstration:
  """A prompt and the response to imitate."""

  prompt: Prompt
  response: str
  where: str  # 'file:line'


@dataclasses.dataclass(frozen=True)
class Preference:
  """A prompt and two responses, one preferred."""

  prompt: Prompt
  chosen: str
  rejected: str
  where: str


@dataclasses.dataclass(frozen=True)
class Unpaired:
  """A prompt and a response that is desirable or not."""

  prompt: Prompt
  response: str
  desirable: bool
  where: str


@dataclasses.dataclass(frozen=True)
class PromptOnly:
  """A prompt to sample from."""

  prompt: Prompt
  where: str


class Format(enum.Enum):
  """The shapes that are known; the value is how to say it to a person."""

  HH = 'HH-RLHF transcripts'
  PREFERENCE = 'prompt/chosen/rejected'
  CHAT_PREFERENCE = 'prompt/chosen/rejected (conversational)'
  RESPONSE = 'prompt/response'
  COMPLETION = 'prompt/completion'
  LABELED_RESPONSE = 'prompt/response/label'
  LABELED_COMPLETION = 'prompt/completion/label'
  MESSAGES = 'messages'
  SHAREGPT = 'conversations'
  ALPACA = 'instruction/input/output'
  DOLLY = 'instruction/context/response'
  SELF_INSTRUCT = 'instruction/instances'
  QUESTION = 'question/answer'
  PROMPT = 'prompt only'


# The fields that tell a shape, most telling first: a record of messages may
# carry its first user turn as 'prompt' too.
_FIELDS = (
    (Format.LABELED_RESPONSE, ('prompt', 'response', 'label')),
    (Format.LABELED_COMPLETION, ('prompt', 'completion', 'label')),
    (Format.RESPONSE, ('prompt', 'response')),
    (Format.COMPLETION, ('prompt', 'completion')),
    (Format.MESSAGES, ('messages',)),
    (Format.SHAREGPT, ('conversations',)),
    (Format.ALPACA, ('instruction', 'output')),
    (Format.DOLLY, ('instruction', 'response')),
    (Format.SELF_INSTRUCT, ('instruction', 'instances')),
    (Format.QUESTION, ('question', 'answer')),
    (Format.PROMPT, ('prompt',)),
)
_PREFERENCES = (Format.HH, Format.PREFERENCE, Format.CHAT_PREFERENCE)
_LABELED = (Format.LABELED_RESPONSE, Format.LABELED_COMPLETION)


@dataclasses.dataclass(frozen=True)
class Reading:
  """What was read from a file, and what was left out."""

  path: str
  format: Format
  noun: str                             # What the rows are, in the plural.
  num_rows: int                         # Rows kept.
  dropped: tuple[tuple[str, str], ...]  # (reason, where) of rows dropped.

  def __str__(self) -> str:
    name = pathlib.Path(self.path).name
    text = f'{self.num_rows:,} {self.noun} from {name} ({self.format.value})'
    if self.dropped:
      text += f'; {summarize_dropped(self.dropped)}'
    return text


def sniff(record: dict[str, Any], where: str = 'record') -> Format:
  """The shape of a record, by its fields.

  Args:
    record: One object of a file.
    where: Names the record in an error.

  Returns:
    The shape.

  Raises:
    InputError: The fields are those of no known shape.
  """
  if 'chosen' in record and 'rejected' in record:
    if isinstance(record['chosen'], list):
      return Format.CHAT_PREFERENCE
    return Format.PREFERENCE if 'prompt' in record else Format.HH
  for format_, fields in _FIELDS:
    if all(field in record for field in fields):
      return format_
  names = ', '.join(repr(name) for name in list(record)[:8]) or 'none'
  raise types.InputError(
      f'{where}: the fields ({names}) fit no known shape; known are chosen/'
      f"rejected, {', '.join(f.value for f in Format if f != Format.HH)};"
      ' rename the fields.'
  )


def demonstrations(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Demonstration], Reading]:
  """The demonstrations of a file; of preferences, the chosen responses.

  Args:
    path: A JSONL file, or a directory that a TFDS builder wrote.
    split: Which split of a TFDS directory.
    max_dropped: The share of the file's rows, in [0, 1], that may be dropped.

  Returns:
    The demonstrations in the file's order, and what was read and dropped;
    `str()` of it is one line for people.

  Raises:
    InputError: A row that cannot be read, or too many that teach nothing.
  """

  def read(record, format_, where):
    if format_ in _PREFERENCES:
      prompt, response, _ = _read_preference(record, format_, where)
    elif format_ in _LABELED:
      raise types.InputError(
          f"{where}: field 'label' marks responses good or bad, and a"
          ' demonstration must be good; keep the good rows and remove the'
          " field 'label'."
      )
    else:
      prompt, response = _read_response(record, format_, where)
    yield Demonstration(prompt, response, where)

  return _read_file(path, split, read, 'demonstrations', max_dropped)


def preferences(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Preference], Reading]:
  """The preference pairs of a file; see `demonstrations`.

  Chosen and rejected may repeat the prompt, as transcripts and conversations
  do; the prompt is then what stands before the last assistant turn.
  """

  def read(record, format_, where):
    if format_ not in _PREFERENCES:
      raise _wrong_shape(where, format_, "fields 'chosen' and 'rejected'")
    prompt, chosen, rejected = _read_preference(record, format_, where)
    yield Preference(prompt, chosen, rejected, where)

  return _read_file(path, split, read, 'pairs', max_dropped)


def unpaired(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Unpaired], Reading]:
  """Responses with a label; a preference pair gives one of each."""

  def read(record, format_, where):
    if format_ in _PREFERENCES:
      prompt, chosen, rejected = _read_preference(record, format_, where)
      yield Unpaired(prompt, chosen, True, where)
      yield Unpaired(prompt, rejected, False, where)
    elif format_ in _LABELED:
      label = _field(record, 'label', where)
      # `1 == True` in Python and in most files; 1.0 and "true" are no labels.
      if not isinstance(label, int) or label not in (0, 1):
        raise types.InputError(
            f"{where}: field 'label' is {records.show(label)}; it must be true"
            ' or false (or 1 or 0); rewrite it.'
        )
      prompt, response = _read_response(record, format_, where)
      yield Unpaired(prompt, response, bool(label), where)
    else:
      raise _wrong_shape(where, format_, "a field 'label'")

  return _read_file(path, split, read, 'labeled responses', max_dropped)


def prompts(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[PromptOnly], Reading]:
  """The prompts of a file of any known shape; see `demonstrations`."""

  def read(record, format_, where):
    yield PromptOnly(_read_prompt(record, format_, where), where)

  return _read_file(path, split, read, 'prompts', max_dropped)


def summarize_dropped(dropped: Iterable[tuple[str, str]]) -> str:
  """'dropped 5: 4 empty response (lines 87, 517, 9, ...), 1 prompts differ'."""
  by_reason = collections.defaultdict(list)
  for reason, where in dropped:
    by_reason[reason].append(where.rpartition(':')[2])
  parts = []
  for reason, lines in by_reason.items():
    count = f'{len(lines):,} ' if len(by_reason) > 1 else ''
    more = ', ...' if len(lines) > 3 else ''
    word = 'line' if len(lines) == 1 else 'lines'
    parts.append(f"{count}{reason} ({word} {', '.join(lines[:3])}{more})")
  total = sum(len(lines) for lines in by_reason.values())
  return f"dropped {total:,}: {', '.join(parts)}"


class _Unusable(Exception):
  """A well-formed row that teaches nothing, with what to tell of it."""

  def __init__(self, reason: str, detail: str):
    super().__init__(reason)
    self.reason = reason
    self.detail = detail  # Field, value and rule, as a clause.


def _read_file(
    path: str | os.PathLike[str],
    split: str,
    read: Callable[[dict[str, Any], Format, str], Iterator[Any]],
    noun: str,
    max_dropped: float,
) -> tuple[list[Any], Reading]:
  """Reads every row, and holds the dropped ones against the limit."""
  if not 0 <= max_dropped <= 1:
    raise types.InputError(
        f'max_dropped={max_dropped} is not a share; use a number from 0 to 1.'
    )
  items, dropped, format_, first, num_rows = [], [], None, None, 0
  for line, record in _read_records(path, split):
    where = f'{path}:{line}'
    format_ = format_ or sniff(record, where)
    num_rows += 1
    try:
      items.extend(read(record, format_, where))
    except _Unusable as row:
      dropped.append((row.reason, where))
      first = first or row
  if len(dropped) > max_dropped * num_rows:
    raise types.InputError(
        f'{dropped[0][1]}: {first.detail}; {len(dropped):,} of'
        f' {num_rows:,} rows are like that, more than max_dropped='
        f'{max_dropped:g} of them; repair the rows, or pass a larger'
        ' --max-dropped.'
    )
  if not items:
    raise types.InputError(
        f'{path}: all {num_rows:,} rows were dropped; give at least one that'
        ' has text.'
    )
  return items, Reading(str(path), format_, noun, len(items), tuple(dropped))


def _read_records(
    path: str | os.PathLike[str], split: str
) -> Iterator[tuple[int, dict[str, Any]]]:
  if os.path.isdir(path):
    from alignjax.data import tfds  # Only here: it takes a second to import.

    return tfds.read_tfds(path, split)
  return records.read_jsonl(path)


def _read_preference(
    record: dict[str, Any], format_: Format, where: str
) -> tuple[Prompt, str, str]:
  """(prompt, chosen, rejected) of a preference record."""
  if format_ == Format.PREFERENCE:
    prompt = _text(record, 'prompt', where)
    prompts_ = [prompt, prompt]
    responses = [_text(record, side, where) for side in ('chosen', 'rejected')]
  else:
    turns = [_turns(record, s, format_, where) for s in ('chosen', 'rejected')]
    split = [
        chat.split_response(messages, side, where)
        for side, messages in zip(('chosen', 'rejected'), turns, strict=True)
    ]
    prompts_ = [prompt for prompt, _ in split]
    responses = [response for _, response in split]
  if prompts_[0] != prompts_[1]:
    raise _Unusable(
        'prompts differ',
        "field 'rejected' "
        + _difference(prompts_[1], prompts_[0])
        + '; a pair must answer one prompt',
    )
  prompt = _filled_prompt(prompts_[0], 'prompt')
  for side, response in zip(('chosen', 'rejected'), responses, strict=True):
    _filled_response(response, side)
  if responses[0].strip() == responses[1].strip():
    raise _Unusable(
        'equal responses',
        f"field 'rejected' is {records.show(responses[1])}, the same as"
        " 'chosen'; one must be better",
    )
  return prompt, responses[0], responses[1]


def _turns(
    record: dict[str, Any], side: str, format_: Format, where: str
) -> tuple[chat.Message, ...]:
  """All turns that `chosen` or `rejected` stands for, the prompt included."""
  if format_ == Format.HH:
    text = _text(record, side, where)
    return chat.transcript_to_messages(text, side, where)
  turns = chat.read_messages(_field(record, side, where), side, where)
  if 'prompt' not in record:
    return turns
  prompt = _prompt_value(record, 'prompt', where)
  if isinstance(prompt, str):
    asked = [turn['content'] for turn in turns if turn['role'] == 'user']
    if prompt in asked:
      return turns
    if asked:
      raise _Unusable(
          'prompts differ',
          f"field '{side}' repeats another user turn,"
          f" {records.show(asked[-1])}, than field 'prompt' holds,"
          f' {records.show(prompt)}; both must be one',
      )
    prompt = ({'role': 'user', 'content': prompt},)
  return turns if turns[: len(prompt)] == prompt else prompt + turns


def _read_response(
    record: dict[str, Any], format_: Format, where: str
) -> tuple[Prompt, str]:
  """(prompt, response) of a record that holds one response."""
  match format_:
    case Format.MESSAGES | Format.SHAREGPT:
      turns = chat.read_messages(
          _field(record, format_.value, where), format_.value, where
      )
      prompt, response = chat.split_response(turns, format_.value, where)
      field = format_.value
    case Format.PROMPT:
      raise _wrong_shape(where, format_, "a field 'response'")
    case Format.SELF_INSTRUCT:
      instance = _instance(record, where)
      prompt = _read_prompt(record, format_, where)
      field = 'instances[0].output'
      response = _text(instance, 'output', where, shown=field)
    case _:
      field = {
          Format.COMPLETION: 'completion',
          Format.LABELED_COMPLETION: 'completion',
          Format.ALPACA: 'output',
          Format.QUESTION: 'answer',
      }.get(format_, 'response')
      prompt = _read_prompt(record, format_, where)
      value = _field(record, field, where)
      if isinstance(value, list):
        turns = chat.read_messages(value, field, where)
        if isinstance(prompt, str):
          prompt = ({'role': 'user', 'content': prompt},)
        prompt, response = chat.split_response(prompt + turns, field, where)
      else:
        response = _text(record, field, where)
  return _filled_prompt(prompt, field), _filled_response(response, field)


def _read_prompt(
    record: dict[str, Any], format_: Format, where: str
) -> Prompt:
  """The prompt of a record of any shape, up to its last user turn."""
  match format_:
    case Format.HH | Format.CHAT_PREFERENCE:
      field = 'chosen'
      turns = _turns(record, field, format_, where)
      prompt = chat.drop_response(turns, field, where)
    case Format.MESSAGES | Format.SHAREGPT:
      field = format_.value
      turns = chat.read_messages(_field(record, field, where), field, where)
      prompt = chat.drop_response(turns, field, where)
    case Format.ALPACA | Format.DOLLY | Format.SELF_INSTRUCT:
      field = 'instruction'
      prompt = _text(record, field, where)
      extra, name = record, 'input'
      if format_ == Format.DOLLY:
        name = 'context'
      elif format_ == Format.SELF_INSTRUCT:
        extra = _instance(record, where)
      if name in extra and _text(extra, name, where).strip():
        prompt = f'{prompt}\n\n{extra[name]}'
    case Format.QUESTION:
      field = 'question'
      prompt = _text(record, field, where)
    case _:
      field = 'prompt'
      prompt = _prompt_value(record, field, where)
  return _filled_prompt(prompt, field)


def _prompt_value(record: dict[str, Any], field: str, where: str) -> Prompt:
  """A prompt as text, or as messages that end before the response."""
  value = _field(record, field, where)
  if isinstance(value, list):
    return chat.read_messages(value, field, where)
  return _text(record, field, where)


def _instance(record: dict[str, Any], where: str) -> dict[str, Any]:
  """The first instance of a self-instruct task."""
  instances = _field(record, 'instances', where)
  if (
      not isinstance(instances, list)
      or not instances
      or not isinstance(instances[0], dict)
  ):
    raise types.InputError(
        f"{where}: field 'instances' is {records.show(instances)}; it must be a"
        ' list of objects with \'input\' and \'output\'; add one.'
    )
  return instances[0]


def _field(record: dict[str, Any], field: str, where: str) -> Any:
  if field not in record:
    names = ', '.join(repr(name) for name in list(record)[:8]) or 'none'
    raise types.InputError(
        f"{where}: field '{field}' is missing (fields: {names}); every row must"
        " have the fields of the file's first; add it."
    )
  return record[field]


def _text(
    record: dict[str, Any], field: str, where: str, *, shown: str = ''
) -> str:
  value = _field(record, field, where)
  if not isinstance(value, str):
    raise types.InputError(
        f"{where}: field '{shown or field}' is {records.show(value)}; it must"
        ' be text; write it, or take the row out.'
    )
  return value


def _filled_response(response: str, field: str) -> str:
  if not response.strip():
    raise _Unusable(
        'empty response',
        f"field '{field}' ends in an empty response"
        f' ({records.show(response)}); a response needs text',
    )
  return response


def _filled_prompt(prompt: Prompt, field: str) -> Prompt:
  """Also for messages: the last turn is what is to be answered."""
  text = prompt if isinstance(prompt, str) else prompt[-1]['content']
  if not text.strip():
    raise _Unusable(
        'empty prompt',
        f"field '{field}' has an empty prompt ({records.show(text)}); a prompt"
        ' needs text',
    )
  return prompt


def _difference(got: Prompt, due: Prompt) -> str:
  """Where two prompts part, as a clause."""
  for i, (a, b) in enumerate(zip(got, due, strict=False)):
    if a != b:
      return (
          f'has {records.show(a["content"])} as turn {i + 1} where'
          f" 'chosen' has {records.show(b['content'])}"
      )
  return f"has {len(got)} turns before its response and 'chosen' {len(due)}"


def _wrong_shape(where: str, format_: Format, need: str) -> types.InputError:
  return types.InputError(
      f'{where}: the rows are of the shape {format_.value!r}, which has no'
      f' {need.removeprefix("a ")}; this run needs {need}; give another file.'
  )
