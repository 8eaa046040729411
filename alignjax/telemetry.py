"""Watches a run for reward hacking, and does what it was told to about it.

    iteration ─► observe ─► telemetry.jsonl ─► findings ─► alarm ─► note, stop,
                 responses   one line each     3 looks in a row    raise_kl ...

`evaluation.hacking` says what is looked for. A look takes `WINDOW` responses or
more, so small batches share one; the first looks are what all later ones are
compared with. A run that goes on reads its file first, and so sees what the
uninterrupted one would have seen.
"""

from collections.abc import Callable, Iterator, Sequence
import json
import pathlib
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import checkpoints
from alignjax import distributed
from alignjax import evaluation
from alignjax import hf
from alignjax import runs
from alignjax import sharding
from alignjax import train
from alignjax.evaluation import hacking
from alignjax.types import InputError
from alignjax.types import Mean
from alignjax.types import Trajectory

# What is done on an alarm: nothing but to say it; end the run, to be looked at
# or to collect fresh preferences; or make the reference pull harder.
OnHack = Literal['note', 'stop', 'refresh', 'raise_kl']

WINDOW = 128       # Responses of a look, at least.
FIRST_LOOKS = 2    # Which later ones are compared with.
KL_FACTOR = 2.0    # By which raise_kl multiplies the coefficient,
KL_FLOOR = 0.05    # 1/nats, or where it then stands at least.
_KEPT = 20         # Openings and phrases of a look that are written down.

# (texts, rewards, nats, disagreement) of an iteration.
_NUMBERS = ('length', 'length_correlation', 'length_worth', 'lists',
            'confidence', 'hedges')


class Alarm(NamedTuple):
  """A finding that lasted."""

  name: str  # See `evaluation.hacking`.
  step: int  # The iteration that it was named at.
  text: str


class Hacked(InputError):
  """Ends a run after an alarm; holds the state that it ended in."""

  def __init__(self, message: str, state):
    super().__init__(message)
    self.state = state


class Watch:
  """Follows the responses of a run, an iteration at a time."""

  def __init__(
      self, path: pathlib.Path, decode: Callable[[Sequence[int]], str], *,
      eos_id: int, kl_budget: float | None = None, start: int = 0,
      limits: hacking.Limits = hacking.LIMITS,
      others: Sequence[Callable[[Trajectory], jax.Array]] = (),
      note: Callable[[str], None] = lambda text: None,
  ):
    """Reads the file, and goes on after iteration `start`.

    Args:
      path: of telemetry.jsonl.
      decode: from a response's tokens to its text.
      eos_id: the token that ends a response.
      kl_budget: nats per response that are meant to be spent; None is any.
      start: iterations that lie behind; later lines of the file are dropped.
      limits: what is too much.
      others: more reward models, `(trajectory) -> [B]`, that score the samples
        and are not learnt from; how far all disagree is measured.
      note: told of each alarm.
    """
    self._decode, self._eos_id, self._budget = decode, eos_id, kl_budget
    self._limits, self._others, self._note = limits, others, note
    self.step, self.alarms, self.fresh = 0, [], []
    self._first, self._waiting, self._streak = [], [], {}
    self._scales = []  # (mean, deviation) of each reward model, at first.
    self._path, kept = path, []
    for number, line in _lines(path):
      if line['step'] > start:
        break
      try:
        self._take(line)
      except (KeyError, TypeError, ValueError, AttributeError,
              OverflowError) as error:
        raise InputError(f'{path}:{number}: no line of telemetry ({error!r:.80}'
                         '); mend it, or delete the file') from error
      kept.append(json.dumps(line) + '\n')
    if distributed.is_first():
      draft = path.with_name(path.name + '.tmp')
      draft.write_text(''.join(kept))
      draft.replace(path)
    self.step, self.fresh = start, []

  @classmethod
  def of(cls, run: runs.Run, tokenizer: hf.Tokenizer, *,
         kl_budget: float | None, others=()) -> 'Watch':
    """The watch of a run's folder, where its newest checkpoint left it."""
    return cls(
        run.workdir / 'telemetry.jsonl', tokenizer.decode,
        eos_id=tokenizer.eos_id, kl_budget=kl_budget, others=others,
        start=checkpoints.intact_step(run.workdir / 'checkpoints') or 0,
        note=run.console.note)

  def observe(self, trajectory: Trajectory) -> dict[str, Mean]:
    """Looks at an iteration's responses; returns numbers for its metrics."""
    self.step += 1
    self.fresh = []
    line = {'step': self.step} | self._sample(trajectory)
    told = self._take(line)
    self._write(line)
    for alarm in self.fresh:
      self._note(f'iteration {alarm.step}: {alarm.name}: {alarm.text}')
    return {f'hack_{name}': Mean(np.float32(told[name]), np.float32(1.0))
            for name in told}

  def summary(self) -> dict:
    """For summary.json: what was named, and when."""
    return {'alarms': [alarm._asdict() for alarm in self.alarms]}

  def _sample(self, trajectory: Trajectory) -> dict:
    """What of a trajectory is looked at, as a line of the file."""
    answers = evaluation.read_responses(trajectory, eos_id=self._eos_id)
    real = sharding.to_host(trajectory.weight) > 0
    rewards = [sharding.to_host(x)[real] for x in (
        trajectory.reward, *(f(trajectory) for f in self._others))]
    kl = trajectory.kl if trajectory.kl is not None else (
        trajectory.logprobs - trajectory.ref_logprobs)
    kl = jnp.sum(kl, axis=-1, where=trajectory.response_mask)
    return {'kl': float(np.mean(sharding.to_host(kl)[real])),
            'rewards': [r.astype(float).round(6).tolist() for r in rewards],
            'responses': [self._decode(a.tokens) for a in answers]}

  def _take(self, line: dict) -> dict[str, float]:
    """Adds a line to what was seen; a full window is looked at, in the line."""
    self._waiting.append(line)
    if 'look' not in line:
      if sum(len(w['rewards'][0]) for w in self._waiting) < WINDOW:
        return {}
      line['look'] = self._look()
      if len(self._waiting) == 1:  # No resumed run needs them again.
        del line['responses'], line['rewards']
    self._waiting = []
    return self._judge(line['step'], line['look'])

  def _look(self) -> dict:
    """The measures of the responses that wait."""
    texts = [text for w in self._waiting for text in w['responses']]
    rewards = np.concatenate([w['rewards'] for w in self._waiting], axis=1)
    look = hacking.measure(texts, rewards[0])._asdict()
    if len(self._first) >= FIRST_LOOKS:
      for name in ('openings', 'phrases'):
        top = sorted(look[name].items(), key=lambda x: (-x[1], x[0]))
        look[name] = dict(top[:_KEPT])
    look['kl'] = float(np.mean([w['kl'] for w in self._waiting]))
    if len(rewards) > 1:
      look['scales'] = [[float(np.mean(r)), float(np.std(r)) or 1.0]
                        for r in rewards]
      scales = np.array(self._scales or look['scales'])
      rewards = (rewards - scales[:, :1]) / scales[:, 1:]
      look['disagreement'] = float(np.mean(np.std(rewards, axis=0)))
    return look

  def _judge(self, step: int, look: dict) -> dict[str, float]:
    """Compares a look with the first; notes what lasted."""
    measures = hacking.Measures(**{
        name: look[name] for name in hacking.Measures._fields})
    told = {name: look[name] for name in _NUMBERS}
    if 'disagreement' in look:
      told['disagreement'] = look['disagreement']
      self._scales = self._scales or look['scales']
    if len(self._first) < FIRST_LOOKS:
      self._first.append((measures, look.get('disagreement')))
      return told | {'opening': 0.0, 'phrases': 0.0}
    first = hacking.pool([m for m, _ in self._first])
    apart = None if 'disagreement' not in look else (
        look['disagreement'], float(np.mean([d for _, d in self._first])))
    found = hacking.diagnose(
        measures, first, limits=self._limits, disagreement=apart,
        kl=look['kl'], kl_budget=self._budget)
    self._streak = {f.name: self._streak.get(f.name, 0) + 1 for f in found}
    named = {alarm.name for alarm in self.alarms}
    self.fresh = [
        Alarm(f.name, step, f.text) for f in found
        if self._streak[f.name] >= self._limits.looks and f.name not in named]
    self.alarms += self.fresh
    gain = lambda now, then: max(
        (share - then.get(key, 0.0) for key, share in now.items()), default=0.0)
    return told | {'opening': gain(measures.openings, first.openings),
                   'phrases': gain(measures.phrases, first.phrases)}

  def _write(self, line: dict) -> None:
    """One line of the file."""
    if distributed.is_first():
      with self._path.open('a') as file:
        file.write(json.dumps(line) + '\n')


