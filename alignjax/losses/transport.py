"""Losses that compare distributions: alignment via optimal transport.

DPO asks every pair for a margin. These sort first, and ask that each quantile
of the preferred side lie above the same quantile of the other: first-order
stochastic dominance over the BATCH. So a loss is not of its row, and depends on
what else is in the batch: keep `num_microbatches` at 1.
"""

import jax
import jax.numpy as jnp

from alignjax.losses import preference


def aot_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> jax.Array:
  """Paired AOT: margins of the policy above those of the reference.

    h = sort(log π(y_w) − log π(y_l)) − sort(log π_ref(y_w) − log π_ref(y_l))
    L = −(1 − ε) log σ(βh) − ε log σ(−βh)

  Melnyk et al. (2024), https://arxiv.org/abs/2406.05882, sorted over the batch.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.
    label_smoothing: ε, the chance that a label is flipped, in [0, 0.5).

  Returns:
    [B] float32 losses in nats, of the quantiles in rising order. A batch of one
    pair has `dpo_loss`.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  # Checked, in float32, and cut off from the reference's gradient.
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  ref_margin = jax.lax.stop_gradient(
      ref_chosen_logprobs.astype(jnp.float32)
      - ref_rejected_logprobs.astype(jnp.float32))
  margin = chosen - rejected + ref_margin
  return _dominance_loss(margin, ref_margin, beta, label_smoothing)


def aot_unpaired_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> jax.Array:
  """Unpaired AOT: preferred log-ratios above the dispreferred ones.

    h = sort(log π/π_ref(y_w)) − sort(log π/π_ref(y_l))
    L = −(1 − ε) log σ(βh) − ε log σ(−βh)

  Melnyk et al. (2024), https://arxiv.org/abs/2406.05882, sorted over the batch.
  Which dispreferred response stands beside a preferred one is of no account.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.
    label_smoothing: ε, the chance that a label is flipped, in [0, 0.5).

  Returns:
    [B] float32 losses in nats, of the quantiles in rising order. At π = π_ref
    each is log 2.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return _dominance_loss(chosen, rejected, beta, label_smoothing)


def _dominance_loss(
    above: jax.Array, below: jax.Array, beta: float, label_smoothing: float
) -> jax.Array:
  """[B] losses of the gaps between equal quantiles."""
  preference.check_in('(0, inf)', beta=beta)
  preference.check_in('[0, 0.5)', label_smoothing=label_smoothing)
  logits = beta * (jnp.sort(above) - jnp.sort(below))
  return -(
      (1.0 - label_smoothing) * jax.nn.log_sigmoid(logits)
      + label_smoothing * jax.nn.log_sigmoid(-logits))
