"""Reads the prompt and the responses out of one record of a known shape."""

from typing import Any

from alignjax.data import chat
from alignjax.data import records
from alignjax.data import rules
from alignjax.data import shapes

Format = shapes.Format
BadRecord = rules.BadRecord
Unusable = rules.Unusable

# Where a shape keeps its response, if not under 'response'.
_RESPONSE_FIELDS = {
    Format.COMPLETION: 'completion',
    Format.LABELED_COMPLETION: 'completion',
    Format.ALPACA: 'output',
    Format.QUESTION: 'answer',
}


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


def read_side(
    record: dict[str, Any], side: str, format_: Format, where: str
) -> tuple[chat.Prompt, str]:
  """(prompt, response) of one side of a preference record."""
  if format_ == Format.IMPLICIT:
    prompt = _common_prompt(record, where)
    response = read_text(record, side, where)[len(prompt):]
  elif format_ == Format.PREFERENCE:
    prompt = read_prompt(record, format_, where)
    response = read_text(record, side, where)
  else:
    turns = _turns(record, side, format_, where)
    prompt, response = chat.split_response(turns, side, where)
  return _filled_prompt(prompt, side), filled_response(response, side)


def read_response(
    record: dict[str, Any], format_: Format, where: str
) -> tuple[chat.Prompt, str]:
  """(prompt, response) of a record that holds one response."""
  match format_:
    case (Format.PROMPT | Format.RANKING | Format.ULTRAFEEDBACK
          | Format.STEPWISE | Format.TEXT):
      raise wrong_shape(where, format_, "field 'response'")
    case Format.MESSAGES | Format.SHAREGPT | Format.ULTRACHAT:
      field = 'data' if format_ == Format.ULTRACHAT else format_.value
      turns = _conversation(record, format_, field, where)
      prompt, response = chat.split_response(turns, field, where)
    case Format.SELF_INSTRUCT:
      field = 'instances[0].output'
      prompt = read_prompt(record, format_, where)
      response = check_text(
          read_field(_instance(record, where), 'output', where), field, where)
    case _:
      field = _RESPONSE_FIELDS.get(format_, 'response')
      prompt = read_prompt(record, format_, where)
      response = read_field(record, field, where)
      if isinstance(response, list):
        turns = as_turns(prompt) + _messages(record, field, where)
        prompt, response = chat.split_response(turns, field, where)
      else:
        response = read_text(record, field, where)
  return _filled_prompt(prompt, field), filled_response(response, field)


def read_prompt(
    record: dict[str, Any], format_: Format, where: str
) -> chat.Prompt:
  """The prompt of a record of any shape, up to its last user turn."""
  match format_:
    case Format.HH | Format.CHAT_PREFERENCE:
      field = 'chosen'
      turns = _turns(record, field, format_, where)
      prompt = chat.drop_response(turns, field, where)
    case Format.IMPLICIT:
      field = 'chosen'
      prompt = _common_prompt(record, where)
    case Format.MESSAGES | Format.SHAREGPT | Format.ULTRACHAT:
      field = 'data' if format_ == Format.ULTRACHAT else format_.value
      turns = _conversation(record, format_, field, where)
      prompt = chat.drop_response(turns, field, where)
    case Format.ALPACA | Format.DOLLY | Format.SELF_INSTRUCT:
      field = 'instruction'
      prompt = _instruction(record, format_, where)
    case Format.ULTRAFEEDBACK:
      field = 'instruction'
      prompt = read_text(record, field, where)
    case Format.QUESTION:
      field = 'question'
      prompt = read_text(record, field, where)
    case Format.TEXT | Format.OASST_MESSAGES | Format.OASST_TREES:
      # Of trees, readers join the messages first (trees.py).
      raise wrong_shape(where, format_, "prompt in a row of its own")
    case _:
      field = 'prompt'
      prompt = _prompt_field(record, where)
  return _filled_prompt(prompt, field)


def read_document(record: dict[str, Any], where: str) -> str:
  """The text of a record that is nothing else."""
  text = read_text(record, 'text', where)
  if not text.strip():
    raise Unusable(
        'empty response',
        f"field 'text' is {records.show(text)}; a document needs text",
    )
  return text


def read_field(record: dict[str, Any], field: str, where: str) -> Any:
  """A field of any type, which must be there."""
  if field not in record:
    raise BadRecord(
        'missing field',
        f"{where}: field '{field}' is missing (fields:"
        f' {records.show_names(record)}); every row must have the fields of the'
        " file's first; add it.",
    )
  return record[field]


