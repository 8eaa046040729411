"""Turns of a conversation: lists of messages, and transcripts as text.

A message is `{'role': 'system' | 'user' | 'assistant', 'content': str}`, and a
conversation a tuple of them. Anything else is refused with its field and line.
"""

from collections.abc import Sequence
import re
from typing import Any

from alignjax import types
from alignjax.data import records

Message = dict[str, str]
Prompt = str | tuple[Message, ...]

ROLES = {
    'system': 'system',
    'user': 'user',
    'human': 'user',       # ShareGPT, HH-RLHF.
    'prompter': 'user',    # OpenAssistant.
    'assistant': 'assistant',
    'gpt': 'assistant',    # ShareGPT.
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
    raise types.InputError(
        f"{where}: field '{field}' is {records.show(text)}; a transcript"
        " starts with 'Human:'; add the human's turn."
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
    raise types.InputError(
        f"{where}: field '{field}' is {records.show(value)}; it must be a list"
        ' of one or more messages, such as {"role": "user", "content": "..."}.'
    )
  return tuple(
      _read_message(message, f'{field}[{i}]', where)
      for i, message in enumerate(value)
  )


def split_response(
    messages: Sequence[Message], field: str, where: str
) -> tuple[tuple[Message, ...], str]:
  """The turns before the last one, and the last one: the assistant's.

  Raises:
    InputError: No turn is the assistant's, the last one is not, or no user's
      turn comes before it.
  """
  roles = [message['role'] for message in messages]
  if 'assistant' not in roles:
    problem = "has no assistant turn; a response must end it; add one"
  elif roles[-1] != 'assistant':
    problem = (
        f"ends with the {roles[-1]}'s turn; the last turn must be the"
        " assistant's; add it, or take the last turn out"
    )
  elif 'user' not in roles:
    problem = (
        'has no user turn; a response answers one; add it, or give the field'
        " 'prompt'"
    )
  else:
    return tuple(messages[:-1]), messages[-1]['content']
  raise types.InputError(f"{where}: field '{field}' {problem}.")


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
  """InputError unless someone asks something."""
  if not any(message['role'] == 'user' for message in messages):
    raise types.InputError(
        f"{where}: field '{field}' has no user turn before a response; a prompt"
        ' needs one; add it.'
    )


def _read_message(message: Any, field: str, where: str) -> Message:
  if not isinstance(message, dict):
    raise types.InputError(
        f"{where}: field '{field}' is {records.show(message)}; a message must"
        ' be an object such as {"role": "user", "content": "..."}.'
    )
  names = ('from', 'value') if 'from' in message else ('role', 'content')
  role, content = (message.get(name) for name in names)
  for name, value in zip(names, (role, content), strict=True):
    if not isinstance(value, str):
      got = records.show(value) if name in message else 'missing'
      raise types.InputError(
          f"{where}: field '{field}.{name}' is {got}; it must be text; write"
          ' it, or take the row out.'
      )
  if role.lower() not in ROLES:
    raise types.InputError(
        f"{where}: field '{field}.{names[0]}' is {records.show(role)}; a role"
        f" is one of {', '.join(ROLES)}; rename it."
    )
  return {'role': ROLES[role.lower()], 'content': content}
