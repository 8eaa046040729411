"""The two losses of a PPO update: clipped policy, clipped value."""

import jax.numpy as jnp

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.types import Mean
from alignjax.types import Trajectory


def _response_weight(batch: Trajectory):
  return batch.response_mask * batch.weight[:, None]


def ppo_policy(
    model: CausalLM, *, prompt_length: int, clip: float = 0.2,
    temperature: float = 1.0, chunk_size: int | None = None,
):
  """The objective: mean clipped surrogate over the sampled tokens.

  Metrics: `ratio`, `clipped` (share of tokens outside 1 ± clip) and
  `approx_kl` to the sampling policy (k3).

  Args:
    model: the policy.
    prompt_length: column at which responses begin, P.
    clip: ε, how far the probability ratio counts.
    temperature: what the responses were sampled with.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def objective(params, batch: Trajectory, key):
    del key  # No dropout.
    logprobs = scoring.token_logprobs(
        model, params, batch.tokens, batch.attention_mask,
        start=prompt_length, chunk_size=chunk_size, temperature=temperature)
    loss = losses.ppo_clip_loss(
        logprobs, batch.logprobs, batch.advantages, clip=clip)
    ratio = jnp.exp(logprobs - batch.logprobs)
    mean = lambda x: Mean.of(x, _response_weight(batch))
    return mean(loss), {
        'ratio': mean(ratio),
        'clipped': mean(jnp.abs(ratio - 1.0) > clip),
        'approx_kl': mean(losses.kl_k3(batch.logprobs, logprobs)),
    }

  return objective


def ppo_value(model: ScalarModel, *, clip: float = 0.2):
  """The objective: mean clipped squared error of the values, halved.

  Args:
    model: the value function.
    clip: how far a value may move from what it was at the rollout.
  """

  def objective(params, batch: Trajectory, key):
    del key  # No dropout.
    values = scoring.token_values(
        model, params, batch.tokens, batch.attention_mask)
    loss = losses.value_clip_loss(
        values, batch.values, batch.returns, clip=clip)
    mean = lambda x: Mean.of(x, _response_weight(batch))
    return mean(loss), {'value': mean(values)}

  return objective
