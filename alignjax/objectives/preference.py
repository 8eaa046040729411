"""Preference pairs: any loss of their log-probabilities, bound to a model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.types import Mean
from alignjax.types import merge_cells
from alignjax.types import PreferenceBatch

Reduce = Callable[[jax.Array, jax.Array], jax.Array]


def preference(
    model: CausalLM, loss: Callable[..., jax.Array], *,
    beta: float = 1.0, reduce: Reduce = scoring.sum_tokens,
    has_reference: bool = True, of_ratios: bool = False, sft_coef: float = 0.0,
    wpo: bool = False, chunk_size: int | None = None, temperature: float = 1.0,
):
  """The objective: mean over pairs of `loss`, plus an SFT term if asked.

    L = loss(chosen, rejected[, ref_chosen, ref_rejected])
        − sft_coef · (log π(chosen) per token)

  Metrics: `accuracy` of the implicit reward β log π/π_ref (without a reference
  β log π), its `margin`, its mean on each side, and `sft_loss`, the chosen
  response's −log π per token.

  Args:
    model: the policy.
    loss: of `alignjax.losses`, with its settings bound: four arrays [B] of
      log-probabilities, or two without a reference.
    beta: scale of the rewards in the metrics, in 1/nats.
    reduce: from token logprobs and mask, [B, 2, T], to [B, 2]: what of a
      response `loss` is given, its sum or its mean; both models' alike. Linear
      in the logprobs.
    has_reference: whether batches are annotated with the reference.
    of_ratios: whether `loss` sees nothing but log π/π_ref. Ratios are then
      taken token by token and reduced, and `loss` has a reference of 0: two
      sums of a hundred nats each differ by float32's rounding alone, their
      tokens by next to nothing.
    sft_coef: weight of the SFT term, which keeps chosen responses likely; in
      1/nats per token.
    wpo: whether to weigh each pair by how likely the policy is to write it.
    chunk_size: columns unembedded at one time; None is all of them.
    temperature: what the responses were sampled with, and the reference's
      log-probabilities taken at, where that is not 1.
  """
  settings = dict(chunk_size=chunk_size, temperature=temperature)

  def objective(params, batch: PreferenceBatch, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    pairs = batch.tokens, batch.attention_mask, batch.loss_mask
    weights = 1.0
    if wpo:
      token_logprobs, collision = scoring.pair_token_collision(
          model, params, *pairs, rows=batch.rows, **settings)
      weights = losses.wpo_weights(*(
          x[:, i] for x in (token_logprobs, collision, batch.loss_mask)
          for i in (0, 1)))
    else:
      token_logprobs = scoring.pair_token_logprobs(
          model, params, *pairs, rows=batch.rows, **settings)
    nothing = jnp.zeros_like(token_logprobs)
    both = token_logprobs, batch.ref_logprobs if has_reference else nothing
    if of_ratios:
      both = both[0] - both[1], nothing
    logprobs, ref = (reduce(x, batch.loss_mask) for x in both)
    sides = (logprobs, ref) if has_reference else (logprobs,)
    pair_loss = loss(*(x[:, i] for x in sides for i in (0, 1)))
    sft_loss = -scoring.mean_tokens(token_logprobs, batch.loss_mask)[:, 0]
    mean = lambda x: Mean.of(x, batch.weight)
    return mean(weights * pair_loss + sft_coef * sft_loss), pair_metrics(
        beta * (logprobs - ref), batch.weight) | {'sft_loss': mean(sft_loss)}

  return objective


def pair_metrics(rewards: jax.Array, weight: jax.Array) -> dict[str, Mean]:
  """How rewards [B, 2], chosen first, tell the sides of a pair apart."""
  mean = lambda x: Mean.of(x, weight)
  return {
      'accuracy': mean(rewards[:, 0] > rewards[:, 1]),
      'margin': mean(rewards[:, 0] - rewards[:, 1]),
      'chosen_reward': mean(rewards[:, 0]),
      'rejected_reward': mean(rewards[:, 1]),
  }


def length_desensitized(alpha: float) -> Reduce:
  """The reduction of LD-DPO: what one response has beyond the other counts α.

  Args:
    alpha: from 0 (the longer response's tail is cut off) to 1 (a plain sum).
  """

  def reduce(logprobs, mask):
    shared = jnp.min(jnp.sum(mask, axis=-1), axis=1)
    return jnp.stack([
        losses.length_desensitized_logprobs(
            logprobs[:, i], mask[:, i], shared, alpha=alpha)
        for i in (0, 1)], axis=1)

  return reduce
