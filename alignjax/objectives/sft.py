"""Supervised fine-tuning; on whole documents, pretraining."""

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.types import Mean
from alignjax.types import merge_cells
from alignjax.types import TokenBatch


def sft(model: CausalLM, *, chunk_size: int | None = None):
  """The objective: mean −log p over the step's loss tokens.

  The mean is over the tokens of the WHOLE optimizer step, not over rows or
  microbatches.

  Args:
    model: the policy.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def objective(params, batch: TokenBatch, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    logprobs = scoring.token_logprobs(
        model, params, batch.tokens, batch.attention_mask, rows=batch.rows,
        chunk_size=chunk_size)
    weight = batch.loss_mask * batch.weight[:, None]
    loss = Mean.of(losses.sft_loss(logprobs, batch.loss_mask), weight)
    return loss, {}

  return objective
