"""Claims about KL divergences, their estimators and the controller."""

import functools

from absl.testing import parameterized
import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import adaptive_kl
from alignjax.losses import kl_k1
from alignjax.losses import kl_k2
from alignjax.losses import kl_k3
from alignjax.losses import token_kl

ESTIMATORS = {'k1': kl_k1, 'k2': kl_k2, 'k3': kl_k3}
# d = log 2, −log 2, 0.
LOGPROBS = np.log([[0.5, 0.25, 0.1]]).astype(np.float32)
REF_LOGPROBS = np.log([[0.25, 0.5, 0.1]]).astype(np.float32)
P = np.array([0.5, 0.25, 0.25])
Q = np.array([0.25, 0.25, 0.5])

logits = st.lists(
    st.floats(-8, 8, width=32), min_size=10, max_size=10
).map(lambda x: np.array(x, np.float32).reshape(2, 5))


kl_gradient = jax.jit(jax.grad(token_kl))


def log_softmax(x):
  x = np.asarray(x, np.float64)
  return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def kl_by_definition(x, y):
  x, y = log_softmax(x), log_softmax(y)
  return np.sum(np.exp(x) * (x - y), axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def expected_gradient(estimator, x, y):
  """Mean over y ~ π of the estimator's gradient in the logits of π."""
  probs = jax.nn.softmax(x)
  ref_logprobs = jax.nn.log_softmax(y)[None]

  def mean(x):
    # The draw is given: its probability is a weight and has no gradient.
    return jnp.sum(probs * estimator(jax.nn.log_softmax(x)[None],
                                     ref_logprobs)[0])

  return jax.grad(mean)(x)


def test_token_kl_worked_number():
  # ½ log 2 + 0 − ¼ log 2.
  np.testing.assert_allclose(
      token_kl(jnp.log(P), jnp.log(Q)), 0.25 * np.log(2), rtol=1e-6)


def test_estimators_worked_numbers():
  d = np.log(2)
  np.testing.assert_allclose(
      kl_k1(LOGPROBS, REF_LOGPROBS), [[d, -d, 0.0]], atol=1e-6)
  np.testing.assert_allclose(
      kl_k2(LOGPROBS, REF_LOGPROBS), [[d**2 / 2, d**2 / 2, 0.0]], atol=1e-6)
  np.testing.assert_allclose(
      kl_k3(LOGPROBS, REF_LOGPROBS), [[d - 0.5, 1.0 - d, 0.0]], atol=1e-6)


@given(logits)
def test_token_kl_equals_its_definition_in_float64(x):
  np.testing.assert_allclose(
      token_kl(x[0], x[1]), kl_by_definition(x[0], x[1]),
      rtol=1e-4, atol=1e-5)


@functools.cache
def drawn():
  """Logits of policy and reference, and 100,000 tokens of the policy."""
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 6)).astype(np.float32)
  return x, y, rng.choice(6, size=100_000, p=np.exp(log_softmax(x)))


@functools.partial(jax.jit, static_argnums=0)
def by_token(estimator, x, y):
  """Values [V] of each token, and gradients [V, V] in the logits of π."""

  def values(x):
    return estimator(
        jax.nn.log_softmax(x)[None], jax.nn.log_softmax(y)[None])[0]

  return values(x), jax.jacobian(values)(x)


def assert_mean_is(samples, truth):
  """Within four standard errors, and not for want of precision."""
  samples = np.float64(samples)
  error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
  assert np.all(error < 0.01)
  assert np.all(np.abs(samples.mean(axis=0) - truth) <= 4 * error)


def test_of_drawn_tokens_k1_and_k3_average_to_the_kl_and_k2_does_not():
  x, y, tokens = drawn()
  truth = kl_by_definition(x, y)
  np.testing.assert_allclose(token_kl(x, y), truth, rtol=1e-6)
  for estimator in (kl_k1, kl_k3):
    assert_mean_is(by_token(estimator, x, y)[0][tokens], truth)
  with pytest.raises(AssertionError):
    assert_mean_is(by_token(kl_k2, x, y)[0][tokens], truth)


def test_of_drawn_tokens_only_k2_has_the_gradient_of_the_kl():
  x, y, tokens = drawn()
  # ∂KL/∂z_v = π_v (log π_v − log π_ref,v − KL).
  log_ratio = log_softmax(x) - log_softmax(y)
  truth = np.exp(log_softmax(x)) * (log_ratio - kl_by_definition(x, y))
  gradients = {
      name: by_token(estimator, x, y)[1][tokens]
      for name, estimator in ESTIMATORS.items()}
  assert_mean_is(gradients['k2'], truth)
  assert_mean_is(gradients['k1'], 0.0)
  assert_mean_is(
      gradients['k3'], np.exp(log_softmax(x)) - np.exp(log_softmax(y)))
  for name in ('k1', 'k3'):
    with pytest.raises(AssertionError):
      assert_mean_is(gradients[name], truth)


