"""Annotators give what the scoring functions give, compiled once."""

import jax
import numpy as np
import pytest

from alignjax import data
from alignjax import models
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax.types import merge_cells
from alignjax.types import PreferenceBatch

CONFIG = models.ModelConfig(
    vocab_size=16, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=2, head_dim=8)
MODEL, REWARD = models.CausalLM(CONFIG), models.ScalarModel(CONFIG)


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh('data:4,tensor:2')


def on_mesh(model, mesh, seed):
  params = model.init(jax.random.key(seed))
  shardings = sharding.tree_shardings(mesh, model.axes(), params)
  return sharding.put(params, shardings), shardings, params


def make_pairs(seed, mesh):
  rng = np.random.default_rng(seed)
  real = np.arange(6) < rng.integers(3, 7, (4, 2, 1))
  return sharding.put(PreferenceBatch(
      tokens=rng.integers(1, 16, (4, 2, 6), np.int32), attention_mask=real,
      loss_mask=real & (np.arange(6) > 1),
      weight=np.array([1, 1, 1, 0], np.float32)),
      sharding.batch_sharding(mesh))


def test_the_reference_adds_the_logprobs_of_each_response_token(mesh):
  params, shardings, host = on_mesh(MODEL, mesh, 0)
  annotate = rollout.make_reference(
      MODEL, params, mesh=mesh, param_shardings=shardings)
  for seed in (0, 1):
    batch = make_pairs(seed, mesh)
    assert batch.ref_logprobs is None
    annotated = annotate(None, batch)
    tokens, attention, loss = jax.device_get(
        (batch.tokens, batch.attention_mask, batch.loss_mask))
    logprobs = np.asarray(jax.jit(scoring.token_logprobs, static_argnums=0)(
        MODEL, host, tokens.reshape(8, 6), attention.reshape(8, 6)))
    expected = np.where(loss, logprobs.reshape(4, 2, 6), 0)
    np.testing.assert_allclose(annotated.ref_logprobs, expected, atol=1e-5)
    np.testing.assert_array_equal(annotated.tokens, tokens)
  assert annotate.jitted._cache_size() == 1


def test_the_reference_reads_shared_rows_and_answers_for_each_response(mesh):
  params, shardings, _ = on_mesh(MODEL, mesh, 0)
  annotate = rollout.make_reference(
      MODEL, params, mesh=mesh, param_shardings=shardings)
  pairs = jax.device_get(make_pairs(0, mesh))
  expected = annotate(None, pairs).ref_logprobs
  laid_out = annotate(None, sharding.put(
      data.make_layout('branched', num_cells=4)(pairs),
      sharding.batch_sharding(mesh)))
  assert laid_out.ref_logprobs.shape == (4, 1, 2, 6)
  np.testing.assert_allclose(
      merge_cells(laid_out).ref_logprobs[:3], expected[:3], atol=1e-5)


def test_the_reward_is_read_at_the_last_real_token_and_compiled_once(mesh):
  params, shardings, host = on_mesh(REWARD, mesh, 1)
  reward = rollout.make_reward_fn(
      REWARD, params, mesh=mesh, param_shardings=shardings)
  rng = np.random.default_rng(2)
  tokens = rng.integers(1, 16, (4, 6), np.int32)
  scalars = np.asarray(jax.jit(REWARD.scalars)(
      host, tokens, np.ones((4, 6), bool)))
  for lengths in ([6, 5, 2, 1], [1, 2, 3, 4]):
    mask = np.arange(6) < np.array(lengths)[:, None]
    rows = sharding.put((tokens, mask), sharding.batch_sharding(mesh))
    np.testing.assert_allclose(
        reward(*rows), scalars[np.arange(4), np.array(lengths) - 1], atol=1e-5)
  assert reward.jitted._cache_size() == 1
