"""The reward model: Bradley-Terry on pairs, or a ranking of K responses."""

import jax.numpy as jnp

from alignjax import losses
from alignjax import scoring
from alignjax.models import ScalarModel
from alignjax.types import Mean
from alignjax.types import merge_cells
from alignjax.types import PreferenceBatch
from alignjax.types import RankingBatch


def reward(
    model: ScalarModel, *, centering: float = 0.0, margins: str = 'none'
):
  """The objective: mean −log σ(r_chosen − r_rejected) over pairs.

  Args:
    model: a decoder with a scalar head, read at each row's last token.
    centering: weight of (r_chosen + r_rejected)², which pins the scale's
      origin near 0; 0 leaves it free.
    margins: 'small' or 'large', LLaMA 2's, by each pair's `strength`; or
      'none'.
  """

  def objective(params, batch: PreferenceBatch, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    rewards = scoring.rewards(
        model, params, batch.tokens, batch.attention_mask, rows=batch.rows)
    chosen, rejected = rewards[:, 0], rewards[:, 1]
    margin = 0.0
    if margins != 'none':
      margin = losses.preference_margin(batch.strength, scale=margins)
    loss = losses.bradley_terry_loss(chosen, rejected, margin=margin)
    if centering:
      loss += centering * losses.reward_centering_loss(chosen, rejected)
    mean = lambda x: Mean.of(x, batch.weight)
    return mean(loss), {
        'accuracy': mean(chosen > rejected),
        'margin': mean(chosen - rejected),
        'reward': mean((chosen + rejected) / 2),
    }

  return objective


def reward_ranking(model: ScalarModel, *, plackett_luce: bool = False):
  """The objective over prompts with K ranked responses each.

  All pairs of a prompt's responses share one mean, as in InstructGPT, so that
  a prompt weighs the same however many responses were ranked.

  Metrics: `accuracy`, the share of a prompt's pairs in the right order, and
  `reward`.

  Args:
    model: a decoder with a scalar head, read at each row's last token.
    plackett_luce: whether to fit the ranking as a whole, rather than its pairs.
  """

  def objective(params, batch: RankingBatch, key):
    del key  # No dropout.
    batch = merge_cells(batch)
    rewards = scoring.rewards(
        model, params, batch.tokens, batch.attention_mask, rows=batch.rows)
    rank_loss = (losses.plackett_luce_loss if plackett_luce
                 else losses.ranking_loss)
    loss = rank_loss(rewards, batch.ranks, batch.mask)
    is_pair = ((batch.ranks[:, :, None] < batch.ranks[:, None, :])
               & batch.mask[:, :, None] & batch.mask[:, None, :])
    is_right = rewards[:, :, None] > rewards[:, None, :]
    count = jnp.sum(is_pair, axis=(1, 2))
    right = jnp.sum(is_right & is_pair, axis=(1, 2)) / jnp.maximum(count, 1)
    weight = batch.weight * (count > 0)
    return Mean.of(loss, weight), {
        'accuracy': Mean.of(right, weight),
        'reward': Mean.of(rewards, batch.mask * batch.weight[:, None]),
    }

  return objective
