"""Claims about the losses that fit rewards to comparisons."""

import itertools
import math

import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import bradley_terry_loss
from alignjax.losses import plackett_luce_loss
from alignjax.losses import preference_margin
from alignjax.losses import ranking_loss
from alignjax.losses import reward_centering_loss

PAIR_LOSSES = {
    'bradley_terry': bradley_terry_loss,
    'reward_centering': reward_centering_loss,
}
RANKINGS = {'ranking': ranking_loss, 'plackett_luce': plackett_luce_loss}
CHOSEN = np.array([5.0, 3.0, 1.0, -50.0], np.float32)
REJECTED = np.array([3.0, 5.0, 1.0, 50.0], np.float32)
RANKS = np.array([[2, 0, 1, 1], [0, 3, 0, 7]])
MASK = np.array([[True, True, True, True], [True, True, True, False]])

pairs = st.lists(
    st.floats(-50, 50, width=32), min_size=6, max_size=6
).map(lambda x: np.array(x, np.float32).reshape(2, 3))
fours = st.lists(
    st.floats(-50, 50, width=32), min_size=8, max_size=8
).map(lambda x: np.array(x, np.float32).reshape(2, 4))


def softplus(x):
  return np.logaddexp(0.0, np.asarray(x, np.float64))


def slow_ranking_loss(rewards, ranks, mask):
  """The definition, one row and one pair at a time."""
  losses = []
  for r, rank, kept in zip(np.float64(rewards), ranks, mask):
    row = [
        softplus(r[j] - r[i])
        for i, j in itertools.permutations(range(len(r)), 2)
        if kept[i] and kept[j] and rank[i] < rank[j]
    ]
    losses.append(np.mean(row) if row else 0.0)
  return np.array(losses)


def slow_plackett_luce_loss(rewards, ranks, mask):
  """The definition, one row and one response at a time."""
  losses = []
  for r, rank, kept in zip(np.float64(rewards), ranks, mask):
    r, rank = r[kept], rank[kept]
    losses.append(sum(
        np.logaddexp.reduce(r[rank >= rank[i]]) - r[i] for i in range(len(r))))
  return np.array(losses)


SLOW_RANKINGS = {
    'ranking': slow_ranking_loss, 'plackett_luce': slow_plackett_luce_loss}


def test_rewards_of_five_and_three_prefer_the_first_with_088():
  probability = np.exp(-bradley_terry_loss(CHOSEN, REJECTED))
  np.testing.assert_allclose(
      probability[:3], [0.8808, 0.1192, 0.5], atol=5e-5)


def test_bradley_terry_is_linear_far_on_the_wrong_side():
  assert bradley_terry_loss(CHOSEN, REJECTED)[3] == 100.0


@given(pairs)
def test_bradley_terry_equals_softplus_in_float64(x):
  margin = np.array([0.0, 1.0, 3.0], np.float32)
  np.testing.assert_allclose(
      bradley_terry_loss(x[0], x[1], margin=margin),
      softplus(x[1].astype(np.float64) - x[0] + margin), rtol=1e-5)


@given(pairs, st.floats(-50, 50, width=32))
def test_bradley_terry_sees_differences_only(x, shift):
  np.testing.assert_allclose(
      bradley_terry_loss(x[0] + shift, x[1] + shift),
      bradley_terry_loss(x[0], x[1]), rtol=1e-4, atol=1e-4)


@given(pairs)
def test_the_two_outcomes_have_probability_one_together(x):
  np.testing.assert_allclose(
      np.exp(-bradley_terry_loss(x[0], x[1]))
      + np.exp(-bradley_terry_loss(x[1], x[0])), 1.0, rtol=1e-5)


def test_a_margin_is_a_handicap_of_the_chosen():
  np.testing.assert_array_equal(
      bradley_terry_loss(CHOSEN, REJECTED, margin=2.0),
      bradley_terry_loss(CHOSEN - 2.0, REJECTED))


def test_margins_may_differ_by_pair():
  margin = jnp.array([0.0, 1.0, 2.0, 3.0])
  np.testing.assert_array_equal(
      bradley_terry_loss(CHOSEN, REJECTED, margin=margin),
      bradley_terry_loss(CHOSEN - margin, REJECTED))


def test_the_margin_has_no_gradient():
  gradient = jax.grad(lambda m: jnp.sum(
      bradley_terry_loss(CHOSEN, REJECTED, margin=m)))(jnp.ones(4))
  np.testing.assert_array_equal(gradient, 0.0)


def test_margins_are_those_of_the_table():
  strength = jnp.array([3, 2, 1, 0])
  np.testing.assert_allclose(
      preference_margin(strength), [1, 2 / 3, 1 / 3, 0], rtol=1e-7)
  np.testing.assert_array_equal(
      preference_margin(strength, scale='large'), [3, 2, 1, 0])
  assert preference_margin(strength).dtype == jnp.float32
  bradley_terry_loss(
      jnp.asarray(CHOSEN), jnp.asarray(REJECTED),
      margin=jax.jit(preference_margin)(strength))


