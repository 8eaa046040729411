"""From rewards to advantages: what the policy gradient is weighted by.

Responses may begin in any column and may have holes: a masked token is passed
over, as if its neighbours stood side by side. For one row,

    tokens         p  p  a  b  ·  c  ·  ·       p prompt, · padding
    response_mask  F  F  T  T  F  T  F  F
    reward                        r             on the last response token
    kl penalty           ×  ×     ×

Nothing here carries a gradient: advantages and returns are targets.
"""

import chex
import jax
import jax.numpy as jnp

# What GRPO implementations add to a group's deviation.
_EPSILON = 1e-4


def token_rewards(
    reward: jax.Array,
    kl: jax.Array,
    response_mask: jax.Array,
    *,
    kl_coef: float | jax.Array,
) -> jax.Array:
  """Spreads a sequence's reward over its tokens, less a KL penalty on each.

    r_t = −c KL_t + [t is the last response token] r

  Ouyang et al. (2022), https://arxiv.org/abs/2203.02155, eq. 2, without the
  pretraining term.

  Args:
    reward: [B] the score of each response.
    kl: [B, T] the KL at each token, in nats: k1 of the sampled token, or the
      full divergence.
    response_mask: [B, T] booleans, the tokens that were sampled.
    kl_coef: c ≥ 0, in reward per nat; a number or a [] array.

  Returns:
    [B, T] float32 rewards, 0 where masked. A row sums to its reward less c
    times its KL; a row without a response gets nothing.

  Raises:
    AssertionError: if the shapes do not fit, or the types are not float, float
      and bool.
  """
  chex.assert_rank((reward, kl, response_mask), (1, 2, 2))
  chex.assert_equal_shape((kl, response_mask))
  chex.assert_equal_shape_prefix((reward, kl), 1)
  chex.assert_type((reward, kl, response_mask), (float, float, bool))

  num_left = jnp.cumsum(response_mask[:, ::-1], axis=1)[:, ::-1]
  # A hole before the last response token has one left too; it is masked below.
  rewards = -kl_coef * kl.astype(jnp.float32) + jnp.where(
      num_left == 1, reward.astype(jnp.float32)[:, None], 0.0)
  return jax.lax.stop_gradient(jnp.where(response_mask, rewards, 0.0))


def gae(
    token_rewards: jax.Array,
    values: jax.Array,
    response_mask: jax.Array,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[jax.Array, jax.Array]:
  """Generalised advantage estimates, and the returns that values should meet.

    δ_t = r_t + γ V_{t+1} − V_t
    A_t = δ_t + γλ A_{t+1}
    R_t = A_t + V_t

  Schulman et al. (2015), https://arxiv.org/abs/1506.02438, eq. 16. t + 1 is the
  next response token; after the last one both V and A are 0, also when the
  response was cut by a length limit.

  Args:
    token_rewards: [B, T] r, as `token_rewards` gives it.
    values: [B, T] V before each token, in units of reward.
    response_mask: [B, T] booleans, the tokens that were sampled.
    gamma: γ, the discount, in [0, 1].
    lam: λ, from 0 (one-step error) to 1 (Monte Carlo return).

  Returns:
    Advantages [B, T] before any whitening and returns [B, T], float32, 0 where
    masked. With γ = λ = 1 the returns are the rewards still to come.

  Raises:
    AssertionError: if the shapes differ from one [B, T], or the types are not
      float, float and bool.
  """
  inputs = (token_rewards, values, response_mask)
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, (float, float, bool))
  rewards, values = jax.lax.stop_gradient(
      tuple(x.astype(jnp.float32) for x in inputs[:2]))

  def back_one_token(carry, column):
    next_value, next_advantage = carry
    reward, value, is_response = column
    delta = reward + gamma * next_value - value
    advantage = delta + gamma * lam * next_advantage
    carry = (
        jnp.where(is_response, value, next_value),
        jnp.where(is_response, advantage, next_advantage),
    )
    return carry, jnp.where(is_response, advantage, 0.0)

  after_last = jnp.zeros_like(values[:, 0])
  _, advantages = jax.lax.scan(
      back_one_token, (after_last, after_last),
      (rewards.T, values.T, response_mask.T), reverse=True)
  advantages = advantages.T
  return advantages, jnp.where(response_mask, advantages + values, 0.0)