@given(logits, st.floats(-8, 8, width=32))
def test_token_kl_is_zero_at_the_reference(x, shift):
  np.testing.assert_allclose(token_kl(x, x + shift), 0.0, atol=1e-5)
  np.testing.assert_allclose(kl_gradient(x[0], x[0]), 0.0, atol=1e-5)


@pytest.mark.parametrize('estimator', [kl_k1, kl_k3], ids=['k1', 'k3'])
@given(logits)
def test_k1_and_k3_are_unbiased(estimator, x):
  estimate = estimator(
      log_softmax(x[:1]).astype(np.float32),
      log_softmax(x[1:]).astype(np.float32))
  np.testing.assert_allclose(
      np.sum(np.exp(log_softmax(x[:1])) * estimate),
      kl_by_definition(x[0], x[1]), rtol=1e-3, atol=1e-4)


@given(logits)
def test_k2_and_k3_are_never_negative(x):
  assert np.all(kl_k2(x[:1], x[1:]) >= 0)
  assert np.all(kl_k3(x[:1], x[1:]) >= 0)


@given(logits)
def test_as_a_loss_k2_has_the_gradient_of_the_kl(x):
  truth = kl_gradient(x[0], x[1])
  np.testing.assert_allclose(
      expected_gradient(kl_k2, x[0], x[1]), truth, rtol=1e-3, atol=1e-4)


@given(logits)
def test_as_a_loss_k1_has_no_gradient_on_average(x):
  np.testing.assert_allclose(
      expected_gradient(kl_k1, x[0], x[1]), 0.0, atol=1e-5)


@given(logits)
def test_as_a_loss_k3_has_the_gradient_of_the_kl_turned_round(x):
  # d/dz of KL(π_ref ‖ softmax z) is π − π_ref.
  np.testing.assert_allclose(
      expected_gradient(kl_k3, x[0], x[1]),
      np.exp(log_softmax(x[0])) - np.exp(log_softmax(x[1])), atol=1e-4)


def test_k3_keeps_its_digits_near_the_reference():
  d = np.float32(1e-3)
  np.testing.assert_allclose(
      kl_k3(jnp.full((1, 1), d), jnp.zeros((1, 1))), [[d**2 / 2]], rtol=1e-2)


@pytest.mark.parametrize('estimator', ESTIMATORS.values(), ids=ESTIMATORS)
def test_no_gradient_reaches_the_reference(estimator):
  policy, reference = jax.grad(
      lambda *x: jnp.sum(estimator(*x)), (0, 1))(LOGPROBS, REF_LOGPROBS)
  assert np.any(policy != 0)
  np.testing.assert_array_equal(reference, 0.0)


def test_no_gradient_of_token_kl_reaches_the_reference():
  policy, reference = jax.grad(token_kl, (0, 1))(jnp.log(P), jnp.log(Q))
  assert np.any(policy != 0)
  np.testing.assert_array_equal(reference, 0.0)


def test_a_token_both_forbid_adds_neither_kl_nor_nan():
  logits = jnp.append(jnp.log(P), -jnp.inf)
  ref_logits = jnp.append(jnp.log(Q), -jnp.inf)
  kl, gradient = jax.value_and_grad(token_kl)(logits, ref_logits)
  np.testing.assert_allclose(kl, 0.25 * np.log(2), rtol=1e-6)
  np.testing.assert_allclose(
      gradient[:3], jax.grad(token_kl)(jnp.log(P), jnp.log(Q)), rtol=1e-5)
  assert gradient[3] == 0.0


def test_emitting_what_the_reference_forbids_costs_infinity():
  assert token_kl(jnp.zeros(2), jnp.array([0.0, -jnp.inf])) == jnp.inf


@pytest.mark.parametrize(
    'fn', [*ESTIMATORS.values(), token_kl], ids=[*ESTIMATORS, 'token_kl'])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_fifty_nats_and_float32_out(fn, dtype):
  x = jnp.array([[-50, 0, 50, 0], [0, 50, -50, -50]], dtype)
  ref = jnp.array([[0, -50, 0, 50], [0, 0, 0, 0]], dtype)
  out, pullback = jax.vjp(jax.jit(lambda x: fn(x, ref)), x)
  gradient, = pullback(jnp.ones_like(out))
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    'fn', [*ESTIMATORS.values(), token_kl], ids=[*ESTIMATORS, 'token_kl'])
def test_wrong_inputs_fail_while_tracing(fn):
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  with pytest.raises(AssertionError, match=r'\(2, 3\).*\(2, 1\)'):
    jax.eval_shape(fn, x, jax.ShapeDtypeStruct((2, 1), jnp.float32))
  with pytest.raises(AssertionError, match='type int32'):
    jax.eval_shape(fn, x, jax.ShapeDtypeStruct((2, 3), jnp.int32))


def test_the_coefficient_follows_worked_updates():
  init, update = adaptive_kl(init=0.1, target=6.0, horizon=1_000)
  state = init()
  np.testing.assert_allclose(state.coef, 0.1, rtol=1e-6)
  # e = 6.6/6 − 1 = 0.1; 0.1 × (1 + 0.1 × 50/1000) = 0.1005.
  state = update(state, 6.6, 50)
  np.testing.assert_allclose(state.coef, 0.1005, rtol=1e-6)
  # e = 5.4/6 − 1 = −0.1; 0.1005 × (1 − 0.1 × 100/1000) = 0.099495.
  state = update(state, 5.4, 100)
  np.testing.assert_allclose(state.coef, 0.099495, rtol=1e-6)


