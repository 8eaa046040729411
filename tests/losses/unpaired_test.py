"""Claims about KTO: its loss, its reference point and its class weights."""

import itertools

import chex
from hypothesis import assume
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import kto_kl
from alignjax.losses import kto_loss
from alignjax.losses import kto_weights

# d = 2 of a desirable response and −3 of an undesirable one; z₀ = 1.
LOGPROBS = np.array([-10, -12], np.float32)
REF_LOGPROBS = np.array([-12, -9], np.float32)
DESIRABLE = np.array([True, False])
KL = np.float32(1.0)
INPUTS = (LOGPROBS, REF_LOGPROBS, DESIRABLE, KL)

nats = st.floats(-50, 50, width=32)
threes = st.lists(nats, min_size=3, max_size=3).map(
    lambda x: np.array(x, np.float32))
labels = st.lists(st.booleans(), min_size=3, max_size=3).map(np.array)
kls = st.floats(0, 50, width=32).map(np.float32)
betas = st.floats(0.01, 2.0)


def equation(logprobs, ref_logprobs, desirable, kl, beta, weights=(1.0, 1.0)):
  """The loss by its definition, in float64."""
  gain = np.asarray(logprobs, np.float64) - ref_logprobs - kl
  value = lambda x: np.exp(-np.logaddexp(0, -beta * x))
  return np.where(desirable, weights[0] * (1 - value(gain)),
                  weights[1] * (1 - value(-gain)))


@jax.jit
def gradient(logprobs, *rest, beta=0.1):
  return jax.grad(
      lambda x: jnp.sum(kto_loss(x, *rest, beta=beta)))(logprobs)


def test_worked_numbers():
  # 1 − σ(0.1 (2 − 1)), and 1 − σ(0.1 (1 + 3)) twice as heavy.
  np.testing.assert_allclose(
      kto_loss(*INPUTS, undesirable_weight=2.0), [0.475021, 2 * 0.401312],
      atol=1e-6)


def test_worked_reference_point():
  # Log-ratios 2, −3 and, of filler, nothing: (1 × 2 − 0.5 × 3) / 1.5.
  z = kto_kl(
      np.array([-10, -12, np.nan], np.float32),
      np.array([-12, -9, -1], np.float32), np.array([1, 0.5, 0], np.float32))
  np.testing.assert_allclose(z, 1 / 3, rtol=1e-6)


@given(threes, threes, labels, kls, betas, st.floats(0, 3), st.floats(0, 3))
def test_equals_its_equation_in_float64(x, ref, label, kl, beta, good, bad):
  loss = kto_loss(x, ref, label, kl, beta=beta, desirable_weight=good,
                  undesirable_weight=bad)
  np.testing.assert_allclose(
      loss, equation(x, ref, label, kl, beta, (good, bad)),
      rtol=1e-3, atol=1e-5)
  assert np.all(loss >= 0) and np.all(loss <= max(good, bad) + 1e-6)


@given(threes, labels, kls, betas)
def test_half_the_weight_where_the_log_ratio_is_the_reference_point(
    ref, label, kl, beta):
  np.testing.assert_allclose(
      kto_loss(ref + kl, ref, label, kl, beta=beta, undesirable_weight=3.0),
      np.where(label, 0.5, 1.5), rtol=1e-4)


@given(threes, threes, labels, kls, st.floats(0, 20, width=32))
def test_only_the_log_ratio_beyond_the_reference_point_matters(
    x, ref, label, kl, shift):
  np.testing.assert_allclose(
      kto_loss(x + shift, ref, label, kl + np.float32(shift)),
      kto_loss(x, ref, label, kl), rtol=1e-4, atol=1e-6)


@given(threes, threes, kls)
def test_the_losses_of_both_labels_add_up_to_one(x, ref, kl):
  good, bad = np.full(3, True), np.full(3, False)
  np.testing.assert_allclose(
      kto_loss(x, ref, good, kl) + kto_loss(x, ref, bad, kl), 1.0, rtol=1e-6)


