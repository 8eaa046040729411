"""What a template may use, and what one operation of it would make.

  what a render has        bound
  ---------------------    -------------------------------------------------
  time of its thread       `_SECONDS`
  characters and items     `_UNITS`, and `_UNITS_PER_GIVEN` for each given
  calls within calls       `_CALLS`
  containers in each other `_NESTING`
  digits of a number       `_BITS` in base 2

Values are counted when they are made. Where one operation may make much more
than it was given, `foresee_*` is asked first.
"""

from collections.abc import Iterator
import gc
import string
import threading
import time
from typing import Any

import jinja2

_SECONDS = 2.0
_UNITS = 2_000_000
_UNITS_PER_GIVEN = 64
_CALLS = 50
_NESTING = 64
_BITS = 8_192
_WIDTH = 10_000          # Of a field, an indent, a batch.
_STEPS = 1_000_000_000   # Of a search backwards, which takes n m of them.

CONTAINERS = (list, tuple, dict, set, frozenset,
              *map(type, ({}.keys(), {}.values(), {}.items())))
_WIDE_METHODS = ('center', 'ljust', 'rjust', 'zfill')
_WIDE_FILTERS = ('batch', 'center', 'indent', 'round', 'slice', 'truncate')
_BACKWARDS = ('rfind', 'rindex', 'rpartition', 'rsplit')


class LimitError(jinja2.TemplateRuntimeError):
  """A template asked for more than a template may have."""


class _Collected(threading.local):
  """Seconds that Python's garbage collector took of a thread so far.

  It runs on whatever thread makes an object at the wrong moment, and goes over
  all that a process holds, which is no template's doing.
  """

  seconds = 0.0
  since = 0.0

  def note(self, phase: str, info: dict, clock=time.thread_time) -> None:
    """Called by the collector, on its thread; at exit too, without modules."""
    del info
    now = clock()
    if phase == 'start':
      self.since = now
    else:
      self.seconds += now - self.since


_COLLECTED = _Collected()
gc.callbacks.append(_COLLECTED.note)


def _own_seconds() -> float:
  """CPU seconds of this thread, less those of the garbage collector."""
  return time.thread_time() - _COLLECTED.seconds


class Use:
  """What one render has used, and what is left to it."""

  def __init__(self, variables: dict[str, Any]):
    self.chunks: list[str] = []
    self.length = 0
    self.spans: list[tuple[int, int]] = []
    self.calls = 0
    self.sizes: dict[int, tuple[int, int]] = {}
    self.kept: list[Any] = []  # What is kept keeps its id to itself.
    self.left = self.most = float('inf')
    given = sum(self.size(value)[0] for value in variables.values())
    self.left = self.most = _UNITS + _UNITS_PER_GIVEN * given
    self.until = time.monotonic() + _SECONDS
    self.until_of_thread = _own_seconds() + _SECONDS

  def tick(self) -> None:
    """Stops a render whose time is up.

    The time of the thread counts, and not that of the garbage collector, so
    that a busy machine or a large process fails no template; it is slow to ask
    for, and never more than the time on the wall.
    """
    if time.monotonic() > self.until and (
        _own_seconds() > self.until_of_thread):
      raise LimitError(f'it ran for more than {_SECONDS:g} seconds')

  def enter(self) -> None:
    """Refuses a call within too many calls."""
    if self.calls >= _CALLS:
      raise LimitError(f'it calls itself more than {_CALLS} deep')
    self.calls += 1

  def foresee(self, units: int) -> None:
    """Refuses an operation that would make too much."""
    if units > self.left:
      raise LimitError(
          'it makes more text and lists than the '
          f'{self.most:,} characters and items that these messages allow')

  def admit(self, value: Any) -> Any:
    """Counts a value that an operation made, and gives it back."""
    self.tick()
    if isinstance(value, str):  # First, for nearly all of them are.
      self.foresee(len(value) + 1)
      self.left -= len(value) + 1
    elif isinstance(value, Iterator):
      return map(self.admit, value)
    elif isinstance(value, int) and value.bit_length() > _BITS:
      raise LimitError(f'it makes a number of more than {_BITS:,} bits')
    else:
      size, _ = self.size(value)
      self.left -= 0 if isinstance(value, CONTAINERS) else size
      self.foresee(0)
    return value

  def measure(self, args: tuple, kwargs: dict[str, Any]) -> None:
    """Refuses arguments that all together would be too much to write out."""
    total = 0
    for value in (*args, *kwargs.values()):
      total += len(value) if isinstance(value, str) else self.size(value)[0]
    if total > self.most:
      self.foresee(total)

  def size(self, value: Any) -> tuple[int, int]:
    """(characters and items, nesting) of a value as it would be written out.

    A container is walked once; what it holds was counted when it was made.
    """
    if isinstance(value, str):
      return len(value) + 1, 0
    if isinstance(value, int):
      return 1 + value.bit_length() // 3, 0
    if not isinstance(value, CONTAINERS):
      return 1, 0
    if id(value) in self.sizes:
      return self.sizes[id(value)]
    self.foresee(len(value) + 1)
    self.left -= len(value) + 1
    items = [*value, *value.values()] if isinstance(value, dict) else [*value]
    sizes = [self.size(item) for item in items]
    total = 1 + sum(size for size, _ in sizes)
    nesting = 1 + max((depth for _, depth in sizes), default=0)
    if nesting > _NESTING:
      raise LimitError(f'it puts lists in lists more than {_NESTING} deep')
    if total > self.most:
      self.foresee(total)
    self.sizes[id(value)] = total, nesting
    self.kept.append(value)
    return total, nesting