def test_wrong_margins_fail():
  with pytest.raises(ValueError, match=r"scale='huge' .*'small' or 'large'"):
    preference_margin(jnp.array([1]), scale='huge')
  with pytest.raises(AssertionError, match='type float32'):
    preference_margin(jnp.ones(2))
  with pytest.raises(AssertionError, match=r'\(1, 2\).* expected 1'):
    preference_margin(jnp.array([[1, 2]]))


def test_centering_worked_numbers():
  np.testing.assert_array_equal(
      reward_centering_loss(CHOSEN, REJECTED), [64.0, 64.0, 4.0, 0.0])


@given(pairs)
def test_centering_pulls_both_rewards_alike(x):
  chosen, rejected = jax.grad(
      lambda c, r: jnp.sum(reward_centering_loss(c, r)), (0, 1))(x[0], x[1])
  np.testing.assert_array_equal(chosen, rejected)
  np.testing.assert_allclose(chosen, 2 * (x[0] + x[1]), rtol=1e-5)


@pytest.mark.parametrize('k, num_pairs', [(2, 1), (4, 6), (9, 36)])
def test_k_responses_make_k_choose_two_pairs(k, num_pairs):
  # One pair costs 100 and the others next to nothing, so the mean counts them.
  rewards = -1_000.0 * np.arange(k, dtype=np.float32)[None]
  rewards[0, 0] = rewards[0, 1] - 100.0
  loss = jax.jit(ranking_loss)(
      rewards, np.arange(k)[None], np.ones((1, k), bool))
  np.testing.assert_allclose(loss, 100.0 / num_pairs, rtol=1e-6)


def test_plackett_luce_worked_number():
  # exp r is 1, 2, 3, drawn as 3, 1, 2: P = 3/6 · 1/3 · 2/2.
  loss = plackett_luce_loss(
      jnp.log(jnp.array([[1.0, 2.0, 3.0]])), jnp.array([[1, 2, 0]]),
      jnp.ones((1, 3), bool))
  np.testing.assert_allclose(loss, np.log(6), rtol=1e-6)


def test_plackett_luce_ties_stand_in_each_others_sums():
  # Each of two equals out of two costs log 2; after them nothing is left.
  loss = plackett_luce_loss(
      jnp.ones((2, 2)), jnp.array([[0, 0], [0, 1]]), jnp.ones((2, 2), bool))
  np.testing.assert_allclose(loss, [2 * np.log(2), np.log(2)], rtol=1e-6)


@pytest.mark.parametrize('k', [1, 2, 4, 9])
def test_any_order_of_equal_rewards_has_probability_one_over_factorial(k):
  loss = plackett_luce_loss(
      jnp.full((1, k), 3.0), jnp.arange(k)[None], jnp.ones((1, k), bool))
  np.testing.assert_allclose(
      loss, math.log(math.factorial(k)), rtol=1e-6, atol=1e-6)


@given(fours)
def test_all_orders_have_probability_one_together(rewards):
  orders = np.array(list(itertools.permutations(range(4))))
  loss = plackett_luce_loss(
      np.tile(rewards[:1], (24, 1)), orders, np.ones((24, 4), bool))
  np.testing.assert_allclose(np.sum(np.exp(-loss)), 1.0, rtol=1e-4)


