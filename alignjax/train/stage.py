"""One training stage in its folder: resume, train, log, save.

    workdir/
      metrics.jsonl   one line per step
      skipped.jsonl   one line per step that nothing was learnt from
      checkpoints/    Orbax states, the newest two
      profile/        a trace of some steps, if asked for
"""

from collections.abc import Callable, Iterator
import dataclasses
import math
import pathlib

import jax
import optax

from alignjax import checkpoints
from alignjax import distributed
from alignjax import metrics as metrics_lib
from alignjax import sharding
from alignjax.models import lora
from alignjax.train import loop
from alignjax.train import skipped
from alignjax.train import stopping
from alignjax.train.state import init_state
from alignjax.train.state import shaped
from alignjax.train.step import make_train_step
from alignjax.train.step import Objective
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True)
class Stage:
  """Where and how long a stage trains."""

  name: str              # What the console and metrics.jsonl call it.
  workdir: pathlib.Path
  mesh: jax.sharding.Mesh
  num_steps: int         # Optimizer steps, or PPO iterations.
  seed: int
  save_every: int = 0    # Steps between checkpoints; 0 saves the last only.
  num_microbatches: int = 1
  profile: int = 0       # Steps that are traced into profile/.
  skip_above: float = math.inf  # Gradients longer than this are not learnt.
  skip_spikes: float = math.inf  # Nor those that stand out; deviations.
  max_skipped: int = 5   # Steps in a row without learning that end the run.
  goes_on_unsaved: bool = False  # Whether a save may fail.
  saves_in_background: bool = False  # Whether steps go on meanwhile.
  keep_best: str = ''    # A metric: the best checkpoint by it is the result.
  replay: int = 0        # A step that an earlier run gave up at.
  console: metrics_lib.Console | None = None


def run_stage(
    stage: Stage, step: Callable, state, shardings,
    make_batches: Callable[[int], Iterator], *,
    check: loop.Check | None = None, stop: loop.Stop | None = None,
):
  """Runs `step` to the stage's end, from the newest checkpoint if there is one.

  Args:
    stage: where and how long.
    step: `(state, batch) -> (state, metrics)`.
    state: where a fresh run begins; any tree of arrays.
    shardings: the same tree of shardings.
    make_batches: from a step number to the iterator that begins there. Its
      batches are host arrays.
    check: `(step, values)` raises where a step's metrics show that the run must
      not go on; see `loop.LogMetrics`.
    stop: `(step, state)` returns an exception where the run is to end, saved.

  Returns:
    The state after the last step. An interrupted stage that is run again ends
    in the state, bit for bit, of one that was not.
  """
  folder, start = stage.workdir / 'checkpoints', 0
  if checkpoints.latest_step(folder) is not None:
    state, start, _ = checkpoints.restore(folder, shaped(state, shardings))
    if stage.console is not None:
      stage.console.note(f'{stage.name}: resumed after step {start}')
  rows = sharding.batch_sharding(stage.mesh)
  if stage.replay:
    skipped.replay(stage.workdir, stage.replay, step, shaped(state, shardings),
                   make_batches, rows)
  stream = make_batches(start)
  batches = (sharding.put(batch, rows) for batch in stream)
  log = loop.LogMetrics(
      stage.workdir / 'metrics.jsonl', stage=stage.name, start=start,
      num_steps=stage.num_steps, console=stage.console, check=check)
  # A step that a checkpoint holds is a step whose line is written.
  save = loop.SaveCheckpoints(
      folder, every=stage.save_every, num_steps=stage.num_steps,
      before=log.flush, score=lambda step: _score(stage, step),
      in_background=stage.saves_in_background,
      tell=stage.console.note if (
          stage.goes_on_unsaved and stage.console) else None)
  watch = skipped.WatchSkipped(
      stage.workdir, stage=stage.name, limit=stage.max_skipped, start=start,
      make_batches=make_batches, rows_of=getattr(stream, 'rows_of', None),
      console=stage.console)
  others = () if stop is None else (loop.StopRun(stop, save),)
  if stage.profile:
    others += (loop.ProfileSteps(
        stage.workdir / 'profile', start=start, count=stage.profile,
        console=stage.console),)
  state = loop.fit(
      step, state, batches, num_steps=stage.num_steps, start=start,
      name=stage.name, console=stage.console, hooks=(
          watch, log, save, *others, stopping.DumpWhenStalled(),
          stopping.StopOnSignal(save, stage.name)))
  if stage.keep_best:
    best = checkpoints.best_step(folder)
    state = checkpoints.restore(folder, shaped(state, shardings), best).state
    if stage.console is not None:
      stage.console.note(f'{stage.name}: the model is that of step {best}, of '
                         f'the best {stage.keep_best}')
  return state


def _score(stage: Stage, step: int) -> float | None:
  """How good a step is: the mean of a metric since the save before, or less it.

  Of the file, so that a run that goes on finds what it would have found.
  """
  if not stage.keep_best or not distributed.is_first():
    return None
  rows = [row for row in metrics_lib.read_jsonl(stage.workdir / 'metrics.jsonl')
          if row['stage'] == stage.name and row['step'] > step - max(
              stage.save_every, 1)]
  if stage.keep_best not in rows[-1]:
    raise InputError(
        f'keep_best={stage.keep_best} is no metric of {stage.name}; it has '
        f'{", ".join(sorted(set(rows[-1]) - {"step", "stage"}))}')
  values = [row[stage.keep_best] for row in rows
            if math.isfinite(row.get(stage.keep_best, math.nan))]
  if not values:
    return None
  mean = sum(values) / len(values)
  return -mean if 'loss' in stage.keep_best else mean


def train(
    stage: Stage, objective: Objective, params, axes,
    optimizer: optax.GradientTransformation,
    make_batches: Callable[[int], Iterator], *,
    annotate: Callable | None = None, base=None,
):
  """Trains `params` on an objective and returns the trained ones.

  Args:
    stage: where and how long.
    objective: pure `(params, batch, key) -> (loss, metrics)`.
    params: where to start; copied.
    axes: their tree of logical axis names.
    optimizer: one step of it per batch.
    make_batches: see `run_stage`.
    annotate: `(params, batch)` adds what models say to each batch.
    base: frozen parameters on the mesh, which objective and annotator see
      joined with `params`; None if all are trained.
  """
  state, shardings = init_state(
      params, axes, optimizer, mesh=stage.mesh, seed=stage.seed)
  train_step = make_train_step(
      objective, optimizer, shardings=shardings, mesh=stage.mesh,
      num_microbatches=stage.num_microbatches, skip_above=stage.skip_above,
      skip_spikes=stage.skip_spikes,
      base_shardings=base and jax.tree.map(lambda x: x.sharding, base))
  frozen = () if base is None else (base,)

  def step(state, batch):
    if annotate:
      whole = lora.join(base, state.params) if base else state.params
      batch = annotate(whole, batch)
    return train_step(state, batch, *frozen)

  return run_stage(stage, step, state, shardings, make_batches).params
