"""Pairwise preference losses: DPO and its nearest relatives.

They differ only in what they ask of one number, the log-ratio margin

    h = log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)

of the preferred response y_w over the dispreferred y_l: DPO wants it large, the
hinge wants it past 1/β, IPO wants it at 1/(2β) exactly.
"""

import chex
import jax
import jax.numpy as jnp


def dpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> jax.Array:
  """Direct preference optimisation loss of each pair.

    L = −(1 − ε) log σ(βh) − ε log σ(−βh)

  Rafailov et al. (2023), https://arxiv.org/abs/2305.18290, eq. 7. A non-zero ε
  gives the conservative variant, https://ericmitchell.ai/cdpo.pdf.

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
    [B] float32 losses in nats. At π = π_ref each is log 2, whatever β and ε.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape.
  """
  logits = beta * _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return -(
      (1.0 - label_smoothing) * jax.nn.log_sigmoid(logits)
      + label_smoothing * jax.nn.log_sigmoid(-logits)
  )


def ipo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """Identity preference optimisation loss of each pair.

    L = (h − 1/(2β))²

  Azar et al. (2023), https://arxiv.org/abs/2310.12036, eq. 17, whose τ is our
  β. The margin has a target, so deterministic preferences cannot drive it to
  infinity as they can in DPO.

  The paper sums log-probabilities over the response; its authors later advised
  the mean per token, which keeps one β right for short and long responses. The
  loss is the same function of either: the caller decides by what it passes, and
  all four must be of one kind.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, or nats per token.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: β > 0, in 1/nats; the margin aimed at is 1/(2β).

  Returns:
    [B] float32 losses in nats². At π = π_ref each is 1/(4β²).

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape.
  """
  margin = _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return jnp.square(margin - 1.0 / (2.0 * beta))


def hinge_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """Hinge loss of each pair.

    L = max(0, 1 − βh)

  The calibration loss of Zhao et al. (2023), https://arxiv.org/abs/2305.10425,
  with unit margin, on DPO's log-ratios as in Liu et al. (2023),
  https://arxiv.org/abs/2309.06657.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: β > 0, in 1/nats; a margin of 1/β is enough.

  Returns:
    [B] float32 losses, at least 0. At π = π_ref each is 1, whatever β.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape.
  """
  return jax.nn.relu(1.0 - beta * _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs))


def _log_ratio_margin(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
) -> jax.Array:
  """h [B] in float32 nats; no gradient to the reference."""
  inputs = (chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
            ref_rejected_logprobs)
  chex.assert_rank(inputs, 1)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)

  chosen, rejected, ref_chosen, ref_rejected = (
      x.astype(jnp.float32) for x in inputs)
  return chosen - rejected - jax.lax.stop_gradient(ref_chosen - ref_rejected)
