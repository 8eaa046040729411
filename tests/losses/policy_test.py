"""Claims about the losses of policy-gradient training."""

import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import policy_entropy
from alignjax.losses import ppo_clip_loss
from alignjax.losses import value_clip_loss

LOSSES = {'ppo_clip': ppo_clip_loss, 'value_clip': value_clip_loss}
OLD = np.log([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]).astype(np.float32)
# Ratios 1.5, 1.1, 0.5, for a good action and for a bad one.
NEW = OLD + np.log([[1.5, 1.1, 0.5]] * 2).astype(np.float32)
ADVANTAGES = np.array([[2.0, 2.0, 2.0], [-2.0, -2.0, -2.0]], np.float32)

threes = st.lists(
    st.floats(-5, 5, width=32), min_size=18, max_size=18
).map(lambda x: np.array(x, np.float32).reshape(3, 2, 3))
rows = st.lists(
    st.floats(-50, 50, width=32), min_size=10, max_size=10
).map(lambda x: np.array(x, np.float32).reshape(2, 5))


def sum_of(loss, *rest):
  return lambda x: jnp.sum(loss(x, *rest))


@jax.jit
def ppo_and_gradient(new, old, advantages):
  return jax.value_and_grad(sum_of(ppo_clip_loss, old, advantages))(new)


def test_ppo_worked_numbers():
  # A > 0 gains nothing past 1.2; A < 0 gains nothing below 0.8.
  np.testing.assert_allclose(
      ppo_clip_loss(NEW, OLD, ADVANTAGES),
      [[-2.4, -2.2, -1.0], [3.0, 2.2, 1.6]], rtol=1e-5)


def test_ppo_gradient_stops_only_where_the_gain_was_clipped():
  gradient = jax.grad(sum_of(ppo_clip_loss, OLD, ADVANTAGES))(NEW)
  np.testing.assert_allclose(
      gradient, [[0.0, -2.2, -1.0], [3.0, 2.2, 0.0]], rtol=1e-5)


def test_value_worked_numbers():
  values = np.array([[1.0, 0.1, -1.0]], np.float32)
  old_values = np.zeros_like(values)
  returns = np.array([[1.0, 1.0, 1.0]], np.float32)
  # Clipped values 0.2, 0.1, −0.2: the first errs by 0.8 and not by 0.
  np.testing.assert_allclose(
      value_clip_loss(values, old_values, returns),
      [[0.32, 0.405, 2.0]], rtol=1e-5)


def test_value_gradient_stops_where_the_clipped_value_is_the_worse():
  values = np.array([[1.0, 0.1, -1.0]], np.float32)
  gradient = jax.grad(
      sum_of(value_clip_loss, np.zeros((1, 3), np.float32),
             np.full((1, 3), 1.0, np.float32)))(values)
  np.testing.assert_allclose(gradient, [[0.0, -0.9, -2.0]], rtol=1e-5)


@given(threes)
def test_ppo_is_plain_policy_gradient_at_the_old_policy(x):
  loss, gradient = ppo_and_gradient(x[0], x[0], x[1])
  np.testing.assert_allclose(loss, -np.sum(x[1]), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(gradient, -x[1], rtol=1e-6, atol=1e-30)


@given(threes, st.floats(0.05, 0.9))
def test_ppo_equals_its_equation_in_float64(x, clip):
  new, old, advantages = x.astype(np.float64)
  ratio = np.exp(new - old)
  expected = -np.minimum(
      ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages)
  np.testing.assert_allclose(
      ppo_clip_loss(*x, clip=clip), expected, rtol=1e-4, atol=1e-6)


@given(threes, st.floats(0.05, 3.0))
def test_value_equals_its_equation_in_float64(x, clip):
  values, old, returns = x.astype(np.float64)
  clipped = np.clip(values, old - clip, old + clip)
  expected = np.maximum((values - returns) ** 2, (clipped - returns) ** 2) / 2
  np.testing.assert_allclose(
      value_clip_loss(*x, clip=clip), expected, rtol=1e-4, atol=1e-5)


@given(threes)
def test_value_with_a_wide_clip_is_half_the_squared_error(x):
  np.testing.assert_allclose(
      value_clip_loss(*x, clip=1e3), 0.5 * (x[0] - x[2]) ** 2,
      rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_only_the_first_argument_has_a_gradient(loss):
  gradients = jax.grad(
      lambda *x: jnp.sum(loss(*x)), (0, 1, 2))(NEW, OLD, ADVANTAGES)
  assert np.any(gradients[0] != 0)
  np.testing.assert_array_equal(gradients[1:], 0.0)


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(loss, dtype):
  corners = jnp.stack(jnp.meshgrid(*[jnp.array([-50, 0, 50], dtype)] * 3))
  corners = corners.reshape(3, 3, 9)
  out, pullback = jax.vjp(jax.jit(lambda x: loss(*x)), corners)
  gradient, = pullback(jnp.ones_like(out))
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))


