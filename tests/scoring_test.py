"""Reading whole rows: alignment, padding, temperature, the last token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import logprobs
from alignjax import models
from alignjax import scoring
from tests.families import FAMILIES
from tests.families import random_params

VOCAB = 23
CONFIG = models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8)
MODEL, SCALAR = models.CausalLM(CONFIG), models.ScalarModel(CONFIG)
PARAMS = MODEL.init(jax.random.key(0))
SCALAR_PARAMS = SCALAR.init(jax.random.key(1))
TOKENS = np.random.default_rng(2).integers(1, VOCAB, (3, 6), np.int32)
RIGHT = np.arange(6) < np.array([6, 4, 2])[:, None]

logprobs_of = jax.jit(
    scoring.token_logprobs, static_argnums=0,
    static_argnames=('start', 'chunk_size', 'temperature'))
values_of = jax.jit(scoring.token_values, static_argnums=0)
rewards_of = jax.jit(scoring.rewards, static_argnums=0)


def by_hand(temperature=1.0):
  """[3, 6] from logits of the whole [B, T, V]."""
  hidden = jax.jit(MODEL.hidden)(PARAMS, TOKENS, RIGHT)
  logits = hidden @ PARAMS['embed'].T / temperature
  logprobs = np.asarray(jax.nn.log_softmax(logits))[:, :-1]
  taken = np.take_along_axis(logprobs, TOKENS[:, 1:, None], axis=-1)[..., 0]
  return np.pad(taken, ((0, 0), (1, 0)))


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_column_t_speaks_of_token_t_given_those_before(temperature):
  got = logprobs_of(MODEL, PARAMS, TOKENS, RIGHT, temperature=temperature)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, by_hand(temperature), atol=1e-5)
  assert not np.any(got[:, 0])
  assert np.all(got[:, 1:] < 0)


@pytest.mark.parametrize('start, chunk_size', [(3, None), (3, 2), (0, 4)])
def test_start_and_chunks_change_no_wanted_column(start, chunk_size):
  got = logprobs_of(
      MODEL, PARAMS, TOKENS, RIGHT, start=start, chunk_size=chunk_size)
  np.testing.assert_allclose(got[:, start:], by_hand()[:, start:], atol=1e-5)
  assert not np.any(got[:, :start])


def test_padding_on_either_side_changes_no_logprob():
  right = np.asarray(logprobs_of(MODEL, PARAMS, TOKENS, RIGHT))
  left_tokens = np.stack(
      [np.roll(row, 6 - n) for row, n in zip(TOKENS, (6, 4, 2))])
  left = np.asarray(logprobs_of(MODEL, PARAMS, left_tokens, RIGHT[:, ::-1]))
  for b, n in enumerate((6, 4, 2)):
    np.testing.assert_allclose(left[b, 6 - n + 1:], right[b, 1:n], atol=1e-5)


def test_pair_logprobs_sum_over_the_response_only():
  tokens = np.stack([TOKENS, TOKENS[:, ::-1]], axis=1)
  mask = np.stack([RIGHT, RIGHT], axis=1)
  loss_mask = mask & (np.arange(6) >= 2)
  each = jax.jit(scoring.pair_token_logprobs, static_argnums=0)(
      MODEL, PARAMS, tokens, mask, loss_mask)
  assert each.shape == (3, 2, 6)
  np.testing.assert_array_equal(np.asarray(each)[~loss_mask], 0)
  got = scoring.sum_tokens(each, loss_mask)
  expected = by_hand().sum(axis=1, where=loss_mask[:, 0])
  np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)
  np.testing.assert_allclose(
      scoring.mean_tokens(each, loss_mask)[:2, 0],
      expected[:2] / loss_mask[:2, 0].sum(axis=1), atol=1e-5)
  np.testing.assert_allclose(
      jax.jit(scoring.response_logprobs, static_argnums=0)(
          MODEL, PARAMS, tokens[:, 0], mask[:, 0], loss_mask[:, 0]),
      expected, atol=1e-5)
  np.testing.assert_array_equal(got[2], 0)  # A response without tokens.
  assert np.all(got[:2] < 0)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_the_reward_is_the_scalar_of_the_last_real_token(side):
  mask = RIGHT if side == 'right' else RIGHT[:, ::-1]
  last = [5, 3, 1] if side == 'right' else [5, 5, 5]
  scalars = jax.jit(SCALAR.scalars)(SCALAR_PARAMS, TOKENS, mask)
  got = rewards_of(SCALAR, SCALAR_PARAMS, TOKENS, mask)
  np.testing.assert_allclose(got, scalars[np.arange(3), last], rtol=1e-5)
  junk = np.where(mask, TOKENS, 5)
  np.testing.assert_array_equal(
      got, rewards_of(SCALAR, SCALAR_PARAMS, junk, mask))


def test_a_value_stands_before_its_token_and_does_not_read_it():
  values = values_of(SCALAR, SCALAR_PARAMS, TOKENS, RIGHT)
  scalars = jax.jit(SCALAR.scalars)(SCALAR_PARAMS, TOKENS, RIGHT)
  np.testing.assert_allclose(values[:, 1:], scalars[:, :-1], rtol=1e-5)
  assert not np.any(values[:, 0])


def test_bounded_logits_bound_what_is_said():
  model = models.CausalLM(FAMILIES['gemma2'])
  params = random_params(jax.eval_shape(model.init, jax.random.key(0)))
  tokens, mask = np.array([[1, 5, 9, 2]]), np.ones((1, 4), bool)
  got = jax.jit(lambda p: scoring.token_logprobs(model, p, tokens, mask))(
      params)
  z = logprobs.logits(model.hidden(params, tokens, mask), params['embed'],
                      softcap=3.0)
  assert np.abs(z).max() <= 3.0
  due = jax.nn.log_softmax(z)[0, np.arange(3), tokens[0, 1:]]
  np.testing.assert_allclose(got[0, 1:], due, rtol=1e-5)