def returns_to_go(
    token_rewards: jax.Array,
    response_mask: jax.Array,
    *,
    gamma: float = 1.0,
) -> jax.Array:
  """Discounted sum of the rewards from each token on.

    G_t = r_t + γ G_{t+1}

  Williams (1992), https://doi.org/10.1007/BF00992696: what REINFORCE weighs a
  token by. Over rewards with a KL penalty on each token, whitened over the
  whole rollout batch by `masked.whiten`, they are the advantages of Hu et al.
  (2025), https://arxiv.org/abs/2501.03262.

  Args:
    token_rewards: [B, T] r, as `token_rewards` gives it.
    response_mask: [B, T] booleans, the tokens that were sampled. t + 1 is the
      next of them.
    gamma: γ, the discount, in [0, 1].

  Returns:
    [B, T] float32 returns, 0 where masked: the advantages of `gae` with λ = 1
    over values of 0.

  Raises:
    AssertionError: if the shapes differ from one [B, T], or the types are not
      float and bool.
  """
  advantages, _ = gae(
      token_rewards, jnp.zeros_like(token_rewards), response_mask,
      gamma=gamma, lam=1.0)
  return advantages


def group_advantages(reward: jax.Array, *, scale: bool = True) -> jax.Array:
  """How much better each response is than its group, the K of one prompt.

    A_i = (r_i − mean r) / (std r + 1e-4)

  Shao et al. (2024), https://arxiv.org/abs/2402.03300, section 4.1.2, with
  Bessel's deviation. Without the scale, Liu et al. (2025),
  https://arxiv.org/abs/2503.20783: a prompt's weight then does not depend on
  how much its responses differ.

  Args:
    reward: [G, K] the scores of K ≥ 2 responses to each of G prompts.
    scale: whether to divide by the group's deviation.

  Returns:
    [G, K] float32 advantages. Each group sums to 0; a group of equal scores is
    0 throughout.

  Raises:
    AssertionError: if `reward` is not a float array [G, K ≥ 2].
  """
  reward = _groups(reward)
  centred = reward - jnp.mean(reward, axis=1, keepdims=True)
  if not scale:
    return centred
  return centred / (jnp.std(reward, axis=1, ddof=1, keepdims=True) + _EPSILON)


def leave_one_out_advantages(reward: jax.Array) -> jax.Array:
  """How much better each response is than the others of its group.

    A_i = r_i − 1/(K − 1) Σ_{j ≠ i} r_j

  Ahmadian et al. (2024), https://arxiv.org/abs/2402.14740. The baseline never
  sees the response that it judges, so the gradient stays unbiased.

  Args:
    reward: [G, K] the scores of K ≥ 2 responses to each of G prompts.

  Returns:
    [G, K] float32 advantages: K/(K − 1) times the distance from the mean.

  Raises:
    AssertionError: if `reward` is not a float array [G, K ≥ 2].
  """
  reward = _groups(reward)
  num_others = reward.shape[1] - 1
  others = jnp.sum(reward, axis=1, keepdims=True) - reward
  return reward - others / num_others


def _groups(reward: jax.Array) -> jax.Array:
  """Float32 scores [G, K ≥ 2] without gradient, less the first of each."""
  chex.assert_rank(reward, 2)
  chex.assert_axis_dimension_gteq(reward, 1, 2)
  chex.assert_type(reward, float)
  reward = jax.lax.stop_gradient(reward.astype(jnp.float32))
  # Only differences count. Taken first, they are exact for equal scores, whose
  # mean is not: the rounding, scaled to unit deviation, would be all there is.
  return reward - reward[:, :1]
