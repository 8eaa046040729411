"""The losses of a PPO update: clipped policy and value, pretraining text."""

import jax
import jax.numpy as jnp

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.objectives.sft import sft
from alignjax.types import Mean
from alignjax.types import merge_cells
from alignjax.types import Trajectory


def _response_weight(batch: Trajectory):
  return batch.response_mask * batch.weight[:, None]


def _old_logprobs(batch: Trajectory, logprobs):
  """What the rollout found; or these, while the policy is that of then.

  Two programs may round a logprob otherwise, one does not.
  """
  if batch.on_policy is None:
    return batch.logprobs
  return jnp.where(batch.on_policy[:, None], jax.lax.stop_gradient(logprobs),
                   batch.logprobs)


def ppo_policy(
    model: CausalLM, *, prompt_length: int, clip: float = 0.2,
    clip_high: float | None = None, dual_clip: float | None = None,
    entropy_coef: float = 0.0, importance_cap: float | None = None,
    temperature: float = 1.0, chunk_size: int | None = None,
):
  """The objective: mean clipped surrogate over the sampled tokens.

  Metrics: `ratio`, `clipped` (share of tokens outside the range) and
  `approx_kl` to the sampling policy (k3); with an entropy bonus, the policy's
  `exact_entropy` in nats per token; with a cap, the mean `importance` weight.

  Args:
    model: the policy.
    prompt_length: column at which responses begin, P.
    clip: ε, how far the probability ratio counts.
    clip_high: how far upwards; `clip` if None.
    dual_clip: ratio past which a bad token costs no more; None is no bound.
    entropy_coef: weight of the entropy that is added to what is maximised.
    importance_cap: bound of the weights that correct for a sampler that is not
      quite the policy, see `losses.importance_weights`; None leaves them out.
    temperature: what the responses were sampled with.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def objective(params, batch: Trajectory, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    mean = lambda x: Mean.of(x, _response_weight(batch))
    given = model, params, batch.tokens, batch.attention_mask
    settings = dict(rows=batch.rows, start=prompt_length, chunk_size=chunk_size,
                    temperature=temperature)
    bonus, metrics = 0.0, {}
    if entropy_coef:
      logprobs, entropy = scoring.token_logprobs_and_entropy(*given, **settings)
      bonus, metrics = entropy_coef * entropy, {'exact_entropy': mean(entropy)}
    else:
      logprobs = scoring.token_logprobs(*given, **settings)
    old = _old_logprobs(batch, logprobs)
    loss = losses.ppo_clip_loss(
        logprobs, old, batch.advantages, clip=clip,
        clip_high=clip_high, dual_clip=dual_clip)
    if importance_cap is not None:
      weights = losses.importance_weights(
          batch.logprobs, batch.sampler_logprobs, cap=importance_cap)
      loss, metrics = loss * weights, metrics | {'importance': mean(weights)}
    ratio = jnp.exp(logprobs - old)
    above = clip if clip_high is None else clip_high
    return mean(loss - bonus), metrics | {
        'ratio': mean(ratio),
        'clipped': mean((ratio > 1.0 + above) | (ratio < 1.0 - clip)),
        'approx_kl': mean(losses.kl_k3(old, logprobs)),
    }

  return objective


def with_pretraining(
    objective, model: CausalLM, *, chunk_size: int | None = None):
  """The objective of (responses, text): PPO's, and the text's SFT loss.

    L = L_PPO − γ E_text [log π(y_t | y_<t)]

  Ouyang et al. (2022), https://arxiv.org/abs/2203.02155, eq. 2, with the text's
  mean taken per token. The text's rows are weighed so that their SUMMED loss
  is on the scale of the responses' (see `train.ppo.update`). The metric
  `ptx_loss` is the text's mean, in nats per token, before γ.

  Args:
    objective: over trajectories, such as `ppo_policy`.
    model: the policy.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  supervised = sft(model, chunk_size=chunk_size)

  def mixed(params, batch, key):
    trajectory, text = batch
    loss, metrics = objective(params, trajectory, key)
    of_text, _ = supervised(params, text, key)
    return (Mean(loss.total + of_text.total, loss.weight),
            metrics | {'ptx_loss': of_text})

  return mixed


def ppo_value(model: ScalarModel, *, clip: float = 0.2):
  """The objective: mean clipped squared error of the values, halved.

  Args:
    model: the value function.
    clip: how far a value may move from what it was at the rollout.
  """

  def objective(params, batch: Trajectory, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    values = scoring.token_values(
        model, params, batch.tokens, batch.attention_mask, rows=batch.rows)
    loss = losses.value_clip_loss(
        values, batch.values, batch.returns, clip=clip)
    mean = lambda x: Mean.of(x, _response_weight(batch))
    return mean(loss), {'value': mean(values)}

  return objective
