"""Losses that fit a scalar reward to human comparisons.

A reward is one number per response, read at its last real token. Only
differences of rewards are ever fitted, so their zero is free; the centering
loss ties it down.
"""

import chex
import jax
import jax.numpy as jnp

# What one step on the four-point scale is worth (Touvron et al. 2023).
_MARGIN_STEPS = {'small': 1 / 3, 'large': 1.0}


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


def preference_margin(
    strength: jax.Array, *, scale: str = 'small'
) -> jax.Array:
  """Margin of a comparison, by how sure its annotator was.

    strength  the chosen response is           small  large
    3         significantly better             1      3
    2         better                           2/3    2
    1         slightly better                  1/3    1
    0         negligibly better, or unsure     0      0

  Touvron et al. (2023), https://arxiv.org/abs/2307.09288, table 27. It is the
  `margin` of `bradley_terry_loss`.

  Args:
    strength: [B] ints, 0 to 3.
    scale: 'small' or 'large'.

  Returns:
    [B] float32 margins in units of reward; 0 at strength 0 in either scale.

  Raises:
    AssertionError: if `strength` is not an int array [B].
    ValueError: if `scale` is neither 'small' nor 'large'.
  """
  chex.assert_rank(strength, 1)
  chex.assert_type(strength, int)
  if scale not in _MARGIN_STEPS:
    raise ValueError(f"scale={scale!r} is unknown; use 'small' or 'large'.")
  return strength.astype(jnp.float32) * _MARGIN_STEPS[scale]


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
  _check_ranking(rewards, ranks, mask)
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


def plackett_luce_loss(
    rewards: jax.Array, ranks: jax.Array, mask: jax.Array
) -> jax.Array:
  """Negative log-likelihood of a whole ranking of K responses.

    L = −Σ_i [r_i − log Σ_{j: rank_j ≥ rank_i} exp r_j]

  Plackett (1975), https://doi.org/10.2307/2346567: the best is drawn from all
  by a softmax of rewards, then the next from those that are left. Tied
  responses stand in each other's sums, as do deaths at one time in Breslow
  (1974), https://doi.org/10.2307/2529620, so that a tie pulls them together;
  `ranking_loss` passes over it.

  Args:
    rewards: [B, K] reward of each response.
    ranks: [B, K] ints, 0 for the best. Only their order counts.
    mask: [B, K] booleans, the responses that exist.

  Returns:
    [B] float32 losses in nats, summed over a row and so larger for more
    responses: log K! for equal rewards without ties, and 0 for fewer than two
    responses. With K = 2 it is `bradley_terry_loss`.

  Raises:
    AssertionError: if the shapes differ from one [B, K], or the types are not
      float, int and bool.
  """
  _check_ranking(rewards, ranks, mask)
  rewards = jnp.where(mask, rewards.astype(jnp.float32), 0.0)
  is_left = mask[:, None, :] & (ranks[:, None, :] >= ranks[:, :, None])
  log_sums = jax.nn.logsumexp(
      jnp.where(is_left, rewards[:, None, :], -jnp.inf), axis=2)
  return jnp.sum(log_sums - rewards, axis=1, where=mask)


def _check_ranking(
    rewards: jax.Array, ranks: jax.Array, mask: jax.Array
) -> None:
  """Floats, ints and booleans of one [B, K] shape."""
  inputs = (rewards, ranks, mask)
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, (float, int, bool))


def _check_pairs(rewards: tuple[jax.Array, ...]) -> None:
  """Float arrays of one [B] shape."""
  chex.assert_rank(rewards, 1)
  chex.assert_equal_shape(rewards)
  chex.assert_type(rewards, float)
