"""Chat templates: Jinja programs from strangers, run in a sandbox."""

import datetime
import functools
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

from alignjax.types import InputError


class _Generation(jinja2.ext.Extension):
  """Accepts `{% generation %}` around assistant text, and shows the text."""

  tags = {'generation'}

  def parse(self, parser):
    next(parser.stream)
    return parser.parse_statements(('name:endgeneration',), drop_needle=True)


def check(source: str, where: str) -> None:
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
