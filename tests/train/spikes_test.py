"""Losses and gradients that stand out from the run's are not learnt from."""

import itertools
import json

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import optax
import pytest

from alignjax import checkpoints
from alignjax import train
from alignjax.train import spikes
from alignjax.types import Mean

PARAMS = {'layers': {'w': np.ones((2, 4), np.float32)}, 'b': np.ones(
    4, np.float32)}
AXES = {'layers': {'w': PartitionSpec(None, None)}, 'b': PartitionSpec(None)}


@flax.struct.dataclass
class Rows:
  """A batch of points."""

  x: jax.Array               # [8, 4]
  attention_mask: jax.Array  # [8, 1] bool, which the loop counts.


def objective(params, rows, key):
  """A bowl whose floor is where the rows lie."""
  del key
  off = params['layers']['w'].sum(0) + params['b'] - rows.x
  return Mean.of(jnp.sum(off**2, axis=1), jnp.ones(len(rows.x))), {}


def rows_of(step, spiky=()):
  rows = np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)
  return Rows(rows * (50 if step in spiky else 1), np.ones((8, 1), bool))


def judged(history, loss, norm, deviations):
  """The rule again, in numpy, over lists."""
  if len(history) < spikes.LEAST:
    return False
  ring = np.array(history[-spikes.WINDOW:], np.float32)
  means, spread = ring.mean(0), ring.std(0)
  spread = np.maximum(spread, np.maximum(0.01 * np.abs(means), 1e-6))
  return bool(np.any(np.array([loss, norm]) > means + deviations * spread))


@pytest.mark.parametrize('deviations', [1.0, 2.0])
def test_steps_are_judged_as_numpy_judges_them(deviations):
  optimizer = train.make_optimizer(1e-3, 300, remembers=True)
  update = jax.jit(train.make_update(
      objective, optimizer, skip_spikes=deviations))
  state = train.TrainState(
      step=jnp.zeros((), jnp.int32), params=PARAMS,
      opt_state=optimizer.init(PARAMS), key=jax.random.key(0))
  history, skipped = [], 0
  for step in range(300):  # Round the ring twice.
    new, metrics = update(state, rows_of(step))
    loss, norm, was = (float(metrics[name].compute())
                       for name in ('loss', 'grad_norm', 'skipped'))
    assert was == judged(history, loss, norm, deviations)
    if was:
      jax.tree.map(np.testing.assert_array_equal, new.params, state.params)
      jax.tree.map(
          np.testing.assert_array_equal, new.opt_state, state.opt_state)
    else:
      history.append((loss, norm))
    skipped, state = skipped + was, new
  assert 0 < skipped < 150


@pytest.mark.parametrize('loss, is_spike', [(2.11, False), (2.13, True)])
@pytest.mark.parametrize('of', ['loss', 'norm'])
def test_a_run_that_does_not_vary_is_allowed_a_hundredth(of, loss, is_spike):
  optimizer = spikes.remember()
  state = optimizer.init({})
  grads = {'w': jnp.full((), 2.0)}
  for count in range(spikes.LEAST):
    assert not spikes.is_spike(state, jnp.inf, jnp.inf, 6.0), count
    _, state = optimizer.update(grads, state, loss=jnp.full((), 2.0))
  values = (loss, 2.0) if of == 'loss' else (2.0, loss)
  assert spikes.is_spike(state, *values, 6.0) == is_spike
  assert not spikes.is_spike(state, *values, np.inf)


def test_without_a_memory_there_is_nothing_to_stand_out_from():
  state = optax.adam(1e-3).init(PARAMS)
  with pytest.raises(ValueError, match='the optimizer remembers no steps'):
    spikes.is_spike(state, 0.0, 0.0, 6.0)


@pytest.fixture(scope='module')
def run(mesh_of):
  """Runs 60 steps of the bowl, with a spike at step 41."""
  mesh = mesh_of('data:8')

  def run(workdir, num_steps=60, **changes):
    optimizer = train.make_optimizer(1e-2, 60, remembers=True, **changes)
    state, shardings = train.init_state(
        PARAMS, AXES, optimizer, mesh=mesh, seed=0)
    step = train.make_train_step(
        objective, optimizer, shardings=shardings, mesh=mesh, skip_spikes=6.0)
    batches = lambda start: (
        rows_of(i, spiky={40}) for i in itertools.count(start))
    stage = train.Stage('bowl', workdir, mesh, num_steps, seed=0)
    return train.run_stage(stage, step, state, shardings, batches)

  return run


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, *(
      jax.device_get((x.params, x.opt_state)) for x in (a, b)))


def test_a_resumed_run_judges_as_one_that_never_stopped(run, tmp_path):
  whole = run(tmp_path / 'whole')
  lines = (tmp_path / 'whole' / 'skipped.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [41]
  run(tmp_path / 'parts', 36)  # As many as its memory must bring along.
  assert checkpoints.latest_step(tmp_path / 'parts' / 'checkpoints') == 36
  same(run(tmp_path / 'parts'), whole)
  for name in ('metrics.jsonl', 'skipped.jsonl'):
    assert (tmp_path / 'parts' / name).read_bytes() == (
        tmp_path / 'whole' / name).read_bytes()


def test_an_offloaded_optimizer_remembers_the_same(
    run, tmp_path, assert_close):
  there, here = run(tmp_path / 'host', offload=True), run(tmp_path / 'device')
  assert_close(there.opt_state, here.opt_state, rtol=1e-5)
