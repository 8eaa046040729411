"""The schedule at its corners, the clip, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignjax import train
from alignjax.types import InputError


def rates(num_steps, **kwargs):
  """[num_steps] learning rates, read off Adam's unit steps."""
  optimizer = train.make_optimizer(0.5, num_steps, **kwargs)
  params = jnp.zeros(())

  @jax.jit
  def step(state, _):
    # A constant gradient makes Adam's normalised step exactly 1.
    updates, state = optimizer.update(jnp.ones(()), state, params)
    return state, -updates

  return np.asarray(
      jax.lax.scan(step, optimizer.init(params), length=num_steps)[1])


def test_the_rate_rises_to_its_peak_and_falls_to_a_tenth():
  got = rates(20, warmup=0.2, decay='linear')
  np.testing.assert_allclose(got[:5], [0.125, 0.21875, 0.3125, 0.40625, 0.5],
                             rtol=1e-5)
  np.testing.assert_allclose(np.diff(got[4:]), -0.45 / 16, rtol=1e-3)
  np.testing.assert_allclose(got[-1], 0.05 + 0.45 / 16, rtol=1e-4)


def test_cosine_is_halfway_at_half_time():
  got = rates(21, warmup=0.0, decay='cosine')  # One step of warmup at least.
  np.testing.assert_allclose(got[1], 0.5, rtol=1e-5)
  np.testing.assert_allclose(got[11], 0.275, rtol=1e-4)
  assert np.all(np.diff(got[1:]) < 0)


def test_constant_stays_at_the_peak_from_the_first_step():
  np.testing.assert_allclose(rates(6, decay='constant'), 0.5, rtol=1e-5)


@pytest.mark.parametrize('num_steps, warmup', [(1, 0.05), (2, 1.0), (3, 0.5)])
def test_short_runs_have_finite_positive_rates(num_steps, warmup):
  got = rates(num_steps, warmup=warmup)
  assert np.all((got > 0) & (got <= 0.5 * (1 + 1e-5)))


def test_long_gradients_are_scaled_to_the_limit():
  optimizer = train.make_optimizer(
      1.0, 4, decay='constant', max_grad_norm=1.0)
  params = {'a': jnp.zeros(2)}
  for factor in (1.0, 10.0):
    grads = {'a': factor * jnp.array([3.0, 4.0])}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    moments = optax.tree.get(state, 'mu')
    np.testing.assert_allclose(moments['a'], [0.06, 0.08], rtol=1e-5)
  short = {'a': jnp.array([0.3, 0.4])}
  _, state = optimizer.update(short, optimizer.init(params), params)
  np.testing.assert_allclose(optax.tree.get(state, 'mu')['a'], [0.03, 0.04],
                             rtol=1e-5)


def test_weight_decay_is_decoupled_from_the_gradient():
  optimizer = train.make_optimizer(
      0.1, 4, decay='constant', weight_decay=0.5)
  params = jnp.array(2.0)
  updates, _ = optimizer.update(
      jnp.zeros(()), optimizer.init(params), params)
  np.testing.assert_allclose(updates, -0.1 * 0.5 * 2.0, rtol=1e-6)


@pytest.mark.parametrize('arguments, named', [
    (dict(learning_rate=0.0), 'learning_rate=0.0'),
    (dict(learning_rate=-1e-5), 'learning_rate=-1e-05'),
    (dict(learning_rate=1.0, decay='step'), "decay='step'"),
])
def test_what_cannot_be_is_refused_in_one_line(arguments, named):
  with pytest.raises(InputError) as error:
    train.make_optimizer(num_steps=10, **arguments)
  assert named in str(error.value) and '\n' not in str(error.value)
