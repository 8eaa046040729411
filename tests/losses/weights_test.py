"""Claims about what changes how much a pair or a token counts."""

import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.logprobs import token_collision
from alignjax.logprobs import token_logprobs
from alignjax.losses import length_desensitized_logprobs
from alignjax.losses import wpo_weights

# Left-aligned, begun late with a hole, and no response.
MASK = np.array([
    [True, True, True, False],
    [False, True, False, True],
    [False, False, False, False],
])
OTHER_MASK = np.array([[True, True], [False, True], [True, False]])
LOGPROBS = np.log([[0.5, 0.25, 0.5, 0.9]] * 3).astype(np.float32)
OTHER_LOGPROBS = np.log([[0.5, 0.125]] * 3).astype(np.float32)
COLLISION = np.full((3, 4), np.log(0.5), np.float32)
OTHER_COLLISION = np.full((3, 2), np.log(0.5), np.float32)
PAIR = (
    LOGPROBS, OTHER_LOGPROBS, COLLISION, OTHER_COLLISION, MASK, OTHER_MASK)

rows = st.lists(
    st.floats(-50, 0, width=32), min_size=12, max_size=12
).map(lambda x: np.array(x, np.float32).reshape(3, 4))
pairs = st.tuples(rows, rows, rows, rows)


def junked(inputs, junk):
  """The pair's floats with junk wherever their mask is off."""
  masks = (MASK, OTHER_MASK, MASK, OTHER_MASK)
  return [jnp.where(m, x, junk) for x, m in zip(inputs[:4], masks)]


def test_wpo_worked_numbers():
  # Excesses 0, −log 2, 0 and 0, −2 log 2: means −⅓ log 2 and −log 2. Then
  # −log 2 and log 1.8, to −2 log 2; then none, to 0.
  np.testing.assert_allclose(
      wpo_weights(*PAIR), [2 ** (-4 / 3), 0.25 * np.sqrt(0.5 * 1.8), 1.0],
      rtol=1e-5)


@given(pairs)
def test_wpo_equals_its_equation_in_float64(x):
  def log_weight(logprobs, collision):
    return [
        np.mean((np.float64(p) - c)[m]) if m.any() else 0.0
        for p, c, m in zip(logprobs, collision, MASK)]

  total = np.add(log_weight(x[0], x[2]), log_weight(x[1], x[3]))
  weights = wpo_weights(*x, MASK, MASK)
  np.testing.assert_allclose(
      weights, np.exp(np.minimum(total, 0.0)), rtol=1e-4, atol=1e-30)
  assert np.all((weights >= 0) & (weights <= 1))


def test_a_pair_of_a_uniform_policy_has_weight_one():
  hidden, unembedding = jnp.zeros((3, 4, 2)), jnp.ones((7, 2))
  tokens = jnp.arange(12).reshape(3, 4) % 7
  logprobs = token_logprobs(hidden, unembedding, tokens)
  collision = token_collision(hidden, unembedding)
  np.testing.assert_allclose(
      wpo_weights(logprobs, logprobs, collision, collision, MASK, MASK), 1.0,
      rtol=1e-6)


def test_wpo_has_no_gradient():
  for gradient in jax.grad(
      lambda *x: jnp.sum(wpo_weights(*x, MASK, OTHER_MASK)), (0, 1, 2, 3))(
          *PAIR[:4]):
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize('junk', [1e30, float('inf'), float('nan')])
def test_masked_tokens_change_no_weight(junk):
  np.testing.assert_array_equal(
      wpo_weights(*junked(PAIR, junk), MASK, OTHER_MASK), wpo_weights(*PAIR))


def test_length_desensitized_worked_numbers():
  # Two shared of three; one shared of two, past a hole; none.
  np.testing.assert_allclose(
      length_desensitized_logprobs(
          LOGPROBS, MASK, np.array([2, 1, 0]), alpha=0.5),
      [np.log(0.5 * 0.25) + 0.5 * np.log(0.5),
       np.log(0.25) + 0.5 * np.log(0.9), 0.0], rtol=1e-5)


