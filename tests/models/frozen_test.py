"""What is frozen is stored in fewer bits and says the very same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.models import CausalLM
from alignjax.models import freeze
from alignjax.models import lora
from alignjax.models import quantize
from alignjax.models import ScalarModel
from tests.families import FAMILIES

TOKENS = jnp.asarray([[3, 4, 5, 6, 7, 8], [0, 0, 9, 8, 7, 6]])
MASK = TOKENS > 0


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('scan', [False, True])
def test_a_frozen_model_says_the_same_bits(name, scan):
  config = dataclasses.replace(
      FAMILIES[name], dtype='bfloat16', scan_layers=scan)
  model = ScalarModel(dataclasses.replace(config, tie_embeddings=True))
  params = model.init(jax.random.key(0))
  frozen = freeze(params, 'bfloat16')
  read = jax.jit(model.scalars)
  np.testing.assert_array_equal(
      read(params, TOKENS, MASK), read(frozen, TOKENS, MASK))
  size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
  assert size(frozen) < 0.6 * size(params)


def test_norms_quantized_leaves_and_what_fits_already_stay_the_same_arrays():
  config = FAMILIES['llama']
  params = CausalLM(config).init(jax.random.key(0))
  assert all(a is b for a, b in zip(
      jax.tree.leaves(freeze(params, 'float32')), jax.tree.leaves(params),
      strict=True))
  few = quantize.quantize(params, 'int8')
  frozen = freeze(few, 'bfloat16')
  layer = 'layers_0'
  assert frozen[layer]['query'] is few[layer]['query']
  assert frozen['final_norm'] is few['final_norm']
  assert frozen['embed'].dtype == jnp.bfloat16
  assert lora.split(frozen)[1] == {}
