"""What models read of samples: not a prompt twice, and little padding.

Branched, the samples of a prompt share a row. Prompts end in one column, so
that this is a matter of slices and stays on the device. With P = 3 and two
samples of up to two tokens each:

    tokens     . 5 6 7 2      row         . 5 6 7 2 6 4 .
               . 5 6 4 .      branches    0 0 1 1 1 2 2 2

Each branch begins with the prompt's last token, from which its first is
predicted; `data.layout` says more, and lays out what comes from a file.

Packed, several prompts share a row, each with its samples as branches. How long
prompts are is known before anything is sampled: so `data.make_prompt_layout`
plans the rows ahead, on the host, and here samples are written into them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import sharding
from alignjax.models import count_positions
from alignjax.types import InputError
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


def fill_rows(
    rows: Rows, trajectory: Trajectory, *, prompt_length: int) -> Rows:
  """Rows that were planned for prompts, with what was sampled in its places.

  Args:
    rows: of the prompts, of [C, M, S].
    trajectory: of [B, T] tokens; not in cells.
    prompt_length: P, the column at which responses begin.
  """
  num_cells, per_row = rows.tokens.shape[0], rows.tokens.shape[2]
  size = rows.tokens.shape[1] * per_row
  by_cell = lambda x: x.reshape(num_cells, -1, *x.shape[1:])
  # Filler rows have no place.
  places = jnp.where(
      by_cell(trajectory.weight > 0)[..., None], rows.index, size)

  def fill(blank, sampled):
    put = jax.vmap(lambda row, at, x: row.at[at].set(x, mode='drop'))
    return put(blank.reshape(num_cells, size), places[..., prompt_length:],
               by_cell(sampled[:, prompt_length:])).reshape(blank.shape)

  return rows.replace(
      tokens=fill(rows.tokens, trajectory.tokens),
      attention_mask=fill(rows.attention_mask, trajectory.attention_mask))


def make_share(
    layout: str, *, num_samples: int, prompt_length: int,
    mesh: jax.sharding.Mesh,
) -> Callable[[Trajectory, Rows | None], Trajectory]:
  """Returns the function that adds to a trajectory what models read of it.

  It takes the trajectory, and the rows that were planned for its prompts.

  Args:
    layout: 'branched', 'packed', or 'padded': nothing is added.
    num_samples: K; the samples of a prompt lie side by side.
    prompt_length: P, the column at which responses begin.
    mesh: whose batch axes split the rows.

  Raises:
    InputError: by the function, where 'packed' has no plan, or another has.
  """
  rows = sharding.batch_sharding(mesh)
  jitted = lambda make: jax.jit(make, in_shardings=rows, out_shardings=rows)
  share = {
      'padded': lambda trajectory: trajectory,
      'branched': jitted(lambda trajectory: trajectory.replace(
          rows=branch_rows(trajectory, num_samples=num_samples,
                           prompt_length=prompt_length))),
      'packed': jitted(lambda trajectory, planned: trajectory.replace(
          rows=fill_rows(planned, trajectory, prompt_length=prompt_length))),
  }[layout]

  def checked(trajectory, planned=None):
    if (planned is not None) != (layout == 'packed'):
      raise InputError(
          f'layout={layout}, and prompts with rows={planned is not None}; plan '
          'rows by data.make_prompt_layout of the same layout')
    return share(trajectory, *(() if planned is None else (planned,)))

  return checked
