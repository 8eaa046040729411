"""Claims about token rewards, GAE and group baselines."""

import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.advantages import gae
from alignjax.advantages import group_advantages
from alignjax.advantages import leave_one_out_advantages
from alignjax.advantages import returns_to_go
from alignjax.advantages import token_rewards
from alignjax.masked import whiten

# Left-aligned, begun late with a hole, filling the row, and no response.
MASK = np.array([
    [True, True, True, False, False],
    [False, True, False, True, False],
    [True, True, True, True, True],
    [False, False, False, False, False],
])
LAST = [2, 3, 4, None]

values = st.lists(
    st.floats(-5, 5, width=32), min_size=20, max_size=20
).map(lambda x: np.array(x, np.float32).reshape(4, 5))
groups = st.lists(
    st.floats(-50, 50, width=32), min_size=6, max_size=6
).map(lambda x: np.array(x, np.float32).reshape(2, 3))
unit = st.floats(0.0, 1.0)
JUNK = [1e30, float('inf'), float('nan')]


fast_gae = jax.jit(gae)


def slow_gae(rewards, values, mask, gamma, lam):
  """Sums of discounted errors, with the masked tokens cut out."""
  advantages = np.zeros(mask.shape)
  for b in range(mask.shape[0]):
    columns = np.flatnonzero(mask[b])
    r = rewards[b, columns].astype(np.float64)
    v = np.append(values[b, columns].astype(np.float64), 0.0)
    errors = r + gamma * v[1:] - v[:-1]
    for i, t in enumerate(columns):
      discounts = (gamma * lam) ** np.arange(len(columns) - i)
      advantages[b, t] = np.sum(discounts * errors[i:])
  return advantages


def test_token_rewards_worked_numbers():
  kl = jnp.array([[9.0, 1.0, 2.0, 9.0], [1.0, -1.0, 9.0, 9.0]])
  mask = jnp.array([[False, True, True, False], [True, True, False, False]])
  np.testing.assert_allclose(
      token_rewards(jnp.array([5.0, -2.0]), kl, mask, kl_coef=0.1),
      [[0.0, -0.1, 4.8, 0.0], [-0.1, -1.9, 0.0, 0.0]], rtol=1e-6)


def test_the_reward_sits_on_the_last_response_token():
  reward = jnp.array([1.0, 2.0, 3.0, 4.0])
  rewards = token_rewards(reward, jnp.zeros((4, 5)), MASK, kl_coef=0.1)
  expected = np.zeros((4, 5))
  for b, column in enumerate(LAST):
    if column is not None:
      expected[b, column] = reward[b]
  np.testing.assert_array_equal(rewards, expected)


def test_a_fractional_reward_survives():
  rewards = token_rewards(
      jnp.full(4, 0.73), jnp.zeros((4, 5)), MASK, kl_coef=0.0)
  np.testing.assert_allclose(rewards[0, 2], 0.73)


@given(values, unit)
def test_a_row_sums_to_its_reward_less_its_kl(x, kl_coef):
  reward, kl = x[:, 0], x
  rewards = token_rewards(reward, kl, MASK, kl_coef=kl_coef)
  expected = np.where(MASK.any(1), reward, 0) - kl_coef * np.sum(
      kl, axis=1, where=MASK)
  np.testing.assert_allclose(
      np.sum(rewards, axis=1), expected, rtol=1e-4, atol=1e-4)


def test_the_kl_coefficient_may_be_traced():
  kl = jnp.ones((4, 5))
  rewards = jax.jit(
      lambda c: token_rewards(jnp.zeros(4), kl, MASK, kl_coef=c))(0.25)
  np.testing.assert_array_equal(rewards, np.where(MASK, -0.25, 0.0))


