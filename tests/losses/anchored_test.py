"""Claims about losses that anchor each response and not only the margin.

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

from alignjax.losses import apo_down_loss
from alignjax.losses import apo_zero_loss
from alignjax.losses import bco_loss
from alignjax.losses import nca_loss
from alignjax.losses import sppo_loss

LOSSES = {
    'apo_zero': apo_zero_loss,
    'apo_down': apo_down_loss,
    'nca': nca_loss,
    'sppo': sppo_loss,
    'bco': bco_loss,
}
every_loss = pytest.mark.parametrize('name', LOSSES)

quads = st.lists(
    st.floats(-50, 50, width=32), min_size=12, max_size=12
).map(lambda x: np.array(x, np.float32).reshape(4, 3))
betas = st.floats(0.01, 2.0)


def sigmoid(x):
  return np.exp(-np.logaddexp(0, -x))


# Of both log-ratios and β.
EQUATIONS = {
    'apo_zero': lambda w, l, b: 1 - sigmoid(b * w) + sigmoid(b * l),
    'apo_down': lambda w, l, b: sigmoid(b * w) + 1 - sigmoid(b * (w - l)),
    'nca': lambda w, l, b: (
        np.logaddexp(0, -b * w)
        + (np.logaddexp(0, b * w) + np.logaddexp(0, b * l)) / 2),
    'bco': lambda w, l, b: np.logaddexp(0, -b * w) + np.logaddexp(0, b * l),
    'sppo': lambda w, l, b: (w - 1 / (2 * b)) ** 2 + (l + 1 / (2 * b)) ** 2,
}


def from_log_ratios(chosen, rejected):
  """Some four inputs with these log-ratios."""
  chosen, rejected = jnp.float32(chosen), jnp.float32(rejected)
  ref = jnp.full_like(chosen, -4.0)
  return chosen + ref, rejected + ref, ref, ref


@functools.partial(jax.jit, static_argnames='name')
def gradients(name, *inputs, beta=0.1):
  """In the log-probabilities of the chosen and of the rejected response."""
  loss = LOSSES[name]
  return jax.grad(lambda *x: jnp.sum(loss(*x, beta=beta)), (0, 1))(*inputs)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        # r_w = 1, r_l = 3, β = 0.1: σ(−0.1) + σ(0.3).
        ('apo_zero', 1.049463),
        # σ(0.1) + σ(0.2).
        ('apo_down', 1.074813),
        # 0.644397 + (0.744397 + 0.854355) / 2.
        ('nca', 1.443773),
        # (1 − 5)² + (3 + 5)².
        ('sppo', 80.0),
    ],
)
def test_worked_number(name, expected):
  np.testing.assert_allclose(
      LOSSES[name](*from_log_ratios([1.0], [3.0])), expected, rtol=1e-6)


@every_loss
@given(x=quads, beta=betas)
def test_equals_its_equation_in_float64(name, x, beta):
  y = np.asarray(x, np.float64)
  np.testing.assert_allclose(
      LOSSES[name](*x, beta=beta),
      EQUATIONS[name](y[0] - y[2], y[1] - y[3], beta), rtol=1e-4, atol=1e-2
      if name == 'sppo' else 1e-5)


@given(quads, betas)
def test_at_the_reference(x, beta):
  reference = (x[0], x[1], x[0], x[1])
  for name, expected in [
      ('apo_zero', 1.0), ('apo_down', 1.0), ('nca', 2 * np.log(2)),
      ('sppo', 1 / (2 * beta**2))]:
    np.testing.assert_allclose(
        LOSSES[name](*reference, beta=beta), expected, rtol=1e-5)


@every_loss
def test_lowering_both_responses_alike_is_not_free(name):
  still = LOSSES[name](*from_log_ratios([4.0], [-4.0]))
  lower = LOSSES[name](*from_log_ratios([-6.0], [-14.0]))
  assert abs(still - lower) > 0.03


@given(quads, betas)
def test_apo_zero_of_a_pair_and_its_swap_add_up_to_two(x, beta):
  pair = apo_zero_loss(*x, beta=beta)
  swap = apo_zero_loss(*x[[1, 0, 3, 2]], beta=beta)
  np.testing.assert_allclose(pair + swap, 2.0, rtol=1e-6)
  assert np.all(pair >= 0) and np.all(pair <= 2)


@given(quads)
def test_apo_zero_raises_the_chosen_and_lowers_the_rejected(x):
  chosen, rejected = gradients('apo_zero', *x)
  assert np.all(chosen < 0) and np.all(rejected > 0)


@given(quads)
def test_apo_down_lowers_the_chosen_where_it_is_nearer_than_the_rejected(x):
  x = x / 2  # Past z = 17 a sigmoid has no slope in float32.
  chosen, rejected = gradients('apo_down', *x)
  y = np.asarray(x, np.float64)
  own, margin = np.abs(y[0] - y[2]), np.abs(y[0] - y[2] - y[1] + y[3])
  clear = np.abs(own - margin) > 0.1
  np.testing.assert_array_equal((chosen > 0)[clear], (own < margin)[clear])
  assert np.all(rejected > 0)


@given(st.floats(-50, 50), betas, st.floats(0.1, 10.0))
def test_nca_is_least_in_the_chosen_at_log_two(rejected, beta, distance):
  best = np.log(2)
  log_ratios = np.array([best - distance, best, best + distance]) / beta
  below, at, above = gradients(
      'nca', *from_log_ratios(log_ratios, np.full(3, rejected)), beta=beta)[0]
  np.testing.assert_allclose(at, 0.0, atol=1e-5)
  assert below < -1e-3 * beta and above > 1e-3 * beta


@given(quads)
def test_nca_lowers_the_rejected(x):
  assert np.all(gradients('nca', *x)[1] > 0)


@given(st.floats(0.05, 2.0), st.floats(-10, 10), st.floats(-10, 10))
def test_sppo_is_the_squared_distance_from_its_two_targets(beta, dw, dl):
  target = 1 / (2 * beta)
  loss = sppo_loss(
      *from_log_ratios([target + dw, target], [dl - target, -target]),
      beta=beta)
  np.testing.assert_allclose(
      loss, [dw**2 + dl**2, 0.0], rtol=1e-3, atol=1e-4)
