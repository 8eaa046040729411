"""Rows that are held out, and the rest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignjax import types


class Subset(Sequence):
  """Some of the rows of a sequence, each asked for when it is asked for."""

  def __init__(self, rows: Sequence[Any], indices: Sequence[int]):
    """The rows with those indices, in that order."""
    self._rows, self._indices = rows, indices

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return Subset(self._rows, self._indices[index])
    return self._rows[self._indices[index]]


def hold_out(
    rows: Sequence[Any], count: int, seed: int
) -> tuple[Subset, Subset]:
  """(the rest, `count` rows drawn by the seed), both in the rows' order.

  Raises:
    InputError: as many rows are to be held out as there are.
  """
  if count >= len(rows):
    raise types.InputError(
        f'holding out {count} of {len(rows)} rows leaves none to train on; '
        'give more rows, or --test-data')
  is_out = np.zeros(len(rows), bool)
  is_out[np.random.default_rng(seed).permutation(len(rows))[:count]] = True
  rest, chosen = (np.flatnonzero(x).tolist() for x in (~is_out, is_out))
  return Subset(rows, rest), Subset(rows, chosen)
