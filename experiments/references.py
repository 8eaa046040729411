"""The reference asked once, before training, and let go.

Its logprobs are those of the batches that training will read, made by the same
program of the same rows: the first pass over the data learns to the bit what it
would with a reference beside it, and later passes ask no more. They are kept
where tokenized rows are (`row_cache`), a part at a time: a run that is killed
here goes on from there, and another run of the same pairs and reference, such
as one of another beta, asks nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import hashlib
import itertools
import pathlib
from typing import Any

import jax
import numpy as np

from alignjax import adapters
from alignjax import data
from alignjax import lineage
from alignjax import rollout
from alignjax import row_cache
from alignjax import runs

_PART = 64  # Batches that are kept together.


class Known(Sequence):
  """Pairs, of which more and more hold what a reference says of them."""

  def __init__(self, rows: Sequence[data.TokenizedPair]):
    """None of them does yet."""
    self._rows, self._places = rows, {}

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> data.TokenizedPair:
    if index in self._places:
      part, at = self._places[index]
      return part[at]
    return self._rows[index]

  def add(self, numbers: Iterable[int], part: Sequence) -> None:
    """Has the rows of these numbers be those of `part`, in its order."""
    self._places |= {number: (part, i) for i, number in enumerate(numbers)}


class Reference:
  """What a trainee was before training, to be asked about pairs."""

  def __init__(self, cfg: runs.BatchConfig, run: runs.Run,
               trainee: adapters.Trainee, folder: str):
    """Loads nothing: it is put on the mesh when it is first asked.

    Args:
      cfg: of the run.
      run: told what is asked.
      trainee: the policy.
      folder: whose weights the trainee has.
    """
    self._cfg, self._run, self._trainee = cfg, run, trainee
    self._folder = pathlib.Path(folder)

  @functools.cached_property
  def annotate(self) -> rollout.Annotate:
    """Asks it about a batch."""
    model, params, shardings = self._trainee.reference(self._run.mesh)
    return rollout.make_reference(
        model, params, mesh=self._run.mesh, param_shardings=shardings,
        chunk_size=self._cfg.chunk_size)

  def ask(self, rows: Known, stream: Callable[[int], Iterator],
          num_batches: int, *, layout: str | None) -> None:
    """Adds its logprobs to the rows of the first batches.

    Args:
      rows: pairs.
      stream: from a step to the batches of `rows` that begin there.
      num_batches: of which no two may hold the same row.
      layout: of the batches.
    """
    rows_of = stream(0).rows_of
    for first in range(0, num_batches, _PART):
      steps = range(first, min(first + _PART, num_batches))
      numbers = [rows_of(step) for step in steps]
      part = self._ask([[rows[i] for i in own] for own in numbers], stream,
                       steps, num_batches, layout)
      rows.add(itertools.chain(*numbers), part)

  def _ask(self, rows: list[list], stream, steps: range, num_batches: int,
           layout: str | None):
    """The pairs of some steps, of the cache or of the model itself."""

    def make():
      said = (f'the reference reads batches {steps[0] + 1:,} to '
              f'{steps[-1] + 1:,} of {num_batches:,}')
      with self._run.console.working(said):
        return rollout.pairs_with_reference(
            self.annotate, itertools.islice(stream(steps[0]), len(steps)),
            rows, mesh=self._run.mesh), None

    # Of several processes, one must not ask where another need not.
    if not self._cfg.reuse_rows or jax.process_count() > 1:
      return make()[0]
    return row_cache.kept(
        [*self._made_from, layout, _digest(rows)], make,
        note=self._run.console.note,
        found=f'batches {steps[0] + 1:,} to {steps[-1] + 1:,}: the reference '
        'was asked before')[0]

  @functools.cached_property
  def _made_from(self) -> list[Any]:
    """What its logprobs depend on, besides the rows."""
    cfg = self._cfg
    return [
        'reference', lineage.digest(self._folder),
        repr(self._trainee.model.config), cfg.chunk_size,
        cfg.num_microbatches, cfg.batch_size, cfg.max_length, cfg.mesh,
        jax.__version__, [d.device_kind for d in self._run.mesh.devices.flat],
        row_cache.code('data', 'models', 'rollout', 'logprobs.py',
                       'scoring.py', 'partitioning.py', 'sharding.py')]


def _digest(rows: list[list[data.TokenizedPair]]) -> str:
  """Of all that the rows hold, in their batches' order."""
  digest = hashlib.sha256()
  for pair in itertools.chain(*rows):
    for side in (pair.chosen, pair.rejected):
      digest.update(np.array(
          [len(side.tokens), side.prompt_length, side.loss_mask is not None,
           pair.strength, side.weight]).tobytes())
      digest.update(np.asarray(side.tokens).tobytes())
      if side.loss_mask is not None:
        digest.update(np.asarray(side.loss_mask).tobytes())
  return digest.hexdigest()