@given(rows, st.floats(0.0, 1.0), st.integers(0, 4))
def test_alpha_goes_from_the_shared_tokens_to_the_plain_sum(x, alpha, length):
  shared_length = np.full(3, length)

  def logprobs(alpha):
    return length_desensitized_logprobs(x, MASK, shared_length, alpha=alpha)

  np.testing.assert_allclose(
      logprobs(1.0), np.sum(x, axis=1, where=MASK), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
      logprobs(0.0), [np.sum(r[m][:length]) for r, m in zip(x, MASK)],
      rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
      logprobs(alpha), alpha * logprobs(1.0) + (1 - alpha) * logprobs(0.0),
      rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('junk', [1e30, float('inf'), float('nan')])
def test_masked_tokens_change_neither_logprob_nor_gradient(junk):
  run = jax.value_and_grad(lambda x: jnp.sum(length_desensitized_logprobs(
      x, MASK, np.array([2, 1, 0]), alpha=0.25)))
  value, gradient = run(jnp.where(MASK, LOGPROBS, junk))
  assert value == run(jnp.asarray(LOGPROBS))[0]
  np.testing.assert_array_equal(
      gradient, [[1.0, 1.0, 0.25, 0.0], [0.0, 1.0, 0.0, 0.25], [0.0] * 4])


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(dtype):
  x = jnp.array([[50, -50, 50, -50]] * 3, dtype)
  logprobs, gradient = jax.value_and_grad(
      lambda x: jnp.sum(length_desensitized_logprobs(
          x, MASK, np.array([2, 1, 0]), alpha=0.5)))(x)
  assert logprobs.dtype == jnp.float32
  assert np.isfinite(logprobs) and np.all(np.isfinite(gradient))
  for sign in (1, -1):
    weights = wpo_weights(sign * x, sign * x, -x, -x, MASK, MASK)
    assert weights.dtype == jnp.float32
    assert np.all(np.isfinite(weights))


def test_wrong_inputs_fail_while_tracing():
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  ints = jax.ShapeDtypeStruct((2, 3), jnp.int32)
  wide = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  mask = jax.ShapeDtypeStruct((2, 3), jnp.bool_)
  more = jax.ShapeDtypeStruct((4, 3), jnp.float32)
  more_mask = jax.ShapeDtypeStruct((4, 3), jnp.bool_)
  length = jax.ShapeDtypeStruct((2,), jnp.int32)
  lengths = jax.ShapeDtypeStruct((4,), jnp.int32)
  floats = jax.ShapeDtypeStruct((2,), jnp.float32)

  def desensitized(*inputs):
    return length_desensitized_logprobs(*inputs, alpha=0.5)

  for fn, inputs, message in (
      (wpo_weights, (x, x, wide, x, mask, mask), r'\(2, 3\).*\(2, 4\)'),
      (wpo_weights, (x, x, x, ints, mask, mask), 'type int32'),
      (wpo_weights, (x, x, x, x, mask, x), 'expected bool'),
      (wpo_weights, (x, more, x, more, mask, more_mask), r'\(2,\).*\(4,\)'),
      (desensitized, (wide, mask, length), r'\(2, 4\).*\(2, 3\)'),
      (desensitized, (x, mask, lengths), r'\(2,\).*\(4,\)'),
      (desensitized, (x, mask, floats), 'type float32'),
      (desensitized, (x, mask, ints), r'\(2, 3\).* expected 1'),
  ):
    with pytest.raises(AssertionError, match=message):
      jax.eval_shape(fn, *inputs)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_compiled_equals_eager(self):
    np.testing.assert_allclose(
        self.variant(wpo_weights)(*PAIR), wpo_weights(*PAIR), rtol=1e-6)
    inputs = (LOGPROBS, MASK, np.array([2, 1, 0]))

    def desensitized(*inputs):
      return length_desensitized_logprobs(*inputs, alpha=0.5)

    np.testing.assert_allclose(
        self.variant(desensitized)(*inputs), desensitized(*inputs), rtol=1e-6)
