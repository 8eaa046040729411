"""The reward model: Bradley-Terry on pairs."""

import jax

from alignjax import losses
from alignjax import scoring
from alignjax.models import ScalarModel
from alignjax.types import Mean
from alignjax.types import PreferenceBatch


def reward(model: ScalarModel, *, centering: float = 0.0):
  """The objective: mean −log σ(r_chosen − r_rejected) over pairs.

  Args:
    model: a decoder with a scalar head, read at each row's last token.
    centering: weight of (r_chosen + r_rejected)², which pins the scale's
      origin near 0; 0 leaves it free.
  """

  def objective(params, batch: PreferenceBatch, key):
    del key  # No dropout.
    rows = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]),
                        (batch.tokens, batch.attention_mask))
    rewards = scoring.rewards(model, params, *rows).reshape(-1, 2)
    chosen, rejected = rewards[:, 0], rewards[:, 1]
    loss = losses.bradley_terry_loss(chosen, rejected)
    if centering:
      loss += centering * losses.reward_centering_loss(chosen, rejected)
    mean = lambda x: Mean.of(x, batch.weight)
    return mean(loss), {
        'accuracy': mean(chosen > rejected),
        'margin': mean(chosen - rejected),
        'reward': mean((chosen + rejected) / 2),
    }

  return objective
