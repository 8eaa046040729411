"""Batches one after the other, made ahead on threads."""

from collections.abc import Iterator
from typing import Any

import grain

# Two threads stay ahead of the step without competing with it for cores.
_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


class Stream(Iterator):
  """A source's batches from a step on.

  Attributes:
    rows_of: from a step to the numbers, from 0, of the rows in its batch.
  """

  def __init__(self, source, start: int):
    self.rows_of = source.rows_of
    dataset = grain.MapDataset.source(source)[start:]
    self._batches = iter(dataset.to_iter_dataset(_READ_OPTIONS))

  def __next__(self) -> Any:
    return next(self._batches)

  def get_state(self) -> dict[str, Any]:
    """Its place, which is all that it remembers."""
    return self._batches.get_state()

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on at a place."""
    self._batches.set_state(state)
