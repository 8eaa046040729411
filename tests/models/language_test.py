"""The decoder: causality, padding, branches, the cache, layer scan, heads."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from alignjax import models

CONFIG = models.ModelConfig(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_layers=2,
    num_heads=4, num_kv_heads=2, head_dim=4)
MODEL = models.CausalLM(CONFIG)
PARAMS = MODEL.init(jax.random.key(0))
TOKENS = jax.random.randint(jax.random.key(1), (2, 6), 0, 31)
FULL = jnp.ones((2, 6), bool)


def hidden(tokens, mask, **kwargs):
  return MODEL.hidden(PARAMS, tokens, mask, **kwargs)


def test_hidden_states_do_not_depend_on_later_tokens():
  changed = TOKENS.at[:, 4].set((TOKENS[:, 4] + 1) % 31)
  before, after = hidden(TOKENS, FULL), hidden(changed, FULL)
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert jnp.abs(before[:, 4:] - after[:, 4:]).min(axis=-1).max() > 0


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding_changes_no_hidden_state(side):
  wide = ((0, 0), (3, 0)) if side == 'left' else ((0, 0), (0, 3))
  padded = hidden(jnp.pad(TOKENS, wide, constant_values=7),
                  jnp.pad(FULL, wide))
  kept = padded[:, 3:] if side == 'left' else padded[:, :6]
  np.testing.assert_allclose(kept, hidden(TOKENS, FULL), atol=2e-6)


def test_branches_equal_separate_rows():
  prompt, one, two = TOKENS[:1, :2], TOKENS[:1, 2:4], TOKENS[:1, 4:]
  joined = hidden(TOKENS[:1], FULL[:1],
                  branches=jnp.array([[0, 0, 1, 1, 2, 2]]),
                  positions=jnp.array([[0, 1, 2, 3, 2, 3]]))
  for response, columns in ((one, slice(2, 4)), (two, slice(4, 6))):
    row = jnp.concatenate([prompt, response], 1)
    alone = hidden(row, FULL[:1, :4])
    np.testing.assert_allclose(joined[:, columns], alone[:, 2:], atol=2e-6)


def test_packed_documents_equal_separate_rows():
  packed = hidden(TOKENS, FULL, segments=jnp.array([[1] * 2 + [2] * 4] * 2),
                  positions=jnp.array([[0, 1, 0, 1, 2, 3]] * 2))
  np.testing.assert_allclose(packed[:, :2], hidden(TOKENS[:, :2], FULL[:, :2]),
                             atol=2e-6)
  np.testing.assert_allclose(packed[:, 2:], hidden(TOKENS[:, 2:], FULL[:, 2:]),
                             atol=2e-6)


@pytest.mark.parametrize('scan_layers', [False, True])
def test_prefill_and_decode_equal_the_training_forward(scan_layers):
  config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
  model = models.CausalLM(config)
  params = model.init(jax.random.key(0))
  cache = models.make_cache(config, 2, 8)
  mask = jnp.broadcast_to(jnp.arange(8) < 6, (2, 8))
  positions = jnp.broadcast_to(jnp.arange(6), (2, 6))
  got, cache = model.decode(params, TOKENS[:, :4], positions[:, :4], mask,
                            cache, jnp.int32(0))
  parts = [got]
  for t in (4, 5):
    got, cache = model.decode(params, TOKENS[:, t:t + 1],
                              positions[:, t:t + 1], mask, cache, jnp.int32(t))
    parts.append(got)
  np.testing.assert_allclose(jnp.concatenate(parts, 1),
                             model.hidden(params, TOKENS, FULL), atol=3e-6)


def test_scanned_layers_equal_unrolled_ones():
  stacked = dict(PARAMS)
  layers = [stacked.pop(f'layers_{i}') for i in range(2)]
  stacked['layers'] = jax.tree.map(lambda *x: jnp.stack(x), *layers)
  scanned = models.CausalLM(dataclasses.replace(CONFIG, scan_layers=True))
  np.testing.assert_allclose(scanned.hidden(stacked, TOKENS, FULL),
                             hidden(TOKENS, FULL), atol=1e-6)


def test_remat_changes_no_gradient():
  remat = models.CausalLM(dataclasses.replace(CONFIG, remat=True))
  total = lambda m: jax.grad(
      lambda p: jnp.sum(m.hidden(p, TOKENS, FULL) ** 3))(PARAMS)
  for a, b in zip(*(jax.tree.leaves(total(m)) for m in (MODEL, remat))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_axes_name_every_dimension_of_every_parameter():
  is_spec = lambda x: isinstance(x, PartitionSpec)
  for model in (MODEL, models.ScalarModel(CONFIG)):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    jax.tree.map(lambda names, x: np.testing.assert_equal(len(names), x.ndim),
                 model.axes(), shapes, is_leaf=is_spec)


def test_scalar_model_is_linear_in_its_head():
  model = models.ScalarModel(CONFIG)
  params = model.init(jax.random.key(0), PARAMS)
  one = model.scalars(params, TOKENS, FULL)
  two = model.scalars(params | {'head': 2 * params['head']}, TOKENS, FULL)
  assert one.shape == (2, 6) and one.dtype == jnp.float32
  np.testing.assert_allclose(two, 2 * one, rtol=1e-5)


def test_untied_models_have_an_unembedding_of_their_own():
  model = models.CausalLM(dataclasses.replace(CONFIG, tie_embeddings=False))
  params = model.init(jax.random.key(0))
  assert model.unembedding(params) is params['unembed']
  assert MODEL.unembedding(PARAMS) is PARAMS['embed']
