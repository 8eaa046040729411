"""Losses that fit a scalar reward to human comparisons.

A reward is one number per response, read at its last real token. Only
differences of rewards are ever fitted, so their zero is free; the centering
loss ties it down.
"""

import chex
import jax
import jax.numpy as jnp


def bradley_terry_loss(
    chosen_rewards: jax.Array,
    rejected_rewards: jax.Array,
    *,
    margin: float | jax.Array = 0.0,
) -> jax.Array:
  """Negative log-likelihood of each preference under Bradley and Terry.

    P(w ≻ l) = σ(r_w − r_l)
    L = −log σ(r_w − r_l − m)

  Ouyang et al. (2022), https://arxiv.org/abs/2203.02155, eq. 1, for two
  responses; the margin is that of Touvron et al. (2023),
  https://arxiv.org/abs/2307.09288, eq. 2.

  Args:
    chosen_rewards: [B] reward of each preferred response.
    rejected_rewards: [B] reward of the dispreferred one.
    margin: m ≥ 0, by how much the preferred one should win: one number, or [B]
      with a larger one where the annotator was surer. No gradient flows
      through it.

  Returns:
    [B] float32 losses in nats. Equal rewards without a margin give log 2.

  Raises:
    AssertionError: if the rewards are not float arrays of one [B] shape, or the
      margin is an array of another shape.
  """
  inputs = (chosen_rewards, rejected_rewards)
  _check_pairs(inputs)
  if jnp.ndim(margin):
    chex.assert_equal_shape((chosen_rewards, margin))

  chosen, rejected = (x.astype(jnp.float32) for x in inputs)
  return -jax.nn.log_sigmoid(
      chosen - rejected - jax.lax.stop_gradient(margin))


def reward_centering_loss(
    chosen_rewards: jax.Array, rejected_rewards: jax.Array
) -> jax.Array:
  """Squared sum of a pair's rewards: pulls their midpoint to zero.

    L = (r_w + r_l)²

  Eisenstein et al. (2023), https://arxiv.org/abs/2312.09244. To be added to a
  comparison loss with a small coefficient, 0.01 say.

  Args:
    chosen_rewards: [B] reward of each preferred response.
    rejected_rewards: [B] reward of the dispreferred one.

  Returns:
    [B] float32 losses in squared reward; 0 for opposite rewards, however far
    apart.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B] shape.
  """
  inputs = (chosen_rewards, rejected_rewards)
  _check_pairs(inputs)
  chosen, rejected = (x.astype(jnp.float32) for x in inputs)
  return jnp.square(chosen + rejected)


def ranking_loss(
    rewards: jax.Array, ranks: jax.Array, mask: jax.Array
) -> jax.Array:
  """Mean Bradley-Terry loss over all pairs of K ranked responses.

    L = −1/|P| Σ_{(i, j) ∈ P} log σ(r_i − r_j),  P = {(i, j): rank_i < rank_j}

  Ouyang et al. (2022), https://arxiv.org/abs/2203.02155, eq. 1. K responses
  without ties make K(K − 1)/2 pairs. They share one mean, so that a prompt
  weighs the same however many of its responses were ranked.

  Args:
    rewards: [B, K] reward of each response.
    ranks: [B, K] ints, 0 for the best. Equal ranks make no pair.
    mask: [B, K] booleans, the responses that exist.

  Returns:
    [B] float32 losses in nats; log 2 for equal rewards, and 0 for a row that
    holds no pair. With K = 2 it is `bradley_terry_loss`.

  Raises:
    AssertionError: if the shapes differ from one [B, K], or the types are not
      float, int and bool.
  """
  inputs = (rewards, ranks, mask)
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, (float, int, bool))

  rewards = jnp.where(mask, rewards.astype(jnp.float32), 0.0)
  margins = rewards[:, :, None] - rewards[:, None, :]
  is_pair = (
      (ranks[:, :, None] < ranks[:, None, :])
      & mask[:, :, None]
      & mask[:, None, :])
  total = jnp.sum(
      -jax.nn.log_sigmoid(margins), axis=(1, 2), where=is_pair)
  num_pairs = jnp.sum(is_pair, axis=(1, 2), dtype=jnp.float32)
  return total / jnp.maximum(num_pairs, 1.0)


def _check_pairs(rewards: tuple[jax.Array, ...]) -> None:
  """Float arrays of one [B] shape."""
  chex.assert_rank(rewards, 1)
  chex.assert_equal_shape(rewards)
  chex.assert_type(rewards, float)
