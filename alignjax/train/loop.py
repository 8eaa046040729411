"""The loop: threads an immutable state through a step, and tells about it."""

from collections.abc import Callable, Iterable
import warnings

import jax
import numpy as np

from alignjax import checkpoints
from alignjax import metrics as metrics_lib

# Called after each step is dispatched, with the number of steps taken so far,
# the new state, the metrics still on the device, and the tokens of the batch.
Hook = Callable[[int, object, dict, int], None]

# Called with a step and its metrics as numbers; raises where they show that the
# run must not go on.
Check = Callable[[int, dict[str, float]], None]

# Called after a step with its number and the new state; what it returns, if not
# None, is raised once the state has been saved.
Stop = Callable[[int, object], Exception | None]


def fit(
    step: Callable,
    state,
    batches: Iterable,
    *,
    num_steps: int,
    start: int = 0,
    name: str = 'train',
    hooks: Iterable[Hook] = (),
    console: metrics_lib.Console | None = None,
):
  """Takes steps `start` to `num_steps` and returns the last state.

  Step N is dispatched before the metrics of step N − 1 are read, so the device
  never waits for the host. A batch shape met for the first time is announced,
  since it compiles.

  Args:
    step: `(state, batch) -> (state, metrics)`; may donate `state`.
    state: where to begin.
    batches: an iterator that begins at step `start`'s batch.
    num_steps: optimizer steps (or PPO iterations) in all.
    start: steps that were taken before, by a run that this one resumes.
    name: what the console calls it.
    hooks: called after every step, in order; those with a `close` are closed.
    console: tells about compiling; None is silent.

  Returns:
    The state after `num_steps` steps.
  """
  hooks, shapes = tuple(hooks), set()
  batches = iter(batches)
  try:
    for i in range(start, num_steps):
      batch = next(batches)
      shape = tuple(x.shape for x in jax.tree.leaves(batch))
      if shape not in shapes and console is not None:
        with console.working(f'{name}: compiling for {_shape_of(batch)}'):
          state, metrics = jax.block_until_ready(step(state, batch))
      else:
        state, metrics = step(state, batch)
      shapes.add(shape)
      tokens = _count(batch.attention_mask)
      for hook in hooks:
        hook(i + 1, state, metrics, tokens)
  finally:
    for hook in hooks:
      if hasattr(hook, 'close'):
        hook.close()
  return state


def _count(mask) -> int:
  """How many are true, of an array that may lie on other processes too.

  Counted on the host: on the device, the sum would queue behind the step.
  """
  if not isinstance(mask, jax.Array) or mask.is_fully_addressable:
    return int(np.count_nonzero(np.asarray(mask)))
  own = sum(np.count_nonzero(np.asarray(shard.data))
            for shard in mask.addressable_shards)
  return int(own) * jax.process_count()  # About: a line for people.


def _shape_of(batch) -> str:
  """What a batch is told by, and with it what the model reads of it."""
  rows = getattr(batch, 'rows', None)  # Prompts have none.
  shape = str(list(jax.tree.leaves(batch)[0].shape))
  return shape if rows is None else (
      f'{shape} in rows of {list(rows.tokens.shape)}')


# What a person watches, before whatever else there is.
_TOLD_FIRST = ('loss', 'reward', 'gold', 'kl', 'accuracy', 'margin')


def _place_in_line(name: str) -> int:
  """Where on the progress line a metric stands."""
  told = name in _TOLD_FIRST
  return _TOLD_FIRST.index(name) if told else len(_TOLD_FIRST)


