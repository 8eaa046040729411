"""What a policy answers, and how far it has moved from its reference."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignjax import logprobs as logprobs_lib
from alignjax import partitioning
from alignjax import sharding
from alignjax.data import prompt_batches
from alignjax.data import TokenizedPrompt
from alignjax.models import CausalLM
from alignjax.types import Trajectory


class Response(NamedTuple):
  """One sampled response."""

  tokens: list[int]   # EOS included, if it was written.
  is_complete: bool   # Whether EOS was written.


def sample_responses(
    generate: Callable, params, prompts: Sequence[TokenizedPrompt], *,
    width: int, batch_size: int, eos_id: int, mesh: jax.sharding.Mesh,
    seed: int, num_samples: int = 1,
) -> tuple[list[list[Response]], list[Trajectory]]:
  """Samples responses to every prompt, in the prompts' order.

  Args:
    generate: `rollout.make_generate`'s.
    params: the policy's.
    prompts: [N] tokenized prompts.
    width: P that prompts are padded to, on the left.
    batch_size: rows in a batch, samples included.
    eos_id: the token that ends a response.
    mesh: whose batch axes split the rows.
    seed: of the samples; the same seed draws the same responses.
    num_samples: responses to each prompt, K.

  Returns:
    [N][K] responses, and the trajectories that they came in, filler included.
  """
  key = jax.random.key(seed)
  responses, trajectories = [], []
  for batch in prompt_batches(
      prompts, batch_size=batch_size, max_length=width, num_epochs=1,
      num_samples=num_samples, shuffle=False):
    batch = sharding.put(batch, sharding.batch_sharding(mesh))
    trajectory = generate(params, batch, key)
    trajectories.append(trajectory)
    responses += read_responses(trajectory, eos_id=eos_id)
  grouped = [responses[i:i + num_samples]
             for i in range(0, len(responses), num_samples)]
  return grouped, trajectories


def read_responses(trajectory: Trajectory, *, eos_id: int) -> list[Response]:
  """The responses of a trajectory's real rows, on the host."""
  tokens, mask, weight = sharding.to_host(
      (trajectory.tokens, trajectory.response_mask, trajectory.weight))
  rows = [t[m].tolist() for t, m, w in zip(tokens, mask, weight) if w > 0]
  return [Response(row, row[-1:] == [eos_id]) for row in rows]


def read_prompts(trajectory: Trajectory) -> list[list[int]]:
  """The prompts' tokens of a trajectory's real rows, on the host."""
  tokens, mask, weight = sharding.to_host(
      (trajectory.tokens, trajectory.attention_mask & ~trajectory.response_mask,
       trajectory.weight))
  return [t[m].tolist() for t, m, w in zip(tokens, mask, weight) if w > 0]


def make_sequence_kl(
    model: CausalLM, *, prompt_length: int, mesh: jax.sharding.Mesh,
    param_shardings, chunk_size: int | None = None,
) -> Callable[[object, object, Trajectory], jax.Array]:
  """Returns `kl(params, ref_params, trajectory) -> [B]`, nats per response.

  Σ_t KL(π(·|y_<t) ‖ π_ref(·|y_<t)) over the sampled tokens: exact over the
  vocabulary, so that only the response itself is a sample.

  Args:
    model: policy and reference, by their parameters.
    prompt_length: column at which responses begin.
    mesh: whose batch axes split the rows.
    param_shardings: of both.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def sequence_kl(params, ref_params, trajectory):
    rows = trajectory.tokens, trajectory.attention_mask
    kl = logprobs_lib.exact_kl(
        model.hidden(params, *rows), model.unembedding(params),
        model.hidden(ref_params, *rows), model.unembedding(ref_params),
        softcap=model.config.logit_softcap, start=prompt_length,
        chunk_size=chunk_size)
    return jnp.sum(kl, axis=1, where=trajectory.response_mask)

  rows = sharding.batch_sharding(mesh)
  return partitioning.jit(
      sequence_kl, mesh, in_shardings=(param_shardings, param_shardings, rows),
      out_shardings=rows)


def mean_kl(
    sequence_kl: Callable, params, ref_params,
    trajectories: Sequence[Trajectory],
) -> float:
  """Mean nats per response over the trajectories' real rows."""
  total = weight = 0.0
  for trajectory in trajectories:
    kl, real = sharding.to_host((
        sequence_kl(params, ref_params, trajectory), trajectory.weight))
    total, weight = total + float(kl @ real), weight + float(real.sum())
  return total / max(weight, 1.0)
