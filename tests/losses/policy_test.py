"""Claims about the losses of policy-gradient training."""

import functools

import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import cispo_loss
from alignjax.losses import gspo_loss
from alignjax.losses import importance_weights
from alignjax.losses import policy_entropy
from alignjax.losses import ppo_clip_loss
from alignjax.losses import reinforce_loss
from alignjax.losses import value_clip_loss

LOSSES = {
    'ppo_clip': ppo_clip_loss,
    'ppo_dual_clip': functools.partial(
        ppo_clip_loss, clip_high=0.28, dual_clip=1.4),
    'cispo': cispo_loss,
    'value_clip': value_clip_loss,
}
OLD = np.log([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]).astype(np.float32)
# Ratios 1.5, 1.1, 0.5, for a good action and for a bad one.
NEW = OLD + np.log([[1.5, 1.1, 0.5]] * 2).astype(np.float32)
ADVANTAGES = np.array([[2.0, 2.0, 2.0], [-2.0, -2.0, -2.0]], np.float32)
MASK = np.array([[True, False, True], [False, True, False]])

# XLA may round numbers below 1e-38 to 0, which no advantage is.
threes = st.lists(
    st.floats(-5, 5, width=32, allow_subnormal=False), min_size=18, max_size=18
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


def test_a_higher_clip_and_a_second_one_worked_numbers():
  # A > 0 gains up to 1.4; A < 0 pays for no ratio past 1.3.
  loss = functools.partial(ppo_clip_loss, clip_high=0.4, dual_clip=1.3)
  np.testing.assert_allclose(
      loss(NEW, OLD, ADVANTAGES), [[-2.8, -2.2, -1.0], [2.6, 2.2, 1.6]],
      rtol=1e-5)
  gradient = jax.grad(sum_of(loss, OLD, ADVANTAGES))(NEW)
  np.testing.assert_allclose(
      gradient, [[0.0, -2.2, -1.0], [0.0, 2.2, 0.0]], rtol=1e-5)


def test_reinforce_and_cispo_worked_numbers():
  # log π of 0.75, 0.55 and 0.25; weights 1.2, 1.1 and 0.5, for cispo.
  logprobs = np.log([0.75, 0.55, 0.25])
  expected = np.stack([-2.0 * logprobs, 2.0 * logprobs])
  np.testing.assert_allclose(
      reinforce_loss(NEW, ADVANTAGES), expected, rtol=1e-5)
  np.testing.assert_allclose(
      cispo_loss(NEW, OLD, ADVANTAGES, clip_high=0.2),
      expected * [1.2, 1.1, 0.5], rtol=1e-5)


def test_importance_weights_worked_numbers():
  np.testing.assert_allclose(
      importance_weights(NEW, OLD, cap=1.2), [[1.2, 1.1, 0.5]] * 2, rtol=1e-5)


def test_gspo_worked_numbers():
  # log s is the mean of 0.1 and 0.3: s = 1.2214, above 1.15.
  log_ratio = np.array([[0.1, 7.0, 0.3]] * 3, np.float32)
  mask = np.array([[True, False, True]] * 2 + [[False] * 3])
  loss = gspo_loss(
      OLD[:1] + log_ratio, OLD[:1].repeat(3, 0), np.array([2.0, -2.0, 2.0]),
      mask, clip=0.1, clip_high=0.15)
  np.testing.assert_allclose(loss, [-2.3, 2.4428055, 0.0], rtol=1e-5)


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
  for loss in (reinforce_loss, lambda new, a: cispo_loss(new, x[0], a)):
    np.testing.assert_array_equal(
        jax.grad(sum_of(loss, x[1]))(x[0]), -x[1])


@given(threes, st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_clip_high_is_clip_unless_given(x, clip, clip_high):
  default = ppo_clip_loss(*x, clip=clip)
  np.testing.assert_array_equal(
      ppo_clip_loss(*x, clip=clip, clip_high=clip), default)
  # Only where a good token rose past the lower of the two do they differ.
  same = (x[2] <= 0) | (x[0] - x[1] < np.log1p(min(clip, clip_high)) - 1e-5)
  np.testing.assert_array_equal(
      ppo_clip_loss(*x, clip=clip, clip_high=clip_high)[same], default[same])


@given(threes, st.floats(1.01, 10.0))
def test_a_bad_token_never_costs_more_than_the_dual_clip(x, dual_clip):
  loss, plain = ppo_clip_loss(*x, dual_clip=dual_clip), ppo_clip_loss(*x)
  bound = np.where(x[2] < 0, -np.float32(dual_clip) * x[2], np.inf)
  np.testing.assert_array_equal(loss, np.minimum(plain, bound))


@given(threes, st.floats(0.05, 5.0))
def test_cispo_has_a_gradient_of_every_token(x, clip_high):
  new, old, advantages = x.astype(np.float64)
  gradient = jax.grad(
      lambda x, *rest: jnp.sum(cispo_loss(x, *rest, clip_high=clip_high))
  )(*x)
  np.testing.assert_allclose(
      gradient, -np.minimum(np.exp(new - old), 1 + clip_high) * advantages,
      rtol=1e-4, atol=1e-6)


@given(threes, st.floats(1.0, 5.0))
def test_importance_weights_are_capped_and_one_at_equality(x, cap):
  new, old, _ = x.astype(np.float64)
  weights = importance_weights(x[0], x[1], cap=cap)
  np.testing.assert_allclose(
      weights, np.minimum(np.exp(new - old), cap), rtol=1e-4)
  assert np.all((weights > 0) & (weights <= np.float32(cap)))
  np.testing.assert_array_equal(importance_weights(x[0], x[0], cap=cap), 1.0)


def test_importance_weights_have_no_gradient():
  for gradient in jax.grad(
      lambda *x: jnp.sum(importance_weights(*x)), (0, 1))(NEW, OLD):
    np.testing.assert_array_equal(gradient, 0.0)


@given(threes, st.integers(0, 2))
def test_gspo_of_one_token_is_ppo_of_that_token(x, column):
  mask = np.tile(np.arange(3) == column, (2, 1))
  clips = {'clip': 0.2, 'clip_high': 0.3}
  np.testing.assert_allclose(
      gspo_loss(x[0], x[1], x[2, :, column], mask, **clips),
      ppo_clip_loss(*x, **clips)[:, column], rtol=1e-5)


@given(threes)
def test_gspo_equals_its_equation_in_float64(x):
  new, old, advantages = x.astype(np.float64)
  ratio = np.exp(np.mean(new - old, axis=1, where=MASK))
  expected = -np.minimum(
      ratio * advantages[:, 0],
      np.clip(ratio, 1 - 3e-4, 1 + 4e-4) * advantages[:, 0])
  np.testing.assert_allclose(
      gspo_loss(x[0], x[1], x[2, :, 0], MASK), expected, rtol=1e-4, atol=1e-6)


@given(threes)
def test_gspo_spreads_the_advantage_over_the_response_at_the_old_policy(x):
  advantages = x[1, :, 0]
  loss, gradients = jax.value_and_grad(
      lambda *x: jnp.sum(gspo_loss(*x, MASK)), (0, 1, 2))(
          x[0], x[0], advantages)
  np.testing.assert_allclose(loss, -np.sum(advantages), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
      gradients[0],
      np.where(MASK, -advantages[:, None] / MASK.sum(1, keepdims=True), 0),
      rtol=1e-6, atol=1e-30)
  np.testing.assert_array_equal(gradients[1], 0.0)
  np.testing.assert_array_equal(gradients[2], 0.0)


@pytest.mark.parametrize('junk', [1e30, float('inf'), float('nan')])
def test_masked_tokens_change_neither_value_nor_gradient_of_gspo(junk):
  def run(junk):
    return jax.value_and_grad(lambda new: jnp.sum(gspo_loss(
        jnp.where(MASK, new, junk), jnp.where(MASK, OLD, junk),
        ADVANTAGES[:, 0], MASK, clip=0.6, clip_high=0.6)))(NEW)

  assert np.any(run(0.0)[1] != 0)
  chex.assert_trees_all_equal(run(junk), run(0.0))


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


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    'junk', [(0.0, -1e6, -1.0), (-1e6, 0.0, 1.0), (1e6, 1e6, 1e6)])
def test_a_broken_token_under_a_mask_does_not_spoil_the_gradient(loss, junk):
  def run(junk):
    return jax.value_and_grad(lambda new: jnp.sum(
        loss(*(jnp.where(MASK, x, j) for x, j in zip(
            (new, OLD, ADVANTAGES), junk))), where=MASK))(NEW)

  assert np.all((run((0.0, 0.0, 0.0))[1] != 0)[1:] == MASK[1:])
  chex.assert_trees_all_equal(run(junk), run((0.0, 0.0, 0.0)))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_others_are_finite_float32_at_fifty_nats_too(dtype):
  x = jnp.array([[-50, 0, 50], [50, 50, 50]], dtype)
  mask = jnp.ones((2, 3), bool)
  for fn in (
      lambda x: reinforce_loss(x, x),
      lambda x: importance_weights(x, -x),
      lambda x: gspo_loss(x, -x, x[:, 2], mask),
      lambda x: gspo_loss(-x, x, -x[:, 2], mask),
  ):
    out, pullback = jax.vjp(jax.jit(fn), x)
    gradient, = pullback(jnp.ones_like(out))
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))


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


