"""Rows of several sources, mixed by weight, in an order without chance.

A weight is the share of the rows drawn that come from its source. Who is drawn
from is settled by a schedule and not by dice: after any number of draws, each
source has given its share of them to within one row. Which row a source gives
is shuffled: by a permutation of the source's own for each pass over it, so that
no row comes a second time before all have come once.

  a: 4 rows, 0.75   b: 2 rows, 0.25

  position   0   1   2   3   4   5   6
  drawn      a0  a3  b1  a1  a2  a1  b0    a's second pass begins at 5

A mixture is a sequence like any other: batches are made of it, its order within
a run is BatchSource's, and the cursor of the data stays the step.
"""

from collections.abc import Callable, Iterable, Sequence
import fractions
import math
import operator
import os
from typing import Any

import numpy as np

from alignjax import types

_MAX_ROWS = 20_000_000  # Numbers of rows are held in memory, eight bytes each.
_USE = "use 'a.jsonl:0.7,b.jsonl:0.3'"


class Mixture(Sequence):
  """The rows drawn from several sources, by position; made by `mix`."""

  def __init__(
      self,
      sources: Sequence[Sequence[Any]],
      names: Sequence[str],
      source_of: np.ndarray,
      row_of: np.ndarray,
  ):
    self._sources = sources
    self.names = tuple(names)
    self.source_of = source_of  # [N] Which source the row at a place is from,
    self.row_of = row_of        # [N] and which of its rows it is.
    counts = np.bincount(source_of, minlength=len(sources))
    self.counts = tuple(counts.tolist())  # Rows drawn, by source.

  def __len__(self) -> int:
    return len(self.source_of)

  def __getitem__(self, position: int) -> Any:
    position = operator.index(position)
    return self._sources[self.source_of[position]][self.row_of[position]]

  def __str__(self) -> str:
    parts = [
        f'{count:,} from {name} ({count / len(source):.2f} passes)'
        for name, count, source in zip(
            self.names, self.counts, self._sources, strict=True)
    ]
    return f"mixed {len(self):,} rows: {', '.join(parts)}"


def mix(
    sources: Sequence[Sequence[Any]],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    num_rows: int | None = None,
    names: Sequence[str] = (),
) -> Mixture:
  """Draws rows from several sources by weight.

  Args:
    sources: Rows of each source; any sequence that gives a row by its number,
      such as `TfdsRecords`, which is then read row by row.
    weights: The share of each source, in (0, inf), relative to their sum. None
      draws each row once.
    seed: Shuffles each pass over a source; 0 or more.
    num_rows: How many rows to draw. None draws until every row of every source
      has come once; a source that is through by then has begun again.
    names: What to call the sources in `str()`.

  Returns:
    The mixture. Of its first p rows, source i gave p * weights[i] to within one
    row, at every p. A longer one begins with the rows of a shorter one.

  Raises:
    InputError: An empty source, a weight that is none, far more rows than there
      are to give every row of a source with a small weight.
  """
  names = list(names) or [f'source {i}' for i in range(len(sources))]
  sizes = [len(source) for source in sources]
  if not sizes:
    raise types.InputError('a mixture of no sources has no rows; name one.')
  for name, size in zip(names, sizes, strict=True):
    if not size:
      raise types.InputError(f'{name}: has no rows to mix; leave it out.')
  if seed < 0:
    raise types.InputError(f'seed={seed} is out of range; use 0 or more.')
  shares = _shares(names, sizes if weights is None else weights)
  if num_rows is None:
    enough = max(
        math.ceil(size / share)  # By then it gave more than size - 1.
        for size, share in zip(sizes, shares, strict=True))
    _check_size(enough, names, sizes, shares)
    source_of = schedule(shares, enough)
    num_rows = 1 + max(
        int(np.flatnonzero(source_of == i)[size - 1])
        for i, size in enumerate(sizes))
    source_of = source_of[:num_rows]
  elif not 1 <= num_rows <= _MAX_ROWS:
    raise types.InputError(
        f'num_rows={num_rows} is out of range; use 1 to {_MAX_ROWS:,}.')
  else:
    source_of = schedule(shares, num_rows)
  row_of = np.zeros(num_rows, np.int64)
  for i, size in enumerate(sizes):
    places = np.flatnonzero(source_of == i)
    row_of[places] = _passes(size, len(places), (seed, i))
  return Mixture(sources, names, source_of, row_of)


def schedule(shares: Sequence[fractions.Fraction], num_rows: int) -> np.ndarray:
  """[num_rows] Which source each row is drawn from.

  R. Tijdeman, The chairman assignment problem (1980): of the sources that are
  behind by 1 / (2n - 2) of a row or more, the one takes its turn that would
  first be a whole row behind. Then every source is at all times within
  1 - 1 / (2n - 2) of a row of its share, and no schedule can promise less.

  Args:
    shares: [n] Positive, of sum 1; exact, so that nothing drifts.
    num_rows: How many draws.
  """
  n = len(shares)
  if n == 1:
    return np.zeros(num_rows, np.int64)
  # In units of 1 / (whole * slack) of a row, all numbers are whole.
  whole = math.lcm(*(share.denominator for share in shares))
  parts = [int(share * whole) for share in shares]
  slack = 2 * n - 2
  drawn = []
  behind = [0] * n
  # After `whole` draws each source has its share exactly, and all begins anew.
  for _ in range(min(whole, num_rows)):
    behind = [b + slack * part for b, part in zip(behind, parts, strict=True)]
    turn = min(
        (i for i in range(n) if behind[i] >= whole),
        key=lambda i: ((slack - 1) * whole - behind[i]) / parts[i],
    )
    behind[turn] -= slack * whole
    drawn.append(turn)
  return np.resize(np.asarray(drawn, np.int64), num_rows)


