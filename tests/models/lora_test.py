"""Adapters: the start, the split, the merge, what is trained."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import models
from alignjax.hf import layout
from alignjax.models import lora as lora_lib
from alignjax.models.lora import Lora
from tests.families import FAMILIES
from tests.families import random_params

LORA = Lora(rank=3, alpha=5.0)
PLAIN = FAMILIES['llama biased']
CONFIG = dataclasses.replace(PLAIN, lora=LORA)
TOKENS = np.random.RandomState(7).randint(0, 19, (2, 6))
MASK = np.ones((2, 6), bool)


def shapes(config):
  return jax.eval_shape(models.CausalLM(config).init, jax.random.key(0))


def hidden(config, params):
  return jax.jit(models.CausalLM(config).hidden)(params, TOKENS, MASK)


def test_new_adapters_change_nothing():
  params = models.CausalLM(CONFIG).init(jax.random.key(0))
  base, adapters = lora_lib.split(params)
  np.testing.assert_array_equal(hidden(CONFIG, params), hidden(PLAIN, base))
  a = adapters['layers_0']['query_lora_a']
  assert a.shape == (12, 3) and 0 < jnp.abs(a).max() <= 12 ** -0.5


def test_split_and_join_undo_each_other():
  params = random_params(shapes(CONFIG))
  base, adapters = lora_lib.split(params)
  chex.assert_trees_all_equal(lora_lib.join(base, adapters), params)
  chex.assert_trees_all_equal_shapes(base, shapes(PLAIN))
  assert set(adapters) == {'layers_0', 'layers_1', 'layers_2'}
  assert len(jax.tree.leaves(adapters)) == 3 * 7 * 2


@pytest.mark.parametrize('rank_stabilised', [False, True])
@pytest.mark.parametrize('scan_layers', [False, True])
def test_merged_weights_compute_what_adapters_compute(
    scan_layers, rank_stabilised):
  lora = dataclasses.replace(LORA, rank_stabilised=rank_stabilised)
  config = dataclasses.replace(CONFIG, scan_layers=scan_layers, lora=lora)
  params = random_params(shapes(dataclasses.replace(CONFIG, lora=lora)))
  if scan_layers:
    params = layout.stack_layers(params)
  merged = lora_lib.merge(params, lora)
  plain = dataclasses.replace(config, lora=None)
  chex.assert_trees_all_equal_shapes(merged, shapes(plain))
  got, due = hidden(plain, merged), hidden(config, params)
  np.testing.assert_allclose(got, due, rtol=1e-5, atol=1e-5)
  off = hidden(plain, lora_lib.split(params)[0])
  assert jnp.abs(off - due).max() > 0.1


def test_scales_are_alpha_over_rank_or_its_root():
  assert Lora(16, 32.0).scale == 2.0
  assert Lora(16, 32.0, rank_stabilised=True).scale == 8.0


def test_only_the_targets_have_adapters():
  config = dataclasses.replace(CONFIG, lora=Lora(2, targets=('query', 'down')))
  adapters = lora_lib.split(shapes(config))[1]
  assert set(adapters['layers_0']) == {
      'query_lora_a', 'query_lora_b', 'down_lora_a', 'down_lora_b'}