@given(threes, threes, labels, kls)
def test_desirable_responses_are_raised_and_undesirable_ones_lowered(
    x, ref, label, kl):
  slope = gradient(x, ref, label, kl)
  assert np.all(np.where(label, slope < 0, slope > 0))
  assert np.all(np.abs(slope) <= 0.1 / 4 + 1e-6)


@pytest.mark.parametrize('label', [True, False])
def test_the_pull_is_strongest_at_the_reference_point(label):
  slope = gradient(
      jnp.array([-39.0, 1.0, 41.0]), jnp.zeros(3), jnp.full(3, label), KL)
  np.testing.assert_allclose(abs(slope[1]), 0.1 / 4, rtol=1e-6)
  np.testing.assert_allclose(abs(slope[0]), abs(slope[2]), rtol=1e-4)
  assert abs(slope[0]) < 0.1 * abs(slope[1])


@pytest.mark.parametrize('label', [True, False])
def test_a_batch_of_one_label_only_is_as_good_as_any(label):
  mixed = kto_loss(LOGPROBS, REF_LOGPROBS, np.array([label, not label]), KL)
  alone = kto_loss(LOGPROBS, REF_LOGPROBS, np.array([label, label]), KL)
  assert np.all(np.isfinite(alone))
  np.testing.assert_array_equal(alone[0], mixed[0])


def test_no_gradient_reaches_the_reference_or_the_reference_point():
  slopes = jax.grad(
      lambda x, ref, kl: jnp.sum(kto_loss(x, ref, DESIRABLE, kl)), (0, 1, 2)
  )(LOGPROBS, REF_LOGPROBS, KL)
  assert np.all(slopes[0] != 0)
  np.testing.assert_array_equal(slopes[1], 0.0)
  np.testing.assert_array_equal(slopes[2], 0.0)


def test_no_gradient_flows_through_the_estimate():
  inputs = (LOGPROBS + 9, REF_LOGPROBS, np.ones(2, np.float32))
  assert kto_kl(*inputs) > 0
  for slope in jax.grad(kto_kl, (0, 1, 2))(*inputs):
    np.testing.assert_array_equal(slope, 0.0)


@given(threes, threes, st.lists(
    st.floats(0.125, 2, width=32), min_size=3, max_size=3))
def test_the_estimate_is_the_weighted_mean_held_above_zero(x, ref, weight):
  weight = np.array(weight, np.float32)
  mean = np.average(np.asarray(x, np.float64) - ref, weights=weight)
  estimate = kto_kl(x, ref, weight)
  np.testing.assert_allclose(estimate, max(mean, 0.0), rtol=1e-4, atol=1e-4)
  assert estimate >= 0


@given(threes, threes)
def test_filler_does_not_move_the_estimate(x, ref):
  filler = np.array([np.inf, np.nan], np.float32)
  np.testing.assert_allclose(
      kto_kl(np.append(x, filler), np.append(ref, [0, 0]).astype(np.float32),
             np.array([1, 1, 1, 0, 0], np.float32)),
      kto_kl(x, ref, np.ones(3, np.float32)), rtol=1e-5, atol=1e-5)


def test_a_batch_of_filler_has_the_estimate_zero():
  np.testing.assert_array_equal(
      kto_kl(LOGPROBS + 9, REF_LOGPROBS, np.zeros(2, np.float32)), 0.0)