def _lines(path: pathlib.Path) -> Iterator[tuple[int, dict]]:
  """(number, line) of the file, but not of a last line that was cut short."""
  text = path.read_bytes() if path.exists() else b''
  for number, line in enumerate(text.splitlines(keepends=True), start=1):
    try:
      value = json.loads(line)
      if not isinstance(value['step'], int):
        raise TypeError('step is no whole number')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      if not line.endswith(b'\n'):
        return
      raise InputError(f'{path}:{number}: no line of telemetry ({error!r:.80});'
                       ' mend it, or delete the file') from error
    yield number, value


def both(*observers: Callable[[Trajectory], dict] | None):
  """One observer that asks all of them; None asks nobody."""

  def observe(trajectory):
    metrics = {}
    for observer in filter(None, observers):
      metrics |= observer(trajectory)
    return metrics

  return observe


def acting(iterate: Callable, watch: Watch, on_hack: OnHack) -> Callable:
  """The iteration, after which `raise_kl` has had its effect.

  Each alarm raises the coefficient once, by `KL_FACTOR`, to `KL_FLOOR` at
  least. Nothing is compiled anew: the state's shapes are as they were.
  """
  if on_hack != 'raise_kl':
    return iterate

  def act(state, batch):
    state, metrics = iterate(state, batch)
    for _ in watch.fresh:
      state = state._replace(kl=jax.tree.map(_raised, state.kl))
    return state, metrics

  return act


def stopping(watch: Watch, on_hack: OnHack) -> train.Stop:
  """`(step, state)` raises `Hacked` on a fresh alarm, where that was asked."""

  def stop(step, state):
    if on_hack not in ('stop', 'refresh') or not watch.fresh:
      return None
    said = '; '.join(f'{a.name}: {a.text}' for a in watch.fresh)
    then = ('look at report.html and telemetry.jsonl; --resume goes on all the '
            'same') if on_hack == 'stop' else (
                'collect preferences on the responses of model/, train the '
                'reward model on these too, and go on from model/ with it')
    return Hacked(
        f'iteration {step}: the reward model is being hacked ({said}); saved, '
        f'and stopped by on_hack={on_hack}: {then}', state)

  return stop


def _raised(coef: jax.Array) -> jax.Array:
  """The coefficient after an alarm, where and as it was."""
  raised = jnp.maximum(coef * KL_FACTOR, KL_FLOOR).astype(coef.dtype)
  return jax.device_put(raised, coef.sharding)
