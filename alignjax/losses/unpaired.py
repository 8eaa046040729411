"""Losses of responses labelled one by one, good or bad, without pairs."""

import chex
import jax
import jax.numpy as jnp

from alignjax.losses import preference

# λ_D n_D/(λ_U n_U) is to be between 1 and this.
_MAX_BALANCE = 4 / 3


def kto_loss(
    logprobs: jax.Array,
    ref_logprobs: jax.Array,
    desirable: jax.Array,
    kl: jax.Array,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> jax.Array:
  """Kahneman-Tversky optimisation loss of each response.

    d = log π(y)/π_ref(y)
    L = λ_D [1 − σ(β(d − z₀))]  of a desirable response
    L = λ_U [1 − σ(β(z₀ − d))]  of an undesirable one

  Ethayarajh et al. (2024), https://arxiv.org/abs/2402.01306. z₀ is the
  log-ratio from which gains and losses are counted; `kto_kl` estimates it.

  Args:
    logprobs: [B] policy log-probability of each response, in nats, summed over
      the response's tokens.
    ref_logprobs: [B] the same of the reference. No gradient flows through it.
    desirable: [B] bool, the labels. A batch may hold one kind only.
    kl: [] z₀ ≥ 0, in nats. No gradient flows through it.
    beta: strength of the pull towards the reference, β > 0, in 1/nats.
    desirable_weight: λ_D ≥ 0; see `kto_weights`.
    undesirable_weight: λ_U ≥ 0.

  Returns:
    [B] float32 losses, between 0 and λ. Where d = z₀ each is λ/2.

  Raises:
    AssertionError: if the log-probabilities are not float arrays of one [B]
      shape, `desirable` is not bool of that shape, `kl` is not a float scalar,
      or a setting is out of range.
  """
  preference.check_in('(0, inf)', beta=beta)
  preference.check_in(
      '[0, inf)', desirable_weight=desirable_weight,
      undesirable_weight=undesirable_weight)
  inputs = (logprobs, ref_logprobs)
  chex.assert_rank((*inputs, desirable), 1)
  chex.assert_equal_shape((*inputs, desirable))
  chex.assert_rank(kl, 0)
  chex.assert_type((*inputs, kl), float)
  chex.assert_type(desirable, bool)

  logprobs, ref_logprobs, kl = (
      jnp.asarray(x, jnp.float32) for x in (*inputs, kl))
  gain = logprobs - jax.lax.stop_gradient(ref_logprobs + kl)
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  return weight * jax.nn.sigmoid(beta * jnp.where(desirable, -gain, gain))


def kto_kl(
    mismatched_logprobs: jax.Array,
    mismatched_ref_logprobs: jax.Array,
    weight: jax.Array,
) -> jax.Array:
  """KTO's reference point z₀, from responses to other prompts.

    z₀ = max(0, Σ_i w_i d_i / Σ_i w_i),
    d_i = log π(y_{i+1} | x_i)/π_ref(y_{i+1} | x_i)

  Ethayarajh et al. (2024), https://arxiv.org/abs/2402.01306: an estimate of
  KL(π‖π_ref), biased and cheap, for which no response is sampled. The caller
  rolls the responses by one within the batch:

    prompts                  x₀  x₁  x₂
    responses of `kto_loss`  y₀  y₁  y₂
    responses here           y₁  y₂  y₀

  so that the data may be shuffled. TRL pairs them once in the dataset, in
  chunks, and then has to keep the data's order. It also averages over one
  microbatch; here the mean is over what is passed, which should be the step's
  whole batch. Rolled, a batch of one is not mismatched: its z₀ would be its own
  log-ratio.

  Args:
    mismatched_logprobs: [B] policy log-probability of each response after a
      prompt that is not its own, in nats, summed over the response's tokens.
    mismatched_ref_logprobs: [B] the same of the reference.
    weight: [B] float, at least 0; 0 for a row that is filler, which may hold
      anything.

  Returns:
    [] float32 z₀ in nats, never below 0, and 0 where all weights are 0. No
    gradient flows through it.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B] shape.
  """
  inputs = (mismatched_logprobs, mismatched_ref_logprobs, weight)
  chex.assert_rank(inputs, 1)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)

  logprobs, ref_logprobs, weight = jax.lax.stop_gradient(
      tuple(x.astype(jnp.float32) for x in inputs))
  log_ratios = jnp.where(weight > 0, logprobs - ref_logprobs, 0.0)
  total = jnp.sum(weight)
  mean = jnp.sum(weight * log_ratios) / jnp.where(total > 0, total, 1.0)
  return jnp.maximum(mean, 0.0)


def kto_weights(
    num_desirable: int, num_undesirable: int
) -> tuple[float, float]:
  """KTO's weights (λ_D, λ_U) for classes of unequal size.

    1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3

  Ethayarajh et al. (2024), https://arxiv.org/abs/2402.01306; some versions of
  the paper allow 3/2. Of the weights that 4/3 allows these are the nearest to
  1: the smaller class is weighted up to the nearer end, the other keeps 1.

    n_D   n_U   λ_D   λ_U
    100   100   1     1
    120   100   1     1
    100   300   3     1
    400   100   1     3

  Args:
    num_desirable: n_D ≥ 0, desirable responses in the dataset.
    num_undesirable: n_U ≥ 0, undesirable ones.

  Returns:
    (λ_D, λ_U), each at least 1. With one class only both are 1.

  Raises:
    AssertionError: if a number is negative.
  """
  preference.check_in(
      '[0, inf)', num_desirable=num_desirable, num_undesirable=num_undesirable)
  if not num_desirable or not num_undesirable:
    return 1.0, 1.0
  balance = num_desirable / num_undesirable
  return max(1.0, 1.0 / balance), max(1.0, balance / _MAX_BALANCE)
