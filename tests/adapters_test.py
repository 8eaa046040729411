"""Adapters and whole models are trained by one step; only what is held differs.
"""

import dataclasses
import gc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignjax import adapters
from alignjax import models
from alignjax import objectives
from alignjax import rollout
from alignjax import sharding
from alignjax import train
from alignjax.models import lora
from alignjax.models import quantize
from alignjax.types import InputError
from alignjax.types import PreferenceBatch

CONFIG = models.ModelConfig(
    vocab_size=64, hidden_size=64, intermediate_size=128, num_layers=2,
    num_heads=4, num_kv_heads=2, head_dim=16)
MODEL = models.CausalLM(CONFIG)
SETTINGS = lora.Lora(rank=2, targets=('query', 'value', 'down'))


def pairs(seed):
  random = np.random.RandomState(seed)
  mask = np.ones((8, 2, 12), bool)
  return PreferenceBatch(
      tokens=random.randint(0, 64, (8, 2, 12)), attention_mask=mask,
      loss_mask=mask & (np.arange(12) > 3), weight=np.ones(8, np.float32),
      strength=np.zeros(8, np.int32))


def make_trainee(mesh, kind=None):
  params = jax.jit(MODEL.init)(jax.random.key(0))
  if kind:
    params = quantize.quantize(params, kind)
  axes = quantize.quantized_axes(MODEL.axes(), params)
  base = sharding.put(params, sharding.tree_shardings(mesh, axes, params))
  return adapters.adapted(MODEL, base, SETTINGS, 'base', mesh=mesh,
                          key=jax.random.key(1))


def train_dpo(trainee, mesh, num_steps=3):
  """(trained part, losses, live bytes before the last step)."""
  objective = objectives.dpo(trainee.model, beta=1.0)
  model, params, shardings = trainee.reference(mesh)
  annotate = rollout.make_reference(
      model, params, mesh=mesh, param_shardings=shardings)
  optimizer = optax.adam(1e-2)
  state, shardings = train.init_state(
      trainee.params, trainee.axes, optimizer, mesh=mesh, seed=0)
  step = train.make_train_step(
      objective, optimizer, shardings=shardings, mesh=mesh,
      base_shardings=adapters.shardings_of(trainee.base))
  history, rows = [], sharding.batch_sharding(mesh)
  for i in range(num_steps):
    batch = sharding.put(pairs(i % 2), rows)
    batch = annotate(trainee.whole(state.params), batch)
    state, metrics = step(state, batch, trainee.base)
    history.append(float(metrics['loss'].compute()))
  return state.params, history


@pytest.mark.parametrize('kind', [None, 'int8', 'nf4'])
def test_dpo_starts_at_log_two_and_moves_the_adapters_only(mesh_of, kind):
  mesh = mesh_of('fsdp:8')
  trainee = make_trainee(mesh, kind)
  before = jax.device_get(trainee.base)
  params, losses = train_dpo(trainee, mesh, num_steps=7)
  assert losses[0] == pytest.approx(np.log(2), abs=1e-6)
  assert losses[-1] < losses[0] - 0.01
  chex.assert_trees_all_equal(jax.device_get(trainee.base), before)
  assert all(jnp.abs(new - old).max() > 0 for new, old in zip(
      jax.tree.leaves(params), jax.tree.leaves(trainee.params), strict=True))


def test_one_device_and_eight_train_the_same_adapters(mesh_of):
  got, due = (train_dpo(make_trainee(mesh_of(spec)), mesh_of(spec))[0]
              for spec in ('one', 'data:2,fsdp:2,tensor:2'))
  chex.assert_trees_all_close(
      jax.device_get(got), jax.device_get(due), atol=2e-5)


def test_reference_is_the_base_itself(mesh_of):
  trainee = make_trainee(mesh_of('one'))
  model, params, _ = trainee.reference(mesh_of('one'))
  assert params is trainee.base
  assert model == MODEL


def test_training_adapters_holds_the_base_once(mesh_of):
  mesh = mesh_of('one')
  gc.collect()
  held = lambda: sum(x.nbytes for x in jax.live_arrays())
  before = held()
  trainee = make_trainee(mesh)
  base = sum(x.nbytes for x in jax.tree.leaves(trainee.base))
  small = sum(x.nbytes for x in jax.tree.leaves(trainee.params))
  params, _ = train_dpo(trainee, mesh)
  gc.collect()
  # The base, the adapters they began as, and those they became.
  assert base <= held() - before <= base + 4 * small + 50_000
  assert base / 3 > 50_000
  del params


@pytest.mark.parametrize('kind', [None, 'nf4'])
def test_merged_model_computes_what_was_trained(mesh_of, kind):
  mesh = mesh_of('one')
  trainee = make_trainee(mesh, kind)
  params, _ = train_dpo(trainee, mesh)
  model, merged = trainee.merged(params)
  assert model == MODEL
  tokens, mask = pairs(0).tokens[:, 0], pairs(0).attention_mask[:, 0]
  np.testing.assert_allclose(
      jax.jit(model.hidden)(merged, tokens, mask),
      jax.jit(trainee.model.hidden)(trainee.whole(params), tokens, mask),
      rtol=1e-4, atol=1e-4)


def test_reward_model_trains_its_head_whole(mesh_of):
  mesh = mesh_of('one')
  trainee = make_trainee(mesh).with_head(jax.random.key(2))
  assert set(trainee.params) == {'backbone', 'head'}
  assert set(trainee.base) == {'backbone'}
  whole = trainee.whole(trainee.params)
  scalars = jax.jit(trainee.model.scalars)(
      whole, pairs(0).tokens[:, 0], pairs(0).attention_mask[:, 0])
  assert scalars.shape == (8, 12)
  model, merged = trainee.merged(trainee.params)
  assert model == models.ScalarModel(dataclasses.replace(CONFIG))
  chex.assert_trees_all_equal_shapes(
      merged, jax.eval_shape(model.init, jax.random.key(0)))


@pytest.mark.parametrize('targets', [(), ('gate',)])
def test_targets_that_no_layer_has_are_refused(mesh_of, targets):
  model = models.CausalLM(dataclasses.replace(CONFIG, gated_mlp=False))
  with pytest.raises(InputError, match='has none of these, and nothing would'):
    adapters.adapted(
        model, {}, lora.Lora(targets=targets), 'base', mesh=mesh_of('one'),
        key=jax.random.key(1))


def test_all_weights_are_one_part():
  params = jax.device_get(jax.jit(MODEL.init)(jax.random.key(0)))
  trainee = adapters.full(MODEL, params, 'base')
  assert trainee.whole(params) is params
  assert trainee.merged(params) == (MODEL, params)
