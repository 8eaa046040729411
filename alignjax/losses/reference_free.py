"""Preference losses that need no reference model.

SimPO and ORPO take the mean log-probability per token of a response, CPO its
sum. CPO and ORPO are one term of a loss, and the caller adds the other, the
negative log-likelihood of the preferred response.
"""

import chex
import jax
import jax.numpy as jnp

from alignjax.losses import preference

# In nats per token: a response of probability 1 has infinite odds.
_MAX_LOGPROB = -1e-7


def simpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> jax.Array:
  """Simple preference optimisation loss of each pair.

    L = −log σ(β (c − r) − γ)

  Meng et al. (2024), https://arxiv.org/abs/2405.14734, eq. 6, where c and r are
  log π(y)/|y| of the preferred and the dispreferred response.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats per token, the mean over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    beta: β > 0, per nat. A mean is small where a sum is not, so that it is some
      twenty times DPO's.
    gamma: γ ≥ 0, the margin aimed at between β c and β r. Some give γ/β.

  Returns:
    [B] float32 losses in nats. Where c = r each is log(1 + e^γ), whatever β.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B] shape, or a
      setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  preference.check_in('[0, inf)', gamma=gamma)
  chosen, rejected = _check(chosen_logprobs, rejected_logprobs)
  return -jax.nn.log_sigmoid(beta * (chosen - rejected) - gamma)


def orpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
) -> jax.Array:
  """Odds-ratio term of ORPO for each pair.

    odds(x) = e^x / (1 − e^x)
    L = −log σ(log odds(c) − log odds(r))

  Hong et al. (2024), https://arxiv.org/abs/2403.07691, eq. 7, where c and r are
  log π(y)/|y| of the preferred and the dispreferred response. The whole loss is
  the negative log-likelihood of the preferred one and λ times this. One
  departure: c and r are clipped at −10⁻⁷, where the odds are still finite.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats per token, the mean over the response's tokens; at most 0.
    rejected_logprobs: [B] the same for the dispreferred response.

  Returns:
    [B] float32 losses in nats. Where c = r each is log 2.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B] shape.
  """
  chosen, rejected = _check(chosen_logprobs, rejected_logprobs)
  return -jax.nn.log_sigmoid(_log_odds(chosen) - _log_odds(rejected))


def cpo_loss(
    chosen_logprobs: jax.Array,
    rejected_logprobs: jax.Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> jax.Array:
  """Contrastive preference optimisation loss of each pair.

    z = β (log π(y_w) − log π(y_l))
    L = −(1 − ε) log σ(z) − ε log σ(−z)

  Xu et al. (2024), https://arxiv.org/abs/2401.08417: DPO's loss with a uniform
  reference. The whole loss is this and the negative log-likelihood of the
  preferred response. ε is conservative DPO's and not in the paper.

  Args:
    chosen_logprobs: [B] policy log-probability of each preferred response, in
      nats, summed over the response's tokens.
    rejected_logprobs: [B] the same for the dispreferred response.
    beta: β > 0, in 1/nats.
    label_smoothing: ε, the chance that a label is flipped, in [0, 0.5).

  Returns:
    [B] float32 losses in nats. They are those of `dpo_loss` with a reference to
    which both responses of a pair are equally likely.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B] shape, or a
      setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  preference.check_in('[0, 0.5)', label_smoothing=label_smoothing)
  chosen, rejected = _check(chosen_logprobs, rejected_logprobs)
  logits = beta * (chosen - rejected)
  return -(
      (1.0 - label_smoothing) * jax.nn.log_sigmoid(logits)
      + label_smoothing * jax.nn.log_sigmoid(-logits)
  )


def _log_odds(logprobs: jax.Array) -> jax.Array:
  """log p/(1 − p) of log p ≤ 0."""
  logprobs = jnp.minimum(logprobs, _MAX_LOGPROB)
  return logprobs - jnp.log(-jnp.expm1(logprobs))


def _check(*inputs: jax.Array) -> list[jax.Array]:
  """The inputs in float32, if they are float arrays of one [B] shape."""
  chex.assert_rank(inputs, 1)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)
  return [x.astype(jnp.float32) for x in inputs]
