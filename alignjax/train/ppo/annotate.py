"""What the four models say of a rollout, and the advantages that follow."""

import jax
import jax.numpy as jnp

from alignjax import advantages as advantages_lib
from alignjax import losses
from alignjax import masked
from alignjax import rollout
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.train import guard
from alignjax.train.ppo.config import PPOConfig
from alignjax.train.step import Metrics
from alignjax.types import Mean
from alignjax.types import Trajectory


def make_annotate(
    model: CausalLM, value_model: ScalarModel, config: PPOConfig, *,
    prompt_length: int, eos_id: int, ref_model: CausalLM | None = None,
    chunk_size: int | None = None,
):
  """Returns the pure function that fills a trajectory in and measures it.

  `annotate(policy, ref, value, kl_coef, trajectory, reward)` recomputes the
  logprobs by the training forward (the sampler's differ by rounding; the gap
  is the metric `decode_gap`, in nats), so that the first minibatch's ratio is
  1 up to an ulp.

  Args:
    model: the policy.
    value_model: the value function.
    config: the iteration's settings.
    prompt_length: column at which responses begin, P.
    eos_id: the token that ends a response.
    ref_model: the reference; the policy's own model if None.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  ref_model = ref_model or model

  def logprobs_and_kl(policy, ref, trajectory):
    settings = dict(rows=trajectory.rows, start=prompt_length,
                    chunk_size=chunk_size, temperature=config.temperature)
    read = trajectory.tokens, trajectory.attention_mask
    if config.kl_estimator == 'exact':
      return scoring.token_logprobs_and_kl(
          model, policy, ref_model, ref, *read, **settings)
    logprobs = scoring.token_logprobs(model, policy, *read, **settings)
    ref_logprobs = scoring.token_logprobs(ref_model, ref, *read, **settings)
    return logprobs, ref_logprobs, losses.kl_k1(logprobs, ref_logprobs)

  def annotate(policy, ref, value, kl_coef, trajectory, reward):
    mask = trajectory.response_mask & (trajectory.weight > 0)[:, None]
    logprobs, ref_logprobs, kl = logprobs_and_kl(policy, ref, trajectory)
    values = scoring.token_values(
        value_model, value, trajectory.tokens, trajectory.attention_mask,
        rows=trajectory.rows)

    ended = rollout.has_ended(trajectory, eos_id=eos_id)
    scores = reward if not config.whiten_scores else masked.whiten(
        reward[:, None], (trajectory.weight > 0)[:, None])[:, 0]
    clipped = scores if config.reward_clip is None else jnp.clip(
        scores, -config.reward_clip, config.reward_clip)
    penalised = clipped - config.missing_eos_penalty * ~ended
    token_rewards = advantages_lib.token_rewards(
        penalised, kl, mask, kl_coef=kl_coef)
    own_kl = losses.kl_k1(logprobs, ref_logprobs) - kl
    if config.whiten_rewards:
      own_kl *= jax.lax.rsqrt(masked.masked_var(token_rewards, mask) + 1e-8)
      token_rewards = masked.whiten(token_rewards, mask, shift_mean=False)
    advantages, returns = advantages_lib.gae(
        token_rewards, values, mask, gamma=config.gamma, lam=config.lam)
    # A divergence is that of a place, and the same whatever token is drawn
    # there. As a reward alone it would pull at the tokens before it only, and
    # no policy stays near a reference for that: the token drawn answers for
    # its own log-ratio. With k1 this adds 0.
    advantages -= kl_coef * jnp.where(mask, own_kl, 0.0)

    trajectory = trajectory.replace(
        logprobs=logprobs, ref_logprobs=ref_logprobs, kl=kl, values=values,
        reward=reward, returns=returns,
        advantages=masked.whiten(advantages, mask))
    return trajectory, measure(trajectory, mask, ended) | {
        'kl_coef': Mean(kl_coef, jnp.ones(()))}

  return annotate


def measure(
    trajectory: Trajectory, mask: jax.Array, ended: jax.Array) -> Metrics:
  """What an annotated rollout is told by.

  Args:
    trajectory: of [B, T].
    mask: [B, T] bool, the sampled tokens of real rows.
    ended: [B] bool, whether EOS was written.
  """
  t = trajectory
  gap = jnp.abs(t.logprobs - t.sampler_logprobs)
  unexplained = masked.masked_var(t.returns - t.values, mask)
  mean = lambda x: Mean.of(x, t.weight)
  one = lambda x: Mean(x, jnp.ones(()))
  return {
      'reward': mean(t.reward),
      'kl': mean(jnp.sum(t.kl, axis=1, where=mask)),
      'length': mean(jnp.sum(mask, axis=1)),
      'ended': mean(ended),
      'entropy': Mean.of(-t.logprobs, mask),
      'explained_variance': one(
          1.0 - unexplained / (masked.masked_var(t.returns, mask) + 1e-8)),
      'decode_gap': one(jnp.max(gap, where=mask, initial=0.0)),
      'bad_rewards': one(guard.count_bad(t)),
  }
