"""Claims about DPO and its nearest relatives.

What every loss of a pair and its reference must do is claimed here for all of
them, in whichever module: they share the code that sees to it.
"""

import functools
import itertools

from absl.testing import parameterized
import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import alpha_dpo_loss
from alignjax.losses import aot_loss
from alignjax.losses import aot_unpaired_loss
from alignjax.losses import apo_down_loss
from alignjax.losses import apo_zero_loss
from alignjax.losses import bco_loss
from alignjax.losses import discopop_loss
from alignjax.losses import dpo_loss
from alignjax.losses import exo_loss
from alignjax.losses import forward_kl_dpo_loss
from alignjax.losses import hinge_loss
from alignjax.losses import ipo_loss
from alignjax.losses import js_dpo_loss
from alignjax.losses import nca_loss
from alignjax.losses import robust_dpo_loss
from alignjax.losses import sppo_loss

MARGIN_LOSSES = {
    'dpo': dpo_loss,
    'ipo': ipo_loss,
    'hinge': hinge_loss,
    'robust': robust_dpo_loss,
    'exo': exo_loss,
    'discopop': discopop_loss,
}
LOSSES = MARGIN_LOSSES | {
    'forward_kl': forward_kl_dpo_loss,
    'js': js_dpo_loss,
    'alpha': alpha_dpo_loss,
    'apo_zero': apo_zero_loss,
    'apo_down': apo_down_loss,
    'nca': nca_loss,
    'sppo': sppo_loss,
    'bco': bco_loss,
    'aot': aot_loss,
    'aot_unpaired': aot_unpaired_loss,
}
every_loss = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
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


@pytest.mark.parametrize(
    ('loss', 'expected'),
    [
        # 0.823139 is (0.9 × 0.798139 − 0.1 × 0.598139) / 0.8.
        (robust_dpo_loss, 0.823139),
        # σ(−0.2) (−0.798139 − log 0.9) + σ(0.2) (−0.598139 − log 0.1).
        (functools.partial(exo_loss, label_smoothing=0.1), 0.625297),
        # σ(−0.2/0.05) = 0.0179862: 0.9820138 × 0.798139 + 0.0179862 e^0.2.
        (discopop_loss, 0.805752),
    ],
    ids=['robust', 'exo', 'discopop'],
)
def test_worked_number(loss, expected):
  np.testing.assert_allclose(loss(*INPUTS)[0], expected, atol=1e-6)


@given(quads, betas, st.floats(0.0, 0.49))
def test_robust_dpo_and_discopop_at_the_reference(x, beta, label_smoothing):
  reference = (x[0], x[1], x[0], x[1])
  np.testing.assert_allclose(
      robust_dpo_loss(*reference, beta=beta, label_smoothing=label_smoothing),
      np.log(2), rtol=1e-4)
  np.testing.assert_allclose(
      discopop_loss(*reference, beta=beta, tau=0.01 + label_smoothing),
      (1 + np.log(2)) / 2, rtol=1e-6)


@given(quads, betas, st.floats(0.0, 0.45))
def test_robust_dpo_over_flipped_labels_is_dpo_on_average(x, beta, flip):
  right = robust_dpo_loss(*x, beta=beta, label_smoothing=flip)
  wrong = robust_dpo_loss(*x[[1, 0, 3, 2]], beta=beta, label_smoothing=flip)
  np.testing.assert_allclose(
      (1 - flip) * right + flip * wrong, dpo_loss(*x, beta=beta),
      rtol=1e-3, atol=1e-3)


@given(quads, betas, st.floats(1e-4, 0.49))
def test_exo_is_a_divergence_between_two_coins(x, beta, label_smoothing):
  z = beta * margin(x)
  log_q = np.array([-np.logaddexp(0, -z), -np.logaddexp(0, z)])
  log_p = np.log([1 - label_smoothing, label_smoothing])[:, None]
  np.testing.assert_allclose(
      exo_loss(*x, beta=beta, label_smoothing=label_smoothing),
      np.sum(np.exp(log_q) * (log_q - log_p), axis=0), rtol=1e-4, atol=1e-5)


@given(betas, st.floats(1e-3, 0.49), st.floats(0.1, 5.0))
def test_exo_is_least_where_policy_and_label_agree(beta, flip, distance):
  best = np.log((1 - flip) / flip)
  loss = exo_loss(
      *from_margin(np.array([best - distance, best, best + distance]) / beta),
      beta=beta, label_smoothing=flip)
  np.testing.assert_allclose(loss[1], 0.0, atol=1e-6)
  assert loss[0] > loss[1] and loss[2] > loss[1]


@given(st.floats(1.0, 80.0), betas)
def test_discopop_is_dpo_for_wrong_pairs_and_exponential_for_right(z, beta):
  wrong, right = discopop_loss(
      *from_margin(np.array([-z, z]) / beta), beta=beta)
  np.testing.assert_allclose(wrong, np.logaddexp(0, z), rtol=1e-4)
  np.testing.assert_allclose(right, np.exp(-z), rtol=1e-4)


def test_discopop_first_pushes_a_policy_at_its_reference_the_wrong_way():
  gradient = jax.grad(lambda c: jnp.sum(discopop_loss(
      c, *from_margin(jnp.zeros(1))[1:], beta=1.0)))(jnp.array([-3.0]))
  np.testing.assert_allclose(
      gradient, -0.75 + (1 - np.log(2)) / (4 * 0.05), rtol=1e-5)
  assert gradient > 0


