"""f-DPO: direct preference optimisation under other divergences.

DPO follows from a reward less β times the reverse KL divergence from the
reference. Another f-divergence gives the same loss of another margin,

    L = −log σ(β [f′(u_w) − f′(u_l)]),  u = π(y)/π_ref(y),

in which a constant added to f′ cancels:

    divergence       f′(u)              loss
    reverse KL       log u              preference.dpo_loss
    forward KL       −1/u               forward_kl_dpo_loss
    Jensen–Shannon   log 2u/(1 + u)     js_dpo_loss
    α                (1 − u^(−α))/α     alpha_dpo_loss

Wang et al. (2023), https://arxiv.org/abs/2309.16240. Unlike DPO these know each
response's own log-ratio and not only the difference of the two: f′ is flat
where the policy has raised a response far above the reference.

One departure, for forward KL and α: past 20 nats e^t is continued by its
tangent, so that it cannot overflow and its gradient does not vanish.
"""

import jax
import jax.numpy as jnp

from alignjax.losses import preference

# In nats. Unbounded, e^t overflows at 88, which a whole response can reach.
_MAX_EXPONENT = 20.0


def forward_kl_dpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """DPO loss of each pair under the forward KL divergence.

    L = −log σ(β [1/u_l − 1/u_w])

  Wang et al. (2023), https://arxiv.org/abs/2309.16240. One departure: 1/u is
  continued by its tangent in log u where u < e⁻²⁰.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0.

  Returns:
    [B] float32 losses in nats. They are those of `alpha_dpo_loss` at α = 1.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  return alpha_dpo_loss(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs, beta=beta, alpha=1.0)


def js_dpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
) -> jax.Array:
  """DPO loss of each pair under the Jensen–Shannon divergence.

    L = −log σ(β [log σ(log u_w) − log σ(log u_l)])

  Wang et al. (2023), https://arxiv.org/abs/2309.16240: log 2u/(1 + u) is
  log σ(log u) and a constant.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0. At π = π_ref the
      gradient is half that of DPO with the same β.

  Returns:
    [B] float32 losses in nats. At π = π_ref each is log 2, whatever β.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  margin = jax.nn.log_sigmoid(chosen) - jax.nn.log_sigmoid(rejected)
  return -jax.nn.log_sigmoid(beta * margin)


def alpha_dpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    ref_chosen_logprobs: jax.Array,
    ref_rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> jax.Array:
  """DPO loss of each pair under an α-divergence.

    L = −log σ(β [u_l^(−α) − u_w^(−α)]/α)

  Wang et al. (2023), https://arxiv.org/abs/2309.16240. α → 0 is reverse KL,
  which is DPO, and α = 1 forward KL. TRL's older releases have this α; newer
  ones write u^(a − 1)/(a − 1), so that their a is 1 − α. One departure: u^(−α)
  is continued by its tangent in log u where it is above e²⁰.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    ref_chosen_logprobs: [B] reference log-probability of the preferred one. No
      gradient flows through it.
    ref_rejected_logprobs: [B] the same for the dispreferred one.
    beta: strength of the pull towards the reference, β > 0.
    alpha: α > 0; the paper's are below 1.

  Returns:
    [B] float32 losses in nats. At π = π_ref each is log 2, whatever β and α.

  Raises:
    AssertionError: if the four inputs are not float arrays of one [B] shape, or
      a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta, alpha=alpha)
  chosen, rejected = preference.log_ratios(
      chosen_logprobs, rejected_logprobs, ref_chosen_logprobs,
      ref_rejected_logprobs)
  margin = (_expm1(-alpha * rejected) - _expm1(-alpha * chosen)) / alpha
  return -jax.nn.log_sigmoid(beta * margin)


def _expm1(x: jax.Array) -> jax.Array:
  """e^x − 1, continued by its tangent at x = 20."""
  slope = jnp.exp(_MAX_EXPONENT)
  return (jnp.expm1(jnp.minimum(x, _MAX_EXPONENT))
          + slope * jnp.maximum(x - _MAX_EXPONENT, 0.0))