@pytest.mark.parametrize('name', RANKINGS)
@given(fours)
def test_ranking_equals_the_definition_in_float64(name, rewards):
  np.testing.assert_allclose(
      RANKINGS[name](rewards, RANKS, MASK),
      SLOW_RANKINGS[name](rewards, RANKS, MASK), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('loss', RANKINGS.values(), ids=RANKINGS)
@given(pairs)
def test_ranking_two_is_bradley_terry(loss, x):
  rewards = np.stack([x[0], x[1]], axis=1)
  ranks = np.tile([1, 0], (3, 1))
  np.testing.assert_allclose(
      loss(rewards, ranks, np.ones((3, 2), bool)),
      bradley_terry_loss(x[1], x[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('loss', RANKINGS.values(), ids=RANKINGS)
@given(fours, st.permutations(range(4)), st.floats(-50, 50, width=32))
def test_ranking_sees_neither_the_order_of_columns_nor_a_shift(
    loss, rewards, order, shift):
  np.testing.assert_allclose(
      loss(rewards[:, order] + shift, RANKS[:, order], MASK[:, order]),
      loss(rewards, RANKS, MASK), rtol=1e-4, atol=1e-4)


def test_equal_rewards_cost_log_two_however_many():
  np.testing.assert_allclose(
      ranking_loss(jnp.ones((2, 4)), RANKS, MASK), np.log(2), rtol=1e-6)


def test_a_row_of_ties_or_of_one_costs_nothing():
  ranks = np.array([[1, 1, 1], [0, 1, 2]])
  mask = np.array([[True, True, True], [False, True, False]])
  rewards = jnp.array([[1.0, 5.0, -3.0], [1.0, 5.0, -3.0]])
  loss, gradient = jax.jit(jax.value_and_grad(
      lambda x: jnp.sum(ranking_loss(x, ranks, mask))))(rewards)
  assert loss == 0.0
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize('loss', RANKINGS.values(), ids=RANKINGS)
@pytest.mark.parametrize('junk', [1e30, float('inf'), float('nan')])
def test_masked_responses_change_neither_value_nor_gradient(loss, junk):
  rewards = jnp.arange(8.0).reshape(2, 4)
  run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(loss(x, RANKS, MASK))))
  clean, clean_grad = run(rewards)
  dirty, dirty_grad = run(jnp.where(MASK, rewards, junk))
  assert clean == dirty
  np.testing.assert_array_equal(clean_grad, dirty_grad)
  np.testing.assert_array_equal(clean_grad[~MASK], 0.0)
  assert np.all(np.isfinite(clean_grad)) and np.all(clean_grad[MASK] != 0)


@pytest.mark.parametrize('loss', PAIR_LOSSES.values(), ids=PAIR_LOSSES)
def test_bfloat16_pairs_at_fifty_are_finite_float32(loss):
  chosen = jnp.array([50.0, -50.0, 50.0, 0.0], jnp.bfloat16)
  rejected = jnp.array([-50.0, 50.0, 50.0, 0.0], jnp.bfloat16)
  out = loss(chosen, rejected)
  gradient = jax.grad(lambda x: jnp.sum(loss(x, rejected)))(chosen)
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(out)) and np.all(np.isfinite(gradient))
  np.testing.assert_array_equal(
      out, loss(chosen.astype(jnp.float32), rejected.astype(jnp.float32)))


@pytest.mark.parametrize('name', RANKINGS)
def test_bfloat16_ranking_at_fifty_is_finite_float32(name):
  rewards = jnp.array([[50, -50, 0, 50], [-50, 50, 50, 0]], jnp.bfloat16)
  loss = RANKINGS[name]
  out = loss(rewards, RANKS, MASK)
  gradient = jax.grad(lambda x: jnp.sum(loss(x, RANKS, MASK)))(rewards)
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(gradient))
  np.testing.assert_allclose(
      out, SLOW_RANKINGS[name](rewards, RANKS, MASK), rtol=1e-5)


@pytest.mark.parametrize('loss', PAIR_LOSSES.values(), ids=PAIR_LOSSES)
def test_wrong_pairs_fail_while_tracing(loss):
  three = jax.ShapeDtypeStruct((3,), jnp.float32)
  four = jax.ShapeDtypeStruct((4,), jnp.float32)
  with pytest.raises(AssertionError, match=r'\(3,\).*\(4,\)'):
    jax.eval_shape(loss, three, four)
  with pytest.raises(AssertionError, match=r'\(3, 1\).* expected 1'):
    jax.eval_shape(loss, three, jax.ShapeDtypeStruct((3, 1), jnp.float32))
  with pytest.raises(AssertionError, match='type int32'):
    jax.eval_shape(loss, three, jax.ShapeDtypeStruct((3,), jnp.int32))


def test_a_margin_of_another_shape_fails():
  with pytest.raises(AssertionError, match=r'\(4,\).*\(4, 1\)'):
    bradley_terry_loss(
        jnp.asarray(CHOSEN), jnp.asarray(REJECTED), margin=jnp.ones((4, 1)))


@pytest.mark.parametrize('loss', RANKINGS.values(), ids=RANKINGS)
def test_wrong_rankings_fail_while_tracing(loss):
  rewards = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  ranks = jax.ShapeDtypeStruct((2, 4), jnp.int32)
  mask = jax.ShapeDtypeStruct((2, 4), jnp.bool_)
  short = jax.ShapeDtypeStruct((2, 3), jnp.int32)
  with pytest.raises(AssertionError, match=r'\(2, 4\).*\(2, 3\)'):
    jax.eval_shape(loss, rewards, short, mask)
  with pytest.raises(AssertionError, match='type float32'):
    jax.eval_shape(loss, rewards, rewards, mask)
  with pytest.raises(AssertionError, match='expected bool'):
    jax.eval_shape(loss, rewards, ranks, ranks)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_compiled_equals_eager(self):
    for loss in PAIR_LOSSES.values():
      np.testing.assert_allclose(
          self.variant(loss)(CHOSEN, REJECTED), loss(CHOSEN, REJECTED),
          rtol=1e-6)
    rewards = np.arange(8, dtype=np.float32).reshape(2, 4)
    for name, loss in RANKINGS.items():
      np.testing.assert_allclose(
          self.variant(loss)(rewards, RANKS, MASK),
          SLOW_RANKINGS[name](rewards, RANKS, MASK), rtol=1e-6)
