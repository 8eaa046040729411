"""Claims about preference losses without a reference."""

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

from alignjax.losses import cpo_loss
from alignjax.losses import dpo_loss
from alignjax.losses import orpo_loss
from alignjax.losses import simpo_loss

LOSSES = {'simpo': simpo_loss, 'orpo': orpo_loss, 'cpo': cpo_loss}
every_loss = pytest.mark.parametrize('name', LOSSES)
INPUTS = (np.array([-0.5, -2.0, -1.0], np.float32),
          np.array([-1.5, -1.0, -1.0], np.float32))

# Mean log-probabilities of whole pairs.
pairs = st.lists(
    st.floats(-8, -0.0625, width=32), min_size=6, max_size=6
).map(lambda x: np.array(x, np.float32).reshape(2, 3))
betas = st.floats(0.01, 4.0)


@functools.partial(jax.jit, static_argnames='name')
def gradients(name, *inputs):
  """In the log-probabilities of the chosen and of the rejected response."""
  return jax.grad(
      lambda *x: jnp.sum(LOSSES[name](*x)), (0, 1))(*inputs)


def log_odds(x):
  """log p/(1 − p) of log p, in float64."""
  p = np.exp(np.asarray(x, np.float64))
  return np.log(p / (1 - p))


@pytest.mark.parametrize(
    ('loss', 'inputs', 'expected'),
    [
        # 2 (−0.5 + 1.5) − 1 = 1.
        (simpo_loss, (-0.5, -1.5), 0.313262),
        # Odds of 1 and of 1/3: log(1 + 1/3).
        (orpo_loss, (np.log(0.5), np.log(0.25)), 0.287682),
        # 0.1 (−10 + 12) = 0.2.
        (cpo_loss, (-10.0, -12.0), 0.598139),
        # 0.9 × 0.598139 + 0.1 × 0.798139.
        (functools.partial(cpo_loss, label_smoothing=0.1), (-10.0, -12.0),
         0.618139),
    ],
    ids=['simpo', 'orpo', 'cpo', 'conservative_cpo'],
)
def test_worked_number(loss, inputs, expected):
  inputs = (jnp.array([x], jnp.float32) for x in inputs)
  np.testing.assert_allclose(loss(*inputs), expected, atol=1e-6)


@given(pairs, betas, st.floats(0.0, 3.0))
def test_simpo_of_equal_responses_is_the_softplus_of_its_margin(x, beta, gamma):
  np.testing.assert_allclose(
      simpo_loss(x[0], x[0], beta=beta, gamma=gamma), np.logaddexp(0, gamma),
      rtol=1e-6)


@given(pairs, betas)
def test_simpo_without_a_margin_is_cpo_of_means(x, beta):
  np.testing.assert_allclose(
      simpo_loss(*x, beta=beta, gamma=0.0), cpo_loss(*x, beta=beta), rtol=1e-6)


@given(pairs, betas, st.floats(0.0, 3.0))
def test_simpo_margin_is_a_handicap_of_the_chosen(x, beta, gamma):
  np.testing.assert_allclose(
      simpo_loss(*x, beta=beta, gamma=gamma),
      simpo_loss(x[0] - gamma / beta, x[1], beta=beta, gamma=0.0),
      rtol=1e-3, atol=1e-5)


@given(pairs, betas, st.floats(0.0, 0.49), st.floats(-20, 0))
def test_cpo_is_dpo_with_a_uniform_reference(x, beta, label_smoothing, ref):
  ref = np.full(3, ref, np.float32)
  np.testing.assert_allclose(
      cpo_loss(*x, beta=beta, label_smoothing=label_smoothing),
      dpo_loss(*x, ref, ref, beta=beta, label_smoothing=label_smoothing),
      rtol=1e-3, atol=1e-5)


