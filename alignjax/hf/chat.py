"""Conversations as text: chat templates and plain transcripts.

A chat template is a Jinja program from a stranger; it runs in a sandbox.
"""

from collections.abc import Mapping, Sequence
import datetime
import functools
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

from alignjax.types import InputError

Message = Mapping[str, str]  # {'role': ..., 'content': ...}

_PLAIN_ROLES = {'system': 'System', 'user': 'Human', 'assistant': 'Assistant'}


class _Generation(jinja2.ext.Extension):
  """Accepts `{% generation %}` around assistant text, and shows the text."""

  tags = {'generation'}

  def parse(self, parser):
    next(parser.stream)
    return parser.parse_statements(('name:endgeneration',), drop_needle=True)


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
    _compiled(source)
  except (jinja2.TemplateError, TypeError) as error:
    raise InputError(
        f'{where}: chat_template is not a Jinja template ({error}); correct '
        'it or remove it') from error


def render(source: str, messages: list[dict[str, str]], **variables) -> str:
  """Runs the template over plain messages, with what transformers gives it.

  Args:
    source: Jinja source.
    messages: plain dictionaries of strings.
    **variables: what else the template may name, such as `bos_token`; a None
      is left undefined.

  Raises:
    InputError: if the template fails, refuses, or reaches out of the sandbox.
  """
  known = {k: v for k, v in variables.items() if v is not None}
  try:
    return _compiled(source).render(messages=messages, **known)
  except Exception as error:  # A template can raise anything.
    roles = ', '.join(message['role'] for message in messages)
    raise InputError(
        f'the chat template failed on roles ({roles}): '
        f'{type(error).__name__}: {error}; change the messages or the '
        'template') from error


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
  """The template in the environment that transformers gives its templates."""
  env = jinja2.sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True, lstrip_blocks=True,
      extensions=[_Generation, jinja2.ext.loopcontrols])
  env.filters['tojson'] = _tojson
  env.globals['raise_exception'] = _raise_exception
  env.globals['strftime_now'] = _strftime_now
  return env.from_string(source)


def _tojson(value, indent=None, ensure_ascii=False, **settings) -> str:
  """JSON as it is: Jinja's own filter escapes HTML."""
  return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **settings)


def _raise_exception(message: str):
  """How a template refuses a conversation."""
  raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
  """Today, for the templates that tell the model the date."""
  return datetime.datetime.now().strftime(pattern)
