"""Steps from which nothing was learnt: told, counted, and in the end refused.

    workdir/
      skipped.jsonl           a line for each: step, loss, gradient, rows
      skipped_step_00000123/  where the run gave up
        checkpoints/          the state BEFORE that step
        batch.npz             what it was to learn from

`replay` takes that one step again, alone.
"""

from collections.abc import Callable, Iterator
import json
import pathlib
import shutil

import jax
import numpy as np

from alignjax import checkpoints
from alignjax import distributed
from alignjax import metrics as metrics_lib
from alignjax import sharding
from alignjax.errors import Stopped
from alignjax.types import InputError

_TOLD = ('skipped', 'loss', 'grad_norm', 'value_skipped', 'value_loss',
         'value_grad_norm')
_SKIPPED = ('skipped', 'value_skipped')


class WatchSkipped:
  """Reads what steps skipped, one behind the device; a hook of `loop.fit`.

  The last two steps before the limit it waits for, so that the state before
  the last of them is there to be written down.
  """

  def __init__(
      self, workdir: pathlib.Path, *, stage: str, limit: int, start: int,
      make_batches: Callable[[int], Iterator],
      rows_of: Callable[[int], list[int]] | None = None,
      console: metrics_lib.Console | None = None,
  ):
    """Opens skipped.jsonl; on resume, drops lines of steps after `start`.

    Args:
      workdir: of the run.
      stage: its name.
      limit: skipped steps in a row after which the run stops; at least 2.
      start: steps taken before.
      make_batches: from a step to the iterator that begins there.
      rows_of: from a step to the numbers of its batch's rows.
      console: is told of each.
    """
    self._workdir, self._stage, self._limit = workdir, stage, limit
    self._make_batches, self._rows_of = make_batches, rows_of
    self._console = console
    path = workdir / 'skipped.jsonl'
    self._writer = metrics_lib.JsonlWriter(path)
    if path.exists():
      self._writer.truncate_after(start, stage)
    self._pending, self._in_a_row, self._kept = None, 0, None

  def __call__(self, step, state, metrics, tokens):
    del tokens
    self.flush()
    self._pending = step, {n: metrics[n] for n in _TOLD if n in metrics}
    if self._in_a_row >= self._limit - 2:
      self.flush()
      if self._in_a_row == self._limit - 1:
        self._keep(step, state)

  def flush(self):
    """Reads the last step's numbers; InputError once too many were bad."""
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    values = metrics_lib.to_floats(metrics)
    shares = [values.get(name, 0.0) for name in _SKIPPED]
    self._in_a_row = self._in_a_row + 1 if max(shares) >= 1 else 0
    if not self._in_a_row and self._kept is not None:  # It was learnt from.
      kept, self._kept = self._kept, None
      distributed.by_first(lambda: shutil.rmtree(kept))
    if not any(shares):
      return
    rows = self._rows_of(step - 1) if self._rows_of else None
    self._writer.write(step, self._stage, values | (
        {} if rows is None else {'rows': rows}))
    of = '' if rows is None else f' of rows {_briefly(rows)}'
    said = ', '.join(f'{name} {metrics_lib.format_value(value)}'
                     for name, value in values.items() if name not in _SKIPPED)
    if self._console is not None:
      self._console.note(f'{self._stage} {step}: {said}{of}; nothing was '
                         'learnt from this step')
    if self._in_a_row == self._limit:
      raise InputError(
          f'{self._stage} {step}: {said}{of}; {self._limit} steps in a row '
          'were skipped for such numbers and nothing was learnt since; '
          f'{folder_of(self._workdir, step)} replays the last, with --resume '
          f'--replay {step}; lower the learning rate, or repair the rows')

  def close(self):
    """Writes the last step's line, of which no limit can come."""
    self.flush()
    self._writer.close()

  def _keep(self, step: int, state) -> None:
    """Writes down what the next step starts from."""
    self._kept = folder = folder_of(self._workdir, step + 1)
    if checkpoints.latest_step(folder / 'checkpoints') is None:
      checkpoints.save(folder / 'checkpoints', step, state)
    batch = sharding.to_host(next(self._make_batches(step)))
    distributed.by_first(lambda: np.savez(
        folder / 'batch.npz', **_by_path(batch)))


def folder_of(workdir: pathlib.Path, step: int) -> pathlib.Path:
  """Where a run that gives up at a step leaves what replays it."""
  return workdir / f'skipped_step_{step:08d}'


def replay(
    workdir: pathlib.Path, step: int, train_step: Callable, like,
    make_batches: Callable[[int], Iterator], rows: jax.sharding.Sharding,
) -> None:
  """Takes the one step that a run gave up at, and writes nothing.

  Args:
    workdir: of the run.
    step: which; the run's message names it.
    train_step: `(state, batch) -> (state, metrics)`.
    like: the state's shapes with their shardings.
    make_batches: for the batch's structure.
    rows: the batch's sharding.

  Raises:
    InputError: there is no such step, or its batch is of another shape.
    Stopped: with the step's metrics.
  """
  folder = folder_of(workdir, step)
  if not (folder / 'batch.npz').exists():
    steps = sorted(int(p.name.rpartition('_')[2])
                   for p in workdir.glob('skipped_step_*'))
    raise InputError(f'replay={step}: {workdir} gave up at no such step; '
                     f'it has {steps or "none"}')
  batch = read_batch(folder / 'batch.npz', next(make_batches(step - 1)),
                     f'replay={step}')
  state = checkpoints.restore(folder / 'checkpoints', like).state
  _, metrics = train_step(state, sharding.put(batch, rows))
  raise Stopped(f'replayed step {step}: ' + json.dumps({
      name: round(value, 6) for name, value in
      metrics_lib.to_floats(metrics).items()}))


def read_batch(path: pathlib.Path, like, what: str):
  """The batch of a file, which must have the leaves that `like` has.

  Raises:
    InputError: they differ, or the file is damaged; it begins with `what`.
  """
  leaves = _by_path(like)
  try:
    saved = np.load(path, allow_pickle=False)
    if not isinstance(saved, np.lib.npyio.NpzFile):
      raise ValueError('it holds no names')
    with saved:
      found = {name: saved[name] for name in saved.files}
  except Exception as error:  # A damaged header is parsed as Python would be.
    raise InputError(f'{what}: {path} is cut or corrupt ({error!s:.200}); '
                     'copy it again') from error
  shapes = lambda tree: {
      name: f'{leaf.dtype}{list(leaf.shape)}' for name, leaf in tree.items()}
  if shapes(found) != shapes(leaves):
    raise InputError(f'{what}: {path} holds {shapes(found)}, not '
                     f'{shapes(leaves)}; use the command that wrote it')
  return jax.tree.unflatten(
      jax.tree.structure(like), [found[name] for name in leaves])


def _by_path(tree) -> dict[str, np.ndarray]:
  """{path: leaf}, in the tree's order."""
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in
          jax.tree_util.tree_leaves_with_path(tree)}


def _briefly(rows: list[int]) -> str:
  shown = ', '.join(map(str, rows[:8]))
  return shown + (', ...' if len(rows) > 8 else '')
