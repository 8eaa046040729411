"""Claims about DPO and its nearest relatives."""

import itertools

from absl.testing import parameterized
import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import dpo_loss
from alignjax.losses import hinge_loss
from alignjax.losses import ipo_loss

LOSSES = {'dpo': dpo_loss, 'ipo': ipo_loss, 'hinge': hinge_loss}
# h = (−10 − −12) − (−11 − −15) = −2 for the first pair; 20 for the second; 5,
# the margin that IPO aims at with β = 0.1, for the third.
INPUTS = tuple(
    np.array(x, np.float32)
    for x in ([-10, -1, -20], [-12, -30, -21], [-11, -9, -24], [-15, -18, -20])
)

quads = st.lists(
    st.floats(-50, 50, width=32), min_size=12, max_size=12
).map(lambda x: np.array(x, np.float32).reshape(4, 3))
betas = st.floats(0.01, 2.0)


@jax.jit
def dpo_gradient(chosen, *rest, beta, label_smoothing):
  """In the log-probability of the chosen response."""
  return jax.grad(lambda x: jnp.sum(dpo_loss(
      x, *rest, beta=beta, label_smoothing=label_smoothing)))(chosen)


def margin(x):
  """h, by its definition, in float64."""
  x = np.asarray(x, np.float64)
  return (x[0] - x[2]) - (x[1] - x[3])


def from_margin(h):
  """Some four inputs with the margin h."""
  h = jnp.asarray(h, jnp.float32)
  return h - 3.0, jnp.full_like(h, -7.0), jnp.full_like(h, -2.0), (
      jnp.full_like(h, -6.0))


def test_dpo_worked_numbers():
  np.testing.assert_allclose(
      dpo_loss(*INPUTS), [0.798139, 0.126928, 0.474077], atol=1e-6)


def test_ipo_worked_numbers():
  np.testing.assert_allclose(ipo_loss(*INPUTS), [49.0, 225.0, 0.0], rtol=1e-5)


def test_hinge_worked_numbers():
  np.testing.assert_allclose(hinge_loss(*INPUTS), [1.2, 0.0, 0.5], rtol=1e-5)


def test_conservative_dpo_worked_number():
  # h = −2, β = 0.1: 0.9 × 0.798139 + 0.1 × 0.598139.
  np.testing.assert_allclose(
      dpo_loss(*INPUTS, label_smoothing=0.1)[0], 0.778139, atol=1e-6)


@given(quads, betas, st.floats(0.0, 0.49))
def test_dpo_equals_log_two_at_the_reference(x, beta, label_smoothing):
  loss = dpo_loss(
      x[0], x[1], x[0], x[1], beta=beta, label_smoothing=label_smoothing)
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@given(quads, betas)
def test_ipo_and_hinge_at_the_reference(x, beta):
  np.testing.assert_allclose(
      ipo_loss(x[0], x[1], x[0], x[1], beta=beta), 1 / (4 * beta**2),
      rtol=1e-5)
  np.testing.assert_array_equal(
      hinge_loss(x[0], x[1], x[0], x[1], beta=beta), 1.0)


@given(quads, betas, st.floats(0.0, 0.49))
def test_dpo_equals_its_equation_in_float64(x, beta, label_smoothing):
  logits = beta * margin(x)
  expected = (
      (1 - label_smoothing) * np.logaddexp(0, -logits)
      + label_smoothing * np.logaddexp(0, logits))
  np.testing.assert_allclose(
      dpo_loss(*x, beta=beta, label_smoothing=label_smoothing), expected,
      rtol=1e-4, atol=1e-6)


@given(quads, betas)
def test_ipo_and_hinge_equal_their_equations_in_float64(x, beta):
  h = margin(x)
  np.testing.assert_allclose(
      ipo_loss(*x, beta=beta), (h - 1 / (2 * beta)) ** 2,
      rtol=1e-4, atol=1e-2)
  np.testing.assert_allclose(
      hinge_loss(*x, beta=beta), np.maximum(0, 1 - beta * h),
      rtol=1e-4, atol=1e-4)


