"""Rubrics: what annotators and judges are told, as a TOML file.

    name = "helpful, harmless, honest"
    task = "ranking"            # or "pair", or "thumb"
    instructions = "Rank the responses as you would want to be answered."

    [[criteria]]
    name = "helpful"
    question = "Does it do what was asked?"
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import tomllib
from typing import Any

from alignjax import types

TASKS = ('ranking', 'pair', 'thumb')
_MAX_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Criterion:
  """One thing to look at."""

  name: str
  question: str


@dataclasses.dataclass(frozen=True)
class Rubric:
  """What is asked, and what to look at, the most important first."""

  name: str
  task: str          # One of TASKS.
  instructions: str
  criteria: tuple[Criterion, ...] = ()

  def text(self) -> str:
    """The rubric as plain text, for a prompt: criteria as a numbered list."""
    lines = [self.instructions] + [
        f'{i}. {c.name}: {c.question}'
        for i, c in enumerate(self.criteria, start=1)]
    return '\n'.join(lines)


def read_rubric(path: str | os.PathLike[str]) -> Rubric:
  """Reads a rubric.

  Args:
    path: a TOML file with the keys name, task, instructions and, if wanted,
      tables `[[criteria]]` of a name and a question each.

  Returns:
    A `Rubric`; `rubric.text()` has a line for each criterion.

  Raises:
    InputError: no such file, no TOML, an unknown or missing key, an empty text
      or two criteria of one name: with the file, the key and the repair.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_bytes()[:_MAX_BYTES].decode()
    found = tomllib.loads(text.removeprefix('\ufeff'))
  except OSError as error:
    raise types.InputError(
        f'{path}: {error.strerror}; give a rubric file') from error
  except UnicodeDecodeError as error:
    raise types.InputError(
        f'{path}: not UTF-8 at byte {error.start}; save it as UTF-8') from error
  except (tomllib.TOMLDecodeError, RecursionError) as error:
    raise types.InputError(f'{path}: not TOML: {error}; correct it') from error
  _check_keys(found, {'name', 'task', 'instructions', 'criteria'}, path, '')
  task = _text(found, 'task', path)
  if task not in TASKS:
    raise types.InputError(
        f"{path}: key 'task' is {task!r}; use one of {', '.join(TASKS)}")
  tables = found.get('criteria', [])
  if not isinstance(tables, list) or not all(
      isinstance(table, dict) for table in tables):
    raise types.InputError(
        f"{path}: key 'criteria' is no list of tables; write [[criteria]] "
        'before each')
  for i, table in enumerate(tables):
    _check_keys(table, {'name', 'question'}, path, f'criteria[{i}].')
  criteria = tuple(
      Criterion(_text(table, 'name', path, f'criteria[{i}].'),
                _text(table, 'question', path, f'criteria[{i}].'))
      for i, table in enumerate(tables))
  names = [c.name for c in criteria]
  repeated = next((n for n in names if names.count(n) > 1), None)
  if repeated:
    raise types.InputError(
        f'{path}: two criteria are named {repeated!r}; rename one')
  return Rubric(_text(found, 'name', path), task,
                _text(found, 'instructions', path), criteria)


def _text(table: Mapping[str, Any], key: str, path, prefix: str = '') -> str:
  """A text that is there and says something."""
  value = table.get(key)
  if not isinstance(value, str) or not value.strip():
    got = 'missing' if value is None else f'{value!r:.40}'
    raise types.InputError(
        f"{path}: key '{prefix}{key}' is {got}; it must be some text")
  return value.strip()


def _check_keys(table, known: set[str], path, prefix: str) -> None:
  """A key that nobody reads is a typing error."""
  unknown = sorted(set(table) - known)
  if unknown:
    raise types.InputError(
        f"{path}: key '{prefix}{unknown[0]}' is unknown; the keys are "
        f'{", ".join(sorted(known))}')
