"""The step: one result, however the batch is cut, wherever it is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignjax import data
from alignjax import objectives
from alignjax import sharding
from alignjax import train
from alignjax.types import Mean

NUM_STEPS = 3
MESHES = ['data:8', 'data:2,fsdp:2,tensor:2']
IN_PARTS = ['sequence:4,data:2', 'fsdp:2,sequence:2,tensor:2']  # Of a row.


@pytest.fixture(scope='module')
def cases(tiny):
  """Per objective: itself, parameters, their axes, batches by seed.

  Those of `laid_out` hold 16 rows, and read 8 cells of two.
  """
  policy = tiny.params, tiny.model.axes()
  scalar = tiny.scalar_params, tiny.scalar.axes()
  blocked = dataclasses.replace(
      tiny.model, config=dataclasses.replace(
          tiny.model.config, attention_block=4, remat=True))
  return {
      'sft in blocks': (objectives.sft(blocked, chunk_size=4), *policy,
                        tiny.tokens),
      'sft': (objectives.sft(tiny.model), *policy, tiny.tokens),
      'reward': (objectives.reward(tiny.scalar, centering=0.1), *scalar,
                 tiny.pairs),
      'dpo': (objectives.dpo(tiny.model), *policy, tiny.pairs),
      'sft of 16': (objectives.sft(tiny.model), *policy,
                    lambda seed: tiny.tokens(seed, 16)),
      'sft packed': (
          objectives.sft(tiny.model), *policy, lambda seed: laid_out(
              'packed', tiny.tokens(seed, 16))),
      'dpo of 16': (objectives.dpo(tiny.model), *policy,
                    lambda seed: of_one_prompt(tiny.pairs(seed, 16))),
      'dpo branched': (
          objectives.dpo(tiny.model), *policy, lambda seed: laid_out(
              'branched', of_one_prompt(tiny.pairs(seed, 16)))),
  }


def laid_out(kind, batch):
  """Rows of a batch that eight devices, or two with four microbatches, read."""
  return data.make_layout(kind, num_cells=8)(batch)


def of_one_prompt(pairs):
  """Pairs whose sides answer the same prompt of three tokens."""
  pairs.tokens[:, 1, :3] = pairs.tokens[:, 0, :3]
  return pairs


@pytest.fixture(scope='module')
def trained(cases, mesh_of, num_compiled):
  """Parameters, metrics and programs compiled of a short run, cached."""
  results = {}

  def run(name, spec='one', num_microbatches=1):
    key = name, spec, num_microbatches
    if key not in results:
      objective, params, axes, make_batch = cases[name]
      mesh, optimizer = mesh_of(spec), optax.adam(1e-2)
      state, shardings = train.init_state(
          params, axes, optimizer, mesh=mesh, seed=0)
      step = train.make_train_step(
          objective, optimizer, shardings=shardings, mesh=mesh,
          num_microbatches=num_microbatches)
      rows, history, compiled = sharding.batch_sharding(mesh), [], []
      for seed in range(NUM_STEPS):
        before = num_compiled()
        state, metrics = step(state, sharding.put(make_batch(seed), rows))
        history.append(jax.device_get(metrics))
        compiled.append(num_compiled() - before)
      assert state.step == NUM_STEPS
      results[key] = jax.device_get(state.params), history, compiled
    return results[key]

  return run


@pytest.mark.parametrize('name', ['sft', 'reward', 'dpo'])
def test_four_microbatches_equal_one(name, trained, assert_close):
  params, metrics, _ = trained(name)
  cut_params, cut_metrics, _ = trained(name, num_microbatches=4)
  assert_close(cut_params, params, atol=1e-5)
  assert_close(cut_metrics, metrics, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('padded, shared', [
    ('sft of 16', 'sft packed'), ('dpo of 16', 'dpo branched')])
def test_rows_that_are_shared_change_no_step_however_it_is_cut(
    padded, shared, trained, assert_close):
  params, metrics, _ = trained(padded)
  for settings in ((), ('one', 4), ('data:8',)):
    shared_params, shared_metrics, _ = trained(shared, *settings)
    assert_close(shared_params, params, atol=1e-5)
    assert_close(shared_metrics, metrics, rtol=1e-4, atol=1e-5)


def test_microbatches_hold_unequal_numbers_of_tokens(tiny):
  """Else a mean of means would pass for the mean."""
  batch = tiny.tokens(0)
  tokens = (batch.loss_mask * batch.weight[:, None]).sum(axis=1)
  assert len({tokens[i::4].sum() for i in range(4)}) > 2


@pytest.mark.parametrize('name', ['sft', 'reward', 'dpo'])
def test_training_moves_every_parameter(name, cases, trained):
  params, history, _ = trained(name)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params,
                       cases[name][1])
  assert min(jax.tree.leaves(moved)) > 1e-3  # A hundred times the tolerance.
  assert all(np.isfinite(m['grad_norm'].total) for m in history)


@pytest.mark.parametrize('name, spec', [
    *(('sft', spec) for spec in MESHES), ('dpo', MESHES[-1]),
    *(('sft', spec) for spec in IN_PARTS), ('dpo branched', IN_PARTS[-1]),
    ('reward', IN_PARTS[-1])])
def test_eight_devices_equal_one(name, spec, trained, assert_close):
  params, metrics, _ = trained(name)
  far_params, far_metrics, _ = trained(name, spec)
  assert_close(far_params, params, atol=1e-5)
  assert_close(far_metrics, metrics, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('spec', IN_PARTS)
def test_blocks_of_a_row_in_parts_equal_the_row(spec, trained, assert_close):
  params, metrics, _ = trained('sft')
  far_params, far_metrics, compiled = trained('sft in blocks', spec)
  assert_close(far_params, params, atol=1e-5)
  assert_close(far_metrics, metrics, rtol=1e-4, atol=1e-5)
  assert compiled == [1, 0, 0]


def test_eight_devices_and_two_microbatches_equal_one_of_each(
    trained, assert_close):
  params, _, _ = trained('sft', MESHES[-1], 2)
  assert_close(params, trained('sft')[0], atol=1e-5)


@pytest.mark.parametrize('run', [
    ('sft',), ('sft', 'one', 4), ('sft', 'data:8'), ('sft', MESHES[-1], 2),
    ('dpo', MESHES[-1])])
def test_a_run_compiles_its_step_once(run, trained):
  _, _, compiled = trained(*run)
  assert compiled == [1, 0, 0]


def quadratic(params, batch, key):
  """½ (w − x)² of each row, plus noise of no gradient that shows the key."""
  loss = 0.5 * jnp.square(params['w'] - batch['x'])
  noise = jax.random.uniform(key)
  return Mean.of(loss, batch['weight']), {'noise': Mean(noise, jnp.float32(1))}


def test_an_sgd_step_is_the_gradient_of_the_weighted_mean():
  update = jax.jit(train.make_update(
      quadratic, optax.sgd(0.5), num_microbatches=2))
  state = train.TrainState(
      step=jnp.int32(0), params={'w': jnp.float32(1.0)},
      opt_state=optax.sgd(0.5).init({'w': jnp.float32(1.0)}),
      key=jax.random.key(0))
  batch = {'x': jnp.array([2.0, 5.0, 9.0, 3.0]),
           'weight': jnp.array([1.0, 2.0, 0.0, 1.0])}
  # Mean gradient (−1 − 2 · 4 − 2) / 4 = −2.75, so w = 1 + 2.75 / 2.
  after, metrics = update(state, batch)
  np.testing.assert_allclose(after.params['w'], 2.375)
  np.testing.assert_allclose(metrics['grad_norm'].compute(), 2.75)
  np.testing.assert_allclose(metrics['loss'], (0.5 + 16 + 2, 4))
  nothing, metrics = update(state, batch | {'weight': jnp.zeros(4)})
  assert nothing.params['w'] == 1 and metrics['loss'].compute() == 0


def test_the_key_is_folded_by_step_and_microbatch_and_never_split():
  state = train.TrainState(
      step=jnp.int32(0), params={'w': jnp.float32(1.0)},
      opt_state=optax.sgd(0.5).init({'w': jnp.float32(1.0)}),
      key=jax.random.key(0))
  batch = {'x': jnp.zeros(4), 'weight': jnp.ones(4)}
  expected = lambda step, i: float(jax.random.uniform(jax.random.fold_in(
      jax.random.fold_in(jax.random.key(0), step), i)))
  for num_microbatches in (1, 2):
    update = jax.jit(train.make_update(
        quadratic, optax.sgd(0.5), num_microbatches=num_microbatches))
    now = state
    for step in range(2):
      now, metrics = update(now, batch)
      np.testing.assert_allclose(
          metrics['noise'].total,
          sum(expected(step, i) for i in range(num_microbatches)), rtol=1e-6)
      np.testing.assert_array_equal(jax.random.key_data(now.key),
                                    jax.random.key_data(state.key))


def test_the_state_that_goes_in_is_donated(tiny, mesh_of):
  mesh, optimizer = mesh_of('one'), optax.sgd(0.1)
  state, shardings = train.init_state(
      {'w': np.float32(1)}, {'w': jax.sharding.PartitionSpec()}, optimizer,
      mesh=mesh, seed=0)
  step = train.make_train_step(
      quadratic, optimizer, shardings=shardings, mesh=mesh)
  batch = sharding.put({'x': np.zeros(4, np.float32),
                        'weight': np.ones(4, np.float32)},
                       sharding.batch_sharding(mesh))
  after, _ = step(state, batch)
  assert state.params['w'].is_deleted() and not after.params['w'].is_deleted()
