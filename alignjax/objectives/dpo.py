"""Direct preference optimisation."""

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.types import Mean
from alignjax.types import PreferenceBatch


def dpo(
    model: CausalLM, *, beta: float = 0.1, label_smoothing: float = 0.0,
    chunk_size: int | None = None,
):
  """The objective over pairs annotated with the reference's logprobs.

  Metrics: `accuracy` of the implicit reward β log π/π_ref, its `margin`, and
  its mean on each side.

  Args:
    model: the policy.
    beta: strength of the pull towards the reference, in 1/nats.
    label_smoothing: the chance that a label is flipped, in [0, 0.5).
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def objective(params, batch: PreferenceBatch, key):
    del key  # No dropout.
    logprobs = scoring.pair_logprobs(
        model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        chunk_size=chunk_size)
    ref = batch.ref_logprobs
    loss = losses.dpo_loss(
        logprobs[:, 0], logprobs[:, 1], ref[:, 0], ref[:, 1], beta=beta,
        label_smoothing=label_smoothing)
    rewards = beta * (logprobs - ref)
    mean = lambda x: Mean.of(x, batch.weight)
    return mean(loss), {
        'accuracy': mean(rewards[:, 0] > rewards[:, 1]),
        'margin': mean(rewards[:, 0] - rewards[:, 1]),
        'chosen_reward': mean(rewards[:, 0]),
        'rejected_reward': mean(rewards[:, 1]),
    }

  return objective