@pytest.mark.parametrize(
    ('counts', 'expected'),
    [
        ((100, 100), (1, 1)),
        ((120, 100), (1, 1)),
        ((100, 300), (3, 1)),
        ((400, 100), (1, 3)),
        ((0, 7), (1, 1)),
        ((7, 0), (1, 1)),
        ((0, 0), (1, 1)),
    ],
)
def test_class_weights(counts, expected):
  np.testing.assert_allclose(kto_weights(*counts), expected, rtol=1e-12)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_class_weights_balance_by_raising_the_smaller_class(good, bad):
  desirable, undesirable = kto_weights(good, bad)
  balance = desirable * good / (undesirable * bad)
  assert 1 - 1e-9 <= balance <= 4 / 3 + 1e-9
  assert min(desirable, undesirable) == 1
  assert good <= bad or desirable == 1
  assert bad <= good or undesirable == 1


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_no_lighter_class_weights_would_balance(good, bad):
  desirable, undesirable = kto_weights(good, bad)
  assume(desirable > 1 or undesirable > 1)
  lighter = good * max(1, desirable * 0.99) / (bad * max(1, undesirable * 0.99))
  assert not 1 <= lighter <= 4 / 3


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(dtype):
  corners = jnp.array(list(itertools.product([-50, 50], repeat=2)), dtype).T
  desirable = jnp.arange(4) % 2 == 0
  for kl in (0.0, 100.0):
    out, pullback = jax.vjp(
        lambda x: kto_loss(*x, desirable, jnp.array(kl, dtype), beta=2.0),
        corners)
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out))
    assert np.all(np.isfinite(pullback(jnp.ones_like(out))[0]))
  estimate = kto_kl(*corners, jnp.ones(4, dtype))
  assert estimate.dtype == jnp.float32 and np.isfinite(estimate)


def test_wrong_inputs_fail_while_tracing():
  three = jax.ShapeDtypeStruct((3,), jnp.float32)
  four = jax.ShapeDtypeStruct((4,), jnp.float32)
  tokens = jax.ShapeDtypeStruct((3, 5), jnp.float32)
  ints = jax.ShapeDtypeStruct((3,), jnp.int32)
  bools = jax.ShapeDtypeStruct((3,), jnp.bool_)
  scalar = jax.ShapeDtypeStruct((), jnp.float32)
  for inputs, message in [
      ((three, four, bools, scalar), r'\(3,\).*\(4,\)'),
      ((four, four, bools, scalar), r'\(4,\).*\(3,\)'),
      ((tokens, tokens, bools, scalar), r'\(3, 5\).* expected 1'),
      ((three, ints, bools, scalar), 'type int32'),
      ((three, three, ints, scalar), 'type int32'),
      ((three, three, three, scalar), 'type float32'),
      ((three, three, bools, three), r'\(3,\).* expected 0'),
  ]:
    with pytest.raises(AssertionError, match=message):
      jax.eval_shape(kto_loss, *inputs)
  with pytest.raises(AssertionError, match=r'\(3,\).*\(4,\)'):
    jax.eval_shape(kto_kl, three, three, four)
  with pytest.raises(AssertionError, match='type bool'):
    jax.eval_shape(kto_kl, three, three, bools)


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (dict(beta=0.0), 'beta=0.0 is out of range; it must be in (0, inf)'),
        (dict(desirable_weight=-1.0),
         'desirable_weight=-1.0 is out of range; it must be in [0, inf)'),
        (dict(undesirable_weight=-1.0),
         'undesirable_weight=-1.0 is out of range; it must be in [0, inf)'),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(setting, message):
  with pytest.raises(AssertionError) as error:
    kto_loss(*INPUTS, **setting)
  assert str(error.value) == message


def test_a_negative_count_is_refused():
  with pytest.raises(AssertionError, match='num_undesirable=-1 is out of'):
    kto_weights(3, -1)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_compiled_equals_eager(self):
    np.testing.assert_allclose(
        self.variant(kto_loss)(*INPUTS), kto_loss(*INPUTS), rtol=1e-6)
    estimate = (LOGPROBS + 9, REF_LOGPROBS, np.ones(2, np.float32))
    np.testing.assert_allclose(
        self.variant(kto_kl)(*estimate), kto_kl(*estimate), rtol=1e-6)