def read_text(record: dict[str, Any], field: str, where: str) -> str:
  """A field of text, which must be there."""
  return check_text(read_field(record, field, where), field, where)


def check_text(value: Any, field: str, where: str) -> str:
  """The value of a field, which must be text."""
  if not isinstance(value, str):
    raise BadRecord(
        'wrong type',
        f"{where}: field '{field}' is {records.show(value)}; it must be text;"
        ' write it, or take the row out.',
    )
  return value


def wrong_shape(where: str, format_: Format, need: str) -> rules.WrongShape:
  """The error for a file of a shape that a reader cannot use."""
  return rules.WrongShape(
      f"{where}: the rows are of the shape '{format_.value}', which has no"
      f' {need}; this run needs that; give another file.'
  )


def as_turns(prompt: chat.Prompt) -> tuple[chat.Message, ...]:
  """A prompt as messages; bare text is one user turn."""
  if isinstance(prompt, str):
    return ({'role': 'user', 'content': prompt},)
  return prompt


def filled_response(response: str, field: str) -> str:
  """The response, which must say something."""
  if not response.strip():
    raise Unusable(
        'empty response',
        f"field '{field}' has an empty response ({records.show(response)}); a"
        ' response needs text',
    )
  return response


def _turns(
    record: dict[str, Any], side: str, format_: Format, where: str
) -> tuple[chat.Message, ...]:
  """All turns that `chosen` or `rejected` stands for, the prompt included."""
  if format_ == Format.HH:
    text = read_text(record, side, where)
    return chat.transcript_to_messages(text, side, where)
  turns = _messages(record, side, where)
  if record.get('prompt') is None:
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


def _conversation(
    record: dict[str, Any], format_: Format, field: str, where: str
) -> tuple[chat.Message, ...]:
  if format_ == Format.ULTRACHAT:
    return chat.read_turns(read_field(record, field, where), field, where)
  return _messages(record, field, where)


def _messages(
    record: dict[str, Any], field: str, where: str
) -> tuple[chat.Message, ...]:
  return chat.read_messages(read_field(record, field, where), field, where)


def _prompt_field(record: dict[str, Any], where: str) -> chat.Prompt:
  """The field 'prompt', as text or as messages."""
  if not isinstance(read_field(record, 'prompt', where), list):
    return read_text(record, 'prompt', where)
  messages = _messages(record, 'prompt', where)
  chat.check_user_turn(messages, 'prompt', where)
  return messages


def _common_prompt(record: dict[str, Any], where: str) -> str:
  """What both sides begin with, in whole words.

  TRL cuts where the first character differs; a word that both begin alike
  would be torn, and its end tokenized as no text has it.
  """
  chosen, rejected = (
      read_text(record, side, where) for side in ('chosen', 'rejected'))
  end = 0
  for a, b in zip(chosen, rejected, strict=False):
    if a != b:
      break
    end += 1
  while end and not (
      _ends_word(chosen, end) and _ends_word(rejected, end)):
    end -= 1
  # The space before a word belongs to it, as it does to tokenizers.
  return chosen[:end].rstrip()


def _ends_word(text: str, end: int) -> bool:
  """Whether no word goes on over this place."""
  return end == len(text) or text[end].isspace() or text[end - 1].isspace()


def _instruction(record: dict[str, Any], format_: Format, where: str) -> str:
  """An instruction, and below it the input that it is about, if any."""
  instruction = read_text(record, 'instruction', where)
  holder, field = record, 'input'
  if format_ == Format.DOLLY:
    field = 'context'
  elif format_ == Format.SELF_INSTRUCT:
    holder = _instance(record, where)
  # Files without any input leave the field out, or null.
  about = '' if holder.get(field) is None else read_text(holder, field, where)
  return f'{instruction}\n\n{about}' if about.strip() else instruction


def _instance(record: dict[str, Any], where: str) -> dict[str, Any]:
  """The first instance of a self-instruct task, which must have some."""
  value = read_field(record, 'instances', where)
  if isinstance(value, list) and value and all(
      isinstance(instance, dict) for instance in value):
    return value[0]
  raise BadRecord(
      'wrong type',
      f"{where}: field 'instances' is {records.show(value)}; it must be a list"
      " of objects with 'input' and 'output'; add one.",
  )


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
