"""One config.json, read field by field with errors that name the field."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from alignjax.types import InputError

_HUGE = 1e300  # No number of a model is; an integer may be beyond any float.


@dataclasses.dataclass(frozen=True)
class Fields:
  """The fields of a file, and what its model type takes where one is not there.

  A field that is null counts as not there.
  """

  values: Mapping[str, Any]
  path: pathlib.Path
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prefix: str = ''  # How an error names what the fields are in.

  def get(self, name: str) -> Any:
    """The field as it is, its default, or None."""
    value = self.values.get(name)
    return self.defaults.get(name) if value is None else value

  def bad(self, name: str, rule: str) -> InputError:
    """The error for a field that breaks a rule."""
    return InputError(
        f'{self.path}: {self.prefix}{name}={self.get(name)!r:.120} {rule}')

  def flag(self, name: str) -> bool:
    """A field that is true or false; not there is false."""
    value = self.get(name)
    if value not in (None, True, False):
      raise self.bad(name, 'must be true or false; correct it')
    return bool(value)

  def number(self, name: str) -> float:
    """A positive number."""
    value = self.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (
        not 0 < value < _HUGE):
      raise self.bad(name, 'must be a positive number; correct it')
    return float(value)

  def optional_number(self, name: str) -> float | None:
    """A positive number, or None where there is none."""
    return None if self.get(name) is None else self.number(name)

  def count(self, name: str) -> int:
    """A positive whole number."""
    value = self.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or (
        not 1 <= value < 2**31):
      raise self.bad(name, 'must be a positive whole number below 2^31; '
                     'correct it')
    return value

  def optional_count(self, name: str) -> int | None:
    """A positive whole number, or None where there is none."""
    return None if self.get(name) is None else self.count(name)

  def numbers(self, name: str, length: int) -> tuple[float, ...]:
    """A list of so many numbers."""
    value = self.get(name)
    if not isinstance(value, list) or len(value) != length or not all(
        isinstance(x, (int, float)) and 0 < x < _HUGE for x in value):
      raise self.bad(name, f'must be a list of {length} positive numbers')
    return tuple(map(float, value))

  def choices(
      self, name: str, length: int, allowed: Sequence[Any]
  ) -> list[Any] | None:
    """A list with one of `allowed` per layer, or None where there is none."""
    value = self.get(name)
    if value is not None and (
        not isinstance(value, list) or len(value) != length
        or any(x not in allowed for x in value)):
      raise self.bad(name, f'must hold {length} of '
                     f'{", ".join(map(repr, allowed))}, one per layer')
    return value

  def inside(self, name: str) -> 'Fields':
    """The fields of the object that this field is; empty if not there."""
    value = self.get(name)
    if value is not None and not isinstance(value, Mapping):
      raise self.bad(name, 'must be an object; correct it')
    return Fields(value or {}, self.path, prefix=f'{self.prefix}{name}.')