def test_gae_worked_numbers():
  # γ = 0.5, λ = 0.5, so γλ = 0.25. From the end:
  # δ₂ = 4 − 2 = 2; δ₁ = 0 + 1 − 1 = 0; δ₀ = 0 + 0.5 − 1 = −0.5.
  # A₂ = 2; A₁ = 0.5; A₀ = −0.5 + 0.125 = −0.375.
  rewards = jnp.array([[0.0, 0.0, 4.0]])
  advantages, returns = gae(
      rewards, jnp.array([[1.0, 1.0, 2.0]]), jnp.ones((1, 3), bool),
      gamma=0.5, lam=0.5)
  np.testing.assert_allclose(advantages, [[-0.375, 0.5, 2.0]])
  np.testing.assert_allclose(returns, [[0.625, 1.5, 4.0]])


@given(values, values, unit, unit)
def test_gae_equals_its_definition_in_float64(rewards, v, gamma, lam):
  advantages, returns = fast_gae(rewards, v, MASK, gamma=gamma, lam=lam)
  expected = slow_gae(rewards, v, MASK, gamma, lam)
  np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
      returns, np.where(MASK, expected + v, 0), rtol=1e-4, atol=1e-4)


@given(values, values)
def test_undiscounted_returns_are_the_rewards_still_to_come(rewards, v):
  _, returns = fast_gae(rewards, v, MASK, gamma=1.0, lam=1.0)
  kept = np.where(MASK, rewards, 0)
  to_come = np.cumsum(kept[:, ::-1], axis=1)[:, ::-1]
  np.testing.assert_allclose(
      returns, np.where(MASK, to_come, 0), rtol=1e-4, atol=1e-4)


def test_returns_to_go_worked_numbers():
  # γ = 0.5, over the hole: 4; 2 + 4/2; 1 + 4/2.
  rewards = jnp.array([[9.0, 1.0, 2.0, 9.0, 4.0]])
  mask = jnp.array([[False, True, True, False, True]])
  np.testing.assert_array_equal(
      returns_to_go(rewards, mask, gamma=0.5), [[0.0, 3.0, 4.0, 0.0, 4.0]])


@given(values, values, unit)
def test_returns_to_go_are_the_returns_of_gae_whatever_the_values(
    rewards, v, gamma):
  _, returns = fast_gae(rewards, v, MASK, gamma=gamma, lam=1.0)
  to_go = returns_to_go(rewards, MASK, gamma=gamma)
  np.testing.assert_allclose(to_go, returns, atol=1e-4)
  np.testing.assert_allclose(
      to_go, slow_gae(rewards, np.zeros_like(v), MASK, gamma, 1.0), atol=1e-4)


def test_reinforce_plus_plus_charges_a_token_for_the_kl_from_it_on():
  reward, kl = jnp.array([1.0, -1.0]), jnp.full((2, 3), 2.0)
  mask = jnp.array([[True, True, True], [True, True, False]])
  returns = returns_to_go(
      token_rewards(reward, kl, mask, kl_coef=0.1), mask)
  np.testing.assert_allclose(
      returns, [[0.4, 0.6, 0.8], [-1.4, -1.2, 0.0]], rtol=1e-5)
  np.testing.assert_allclose(np.sum(whiten(returns, mask)), 0.0, atol=1e-5)


@given(values, values)
def test_lambda_zero_is_the_one_step_error(rewards, v):
  advantages, _ = fast_gae(rewards, v, MASK, gamma=0.9, lam=0.0)
  np.testing.assert_allclose(
      advantages[2], rewards[2] + 0.9 * np.append(v[2, 1:], 0) - v[2],
      rtol=1e-4, atol=1e-5)


@given(values, values)
def test_true_values_have_no_advantage(rewards, v):
  _, true_values = fast_gae(rewards, v, MASK, gamma=1.0, lam=1.0)
  advantages, _ = fast_gae(rewards, true_values, MASK, gamma=1.0, lam=0.95)
  np.testing.assert_allclose(advantages, 0.0, atol=1e-4)