def foresee_product(use: Use, operator: str, left: Any, right: Any) -> None:
  """Refuses `'a' * 10**10` and `10 ** 10 ** 10`."""
  if isinstance(left, int) and isinstance(right, int):
    bits = left.bit_length() * max(right, 0) if operator == '**' else (
        left.bit_length() + right.bit_length())
    if bits > _BITS:
      raise LimitError(f'it makes a number of more than {_BITS:,} bits')
  for some, times in ((left, right), (right, left)):
    if isinstance(some, (str, list, tuple)) and isinstance(times, int):
      use.foresee(len(some) * times)


def foresee_percent(use: Use, text: str, values: Any) -> None:
  """Refuses `'%1000000000d' % 1` and its like."""
  if '*' in text or _has_wide_number(text):
    raise LimitError(
        "it gives '%' a text with '*' or a number of five digits or more")
  use.foresee(len(text) + text.count('%') * (_WIDTH + use.size(values)[0]))


def foresee_format(use: Use, text: str, values: tuple[Any, ...]) -> None:
  """Refuses `'{:1000000000}'.format(1)` and its like."""
  specs = [spec for _, _, spec, _ in string.Formatter().parse(text) if spec]
  if any('{' in spec or _has_wide_number(spec) for spec in specs):
    raise LimitError(f'it formats fields more than {_WIDTH:,} wide')
  widest = _WIDTH + sum(use.size(value)[0] for value in values)
  use.foresee(len(text) + text.count('{') * widest)


def _has_wide_number(text: str) -> bool:
  """Whether five digits follow one another."""
  run = 0
  for char in text:
    run = run + 1 if char.isdecimal() else 0
    if run == 5:
      return True
  return False


def foresee_method(use: Use, text: str, name: str, args: tuple) -> tuple:
  """What a method of text may be given; generators are run for it."""
  if name in _WIDE_METHODS:
    _check_widths(args)
  elif name == 'replace' and len(args) > 1:
    _foresee_replace(use, text, *args[:2])
  elif name == 'join' and args:
    args = (list(args[0]), *args[1:])
    use.foresee(len(text) * len(args[0]) + use.size(args[0])[0])
  elif (name in _BACKWARDS and args and isinstance(args[0], str)
        and len(text) * len(args[0]) > _STEPS):
    raise LimitError(f'it calls {name} on too long a text')
  return args


def foresee_filter(
    use: Use, name: str, value: Any, args: tuple, kwargs: dict
) -> Any:
  """The value that a filter may be given; generators are run for it."""
  settings = (*args, *kwargs.values())
  longest = max((len(s) for s in settings if isinstance(s, str)), default=0)
  widest = max((s for s in settings if isinstance(s, int)), default=0)
  if name in _WIDE_FILTERS:
    _check_widths(settings)
  if name == 'join':
    value = value if isinstance(value, str) else list(value)
    use.foresee(longest * len(value) + use.size(value)[0])
  elif name == 'sum' and any(isinstance(s, CONTAINERS) for s in settings):
    raise LimitError('it takes the sum of lists')
  elif name == 'replace':
    old, new = (*args, *(kwargs[k] for k in ('old', 'new') if k in kwargs))[:2]
    _foresee_replace(use, str(value), str(old), str(new))
  elif name == 'format':
    foresee_percent(use, str(value), [*settings])
  elif name == 'indent':
    use.foresee(len(str(value).splitlines()) * max(longest, widest))
  elif name == 'tojson':
    size, nesting = use.size(value)
    use.foresee(size * (1 + nesting * max(longest, widest)))
  return value


def _foresee_replace(use: Use, text: str, old: str, new: str) -> None:
  """Refuses to put a long text in many places."""
  places = text.count(old) if old else len(text) + 1
  use.foresee(len(text) + places * len(new))


def _check_widths(settings: tuple) -> None:
  """Refuses a width that no page has."""
  if any(isinstance(s, int) and s > _WIDTH for s in settings):
    raise LimitError(f'it asks for a width of more than {_WIDTH:,}')
