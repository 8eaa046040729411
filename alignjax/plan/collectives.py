"""What a compiled program sends between chips, loops included.

XLA's text lists a collective once, however often the loop around it turns. Here
the text is read as a program: what a computation sends is counted as often as
it is called, and a loop's body as often as its trip count says.
"""

import collections
import functools
import math
import re
from typing import NamedTuple

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
         'collective-permute')
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2,
          's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}
_HEAD = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_OP = re.compile(r'^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([\w\-]+)\((.*)$')
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')
_CALLED = re.compile(
    r'(?:calls|to_apply|body|condition|branch_computations|'
    r'called_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CHANNEL = re.compile(r'channel_id=(\d+)')
# The TPU compiler does not say it: there it is what a loop's condition, i < n
# and nothing else, compares with.
_CONDITION = re.compile(r'condition=%?([\w.\-]+)')
_CONSTANT = re.compile(r'%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)')
_BELOW = re.compile(
    r'ROOT .* compare\([^,]+, %?([\w.\-]+)\), direction=LT')


class Sent(NamedTuple):
  """Collectives of one kind, in one run of a program."""

  times: int     # Executions.
  bytes: float   # Of their results on a chip, all executions.


def count(text: str) -> dict[str, Sent]:
  """Executions and bytes of each kind of collective.

  Args:
    text: `compiled.as_text()`, HLO after partitioning.

  Returns:
    By kind, only those that occur. Bytes are those of a collective's result on
    one chip. A loop that ends when it likes, as decoding's, counts once.
  """
  computations, entry = _parse(text)

  @functools.cache
  def of(name):
    """By kind, of a computation; a channel that was seen is not sent again."""
    found, seen = collections.defaultdict(lambda: [0, 0.0]), set()

    def add(name, times):
      for op in computations.get(name, ()):
        if op.channel and op.channel in seen:
          continue
        if op.kind:
          seen.add(op.channel)
          found[op.kind][0] += times
          found[op.kind][1] += times * op.size
        for inner in op.called:
          if op.is_fusion:
            add(inner, times)
          else:
            for kind, (count, size) in of(inner).items():
              found[kind][0] += times * op.times * count
              found[kind][1] += times * op.times * size

    add(name, 1)
    return found

  totals = of(entry)
  return {k: Sent(*totals[k]) for k in KINDS if k in totals}


class _Op(NamedTuple):
  """What sends, or calls what does."""

  kind: str | None = None  # Of a collective.
  size: float = 0.0        # Of its result, in bytes.
  # One for each collective. On TPUs one is begun, fused with what runs while it
  # is under way, and ended in several fusions, each of which names it.
  channel: str | None = None
  called: tuple[str, ...] = ()
  times: int = 1
  is_fusion: bool = False


def _parse(text: str) -> tuple[dict[str, list[_Op]], str | None]:
  """({computation: what it sends and calls}, entry's name)."""
  computations, entry, name, limits = {}, None, None, _limits(text)
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head and not line.startswith(' '):
      name = head.group(1)
      computations[name] = []
      entry = name if line.startswith('ENTRY') else entry
      continue
    op = _OP.match(line)
    if name is None or op is None:
      continue
    result, kind, rest = op.groups()
    kind = kind.removesuffix('-start')
    called = tuple(
        each.strip().lstrip('%') for several, one in _CALLED.findall(rest)
        for each in (several or one).split(','))
    if kind not in KINDS:
      if not called:
        continue
      trips = _TRIPS.search(rest)
      times = 1
      if kind == 'while':
        times = int(trips.group(1)) if trips else limits.get(
            _CONDITION.search(rest).group(1), 1)
      computations[name].append(_Op(
          called=called, times=times, is_fusion=kind == 'fusion'))
    else:  # What it adds up with is no collective.
      channel = _CHANNEL.search(rest)
      computations[name].append(_Op(
          kind, _size(result), channel and f'{kind} {channel.group(1)}'))
  return computations, entry


def _limits(text: str) -> dict[str, int]:
  """What each computation that is i < n, a loop's condition, compares with."""
  limits, name, constants = {}, None, {}
  for line in text.splitlines():
    if not line.startswith(' '):
      head = _HEAD.match(line)
      name, constants = head and head.group(1), {}
    elif constant := _CONSTANT.search(line):
      constants[constant.group(1)] = int(constant.group(2))
    elif (below := _BELOW.search(line)) and below.group(1) in constants:
      limits[name] = constants[below.group(1)]
  return limits


def _size(result: str) -> float:
  """Bytes of a result; of a started one, which is (operand, result), half."""
  sizes = [math.prod(map(int, filter(None, dims.split(',')))) * _BYTES[dtype]
           for dtype, dims in _ARRAY.findall(result) if dtype in _BYTES]
  return float(max(sizes, default=0)) if result.startswith('((') else float(
      sum(sizes))