@given(values, values)
def test_padding_anywhere_moves_gae_and_does_not_change_it(rewards, v):
  columns = np.array([1, 2, 5, 6, 8])
  wide_mask = np.zeros((4, 9), bool)
  wide_rewards = np.full((4, 9), 7.0, np.float32)
  wide_values = np.full((4, 9), -7.0, np.float32)
  wide_mask[:, columns] = MASK
  wide_rewards[:, columns] = rewards
  wide_values[:, columns] = v
  for wide, narrow in zip(
      fast_gae(wide_rewards, wide_values, wide_mask),
      fast_gae(rewards, v, MASK)):
    np.testing.assert_array_equal(wide[:, columns], narrow)
    np.testing.assert_array_equal(wide[~wide_mask], 0.0)


@pytest.mark.parametrize('junk', JUNK)
def test_masked_tokens_change_no_reward_advantage_or_return(junk):
  x = jnp.arange(20.0).reshape(4, 5) / 7.0
  dirty = jnp.where(MASK, x, junk)
  reward = jnp.ones(4)
  np.testing.assert_array_equal(
      token_rewards(reward, x, MASK, kl_coef=0.1),
      token_rewards(reward, dirty, MASK, kl_coef=0.1))
  chex.assert_trees_all_equal(gae(x, x, MASK), gae(dirty, dirty, MASK))
  np.testing.assert_array_equal(
      returns_to_go(x, MASK, gamma=0.5), returns_to_go(dirty, MASK, gamma=0.5))


@pytest.mark.parametrize('junk', JUNK)
def test_the_reward_of_a_row_without_response_is_dropped(junk):
  reward = jnp.array([1.0, 2.0, 3.0, junk])
  rewards = token_rewards(reward, jnp.zeros((4, 5)), MASK, kl_coef=0.1)
  np.testing.assert_array_equal(rewards[3], 0.0)


def test_nothing_here_has_a_gradient():
  x = jnp.arange(20.0).reshape(4, 5) / 7.0

  def total(reward, kl, v, grouped):
    rewards = token_rewards(reward, kl, MASK, kl_coef=0.1)
    advantages, returns = gae(rewards, v, MASK)
    by_group = group_advantages(grouped) + leave_one_out_advantages(grouped)
    returns += returns_to_go(rewards, MASK)
    return jnp.sum(advantages * returns) + jnp.sum(by_group**2)

  gradients = jax.grad(total, (0, 1, 2, 3))(jnp.ones(4), x, x, x)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0.0)
  gradient = jax.grad(lambda v: jnp.sum(gae(x, v, MASK)[1]))(x)
  np.testing.assert_array_equal(gradient, 0.0)


def test_group_worked_numbers():
  # Deviations from 2: −1, 0, 1; Bessel's deviation is 1.
  reward = jnp.array([[1.0, 2.0, 3.0]])
  np.testing.assert_allclose(
      group_advantages(reward), [[-1 / 1.0001, 0, 1 / 1.0001]], rtol=1e-6)
  np.testing.assert_allclose(
      group_advantages(reward, scale=False), [[-1.0, 0.0, 1.0]])


def test_leave_one_out_worked_numbers():
  # 1 − 3.5, 2 − 3, 5 − 1.5.
  np.testing.assert_allclose(
      leave_one_out_advantages(jnp.array([[1.0, 2.0, 5.0]])),
      [[-2.5, -1.0, 3.5]])


@given(groups)
def test_groups_equal_their_equations_in_float64(reward):
  wide = reward.astype(np.float64)
  centred = wide - wide.mean(1, keepdims=True)
  np.testing.assert_allclose(
      group_advantages(reward, scale=False), centred, atol=1e-4)
  if np.all(wide.std(1) > 1e-2):
    np.testing.assert_allclose(
        group_advantages(reward),
        centred / (wide.std(1, ddof=1, keepdims=True) + 1e-4), atol=1e-3)
  others = np.stack(
      [np.delete(wide, i, axis=1).mean(1) for i in range(3)], axis=1)
  np.testing.assert_allclose(
      leave_one_out_advantages(reward), wide - others, atol=1e-4)
  np.testing.assert_allclose(
      leave_one_out_advantages(reward),
      3 / 2 * group_advantages(reward, scale=False), atol=1e-4)


