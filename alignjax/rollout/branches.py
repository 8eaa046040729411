"""Samples of one prompt as branches of one row, so that it is read once.

Prompts end in one column, so that this is a matter of slices and stays on the
device. With P = 3 and two samples of up to two tokens each:

    tokens     . 5 6 7 2      row         . 5 6 7 2 6 4 .
               . 5 6 4 .      branches    0 0 1 1 1 2 2 2

Each branch begins with the prompt's last token, from which its first is
predicted; `data.layout` says more, and lays out what comes from a file.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import sharding
from alignjax.models import count_positions
from alignjax.types import PreferenceBatch
from alignjax.types import Rows
from alignjax.types import Trajectory


def branch_rows(
    batch: Trajectory | PreferenceBatch, *, num_samples: int,
    prompt_length: int,
) -> Rows:
  """What a model reads of the samples: a row, and a cell, for each prompt.

  Args:
    batch: of [B, T] or [B / K, K, T] tokens; not in cells.
    num_samples: K; the samples of a prompt lie side by side.
    prompt_length: P, at least 1, the column at which responses begin.

  Returns:
    Rows of [B / K, 1, P − 1 + K (T − P + 1)].
  """
  length = batch.tokens.shape[-1]
  trunk, own = prompt_length - 1, length - prompt_length + 1

  def lay(x):
    x = x.reshape(-1, num_samples, length)
    return jnp.concatenate(
        [x[:, 0, :trunk], x[:, :, trunk:].reshape(x.shape[0], -1)], 1)[:, None]

  tokens = lay(batch.tokens)
  branches = jnp.concatenate([
      jnp.zeros(trunk, jnp.int32),
      jnp.repeat(jnp.arange(1, num_samples + 1), own)])
  columns, sample = jnp.arange(length), jnp.arange(num_samples)[:, None]
  # The prompt's last token is read in the first branch, which continues it.
  index = jnp.where(columns <= trunk, columns, columns + sample * own)
  return Rows(
      tokens=tokens, attention_mask=lay(batch.attention_mask),
      segments=jnp.zeros(tokens.shape, jnp.int32),
      branches=jnp.broadcast_to(branches, tokens.shape),
      positions=lay(count_positions(
          batch.attention_mask.reshape(-1, length))),
      index=jnp.broadcast_to(
          index, (tokens.shape[0], num_samples, length)),
      start=prompt_length)


def make_share(
    layout: str, *, num_samples: int, prompt_length: int,
    mesh: jax.sharding.Mesh,
) -> Callable[[Trajectory], Trajectory]:
  """Returns the function that adds to a trajectory what models read of it.

  Args:
    layout: 'branched', or 'padded': nothing is added.
    num_samples: K; the samples of a prompt lie side by side.
    prompt_length: P, the column at which responses begin.
    mesh: whose batch axes split the rows.
  """
  if layout == 'padded':
    return lambda trajectory: trajectory
  rows = sharding.batch_sharding(mesh)
  return jax.jit(
      lambda trajectory: trajectory.replace(rows=branch_rows(
          trajectory, num_samples=num_samples, prompt_length=prompt_length)),
      in_shardings=rows, out_shardings=rows)