def parse_mixture(
    text: str | Iterable[str],
) -> list[tuple[str, float | None]]:
  """[(path, weight)] of 'a.jsonl:0.7,b.jsonl:0.3', or of a list of such parts.

  The weight is what stands behind the last colon if that is a number, so a path
  may hold colons. A text or a part that is the path of something that exists is
  that path, whatever commas and colons it holds. Either all parts have a weight
  or none, and it is then None.

  Raises:
    InputError: A part without a path, a weight that is not above 0, weights for
      some parts only, a path that comes twice.
  """
  if isinstance(text, str):
    parts = [text] if os.path.exists(text) else text.split(',')
  else:
    parts = list(text)
  parsed = [_parse_part(part.strip()) for part in parts]
  if not parsed:
    raise types.InputError(f'data: names no file; {_USE}.')
  bare = [path for path, weight in parsed if weight is None]
  if bare and len(bare) < len(parsed):
    raise types.InputError(
        f'data: {bare[0]!r} has no weight and others have one; give all of them'
        f' a weight or none; {_USE}.')
  paths = [path for path, _ in parsed]
  for path in paths:
    if paths.count(path) > 1:
      raise types.InputError(
          f'data: {path!r} comes twice; name it once, with the sum of the'
          ' weights.')
  return parsed


def read_mixture(
    text: str | Iterable[str],
    read: Callable[[str], Sequence[Any]],
    *,
    seed: int = 0,
    num_rows: int | None = None,
) -> Sequence[Any]:
  """Reads the files that a text names, and mixes their rows.

  Args:
    text: See `parse_mixture`.
    read: Gives the rows of a path: those to train on. Rows that are held out
      for a test must be taken out here, or the mixture repeats them.
    seed: See `mix`.
    num_rows: See `mix`.

  Returns:
    A `Mixture`; of one path without a count, what `read` returned, as it is.
  """
  parts = parse_mixture(text)
  paths = [path for path, _ in parts]
  sources = [read(path) for path in paths]
  if len(sources) == 1 and num_rows is None:
    return sources[0]
  weights = [weight for _, weight in parts]
  return mix(
      sources, None if None in weights else weights, seed=seed,
      num_rows=num_rows, names=paths)


def _parse_part(part: str) -> tuple[str, float | None]:
  path, colon, number = part.rpartition(':')
  if not part:
    raise types.InputError(f'data: a part names no file; {_USE}.')
  if not colon or os.path.exists(part):
    return part, None
  try:
    weight = float(number)
  except ValueError:
    return part, None
  if not path:
    raise types.InputError(f'data: {part!r} names no file; {_USE}.')
  if not 0 < weight < math.inf:
    raise types.InputError(
        f'data: the weight of {path!r} is {number}; use a number above 0.')
  return path, weight


def _shares(
    names: Sequence[str], weights: Sequence[float]
) -> list[fractions.Fraction]:
  """Weights as exact fractions of sum 1; 0.1 is a tenth."""
  if len(weights) != len(names):
    raise types.InputError(
        f'weights={list(weights)} are {len(weights)} for {len(names)} sources;'
        ' give one each.')
  for name, weight in zip(names, weights, strict=True):
    if not 0 < weight < math.inf:
      raise types.InputError(
          f'{name}: the weight is {weight}; use a number above 0.')
  exact = [fractions.Fraction(str(weight)) for weight in weights]
  return [weight / sum(exact) for weight in exact]


def _check_size(
    enough: int,
    names: Sequence[str],
    sizes: Sequence[int],
    shares: Sequence[fractions.Fraction],
) -> None:
  if enough > _MAX_ROWS:
    i = max(range(len(sizes)), key=lambda i: sizes[i] / shares[i])
    raise types.InputError(
        f'{names[i]}: to give all its {sizes[i]:,} rows at a share of'
        f' {float(shares[i]):g} takes {enough:,} draws, more than'
        f' {_MAX_ROWS:,}; raise its weight, or say how many rows to draw.')


def _passes(size: int, count: int, key: tuple[int, ...]) -> np.ndarray:
  """[count] Rows of a source: a permutation of all, then another, and so on."""
  passes = []
  for number in range(-(-count // size)):
    # Raw bits, as in batches.py: they stay the same between numpy versions.
    bits = np.random.Philox(np.random.SeedSequence((*key, number)))
    passes.append(np.argsort(bits.random_raw(size), kind='stable'))
  return np.concatenate([np.zeros(0, np.int64), *passes])[:count]
