"""Reads the prompt and the responses out of one record of a known shape."""

from typing import Any

from alignjax import types
from alignjax.data import chat
from alignjax.data import records
from alignjax.data import shapes

Format = shapes.Format

# Where a shape keeps its response, if not under 'response'.
_RESPONSE_FIELDS = {
    Format.COMPLETION: 'completion',
    Format.LABELED_COMPLETION: 'completion',
    Format.ALPACA: 'output',
    Format.QUESTION: 'answer',
}


class Unusable(Exception):
  """A well-formed row that teaches nothing, with what to tell of it."""

  def __init__(self, reason: str, detail: str):
    super().__init__(reason)
    self.reason = reason
    self.detail = detail  # Field, value and rule, as a clause.


def read_pair(
    record: dict[str, Any], format_: Format, where: str
) -> tuple[chat.Prompt, str, str]:
  """(prompt, chosen, rejected) of a preference record."""
  due, chosen = read_side(record, 'chosen', format_, where)
  got, rejected = read_side(record, 'rejected', format_, where)
  if got != due:
    raise Unusable(
        'prompts differ',
        f"field 'rejected' {_difference(got, due)}; a pair must answer one"
        ' prompt',
    )
  if chosen.strip() == rejected.strip():
    raise Unusable(
        'equal responses',
        f"field 'rejected' is {records.show(rejected)}, the same as 'chosen';"
        ' one must be better',
    )
  return due, chosen, rejected


def read_strength(record: dict[str, Any], where: str) -> int:
  """How much better the chosen response is, 0 to 3; 0 where nothing is said."""
  strength = record.get('strength')
  if strength is None:
    return 0
  if isinstance(strength, bool) or strength not in (0, 1, 2, 3):
    raise types.InputError(
        f"{where}: field 'strength' is {records.show(strength)}; it must be 3"
        ' (significantly better), 2, 1 or 0 (negligibly, or unsure); rewrite'
        ' it.'
    )
  return int(strength)


def read_ranking(
    record: dict[str, Any], where: str
) -> tuple[chat.Prompt, tuple[str, ...], tuple[int, ...]]:
  """(prompt, responses, ranks) of a record of ranked responses."""
  prompt = read_prompt(record, Format.RANKING, where)
  responses = read_field(record, 'responses', where)
  ranks = read_field(record, 'ranks', where)
  if not isinstance(responses, list) or not all(
      isinstance(text, str) for text in responses) or len(responses) < 2:
    raise types.InputError(
        f"{where}: field 'responses' is {records.show(responses)}; it must be a"
        ' list of two texts or more; rewrite it.'
    )
  if not isinstance(ranks, list) or len(ranks) != len(responses) or not all(
      isinstance(rank, int) and not isinstance(rank, bool) and rank >= 0
      for rank in ranks):
    raise types.InputError(
        f"{where}: field 'ranks' is {records.show(ranks)}; it must be a list of"
        f' {len(responses)} whole numbers, one per response, 0 for the best.'
    )
  for i, text in enumerate(responses):
    _filled_response(text, f'responses[{i}]')
  if len(set(ranks)) < 2:
    raise Unusable(
        'all tied',
        f"field 'ranks' is {records.show(ranks)}, all equal; one response must"
        ' be better than another',
    )
  return prompt, tuple(responses), tuple(ranks)


def read_side(
    record: dict[str, Any], side: str, format_: Format, where: str
) -> tuple[chat.Prompt, str]:
  """(prompt, response) of one side of a preference record."""
  if format_ == Format.PREFERENCE:
    prompt = read_prompt(record, format_, where)
    response = _text(record, side, where)
  else:
    turns = _turns(record, side, format_, where)
    prompt, response = chat.split_response(turns, side, where)
  return _filled_prompt(prompt, side), _filled_response(response, side)


def read_response(
    record: dict[str, Any], format_: Format, where: str
) -> tuple[chat.Prompt, str]:
  """(prompt, response) of a record that holds one response."""
  match format_:
    case Format.PROMPT | Format.RANKING:
      raise wrong_shape(where, format_, "field 'response'")
    case Format.MESSAGES | Format.SHAREGPT:
      field = format_.value
      turns = _messages(record, field, where)
      prompt, response = chat.split_response(turns, field, where)
    case Format.SELF_INSTRUCT:
      field = 'instances[0].output'
      prompt = read_prompt(record, format_, where)
      response = _text(_instance(record, where), 'output', where, shown=field)
    case _:
      field = _RESPONSE_FIELDS.get(format_, 'response')
      prompt = read_prompt(record, format_, where)
      if isinstance(read_field(record, field, where), list):
        turns = as_turns(prompt) + _messages(record, field, where)
        prompt, response = chat.split_response(turns, field, where)
      else:
        response = _text(record, field, where)
  return _filled_prompt(prompt, field), _filled_response(response, field)


