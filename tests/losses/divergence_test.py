"""Claims about f-DPO.

Reference, compilation, types, settings: see preference_test.py, which claims
them for every loss of a pair and its reference.
"""

import functools

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import alpha_dpo_loss
from alignjax.losses import dpo_loss
from alignjax.losses import forward_kl_dpo_loss
from alignjax.losses import js_dpo_loss

LOSSES = {
    'forward_kl': forward_kl_dpo_loss,
    'js': js_dpo_loss,
    'alpha': alpha_dpo_loss,
}
# f′ of the log-ratio, by the paper's definition and not up to a constant.
DERIVATIVES = {
    'forward_kl': lambda x: 1 - np.exp(-x),
    'js': lambda x: np.log(2 * np.exp(x) / (1 + np.exp(x))),
    'alpha': lambda x: (1 - np.exp(-x) ** 0.5) / 0.5,
}
every_loss = pytest.mark.parametrize('name', LOSSES)

quads = st.lists(
    st.floats(-2, 2, width=32), min_size=12, max_size=12
).map(lambda x: np.array(x, np.float32).reshape(4, 3))
betas = st.floats(0.01, 2.0)


def from_log_ratios(chosen, rejected):
  """Some four inputs with these log-ratios."""
  chosen, rejected = jnp.float32(chosen), jnp.float32(rejected)
  ref = jnp.full_like(chosen, -4.0)
  return chosen + ref, rejected + ref, ref, ref


@functools.partial(jax.jit, static_argnames='name')
def gradients(name, *inputs):
  """In the log-probabilities of the chosen and of the rejected response."""
  loss = dpo_loss if name == 'dpo' else LOSSES[name]
  return jax.grad(lambda *x: jnp.sum(loss(*x)), (0, 1))(*inputs)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        # r_w = 1, r_l = 3, β = 0.1: log(1 + e^0.0318092), from e⁻³ − e⁻¹.
        ('forward_kl', 0.709178),
        # log σ(1) − log σ(3) = −0.264675.
        ('js', 0.706468),
        # 2 (e^−1.5 − e^−0.5) = −0.766801.
        ('alpha', 0.732222),
    ],
)
def test_worked_number(name, expected):
  np.testing.assert_allclose(
      LOSSES[name](*from_log_ratios([1.0], [3.0])), expected, atol=1e-6)


@every_loss
@given(x=quads, beta=betas)
def test_equals_its_equation_in_float64(name, x, beta):
  y = np.asarray(x, np.float64)
  f = DERIVATIVES[name]
  expected = np.logaddexp(0, -beta * (f(y[0] - y[2]) - f(y[1] - y[3])))
  np.testing.assert_allclose(
      LOSSES[name](*x, beta=beta), expected, rtol=1e-4, atol=1e-4)


@every_loss
@given(x=quads, beta=betas)
def test_equals_log_two_at_the_reference(name, x, beta):
  np.testing.assert_allclose(
      LOSSES[name](x[0], x[1], x[0], x[1], beta=beta), np.log(2), rtol=1e-6)


@given(quads)
def test_a_small_alpha_is_dpo_and_an_alpha_of_one_is_forward_kl(x):
  np.testing.assert_allclose(
      alpha_dpo_loss(*x, alpha=1e-4), dpo_loss(*x), rtol=1e-3)
  np.testing.assert_allclose(
      alpha_dpo_loss(*x, alpha=1.0), forward_kl_dpo_loss(*x), rtol=1e-6)


@given(quads)
def test_jensen_shannon_is_dpo_far_below_the_reference(x):
  low = (x[0] - 30, x[1] - 30, x[2], x[3])
  np.testing.assert_allclose(js_dpo_loss(*low), dpo_loss(*low), rtol=1e-5)


@pytest.mark.parametrize(
    ('name', 'expected'), [('forward_kl', 0.05), ('js', 0.025), ('alpha', 0.05)]
)
def test_gradient_at_the_reference(name, expected):
  chosen, rejected = gradients(name, *from_log_ratios([0.0], [0.0]))
  np.testing.assert_allclose([chosen, rejected], [[-expected], [expected]])


@every_loss
@given(x=quads)
def test_raising_the_chosen_or_lowering_the_rejected_costs_less(name, x):
  chosen, rejected = gradients(name, *x)
  assert np.all(chosen < 0) and np.all(rejected > 0)


@every_loss
def test_a_response_far_above_its_reference_is_left_alone(name):
  inputs = from_log_ratios([30.0], [30.0])
  assert abs(gradients(name, *inputs)[0]) < 1e-6
  assert abs(gradients('dpo', *inputs)[0]) > 0.04


@pytest.mark.parametrize('name', ['forward_kl', 'alpha'])
def test_a_response_far_below_its_reference_is_pulled_with_a_bounded_force(
    name):
  # α = 0.5 halves the exponent, so that both are past 20 nats.
  chosen, _ = gradients(name, *from_log_ratios([-50.0, -90.0], [0.0, 0.0]))
  np.testing.assert_allclose(chosen, -0.1 * np.exp(20.0), rtol=1e-5)


@pytest.mark.parametrize('name', ['forward_kl', 'alpha'])
def test_the_loss_is_continuous_where_its_tangent_begins(name):
  start = -20.0 if name == 'forward_kl' else -40.0
  losses = LOSSES[name](
      *from_log_ratios([start - 1e-3, start + 1e-3], [0.0, 0.0]))
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2)
  assert losses[0] > losses[1]