@pytest.mark.parametrize('loss', [dpo_loss, robust_dpo_loss, hinge_loss])
@given(h=st.floats(-60.0, 60.0), step=st.floats(1.0, 10.0))
def test_a_wider_margin_costs_less_and_ever_less_is_gained(loss, h, step):
  low, middle, high = loss(*from_margin([h - step, h, h + step]))
  assert low >= middle >= high
  assert low > high or h - step > 9.99  # Where the hinge is flat.
  assert low - middle >= middle - high - 1e-4


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


@pytest.mark.parametrize(
    'loss', MARGIN_LOSSES.values(), ids=MARGIN_LOSSES)
def test_only_the_margin_matters(loss):
  shift = np.array([2.0, -3.0, 5.0], np.float32)
  chosen, rejected, ref_chosen, ref_rejected = INPUTS
  np.testing.assert_allclose(
      loss(chosen + shift, rejected + shift, ref_chosen, ref_rejected),
      loss(*INPUTS), rtol=1e-5)
  gradients = jax.grad(lambda *x: jnp.sum(loss(*x)), (0, 1))(*INPUTS)
  np.testing.assert_array_equal(gradients[0], -gradients[1])


@pytest.mark.parametrize('name', sorted(LOSSES.keys() - {'aot'}))
def test_only_log_ratios_matter(name):
  """But for paired AOT, which sorts margins before it compares them."""
  loss = LOSSES[name]
  shift = np.array([7.0, -3.0, 11.0], np.float32)
  chosen, rejected, ref_chosen, ref_rejected = INPUTS
  np.testing.assert_allclose(
      loss(chosen + shift, rejected, ref_chosen + shift, ref_rejected),
      loss(*INPUTS), rtol=1e-6)


@every_loss
def test_no_gradient_reaches_the_reference(loss):
  gradients = jax.grad(
      lambda *x: jnp.sum(loss(*x)), (0, 1, 2, 3))(*INPUTS)
  np.testing.assert_array_equal(gradients[2:], 0.0)
  assert np.any(gradients[0] != 0) and np.any(gradients[1] != 0)


@every_loss
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(loss, dtype):
  corners = jnp.array(
      list(itertools.product([-50.0, 50.0], repeat=4)), dtype).T
  for beta in (0.1, 2.0):
    out, pullback = jax.vjp(jax.jit(lambda x: loss(*x, beta=beta)), corners)
    gradient, = pullback(jnp.ones_like(out))
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))


@every_loss
def test_bfloat16_inputs_are_subtracted_in_float32(loss):
  # In bfloat16 −201 + 2.25 would be −199.
  inputs = [jnp.array([x], jnp.bfloat16) for x in (-201, -2.25, -3, -2)]
  np.testing.assert_array_equal(
      loss(*inputs), loss(*(x.astype(jnp.float32) for x in inputs)))


@every_loss
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


@every_loss
def test_a_beta_that_is_not_positive_is_refused_while_tracing(loss):
  for beta in (0, -0.1, float('inf'), float('nan')):
    with pytest.raises(
        AssertionError,
        match=rf'^beta={beta} is out of range; it must be in \(0, inf\)'):
      jax.eval_shape(functools.partial(loss, beta=beta), *INPUTS)


@pytest.mark.parametrize(
    ('loss', 'setting', 'message'),
    [
        (dpo_loss, dict(label_smoothing=0.5),
         'label_smoothing=0.5 is out of range; it must be in [0, 0.5)'),
        (dpo_loss, dict(label_smoothing=-0.1),
         'label_smoothing=-0.1 is out of range; it must be in [0, 0.5)'),
        (robust_dpo_loss, dict(label_smoothing=0.5),
         'label_smoothing=0.5 is out of range; it must be in [0, 0.5)'),
        (exo_loss, dict(label_smoothing=0.0),
         'label_smoothing=0.0 is out of range; it must be in (0, 0.5)'),
        (discopop_loss, dict(tau=1.5),
         'tau=1.5 is out of range; it must be in (0, 1]'),
        (alpha_dpo_loss, dict(alpha=0),
         'alpha=0 is out of range; it must be in (0, inf)'),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(loss, setting, message):
  with pytest.raises(AssertionError) as error:
    loss(*INPUTS, **setting)
  assert str(error.value) == message


@every_loss
def test_a_sweep_may_map_over_beta(loss):
  sweep = jnp.array([0.05, 0.5, 1.0])
  mapped = jax.vmap(lambda beta: loss(*INPUTS, beta=beta))(sweep)
  np.testing.assert_allclose(
      mapped, [loss(*INPUTS, beta=float(beta)) for beta in sweep], rtol=1e-5)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(*LOSSES.items())
  def test_compiled_equals_eager(self, loss):
    np.testing.assert_allclose(
        self.variant(loss)(*INPUTS), loss(*INPUTS), rtol=1e-6)


def test_certain_preferences_have_no_end_under_dpo_and_one_under_ipo():
  """Gradient descent on one pair's margin, whose label is never in doubt."""
  zero = jnp.zeros(1)

  def descend(loss):
    slope = jax.grad(lambda h: loss(h, zero, zero, zero, beta=0.5).sum())
    step = lambda h, _: (h - 0.3 * slope(h), h[0])
    return np.asarray(jax.lax.scan(step, zero, length=32_000)[1])

  dpo, ipo = descend(dpo_loss), descend(ipo_loss)
  # Doubling the time adds the same again: log t, without bound.
  grown = [dpo[2 * t - 1] - dpo[t - 1] for t in (4_000, 8_000, 16_000)]
  np.testing.assert_allclose(grown, np.log(2) / 0.5, rtol=0.02)
  np.testing.assert_allclose(ipo[1_000:], 1 / (2 * 0.5), rtol=1e-6)
