"""Annotators: jitted functions that add to a batch what frozen models say."""

from collections.abc import Callable

import jax

from alignjax import scoring
from alignjax import sharding
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.types import PreferenceBatch


def make_reference(
    model: CausalLM, params, *, mesh: jax.sharding.Mesh, param_shardings,
    chunk_size: int | None = None,
) -> Callable[[PreferenceBatch], PreferenceBatch]:
  """Returns `annotate(batch)`, which fills in the reference's logprobs.

  Args:
    model: the frozen reference.
    params: its parameters, on the mesh; they must outlive the annotator.
    mesh: whose batch axes split the rows.
    param_shardings: of `params`.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  rows = sharding.batch_sharding(mesh)

  def reference_logprobs(params, batch):
    return scoring.pair_logprobs(
        model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        chunk_size=chunk_size)

  jitted = jax.jit(reference_logprobs, in_shardings=(param_shardings, rows),
                   out_shardings=rows)

  def annotate(batch):
    return batch.replace(ref_logprobs=jitted(params, batch))

  annotate.jitted = jitted
  return annotate


def make_reward_fn(
    model: ScalarModel, params, *, mesh: jax.sharding.Mesh, param_shardings,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns `reward(tokens, attention_mask) -> [B]`, read at the last token.

  Args:
    model: the frozen reward model.
    params: its parameters, on the mesh.
    mesh: whose batch axes split the rows.
    param_shardings: of `params`.
  """
  rows = sharding.batch_sharding(mesh)
  jitted = jax.jit(
      lambda params, tokens, mask: scoring.rewards(model, params, tokens, mask),
      in_shardings=(param_shardings, rows, rows), out_shardings=rows)

  def reward(tokens, attention_mask):
    return jitted(params, tokens, attention_mask)

  reward.jitted = jitted
  return reward
