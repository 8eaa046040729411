"""Direct preference optimisation."""

import functools

from alignjax import losses
from alignjax import scoring
from alignjax.models import CausalLM
from alignjax.objectives import preference as preference_lib


def dpo(
    model: CausalLM, *, beta: float = 0.1, label_smoothing: float = 0.0,
    reduce: preference_lib.Reduce = scoring.sum_tokens, sft_coef: float = 0.0,
    wpo: bool = False, chunk_size: int | None = None,
    temperature: float = 1.0,
):
  """The objective over pairs annotated with the reference's logprobs.

  Metrics: those of `preference`, with the implicit reward β log π/π_ref.

  Args:
    model: the policy.
    beta: strength of the pull towards the reference, in 1/nats.
    label_smoothing: the chance that a label is flipped, in [0, 0.5).
    reduce: sums by default; `scoring.mean_tokens` gives length-normalised DPO
      and `length_desensitized(alpha)` LD-DPO.
    sft_coef: weight of an SFT term on the chosen response, as in RPO.
    wpo: whether to weigh each pair by how likely the policy is to write it.
    chunk_size: columns unembedded at one time; None is all of them.
    temperature: what the responses were sampled with; see `preference`.
  """
  loss = functools.partial(
      losses.dpo_loss, beta=beta, label_smoothing=label_smoothing)
  return preference_lib.preference(
      model, loss, beta=beta, reduce=reduce, of_ratios=True,
      sft_coef=sft_coef, wpo=wpo, chunk_size=chunk_size,
      temperature=temperature)
