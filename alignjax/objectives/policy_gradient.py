"""Policy gradients without a critic: GRPO, RLOO, REINFORCE and their kin.

They differ in three places, each a function that the caller picks:

    advantages   who a response is compared with      train.online
    surrogate    what happens off the sampling policy  losses.policy
    aggregate    what the mean is over                 below
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import losses
from alignjax import masked
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.types import Mean
from alignjax.types import merge_cells
from alignjax.types import Trajectory

# (logprobs, old_logprobs, advantages, mask), all [B, T], to losses [B, T].
Surrogate = Callable[..., jax.Array]
# (loss [B, T], mask [B, T], weight [B]) to the mean that is minimised.
Aggregate = Callable[[jax.Array, jax.Array, jax.Array], Mean]


def token_mean(loss: jax.Array, mask: jax.Array, weight: jax.Array) -> Mean:
  """Every token of the step weighs the same, long responses more (DAPO)."""
  return Mean.of(loss, mask * weight[:, None])


def sequence_mean(loss: jax.Array, mask: jax.Array, weight: jax.Array) -> Mean:
  """Every response weighs the same, its tokens share its weight (GRPO)."""
  return Mean.of(masked.masked_mean(loss, mask, axis=1),
                 weight * jnp.any(mask, axis=1))


def budget_mean(max_new_tokens: int) -> Aggregate:
  """Sums over tokens, divided by the longest response there may be (Dr. GRPO).

  The divisor is the same for every response, so that a long wrong one is not
  punished less per token.
  """

  def aggregate(loss, mask, weight):
    total = masked.masked_sum(loss, mask, axis=1) / max_new_tokens
    return Mean.of(total, weight)

  return aggregate


def clip_surrogate(
    *, clip: float, clip_high: float | None = None
) -> Surrogate:
  """PPO's clip of each token's ratio: `losses.ppo_clip_loss`."""
  return lambda logprobs, old_logprobs, advantages, mask: losses.ppo_clip_loss(
      logprobs, old_logprobs, advantages, clip=clip, clip_high=clip_high)


def response_surrogate(*, clip: float) -> Surrogate:
  """PPO's clip of the whole response's ratio, a product over its tokens: RLOO.

  The same on each token of a response; for `sequence_mean`. Fresh, its gradient
  is −A times the gradient of the response's log-probability, all tokens alike.
  """

  def surrogate(logprobs, old_logprobs, advantages, mask):
    total = lambda x: masked.masked_sum(x, mask, axis=1)[:, None]
    loss = losses.ppo_clip_loss(
        total(logprobs), total(old_logprobs),
        masked.masked_mean(advantages, mask, axis=1)[:, None], clip=clip)
    return jnp.broadcast_to(loss, logprobs.shape)

  return surrogate


def gspo_surrogate(*, clip: float, clip_high: float) -> Surrogate:
  """GSPO's loss, the same on each token of a response; for `sequence_mean`."""

  def surrogate(logprobs, old_logprobs, advantages, mask):
    loss = losses.gspo_loss(
        logprobs, old_logprobs, masked.masked_mean(advantages, mask, axis=1),
        mask, clip=clip, clip_high=clip_high)
    return jnp.broadcast_to(loss[:, None], logprobs.shape)

  return surrogate


def policy_gradient(
    model: CausalLM, surrogate: Surrogate, *, prompt_length: int,
    aggregate: Aggregate = token_mean, kl_coef: float = 0.0,
    kl: Callable[[jax.Array, jax.Array], jax.Array] = losses.kl_k3,
    importance_cap: float | None = None, temperature: float = 1.0,
    chunk_size: int | None = None,
):
  """The objective: a surrogate over the sampled tokens, and a KL as loss.

  Metrics: `ratio`, and `approx_kl` to the policy that the rollout was made by.

  Args:
    model: the policy.
    surrogate: a loss of `alignjax.losses` with its settings bound.
    prompt_length: column at which responses begin, P.
    aggregate: what the mean is over.
    kl_coef: weight of the KL to the reference as a LOSS, in 1/nats; a KL in
      the reward goes into the advantages instead.
    kl: its estimator, k2 or k3. k2's gradient is the KL's; k3's, which GRPO
      uses, is that of the KL the other way round, near the reference the same.
    importance_cap: bound of the weights that correct for the sampler's
      rounding, None for no weights.
    temperature: what the responses were sampled with.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def objective(params, batch: Trajectory, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    mask = batch.response_mask
    logprobs = scoring.token_logprobs(
        model, params, batch.tokens, batch.attention_mask, rows=batch.rows,
        start=prompt_length, chunk_size=chunk_size, temperature=temperature)
    loss = surrogate(logprobs, batch.logprobs, batch.advantages, mask)
    if importance_cap is not None:
      loss *= losses.importance_weights(
          batch.logprobs, batch.sampler_logprobs, cap=importance_cap)
    if kl_coef:
      # On a column without a token the ratio may be anything, and overflow.
      ref_logprobs = jnp.where(mask, batch.ref_logprobs, 0.0)
      loss += kl_coef * kl(jnp.where(mask, logprobs, 0.0), ref_logprobs)
    mean = lambda x: token_mean(x, mask, batch.weight)
    return aggregate(loss, mask, batch.weight), {
        'ratio': mean(jnp.exp(logprobs - batch.logprobs)),
        'approx_kl': mean(losses.kl_k3(batch.logprobs, logprobs)),
    }

  return objective