@given(quads)
def test_swapping_the_pair_costs_dpo_its_margin(x):
  swapped = dpo_loss(x[1], x[0], x[3], x[2])
  np.testing.assert_allclose(
      swapped - dpo_loss(*x), 0.1 * margin(x), rtol=1e-4, atol=1e-5)


@given(quads, betas)
def test_dpo_gradient_is_weighted_by_how_wrong_the_policy_is(x, beta):
  gradient = dpo_gradient(*x, beta=beta, label_smoothing=0.0)
  weight = np.exp(-np.logaddexp(0, beta * margin(x)))
  np.testing.assert_allclose(gradient, -beta * weight, rtol=1e-3, atol=1e-7)


@given(quads, st.floats(0.01, 0.49))
def test_conservative_dpo_is_least_at_the_log_odds_of_a_flip(x, flip):
  best = np.log((1 - flip) / flip) / 0.1
  inputs = from_margin([best, best])
  gradient = dpo_gradient(*inputs, beta=0.1, label_smoothing=flip)
  np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@given(st.floats(0.01, 2.0), st.floats(-10, 10))
def test_ipo_is_symmetric_about_its_target(beta, distance):
  target = 1 / (2 * beta)
  loss = ipo_loss(
      *from_margin([target - distance, target + distance]), beta=beta)
  np.testing.assert_allclose(loss, distance**2, rtol=1e-3, atol=1e-3)


def test_hinge_has_no_gradient_past_its_margin():
  inputs = from_margin([9.0, 11.0])
  gradient = jax.grad(
      lambda c: jnp.sum(hinge_loss(c, *inputs[1:])))(inputs[0])
  np.testing.assert_allclose(gradient, [-0.1, 0.0])


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_only_log_ratios_matter(loss):
  shift = np.array([7.0, -3.0, 11.0], np.float32)
  chosen, rejected, ref_chosen, ref_rejected = INPUTS
  np.testing.assert_allclose(
      loss(chosen + shift, rejected, ref_chosen + shift, ref_rejected),
      loss(*INPUTS), rtol=1e-6)


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_no_gradient_reaches_the_reference(loss):
  gradients = jax.grad(
      lambda *x: jnp.sum(loss(*x)), (0, 1, 2, 3))(*INPUTS)
  np.testing.assert_array_equal(gradients[2:], 0.0)
  assert np.any(gradients[0] != 0)
  np.testing.assert_array_equal(gradients[0], -gradients[1])


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(loss, dtype):
  corners = jnp.array(
      list(itertools.product([-50.0, 50.0], repeat=4)), dtype).T
  out, pullback = jax.vjp(jax.jit(lambda x: loss(*x)), corners)
  gradient, = pullback(jnp.ones_like(out))
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_bfloat16_inputs_are_subtracted_in_float32(loss):
  # In bfloat16 −201 + 2.25 would be −199.
  inputs = [jnp.array([x], jnp.bfloat16) for x in (-201, -2.25, -3, -2)]
  np.testing.assert_array_equal(
      loss(*inputs), loss(*(x.astype(jnp.float32) for x in inputs)))


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_wrong_inputs_fail_while_tracing(loss):
  three = jax.ShapeDtypeStruct((3,), jnp.float32)
  four = jax.ShapeDtypeStruct((4,), jnp.float32)
  column = jax.ShapeDtypeStruct((3, 1), jnp.float32)
  ints = jax.ShapeDtypeStruct((3,), jnp.int32)
  with pytest.raises(AssertionError, match=r'\(3,\).*\(4,\)'):
    jax.eval_shape(loss, three, three, three, four)
  with pytest.raises(AssertionError, match=r'\(3, 1\).* expected 1'):
    jax.eval_shape(loss, three, column, three, three)
  with pytest.raises(AssertionError, match='type int32'):
    jax.eval_shape(loss, three, three, ints, three)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(*LOSSES.items())
  def test_compiled_equals_eager(self, loss):
    np.testing.assert_allclose(
        self.variant(loss)(*INPUTS), loss(*INPUTS), rtol=1e-6)