@given(groups, st.floats(-50, 50, width=32))
def test_a_prompt_that_pays_more_changes_no_advantage(reward, shift):
  for fn in (leave_one_out_advantages,
             lambda x: group_advantages(x, scale=False)):
    np.testing.assert_allclose(fn(reward + shift), fn(reward), atol=1e-4)
    np.testing.assert_allclose(np.sum(fn(reward), axis=1), 0.0, atol=1e-4)


@pytest.mark.parametrize('k', [2, 3, 5, 7])
@pytest.mark.parametrize('score', [0.25, 0.1, 1000.1, -123456.7])
def test_equal_scores_have_no_advantage_however_they_round(score, k):
  reward = jnp.full((2, k), score)
  np.testing.assert_array_equal(group_advantages(reward), 0.0)
  np.testing.assert_array_equal(leave_one_out_advantages(reward), 0.0)


def test_bfloat16_at_fifty_comes_out_as_finite_float32():
  x = 50.0 * jnp.array([[1, -1, 1, -1, 0]] * 4, jnp.bfloat16)
  outs = (
      token_rewards(x[:, 0], x, MASK, kl_coef=0.1),
      *gae(x, x, MASK),
      returns_to_go(x, MASK),
      group_advantages(x),
      leave_one_out_advantages(x),
  )
  for out in outs:
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out))


def test_wrong_inputs_fail_while_tracing():
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  ints = jax.ShapeDtypeStruct((2, 3), jnp.int32)
  mask = jax.ShapeDtypeStruct((2, 3), jnp.bool_)
  wide = jax.ShapeDtypeStruct((2, 4), jnp.bool_)
  reward = jax.ShapeDtypeStruct((2,), jnp.float32)
  long = jax.ShapeDtypeStruct((3,), jnp.float32)

  def rewards(*inputs):
    return token_rewards(*inputs, kl_coef=0.1)

  for fn, inputs, message in (
      (gae, (x, x, wide), r'\(2, 3\).*\(2, 4\)'),
      (gae, (ints, x, mask), 'type int32'),
      (gae, (x, x, x), 'expected bool'),
      (gae, (x, reward, mask), r'\(2,\).* expected 2'),
      (returns_to_go, (x, wide), r'\(2, 3\).*\(2, 4\)'),
      (returns_to_go, (ints, mask), 'type int32'),
      (rewards, (reward, x, wide), r'\(2, 3\).*\(2, 4\)'),
      (rewards, (long, x, mask), r'\(3,\).*\(2,\)'),
      (rewards, (reward, ints, mask), 'type int32'),
      (group_advantages, (ints,), 'type int32'),
      (leave_one_out_advantages, (reward,), r'\(2,\).* expected 2'),
  ):
    with pytest.raises(AssertionError, match=message):
      jax.eval_shape(fn, *inputs)


@pytest.mark.parametrize('fn', [group_advantages, leave_one_out_advantages])
def test_a_group_of_one_has_no_baseline_and_fails(fn):
  with pytest.raises(AssertionError, match="equal to '2' on axis '1'"):
    fn(jnp.ones((3, 1)))


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_compiled_equals_eager(self):
    x = np.arange(20, dtype=np.float32).reshape(4, 5) / 7.0
    advantages, returns = self.variant(gae)(x, x, MASK)
    expected = slow_gae(x, x, MASK, 1.0, 0.95)
    np.testing.assert_allclose(advantages, expected, rtol=1e-5)
    np.testing.assert_allclose(
        returns, np.where(MASK, expected + x, 0), rtol=1e-5)
    rewards = self.variant(lambda *a: token_rewards(*a, kl_coef=0.1))(
        x[:, 0], x, MASK)
    np.testing.assert_allclose(
        rewards, token_rewards(x[:, 0], x, MASK, kl_coef=0.1), rtol=1e-6)
    np.testing.assert_allclose(
        self.variant(returns_to_go)(x, MASK),
        slow_gae(x, np.zeros_like(x), MASK, 1.0, 1.0), rtol=1e-5)
    for fn in (group_advantages, leave_one_out_advantages):
      np.testing.assert_allclose(
          self.variant(fn)(x), fn(x), rtol=1e-5, atol=1e-6)