def test_wrong_inputs_of_the_others_fail_while_tracing():
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  ints = jax.ShapeDtypeStruct((2, 3), jnp.int32)
  wide = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  mask = jax.ShapeDtypeStruct((2, 3), jnp.bool_)
  two = jax.ShapeDtypeStruct((2,), jnp.float32)
  three = jax.ShapeDtypeStruct((3,), jnp.float32)
  for fn, inputs, message in (
      (reinforce_loss, (x, wide), r'\(2, 3\).*\(2, 4\)'),
      (reinforce_loss, (x, ints), 'type int32'),
      (importance_weights, (x, wide), r'\(2, 3\).*\(2, 4\)'),
      (importance_weights, (ints, x), 'type int32'),
      (gspo_loss, (x, wide, two, mask), r'\(2, 3\).*\(2, 4\)'),
      (gspo_loss, (x, x, x, mask), r'\(2, 3\).* expected 1'),
      (gspo_loss, (x, x, three, mask), r'\(2,\).*\(3,\)'),
      (gspo_loss, (x, x, two, x), 'expected bool'),
  ):
    with pytest.raises(AssertionError, match=message):
      jax.eval_shape(fn, *inputs)


def test_a_dual_clip_of_one_would_cut_every_bad_token_and_fails():
  with pytest.raises(AssertionError, match=r'in \(1.0, inf\), got 1.0'):
    ppo_clip_loss(
        *(jnp.asarray(x) for x in (NEW, OLD, ADVANTAGES)), dual_clip=1.0)


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
    for fn, inputs in (
        (policy_entropy, (NEW,)),
        (reinforce_loss, (NEW, ADVANTAGES)),
        (importance_weights, (NEW, OLD)),
        (gspo_loss, (NEW, OLD, ADVANTAGES[:, 0], MASK)),
    ):
      np.testing.assert_allclose(
          self.variant(fn)(*inputs), fn(*inputs), rtol=1e-6)