@given(pairs)
def test_orpo_equals_its_equation_in_float64(x):
  expected = np.logaddexp(0, log_odds(x[1]) - log_odds(x[0]))
  np.testing.assert_allclose(orpo_loss(*x), expected, rtol=1e-4, atol=1e-6)


@given(pairs)
def test_orpo_of_equal_responses_is_log_two(x):
  np.testing.assert_allclose(orpo_loss(x[0], x[0]), np.log(2), rtol=1e-6)


@given(pairs)
def test_swapping_the_pair_costs_orpo_its_log_odds_ratio(x):
  np.testing.assert_allclose(
      orpo_loss(x[1], x[0]) - orpo_loss(*x), log_odds(x[0]) - log_odds(x[1]),
      rtol=1e-3, atol=1e-4)


def test_orpo_of_unlikely_responses_sees_only_their_difference():
  chosen, rejected = INPUTS
  np.testing.assert_allclose(
      orpo_loss(chosen - 20, rejected - 20), cpo_loss(*INPUTS, beta=1.0),
      rtol=1e-5)
  assert np.all(abs(orpo_loss(*INPUTS) - cpo_loss(*INPUTS, beta=1.0))[:2] > 0.1)


def test_orpo_is_finite_for_a_response_that_is_certain():
  certain, likely = jnp.zeros(1), jnp.array([-0.5])
  for pair in [(certain, likely), (likely, certain), (certain, certain)]:
    loss = orpo_loss(*pair)
    assert np.all(np.isfinite(loss))
    assert np.all(np.isfinite(gradients('orpo', *pair)))
  assert orpo_loss(likely, certain) > 15 > 1e-6 > orpo_loss(certain, likely)


@every_loss
@given(x=pairs)
def test_raising_the_chosen_or_lowering_the_rejected_costs_less(name, x):
  chosen, rejected = gradients(name, *x)
  assert np.all(chosen < 0) and np.all(rejected > 0)


@every_loss
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(name, dtype):
  corners = jnp.array(list(itertools.product([-50, 0, 50], repeat=2)), dtype).T
  out, pullback = jax.vjp(jax.jit(lambda x: LOSSES[name](*x)), corners)
  gradient, = pullback(jnp.ones_like(out))
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))


@every_loss
def test_wrong_inputs_fail_while_tracing(name):
  three = jax.ShapeDtypeStruct((3,), jnp.float32)
  four = jax.ShapeDtypeStruct((4,), jnp.float32)
  tokens = jax.ShapeDtypeStruct((3, 5), jnp.float32)
  ints = jax.ShapeDtypeStruct((3,), jnp.int32)
  with pytest.raises(AssertionError, match=r'\(3,\).*\(4,\)'):
    jax.eval_shape(LOSSES[name], three, four)
  with pytest.raises(AssertionError, match=r'\(3, 5\).* expected 1'):
    jax.eval_shape(LOSSES[name], tokens, tokens)
  with pytest.raises(AssertionError, match='type int32'):
    jax.eval_shape(LOSSES[name], three, ints)


@pytest.mark.parametrize(
    ('loss', 'setting', 'message'),
    [
        (simpo_loss, dict(beta=0.0),
         'beta=0.0 is out of range; it must be in (0, inf)'),
        (simpo_loss, dict(gamma=-1.0),
         'gamma=-1.0 is out of range; it must be in [0, inf)'),
        (cpo_loss, dict(beta=-1),
         'beta=-1 is out of range; it must be in (0, inf)'),
        (cpo_loss, dict(label_smoothing=0.5),
         'label_smoothing=0.5 is out of range; it must be in [0, 0.5)'),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(loss, setting, message):
  with pytest.raises(AssertionError) as error:
    loss(*INPUTS, **setting)
  assert str(error.value) == message


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(*LOSSES.items())
  def test_compiled_equals_eager(self, loss):
    np.testing.assert_allclose(
        self.variant(loss)(*INPUTS), loss(*INPUTS), rtol=1e-6)
