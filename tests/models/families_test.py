"""Every family: the cache, the layer scan, padding, and stored numbers.

The numbers are transformers': tests/parity/golden_test.py makes them and holds
them against it.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import logprobs
from alignjax import models
from alignjax.hf import layout
from alignjax.types import InputError
from tests.families import FAMILIES
from tests.families import random_params

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / 'golden'
                     / 'families.json').read_text(encoding='utf-8'))
TOKENS = np.random.RandomState(7).randint(0, 19, (2, 10))
MASK = np.arange(10) < np.array([[10], [7]])


@pytest.mark.parametrize('name', FAMILIES)
def test_logits_are_those_of_transformers(name):
  model = models.CausalLM(FAMILIES[name])
  params = random_params(jax.eval_shape(model.init, jax.random.key(0)))

  @jax.jit
  def last_logits(params):
    hidden = model.hidden(params, TOKENS, MASK)
    return logprobs.logits(
        hidden[:, 6], model.unembedding(params),
        softcap=model.config.logit_softcap)

  np.testing.assert_allclose(
      last_logits(params), GOLDEN[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('group', [1, 3])
@pytest.mark.parametrize('name', FAMILIES)
def test_scan_prefill_and_decode_equal_the_training_forward(name, group):
  """Of two prompts, and of three rows each behind what they share of them."""
  unrolled = models.CausalLM(FAMILIES[name])
  params = random_params(jax.eval_shape(unrolled.init, jax.random.key(0)))
  config = dataclasses.replace(FAMILIES[name], scan_layers=True)
  model, stacked = models.CausalLM(config), layout.stack_layers(params)
  of_prompts = np.pad(MASK[:, ::-1], ((0, 0), (0, 2)), constant_values=True)
  mask = np.repeat(of_prompts, group, axis=0)
  tokens = np.concatenate([np.repeat(TOKENS, group, axis=0), np.arange(
      4 * group).reshape(-1, 2)], axis=1)
  positions = models.count_positions(jnp.asarray(mask))

  @jax.jit
  def both(params, stacked):
    prefill, cache = model.decode(
        stacked, TOKENS, positions[::group, :10], jnp.asarray(
            of_prompts[:, :10] if group > 1 else mask & (np.arange(12) < 10)),
        models.make_cache(config, 2, 10 if group > 1 else 12), jnp.int32(0))
    if group > 1:
      cache = models.cache_behind(cache, group, 2)
    parts = [jnp.repeat(prefill, group, axis=0)]
    for start in (10, 11):
      part, cache = model.decode(
          stacked, tokens[:, start:start + 1], positions[:, start:start + 1],
          jnp.asarray(mask) & (np.arange(12) <= start), cache,
          jnp.int32(start))
      parts.append(part)
    return unrolled.hidden(params, tokens, mask), jnp.concatenate(parts, 1)

  whole, decoded = both(params, stacked)
  np.testing.assert_allclose(decoded[mask], whole[mask], rtol=2e-5, atol=2e-5)


def test_a_window_hides_what_lies_further_back():
  model = models.CausalLM(FAMILIES['mistral'])  # 3 layers of 4 tokens.
  params = random_params(jax.eval_shape(model.init, jax.random.key(0)))
  tokens = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]])
  hidden = jax.jit(lambda t: model.hidden(
      jax.tree.map(jnp.asarray, params), t, np.ones((1, 12), bool)))
  first = hidden(tokens)
  changed = hidden(np.concatenate([[[9]], tokens[:, 1:]], axis=1))
  reach = 3 * (4 - 1)  # Each layer hands on from 3 tokens before.
  np.testing.assert_array_equal(first[:, reach + 1:], changed[:, reach + 1:])
  assert np.abs(first[:, reach] - changed[:, reach]).max() > 0


def test_rows_longer_than_learned_positions_are_refused():
  model = models.CausalLM(FAMILIES['gpt2'])
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  with pytest.raises(InputError, match='65 tokens and the model has 64 learned '
                     'positions; use rows of 64 or fewer'):
    jax.eval_shape(model.hidden, shapes, jnp.zeros((1, 65), int),
                   jnp.ones((1, 65), bool))


def test_layers_know_their_kind_of_attention():
  config = FAMILIES['qwen2 sliding']
  assert [config.attention_of(i) for i in range(3)] == [0, 1, 1]
