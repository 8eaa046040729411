"""Annotators: jitted functions that add to a batch what models say of it.

An annotator is `(params, batch) -> batch`, where `params` are those of the
policy at this step; most ask frozen models only.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import losses
from alignjax import partitioning
from alignjax import scoring
from alignjax import sharding
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.types import merge_cells
from alignjax.types import PreferenceBatch
from alignjax.types import UnpairedBatch

# `(params, batch) -> batch`, where `params` are the policy's at this step.
Annotate = Callable[[object, object], object]


def make_reference(
    model: CausalLM, params, *, mesh: jax.sharding.Mesh, param_shardings,
    chunk_size: int | None = None,
) -> Annotate:
  """Returns `annotate(_, pairs)`, which fills in the reference's logprobs.

  They are per token, so that an objective may sum or average them as it does
  the policy's. The policy itself is not asked.

  Args:
    model: the frozen reference.
    params: its parameters, on the mesh; they must outlive the annotator.
    mesh: whose batch axes split the rows.
    param_shardings: of `params`.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  rows = sharding.batch_sharding(mesh)

  def reference_logprobs(params, batch):
    pairs = merge_cells(batch)
    logprobs = scoring.pair_token_logprobs(
        model, params, pairs.tokens, pairs.attention_mask, pairs.loss_mask,
        rows=pairs.rows, chunk_size=chunk_size)
    return logprobs.reshape(batch.tokens.shape)

  jitted = partitioning.jit(
      reference_logprobs, mesh, in_shardings=(param_shardings, rows),
      out_shardings=rows)

  def annotate(policy, batch: PreferenceBatch) -> PreferenceBatch:
    del policy
    return batch.replace(ref_logprobs=jitted(params, batch))

  annotate.jitted = jitted
  return annotate


def make_kto_reference(
    model: CausalLM, params, *, mesh: jax.sharding.Mesh, param_shardings,
    policy: CausalLM | None = None, chunk_size: int | None = None,
) -> Annotate:
  """Returns `annotate(policy, batch)`: the reference's logprobs, and z0.

  z0 is KTO's estimate of the KL, over the mismatched rows of the WHOLE batch:
  it is taken here, before the batch is cut into microbatches, and each row
  carries it. It has no gradient anyway.

  Args:
    model: the frozen reference.
    params: the reference's, on the mesh; they must outlive the annotator.
    mesh: whose batch axes split the rows.
    param_shardings: of the reference's.
    policy: the model that is trained; the reference's own if None.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  rows = sharding.batch_sharding(mesh)
  trained = policy or model

  def response_logprobs(model, params, batch):
    return scoring.response_logprobs(
        model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        rows=batch.rows, chunk_size=chunk_size)

  def reference_and_kl(policy, params, batch):
    shape = batch.weight.shape
    batch = merge_cells(batch)
    other = batch.mismatched
    kl = losses.kto_kl(response_logprobs(trained, policy, other),
                       response_logprobs(model, params, other), other.weight)
    return (response_logprobs(model, params, batch).reshape(shape),
            jnp.broadcast_to(kl, shape))

  jitted = partitioning.jit(
      reference_and_kl, mesh, in_shardings=(None, param_shardings, rows),
      out_shardings=rows)

  def annotate(policy, batch: UnpairedBatch) -> UnpairedBatch:
    ref_logprobs, kl = jitted(policy, params, batch)
    return batch.replace(ref_logprobs=ref_logprobs, kl=kl)

  annotate.jitted = jitted
  return annotate


def make_reward_fn(
    model: ScalarModel, params, *, mesh: jax.sharding.Mesh, param_shardings,
    mean: float = 0.0,
) -> Callable[..., jax.Array]:
  """Returns `reward(tokens, attention_mask[, rows]) -> [B]`, of the last token.

  `rows` is what the model reads, where samples share a prompt.

  Args:
    model: the frozen reward model.
    params: its parameters, on the mesh.
    mesh: whose batch axes split the rows.
    param_shardings: of `params`.
    mean: taken off every reward, so that 0 is what good responses get.
  """
  rows = sharding.batch_sharding(mesh)
  jitted = partitioning.jit(
      lambda params, tokens, mask, shared: scoring.rewards(
          model, params, tokens, mask, rows=shared) - mean, mesh,
      in_shardings=(param_shardings, rows, rows, rows), out_shardings=rows)

  def reward(tokens, attention_mask, rows=None):
    return jitted(params, tokens, attention_mask, rows)

  reward.jitted = jitted
  return reward