def read_prompt(
    record: dict[str, Any], format_: Format, where: str
) -> chat.Prompt:
  """The prompt of a record of any shape, up to its last user turn."""
  match format_:
    case Format.HH | Format.CHAT_PREFERENCE:
      field = 'chosen'
      turns = _turns(record, field, format_, where)
      prompt = chat.drop_response(turns, field, where)
    case Format.MESSAGES | Format.SHAREGPT:
      field = format_.value
      prompt = chat.drop_response(
          _messages(record, field, where), field, where
      )
    case Format.ALPACA | Format.DOLLY | Format.SELF_INSTRUCT:
      field = 'instruction'
      prompt = _instruction(record, format_, where)
    case Format.QUESTION:
      field = 'question'
      prompt = _text(record, field, where)
    case _:
      field = 'prompt'
      prompt = _prompt_field(record, where)
  return _filled_prompt(prompt, field)


def read_field(record: dict[str, Any], field: str, where: str) -> Any:
  """A field of any type, which must be there."""
  if field not in record:
    names = ', '.join(repr(name) for name in list(record)[:8]) or 'none'
    raise types.InputError(
        f"{where}: field '{field}' is missing (fields: {names}); every row must"
        " have the fields of the file's first; add it."
    )
  return record[field]


class WrongShape(types.InputError):
  """The rows are fine, and of a shape that the reader cannot use."""


def wrong_shape(where: str, format_: Format, need: str) -> WrongShape:
  """The error for a file of a shape that a reader cannot use."""
  return WrongShape(
      f"{where}: the rows are of the shape '{format_.value}', which has no"
      f' {need}; this run needs that; give another file.'
  )


def as_turns(prompt: chat.Prompt) -> tuple[chat.Message, ...]:
  """A prompt as messages; bare text is one user turn."""
  if isinstance(prompt, str):
    return ({'role': 'user', 'content': prompt},)
  return prompt


def _turns(
    record: dict[str, Any], side: str, format_: Format, where: str
) -> tuple[chat.Message, ...]:
  """All turns that `chosen` or `rejected` stands for, the prompt included."""
  if format_ == Format.HH:
    text = _text(record, side, where)
    return chat.transcript_to_messages(text, side, where)
  turns = _messages(record, side, where)
  if 'prompt' not in record:
    return turns
  prompt = _prompt_field(record, where)
  if isinstance(prompt, str):
    asked = [turn['content'] for turn in turns if turn['role'] == 'user']
    if asked and prompt not in asked:
      raise Unusable(
          'prompts differ',
          f"field '{side}' has the user turn {records.show(asked[-1])} and"
          f" field 'prompt' is {records.show(prompt)}; both must be one",
      )
    return turns if asked else as_turns(prompt) + turns
  return turns if turns[: len(prompt)] == prompt else prompt + turns


def _messages(
    record: dict[str, Any], field: str, where: str
) -> tuple[chat.Message, ...]:
  return chat.read_messages(read_field(record, field, where), field, where)


def _prompt_field(record: dict[str, Any], where: str) -> chat.Prompt:
  """The field 'prompt', as text or as messages."""
  if not isinstance(read_field(record, 'prompt', where), list):
    return _text(record, 'prompt', where)
  messages = _messages(record, 'prompt', where)
  chat.check_user_turn(messages, 'prompt', where)
  return messages


def _instruction(record: dict[str, Any], format_: Format, where: str) -> str:
  """An instruction, and below it the input that it is about, if any."""
  instruction = _text(record, 'instruction', where)
  holder, field = record, 'input'
  if format_ == Format.DOLLY:
    field = 'context'
  elif format_ == Format.SELF_INSTRUCT:
    holder = _instance(record, where)
  # Files without any input leave the field out.
  about = _text(holder, field, where) if field in holder else ''
  return f'{instruction}\n\n{about}' if about.strip() else instruction


def _instance(record: dict[str, Any], where: str) -> dict[str, Any]:
  """The first instance of a self-instruct task."""
  value = read_field(record, 'instances', where)
  if isinstance(value, list) and value and isinstance(value[0], dict):
    return value[0]
  raise types.InputError(
      f"{where}: field 'instances' is {records.show(value)}; it must be a list"
      " of objects with 'input' and 'output'; add one."
  )


def _text(
    record: dict[str, Any], field: str, where: str, *, shown: str = ''
) -> str:
  value = read_field(record, field, where)
  if not isinstance(value, str):
    raise types.InputError(
        f"{where}: field '{shown or field}' is {records.show(value)}; it must"
        ' be text; write it, or take the row out.'
    )
  return value


def _filled_response(response: str, field: str) -> str:
  if not response.strip():
    raise Unusable(
        'empty response',
        f"field '{field}' has an empty response ({records.show(response)}); a"
        ' response needs text',
    )
  return response


def _filled_prompt(prompt: chat.Prompt, field: str) -> chat.Prompt:
  """The prompt, whose text or last turn must say something."""
  text = as_turns(prompt)[-1]['content']
  if not text.strip():
    raise Unusable(
        'empty prompt',
        f"field '{field}' has an empty prompt ({records.show(text)}); a prompt"
        ' needs text',
    )
  return prompt


def _difference(got: chat.Prompt, due: chat.Prompt) -> str:
  """Where two prompts part, as a clause."""
  turns = zip(as_turns(got), as_turns(due), strict=False)
  for i, (a, b) in enumerate(turns, start=1):
    if a != b:
      return (
          f"has {records.show(a['content'])} as turn {i} where 'chosen' has"
          f" {records.show(b['content'])}"
      )
  return f"has {len(got)} turns before its response and 'chosen' {len(due)}"
