"""What a compiled program sends between chips, loops included.

XLA's text lists a collective once, however often the loop around it turns. Here
the text is read as a program: what a computation sends is counted as often as
it is called, and a loop's body as often as its trip count says.
"""

import collections
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
    one chip. A loop without a known trip count, as decoding has, counts once.
  """
  computations, entry = _parse(text)
  totals: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
  counted: dict[str, dict] = {}

  def of(name):
    if name not in counted:
      found = collections.defaultdict(lambda: [0, 0.0])
      for kind, size, times, called in computations.get(name, ()):
        if kind:
          found[kind][0] += 1
          found[kind][1] += size
        for inner in called:
          for k, (n, b) in of(inner).items():
            found[k][0] += n * times
            found[k][1] += b * times
      counted[name] = found
    return counted[name]

  for kind, (times, size) in of(entry).items():
    totals[kind] = [times, size]
  return {k: Sent(*totals[k]) for k in KINDS if k in totals}


def _parse(text: str):
  """({computation: [(kind or None, bytes, times, called)]}, entry's name)."""
  computations, entry, name = {}, None, None
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
    called = [each.strip().lstrip('%') for several, one in
              _CALLED.findall(rest) for each in (several or one).split(',')]
    if kind not in KINDS:
      if not called:
        continue
      trips = _TRIPS.search(rest)
      times = int(trips.group(1)) if kind == 'while' and trips else 1
      computations[name].append((None, 0.0, times, called))
    else:  # What it adds up with is no collective.
      computations[name].append((kind, _size(result), 1, []))
  return computations, entry


def _size(result: str) -> float:
  """Bytes of a result; of a started one, which is (operand, result), half."""
  sizes = [math.prod(map(int, filter(None, dims.split(',')))) * _BYTES[dtype]
           for dtype, dims in _ARRAY.findall(result) if dtype in _BYTES]
  return float(max(sizes, default=0)) if result.startswith('((') else float(
      sum(sizes))
