"""Pairwise preference losses: DPO and its nearest relatives.

They differ only in what they ask of one number, the log-ratio margin

    h = log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)

of the preferred response y_w over the dispreferred y_l: DPO wants it large, the
hinge wants it past 1/β, IPO wants it at 1/(2β) exactly. Robust DPO and EXO know
that some labels are wrong; DiscoPOP was found by a search over such functions.
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
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  check_in('(0, inf)', beta=beta)
  check_in('[0, 0.5)', label_smoothing=label_smoothing)
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
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  check_in('(0, inf)', beta=beta)
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
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  check_in('(0, inf)', beta=beta)
  return jax.nn.relu(1.0 - beta * _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs))


def robust_dpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> jax.Array:
  """DPO's loss, unbiased where a known share of the labels is flipped.

    L = [−(1 − ε) log σ(βh) + ε log σ(−βh)] / (1 − 2ε)

  Chowdhury et al. (2024), https://arxiv.org/abs/2403.00409. Over flips of
  chance ε its mean is the DPO loss of the true labels. Conservative DPO, with a
  minus before its second term, instead lowers the margin that is aimed at.

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
    [B] float32 losses in nats, which may be negative. At π = π_ref each is
    log 2, whatever β and ε.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  check_in('(0, inf)', beta=beta)
  check_in('[0, 0.5)', label_smoothing=label_smoothing)
  logits = beta * _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  return (
      label_smoothing * jax.nn.log_sigmoid(-logits)
      - (1.0 - label_smoothing) * jax.nn.log_sigmoid(logits)
  ) / (1.0 - 2.0 * label_smoothing)


def exo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 1e-3,
) -> jax.Array:
  """Efficient exact optimisation loss of each pair.

    L = σ(βh) [log σ(βh) − log(1 − ε)] + σ(−βh) [log σ(−βh) − log ε]

  Ji et al. (2024), https://arxiv.org/abs/2402.00856, eq. 16, for two responses:
  the KL divergence from the policy's preference to the label's, where DPO has
  the opposite direction. ε keeps it finite.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.
    label_smoothing: ε, the label's chance of the dispreferred response, in
      (0, 0.5).

  Returns:
    [B] float32 losses in nats, at least 0, which is reached at the margin
    log((1 − ε)/ε)/β.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  check_in('(0, inf)', beta=beta)
  check_in('(0, 0.5)', label_smoothing=label_smoothing)
  logits = beta * _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  chosen, rejected = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
  return (
      jnp.exp(chosen) * (chosen - jnp.log1p(-label_smoothing))
      + jnp.exp(rejected) * (rejected - jnp.log(label_smoothing))
  )


def discopop_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    tau: float = 0.05,
) -> jax.Array:
  """Log-ratio modulated loss of each pair, known as DiscoPOP.

    m = σ(βh/τ)
    L = −(1 − m) log σ(βh) + m e^(−βh)

  Lu et al. (2024), https://arxiv.org/abs/2406.08414, eq. 5: DPO's loss for the
  pairs that the policy ranks wrongly, the exponential loss for the others. It
  is not convex: it rises through h = 0, so that a policy that starts at its
  reference is first pushed the wrong way.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.
    tau: τ, the width of the change from one loss to the other, in (0, 1].

  Returns:
    [B] float32 losses. At π = π_ref each is (1 + log 2)/2, whatever β and τ.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  check_in('(0, inf)', beta=beta)
  check_in('(0, 1]', tau=tau)
  logits = beta * _log_ratio_margin(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  logistic = -jax.nn.sigmoid(-logits / tau) * jax.nn.log_sigmoid(logits)
  # One exponent, which τ ≤ 1 keeps below 0; apart, 0 × ∞ is a NaN.
  exponential = jnp.exp(jax.nn.log_sigmoid(logits / tau) - logits)
  return logistic + exponential


def log_ratios(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Log-ratios log π/π_ref of both responses of each pair, inputs checked.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one.
    ref_rejected_logprobs: [B] the same for the dispreferred one.

  Returns:
    ([B], [B]) float32 log-ratios of the preferred and of the dispreferred
    response, in nats. No gradient flows to the reference.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape.
  """
  inputs = (chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
            ref_rejected_logprobs)
  chex.assert_rank(inputs, 1)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)

  chosen, rejected, ref_chosen, ref_rejected = (
      x.astype(jnp.float32) for x in inputs)
  ref_chosen, ref_rejected = jax.lax.stop_gradient((ref_chosen, ref_rejected))
  return chosen - ref_chosen, rejected - ref_rejected


def check_in(interval: str, **settings: float) -> None:
  """Raises unless settings lie in an interval; arrays are not looked at.

  Args:
    interval: such as '(0, inf)' or '[0, 0.5)'; a bracket includes its end.
    **settings: by the names that the caller gave them.

  Raises:
    AssertionError: if a setting that is a Python number is outside.
  """
  low, high = (float(x) for x in interval[1:-1].split(','))
  for name, value in settings.items():
    if not isinstance(value, (int, float)):
      continue  # Traced, as in a sweep that maps over it.
    above = low <= value if interval[0] == '[' else low < value
    below = value <= high if interval[-1] == ']' else value < high
    if not (above and below):
      raise AssertionError(
          f'{name}={value} is out of range; it must be in {interval}')


def _log_ratio_margin(*inputs: jax.Array) -> jax.Array:
  """h [B] in float32 nats; no gradient to the reference."""
  chosen, rejected = log_ratios(*inputs)
  return chosen - rejected