def test_a_broken_token_under_a_mask_does_not_spoil_the_gradient():
  new, old = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, -1e6]])
  mask = jnp.array([[True, False]])

  def total(new):
    return jnp.sum(ppo_clip_loss(new, old, -jnp.ones((1, 2))), where=mask)

  np.testing.assert_array_equal(jax.grad(total)(new), [[1.0, 0.0]])


def test_entropy_worked_numbers():
  logits = jnp.log(jnp.array([[0.25] * 4, [0.5, 0.25, 0.125, 0.125]]))
  np.testing.assert_allclose(
      policy_entropy(logits), np.log(2) * np.array([2.0, 1.75]), rtol=1e-6)


@given(rows, st.floats(-50, 50, width=32))
def test_entropy_equals_its_definition_and_ignores_a_shift(logits, shift):
  wide = logits.astype(np.float64)
  logprobs = wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
  expected = -np.sum(np.exp(logprobs) * logprobs, axis=1)
  entropy = jax.jit(policy_entropy)
  np.testing.assert_allclose(
      entropy(logits), expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
      entropy(logits + shift), expected, rtol=1e-3, atol=1e-4)


def test_a_forbidden_token_adds_neither_entropy_nor_nan():
  logits = jnp.array([1.0, 1.0, -jnp.inf])
  entropy, gradient = jax.value_and_grad(policy_entropy)(logits)
  np.testing.assert_allclose(entropy, np.log(2), rtol=1e-6)
  np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_entropy_of_bfloat16_logits_at_fifty_is_finite_float32():
  logits = jnp.array([[50, -50, 0], [50, 50, -50]], jnp.bfloat16)
  entropy = policy_entropy(logits)
  gradient = jax.grad(sum_of(policy_entropy))(logits)
  assert entropy.dtype == jnp.float32
  np.testing.assert_allclose(entropy, [0.0, np.log(2)], atol=1e-6)
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_wrong_inputs_fail_while_tracing(loss):
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  with pytest.raises(AssertionError, match=r'\(2, 3\).*\(2, 1\)'):
    jax.eval_shape(loss, x, x, jax.ShapeDtypeStruct((2, 1), jnp.float32))
  with pytest.raises(AssertionError, match=r'\(2,\).* expected 2'):
    jax.eval_shape(loss, x, x, jax.ShapeDtypeStruct((2,), jnp.float32))
  with pytest.raises(AssertionError, match='type int32'):
    jax.eval_shape(loss, x, x, jax.ShapeDtypeStruct((2, 3), jnp.int32))


def test_entropy_of_ints_fails():
  with pytest.raises(AssertionError, match='type int32'):
    policy_entropy(jnp.arange(3))


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_compiled_equals_eager(self):
    for loss in LOSSES.values():
      np.testing.assert_allclose(
          self.variant(loss)(NEW, OLD, ADVANTAGES),
          loss(NEW, OLD, ADVANTAGES), rtol=1e-6)
    np.testing.assert_allclose(
        self.variant(policy_entropy)(NEW), policy_entropy(NEW), rtol=1e-6)
