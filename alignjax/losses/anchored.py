"""Preference losses that say where each response goes, not only how far apart.

DPO sees the difference of two log-ratios, and can widen it while both fall.
These also see each by itself,

    r_w = log π(y_w)/π_ref(y_w),  r_l = log π(y_l)/π_ref(y_l),

of the preferred response y_w and the dispreferred y_l.
"""

import jax
import jax.numpy as jnp

from alignjax.losses import preference


def apo_zero_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """Anchored preference optimisation loss that raises the preferred response.

    L = 1 − σ(βr_w) + σ(βr_l)

  D'Oosterlinck et al. (2024), https://arxiv.org/abs/2408.06266, eq. 7, for
  pairs whose preferred response is better than what the policy would write.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.

  Returns:
    [B] float32 losses, from 0 to 2. At π = π_ref each is 1, whatever β.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return jax.nn.sigmoid(-beta * chosen) + jax.nn.sigmoid(beta * rejected)


def apo_down_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """Anchored preference optimisation loss that lowers both responses.

    L = σ(βr_w) + 1 − σ(β(r_w − r_l))

  D'Oosterlinck et al. (2024), https://arxiv.org/abs/2408.06266, eq. 8, for
  pairs of which even the preferred response is worse than what the policy would
  write: it falls wherever |r_w| < |r_w − r_l|, and the other further.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.

  Returns:
    [B] float32 losses, from 0 to 2. At π = π_ref each is 1, whatever β.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return (jax.nn.sigmoid(beta * chosen)
          + jax.nn.sigmoid(-beta * (chosen - rejected)))


def nca_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """Noise contrastive alignment loss of each pair.

    L = −log σ(βr_w) − ½ log σ(−βr_w) − ½ log σ(−βr_l)

  Chen et al. (2024), https://arxiv.org/abs/2402.05369, their loss for
  preference pairs. The second term keeps the preferred response from rising
  without bound.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.

  Returns:
    [B] float32 losses in nats. Whatever r_l, each is least where r_w is
    (log 2)/β.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return -(
      jax.nn.log_sigmoid(beta * chosen)
      + 0.5 * jax.nn.log_sigmoid(-beta * chosen)
      + 0.5 * jax.nn.log_sigmoid(-beta * rejected)
  )


def sppo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """Self-play preference optimisation loss of each pair, with hard labels.

    L = (r_w − 1/(2β))² + (r_l + 1/(2β))²

  Wu et al. (2024), https://arxiv.org/abs/2405.00675, eq. 4.7, whose η is our
  1/β. There a response's target is η(P − ½), P being how often it wins against
  the policy; here P is 1 for the preferred response and 0 for the other. Their
  reference is the policy of the round before.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: β > 0, in 1/nats; the log-ratios aimed at are ±1/(2β).

  Returns:
    [B] float32 losses in nats². At π = π_ref each is 1/(2β²).

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  target = 1.0 / (2.0 * beta)
  return jnp.square(chosen - target) + jnp.square(rejected + target)


def bco_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    shift: float | jax.Array = 0.0,
) -> jax.Array:
  """Binary classifier optimisation loss of a pair: each side is classified.

    L = −log σ(βr_w − δ) − log σ(−(βr_l − δ))

  Jung et al. (2024), https://arxiv.org/abs/2404.04656. Their δ is a running
  mean of the rewards of both sides; here it is the caller's.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.
    shift: δ, the reward that parts good from bad: a number or a [] array. No
      gradient flows through it.

  Returns:
    [B] float32 losses in nats. At π = π_ref, without a shift, each is 2 log 2.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  shift = jax.lax.stop_gradient(shift)
  return -(jax.nn.log_sigmoid(beta * chosen - shift)
           + jax.nn.log_sigmoid(shift - beta * rejected))
