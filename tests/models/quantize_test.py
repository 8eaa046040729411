"""Bases in few bits: the error, the size, the layers that read them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import models
from alignjax import sharding
from alignjax.hf import layout
from alignjax.models import quantize
from alignjax.models.lora import Lora
from tests.families import FAMILIES
from tests.families import random_params

CONFIG = dataclasses.replace(FAMILIES['llama biased'], lora=Lora(2))
MODEL = models.CausalLM(CONFIG)
PARAMS = random_params(jax.eval_shape(MODEL.init, jax.random.key(0)))
TOKENS = np.random.RandomState(7).randint(0, 19, (2, 6))
MASK = np.ones((2, 6), bool)


def restored(params):
  """The tree with plain matrices in place of the quantized ones."""
  return jax.tree.map(
      lambda x: quantize.dequantize(x, jnp.float32)
      if quantize.is_quantized(x) else x, params,
      is_leaf=quantize.is_quantized)


def test_int8_is_off_by_half_a_step_of_its_output():
  w = np.random.RandomState(0).randn(32, 3, 5).astype(np.float32)
  got = quantize.dequantize(quantize.quantize({'query': w}, 'int8')['query'],
                            jnp.float32)
  bound = np.abs(w).max(axis=0) / 254 * (1 + 1e-5)
  assert np.all(np.abs(got - w) <= bound)


def test_nf4_rounds_to_the_nearest_of_sixteen_levels_of_its_tile():
  w = np.random.RandomState(0).randn(128, 5).astype(np.float32)
  got = np.asarray(quantize.dequantize(
      quantize.quantize({'up': w}, 'nf4')['up'], jnp.float32))
  for tile in range(2):
    for output in range(5):
      block = got[64 * tile:64 * tile + 64, output]
      assert len(np.unique(block)) <= 16
      assert np.isclose(np.abs(block).max(),
                        np.abs(w[64 * tile:64 * tile + 64, output]).max())
  assert np.abs(got - w).mean() < 0.1 * np.abs(w).mean()


@pytest.mark.parametrize('kind,bits', [('int8', 8.5), ('nf4', 4.6)])
def test_a_program_reads_so_few_bits_a_weight(kind, bits):
  w = np.random.RandomState(0).randn(512, 512).astype(np.float32)
  small = quantize.quantize({'down': w}, kind)
  restore = jax.jit(lambda p: quantize.dequantize(p['down'], jnp.bfloat16))
  memory = restore.lower(small).compile().memory_analysis()
  assert memory.argument_size_in_bytes * 8 <= bits * w.size


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('kind', ['int8', 'nf4'])
def test_decoder_reads_quantized_layers_as_what_they_stand_for(
    kind, scan_layers):
  model = models.CausalLM(dataclasses.replace(CONFIG, scan_layers=scan_layers))
  small = quantize.quantize(PARAMS, kind)
  if scan_layers:
    params = layout.stack_layers(PARAMS)
    small = quantize.quantize(params, kind)

  @jax.jit
  def value_and_grad(params):
    total = lambda embed: jnp.sum(
        model.hidden(params | {'embed': embed}, TOKENS, MASK) ** 3)
    return jax.value_and_grad(total)(params['embed'])

  got, due = value_and_grad(small), value_and_grad(restored(small))
  np.testing.assert_allclose(got[0], due[0], rtol=1e-4)
  scale = np.abs(due[1]).max()
  np.testing.assert_allclose(got[1] / scale, due[1] / scale, atol=1e-5)


def test_embeddings_norms_biases_and_adapters_stay_as_they_are():
  small = quantize.quantize(PARAMS, 'nf4')
  assert small['embed'] is PARAMS['embed']
  for name, leaf in small['layers_0'].items():
    is_matrix = name in models.lora.TARGETS
    assert quantize.is_quantized(leaf) == is_matrix, name


@pytest.mark.parametrize('kind', ['int8', 'nf4'])
def test_quantized_base_lies_sharded_on_a_mesh(kind):
  small = quantize.quantize(PARAMS, kind)
  mesh = sharding.make_mesh('fsdp:4,tensor:2')
  axes = quantize.quantized_axes(MODEL.axes(), small)
  placed = sharding.put(small, sharding.tree_shardings(mesh, axes, small))
  query = placed['layers_0']['query'].qvalue
  assert query.addressable_shards[0].data.size == query.size // 8
  got, due = (restored(x)['layers_0']['query'] for x in (placed, small))
  np.testing.assert_array_equal(got, due)
