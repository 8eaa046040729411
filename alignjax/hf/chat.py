"""Conversations as text: chat templates and plain transcripts.

A chat template is a Jinja program from a stranger; it runs in a sandbox.
"""

from collections.abc import Mapping, Sequence
import datetime
import functools
import json

import jinja2

from alignjax.hf import sandbox
from alignjax.types import InputError

Rendered = sandbox.Rendered
Message = Mapping[str, str]  # {'role': ..., 'content': ...}

_PLAIN_ROLES = {'system': 'System', 'user': 'Human', 'assistant': 'Assistant'}


def transcript(messages: Sequence[Message]) -> str:
  """Messages as the Anthropic HH transcripts write them, for base models.

  Each message is "⏎⏎Human: ...", "⏎⏎Assistant: ..." or "⏎⏎System: ..."; the
  transcript ends in "⏎⏎Assistant:", where the response begins.
  """
  turns = []
  for message in check_messages(messages):
    role = message['role']
    if role not in _PLAIN_ROLES:
      raise InputError(
          f'role={role!r} has no place in a plain transcript; use one of '
          f'{", ".join(_PLAIN_ROLES)}')
    turns.append(f'\n\n{_PLAIN_ROLES[role]}: {message["content"]}')
  return ''.join(turns) + '\n\nAssistant:'


def check_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
  """Plain copies of well-formed messages, else an InputError naming one."""
  if isinstance(messages, (str, bytes, Mapping)) or not messages:
    raise InputError(
        f'messages={messages!r:.80} is not a conversation; give at least one '
        "{'role': 'user', 'content': ...}")
  checked = []
  for i, message in enumerate(messages):
    for field in ('role', 'content'):
      value = message.get(field) if isinstance(message, Mapping) else message
      if not isinstance(value, str) or not isinstance(message, Mapping):
        raise InputError(
            f'messages[{i}][{field!r}] is {value!r:.80}; every message needs '
            "'role' and 'content' as strings")
    checked.append({'role': message['role'], 'content': message['content']})
  return checked


def check_template(source: str, where: str) -> None:
  """Raises InputError if `source` is not a Jinja template."""
  try:
    compile_template(source)
  except Exception as error:  # Python's own compiler may find anything.
    raise InputError(
        f'{where}: chat_template is not a Jinja template ({_line(error)}); '
        'correct it or remove it') from error


def render(
    source: str, messages: list[dict[str, str]], **variables
) -> Rendered:
  """Runs the template over plain messages, with what transformers gives it.

  Args:
    source: Jinja source.
    messages: plain dictionaries of strings.
    **variables: what else the template may name, such as `bos_token`; a None
      is left undefined.

  Returns:
    The text, and where `{% generation %}` stood in it.

  Raises:
    InputError: if the template fails, refuses, reaches out of the sandbox, or
      takes more time or memory than `limits` allows.
  """
  known = {k: v for k, v in variables.items() if v is not None}
  try:
    return compile_template(source).render(
        messages=messages, tools=None, documents=None, **known)
  except Exception as error:  # A template can raise anything.
    roles = ', '.join(message['role'] for message in messages)
    raise InputError(
        f'the chat template failed on roles ({roles:.200}): '
        f'{type(error).__name__}: {_line(error)}; change the messages or the '
        'template') from error


@functools.lru_cache(maxsize=16)
def compile_template(source: str) -> sandbox.Template:
  """The template with the functions that transformers gives its templates."""
  return sandbox.compile_template(
      source, tojson=_tojson, raise_exception=_raise_exception,
      strftime_now=_strftime_now)


def _line(error: Exception) -> str:
  """What went wrong, in one line."""
  return ' '.join(f'{error!s:.300}'.split())


def _tojson(value, ensure_ascii=False, indent=None, **settings) -> str:
  """JSON as it is: Jinja's own filter escapes HTML."""
  return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **settings)


def _raise_exception(message: str):
  """How a template refuses a conversation."""
  raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
  """Today, for the templates that tell the model the date."""
  return datetime.datetime.now().strftime(pattern)