class LogMetrics:
  """Writes metrics.jsonl and the progress line, one step behind the device."""

  def __init__(
      self, path, *, stage: str, num_steps: int,
      console: metrics_lib.Console | None = None, start: int = 0,
      check: Check | None = None,
  ):
    """Opens the file; on resume, drops lines of steps after `start`.

    `check` sees each line first. What it refuses is not written, nor is a
    checkpoint of that step or a later one, since those wait for the line.
    """
    self._check = check
    self._writer = metrics_lib.JsonlWriter(path)
    self._writer.truncate_after(start, stage)
    self._stage = stage
    self._progress = (
        console.progress(stage, num_steps) if console is not None else None)
    self._pending = None

  def __call__(self, step, state, metrics, tokens):
    del state
    self.flush()
    self._pending = step, metrics, tokens

  def flush(self):
    """Writes the line of the last step, waiting for the device."""
    if self._pending is None:
      return
    step, metrics, tokens = self._pending
    self._pending = None
    values = metrics_lib.to_floats(metrics)
    if self._check is not None:
      self._check(step, values)
    self._writer.write(step, self._stage, values)
    if self._progress is not None:
      told = sorted(values, key=_place_in_line)
      self._progress.update(step, {name: values[name] for name in told}, tokens)

  def close(self):
    """Writes the last step's line."""
    self.flush()
    self._writer.close()
    if self._progress is not None:
      self._progress.close()


class SaveCheckpoints:
  """Saves the state every `every` steps, and after the last."""

  def __init__(
      self, directory, *, every: int, num_steps: int, keep: int = 2,
      before: Callable[[], None] | None = None,
      tell: Callable[[str], None] | None = None,
      in_background: bool = False,
      score: Callable[[int], float | None] = lambda step: None,
  ):
    """Calls `before` ahead of each save, to write what the state implies.

    A save that fails ends the run, or is told to `tell` if there is one: the
    next save is then tried in its turn. `in_background`, steps go on while a
    copy of the state is written; the last save is waited for. `score` says how
    good a step is, once what the state implies is written; the best is kept.
    """
    self._directory, self._every, self._tell = directory, every, tell
    self._num_steps, self._keep, self._before = num_steps, keep, before
    self._saved, self._in_background = None, in_background
    self._score = score
    self._saver = checkpoints.BackgroundSaver()

  def __call__(self, step, state, metrics, tokens):
    del metrics, tokens
    self._try(self._saver.check)
    if step == self._num_steps:
      self.save(step, state)
    elif self._every and step % self._every == 0:
      self._write(self._saver.save if self._in_background else checkpoints.save,
                  step, state)

  def save(self, step, state) -> bool:
    """Saves the state of a step, once; False if that failed and was told."""
    if step == self._saved and self._try(self._saver.wait):
      return True
    return self._write(checkpoints.save, step, state)

  def close(self):
    """Waits for what is being written."""
    if error := self._saver.close():
      warnings.warn(str(error), stacklevel=2)

  def _write(self, save, step, state) -> bool:
    """Writes what the state implies, then the state."""
    if self._before is not None:
      self._before()
    self._try(self._saver.wait)  # What it tells is of an earlier step.
    if not self._try(lambda: save(
        self._directory, step, state, keep=self._keep,
        score=self._score(step))):
      return False
    self._saved = step
    return True

  def _try(self, act: Callable[[], None]) -> bool:
    """False if a save failed and that was told."""
    try:
      act()
    except checkpoints.SaveError as error:
      if self._tell is None:
        raise
      self._saved = None
      self._tell(f'warning: {error}')
      return False
    return True


class ProfileSteps:
  """Writes a trace of some steps, from the third on: two compile."""

  def __init__(self, directory, *, start: int, count: int,
               console: metrics_lib.Console | None = None):
    """Traces `count` steps of a run that begins behind step `start`."""
    self._directory, self._console = str(directory), console
    self._first, self._last = start + 2, start + 2 + count
    self._is_on = False

  def __call__(self, step, state, metrics, tokens):
    del metrics, tokens
    if step in (self._first, self._last):
      jax.block_until_ready(state)  # What was dispatched before is none of it.
    if step == self._first:
      jax.profiler.start_trace(self._directory)
      self._is_on = True
    elif step == self._last:
      self.close()

  def close(self):
    """Ends the trace, if one is being written."""
    if not self._is_on:
      return
    self._is_on = False
    jax.profiler.stop_trace()
    if self._console is not None:
      self._console.note(f'profile: {self._directory}')


class StopRun:
  """Ends a run after a step whose state asks for it, and saves that first."""

  def __init__(self, stop: Stop, save: SaveCheckpoints):
    """`stop` is asked after each step."""
    self._stop, self._save = stop, save

  def __call__(self, step, state, metrics, tokens):
    del metrics, tokens
    error = self._stop(step, state)
    if error is not None:
      self._save.save(step, state)
      raise error
