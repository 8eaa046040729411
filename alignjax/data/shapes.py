"""Names the shape of a record by its fields."""

import enum
from typing import Any

from alignjax import types


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
  RANKING = 'prompt/responses/ranks'
  PROMPT = 'prompt only'


# The fields that tell a shape, most telling first: a record of messages may
# carry its first user turn as 'prompt' too.
_FIELDS = (
    (Format.LABELED_RESPONSE, ('prompt', 'response', 'label')),
    (Format.LABELED_COMPLETION, ('prompt', 'completion', 'label')),
    (Format.RESPONSE, ('prompt', 'response')),
    (Format.COMPLETION, ('prompt', 'completion')),
    (Format.RANKING, ('prompt', 'responses', 'ranks')),
    (Format.MESSAGES, ('messages',)),
    (Format.SHAREGPT, ('conversations',)),
    (Format.ALPACA, ('instruction', 'output')),
    (Format.DOLLY, ('instruction', 'response')),
    (Format.SELF_INSTRUCT, ('instruction', 'instances')),
    (Format.QUESTION, ('question', 'answer')),
    (Format.PROMPT, ('prompt',)),
)
PREFERENCES = (Format.HH, Format.PREFERENCE, Format.CHAT_PREFERENCE)
LABELED = (Format.LABELED_RESPONSE, Format.LABELED_COMPLETION)


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
