"""Names the shape of a record by its fields."""

import enum
from typing import Any

from alignjax.data import chat
from alignjax.data import records
from alignjax.data import rules


class Format(enum.Enum):
  """The shapes that are known; the value is how to say it to a person."""

  HH = 'HH-RLHF transcripts'
  IMPLICIT = 'chosen/rejected'
  PREFERENCE = 'prompt/chosen/rejected'
  CHAT_PREFERENCE = 'prompt/chosen/rejected (conversational)'
  RESPONSE = 'prompt/response'
  COMPLETION = 'prompt/completion'
  LABELED_RESPONSE = 'prompt/response/label'
  LABELED_COMPLETION = 'prompt/completion/label'
  STEPWISE = 'prompt/completions/labels'
  MESSAGES = 'messages'
  SHAREGPT = 'conversations'
  ULTRACHAT = 'id/data'
  ALPACA = 'instruction/input/output'
  DOLLY = 'instruction/context/response'
  SELF_INSTRUCT = 'instruction/instances'
  QUESTION = 'question/answer'
  RANKING = 'prompt/responses/ranks'
  ULTRAFEEDBACK = 'instruction/completions with scores'
  OASST_MESSAGES = 'OpenAssistant messages'
  OASST_TREES = 'OpenAssistant trees'
  PROMPT = 'prompt only'
  TEXT = 'text'


# The fields that tell a shape, most telling first: a record of messages may
# carry its first user turn as 'prompt' too, and a message its 'text'.
_FIELDS = (
    (Format.OASST_MESSAGES, ('message_id', 'role', 'text')),
    (Format.OASST_TREES, ('message_tree_id', 'prompt')),
    (Format.LABELED_RESPONSE, ('prompt', 'response', 'label')),
    (Format.LABELED_COMPLETION, ('prompt', 'completion', 'label')),
    (Format.STEPWISE, ('prompt', 'completions', 'labels')),
    (Format.RESPONSE, ('prompt', 'response')),
    (Format.COMPLETION, ('prompt', 'completion')),
    (Format.RANKING, ('prompt', 'responses', 'ranks')),
    (Format.MESSAGES, ('messages',)),
    (Format.SHAREGPT, ('conversations',)),
    (Format.ULTRAFEEDBACK, ('instruction', 'completions')),
    (Format.ALPACA, ('instruction', 'output')),
    (Format.DOLLY, ('instruction', 'response')),
    (Format.SELF_INSTRUCT, ('instruction', 'instances')),
    (Format.QUESTION, ('question', 'answer')),
    (Format.ULTRACHAT, ('id', 'data')),
    (Format.PROMPT, ('prompt',)),
    (Format.TEXT, ('text',)),
)
PREFERENCES = (
    Format.HH, Format.IMPLICIT, Format.PREFERENCE, Format.CHAT_PREFERENCE)
LABELED = (
    Format.LABELED_RESPONSE, Format.LABELED_COMPLETION, Format.STEPWISE)
RANKINGS = (Format.RANKING, Format.ULTRAFEEDBACK)
TREES = (Format.OASST_MESSAGES, Format.OASST_TREES)

# Shapes that are turns, whatever the record.
_CHATS = (
    Format.HH, Format.CHAT_PREFERENCE, Format.MESSAGES, Format.SHAREGPT,
    Format.ULTRACHAT, *TREES)


def sniff(record: dict[str, Any], where: str = 'record') -> Format:
  """The shape of a record, by its fields.

  Args:
    record: One object of a file.
    where: Names the record in an error.

  Returns:
    The shape.

  Raises:
    BadRecord: The fields are those of no known shape.
  """
  if 'chosen' in record and 'rejected' in record:
    if isinstance(record['chosen'], list):
      return Format.CHAT_PREFERENCE
    if 'prompt' in record:
      return Format.PREFERENCE
    is_hh = chat.is_transcript(record['chosen'])
    return Format.HH if is_hh else Format.IMPLICIT
  for format_, fields in _FIELDS:
    if all(field in record for field in fields):
      return format_
  raise rules.BadRecord(
      'unknown shape',
      f'{where}: the fields ({records.show_names(record)}) fit no known shape;'
      ' known are chosen/rejected,'
      f" {', '.join(f.value for f in Format if f != Format.HH)};"
      ' rename the fields.',
  )


def is_conversational(record: dict[str, Any], format_: Format) -> bool:
  """Whether a record holds turns; else it holds bare text."""
  return format_ in _CHATS or isinstance(record.get('prompt'), list)


def is_task(record: dict[str, Any]) -> bool:
  """Whether a record is a self-instruct task with a list of instances."""
  return (isinstance(record.get('instances'), list)
          and 'instruction' in record
          and sniff(record) == Format.SELF_INSTRUCT)