@pytest.mark.parametrize('kl, factor', [(600.0, 1.1), (0.0, 0.9), (-5.0, 0.9)])
def test_the_error_is_clipped_at_a_fifth(kl, factor):
  controller = adaptive_kl(0.1, 6.0, 1_000)
  state = controller.update(controller.init(), kl, 500)
  np.testing.assert_allclose(state.coef, 0.1 * factor, rtol=1e-6)


def test_the_coefficient_stands_still_at_the_target():
  controller = adaptive_kl(0.05, 8.0)
  state = controller.update(controller.init(), jnp.array(8.0), 512)
  assert state == controller.init()


@given(st.floats(0.1, 50.0), st.integers(1, 1_000))
def test_the_coefficient_moves_towards_the_target(kl, num_sequences):
  controller = adaptive_kl(0.05, 8.0)
  state = controller.update(controller.init(), kl, num_sequences)
  change = np.sign(float(state.coef) - float(controller.init().coef))
  if abs(kl / 8.0 - 1.0) * num_sequences > 1e-2:
    assert change == np.sign(kl - 8.0)


def test_the_controller_is_a_pytree_that_scans():
  controller = adaptive_kl(0.05, 8.0)

  def step(state, kl):
    return controller.update(state, kl, 100), state.coef

  state, coefs = jax.lax.scan(
      step, controller.init(), jnp.array([9.0, 9.0, 9.0]))
  assert coefs[0] < coefs[1] < coefs[2] < state.coef
  assert state.coef.dtype == jnp.float32


@pytest.mark.parametrize('settings', [(0.0, 6.0), (0.1, -1.0), (0.1, 6.0, 0)])
def test_a_setting_that_is_not_positive_fails(settings):
  with pytest.raises(AssertionError, match='must be positive'):
    adaptive_kl(*settings)


def test_a_kl_per_sequence_fails_where_their_mean_is_asked():
  controller = adaptive_kl(0.1, 6.0)
  with pytest.raises(AssertionError, match=r'rank 1 .*expected 0'):
    controller.update(controller.init(), jnp.ones(4), 4)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(
      *ESTIMATORS.items(), ('token_kl', token_kl))
  def test_compiled_equals_eager(self, fn):
    np.testing.assert_allclose(
        self.variant(fn)(LOGPROBS, REF_LOGPROBS), fn(LOGPROBS, REF_LOGPROBS),
        rtol=1e-6, atol=1e-7)

  @chex.variants(with_jit=True, without_jit=True)
  def test_the_update_compiles(self):
    controller = adaptive_kl(0.1, 6.0, 1_000)
    state = self.variant(controller.update)(
        controller.init(), jnp.array(6.6), 50)
    np.testing.assert_allclose(state.coef, 0.1005, rtol=1e-6)


# --- The controller with a gain.


def test_with_a_gain_the_coefficient_answers_at_once_and_settles_at_the_level():
  """Worked by hand: n / horizon = 0.1, KL at twice, then at the target."""
  controller = adaptive_kl(0.3, 2.0, 1_000.0, gain=1.0)
  state = controller.update(controller.init(), jnp.float32(4.0), 100)
  np.testing.assert_allclose(state.level, 0.3 * 1.02, rtol=1e-6)
  np.testing.assert_allclose(state.coef, 0.3 * 1.02 * 2, rtol=1e-6)
  state = controller.update(state, jnp.float32(2.0), 100)
  np.testing.assert_allclose(state.coef, 0.3 * 1.02, rtol=1e-6)
  far = controller.update(state, jnp.float32(1e9), 100)
  np.testing.assert_allclose(far.coef, 0.3 * 1.02 * 1.02 * 4, rtol=1e-6)
  none = controller.update(state, jnp.float32(-1.0), 100)
  np.testing.assert_allclose(none.coef, 0.3 * 1.02 * 0.98 / 4, rtol=1e-6)


def overshoot(gain):
  """Peak KL over target of a policy that answers late to a short horizon."""
  controller = adaptive_kl(0.3, 1.0, 250.0, gain=gain)
  state, kl, speed, peak = controller.init(), 0.0, 0.0, 0.0
  for _ in range(200):
    # A penalty pulls at how fast the policy leaves, not at where it is.
    speed = 0.8 * speed + 0.2 * (0.2 - 0.2 * float(state.coef) * kl)
    kl = max(0.0, kl + speed)
    peak = max(peak, kl)
    state = controller.update(state, jnp.float32(kl), 64)
  return peak, kl


def test_a_gain_damps_what_the_level_alone_overshoots():
  without, with_gain = overshoot(0.0), overshoot(1.0)
  assert with_gain[0] < without[0] - 0.1
  np.testing.assert_allclose(with_gain[1], 1.0, atol=0.1)
