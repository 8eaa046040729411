"""Kahneman-Tversky optimisation: responses labelled one by one."""

import jax.numpy as jnp

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.types import Mean
from alignjax.types import merge_cells
from alignjax.types import UnpairedBatch


def kto(
    model: CausalLM, *, beta: float = 0.1, desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0, chunk_size: int | None = None,
):
  """The objective over responses annotated with the reference and z0.

  Metrics: `desirable_reward` and `undesirable_reward`, means of β log π/π_ref
  over either class, and `kl`, the batch's z0 in nats.

  Args:
    model: the policy.
    beta: strength of the pull towards the reference, in 1/nats.
    desirable_weight: λ_D; see `losses.kto_weights` for unequal classes.
    undesirable_weight: λ_U.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def objective(params, batch: UnpairedBatch, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    logprobs = scoring.response_logprobs(
        model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        rows=batch.rows, chunk_size=chunk_size)
    kl = batch.kl[0]  # The same in every row.
    loss = losses.kto_loss(
        logprobs, batch.ref_logprobs, batch.desirable, kl, beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight)
    rewards = beta * (logprobs - batch.ref_logprobs)
    return Mean.of(loss, batch.weight), {
        'desirable_reward': Mean.of(rewards, batch.weight * batch.desirable),
        'undesirable_reward': Mean.of(
            rewards, batch.weight * ~batch.desirable),
        'kl': Mean(kl, jnp.ones(())),
    }

  return objective
