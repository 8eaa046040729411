"""Functions of a row's columns, computed for some of them at one time.

What is large and made of every column (scores, logits) exists for a block of
columns only, in the forward and, made again, in the backward pass. Where a mesh
splits a row's length, a block has the same number of columns of every part, so
that no device waits and nothing is moved:

    8 columns, blocks of 4           0 1 2 3 | 4 5 6 7
    the same, over sequence:2        0 1 4 5 | 2 3 6 7     of devices 0 0 1 1
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import partitioning


def by_blocks(
    function: Callable[..., jax.Array], inputs: tuple[jax.Array, ...],
    block: int, *, policy: Callable[..., bool] | None = None,
) -> jax.Array:
  """`function(*inputs)`, `block` columns at one time.

  Args:
    function: from [B, block, ...] each to [B, block, ...]; a column's value
      must depend on that column of the inputs only.
    inputs: [B, T, ...] each.
    block: columns, at least 1; it need not divide T.
    policy: what is kept of a block for the backward pass, of
      `jax.checkpoint_policies`; None is nothing.

  Returns:
    [B, T, ...], what the function gives for all columns at once.
  """
  length = inputs[0].shape[1]
  shards = partitioning.num_shards('length')
  each = max(block // shards, 1)  # Of a block, on each shard.
  count = -(-length // (shards * each))

  def split(x):
    pad = [(0, 0)] * x.ndim
    pad[1] = (0, shards * count * each - length)
    x = _pin(jnp.pad(x, pad))
    x = x.reshape(x.shape[0], shards, count, each, *x.shape[2:])
    x = jnp.moveaxis(x, 2, 0)
    return x.reshape(*x.shape[:2], shards * each, *x.shape[4:])

  def one(part):
    return _pin(jax.checkpoint(function, policy=policy)(*map(_pin, part)))

  y = jax.lax.map(one, tuple(map(split, inputs)))
  y = y.reshape(*y.shape[:2], shards, each, *y.shape[3:])
  y = jnp.moveaxis(y, 0, 2)
  return y.reshape(y.shape[0], -1, *y.shape[4:])[:, :length]


def _pin(x: jax.Array) -> jax.Array:
  """[B, T, ...] over the mesh: nothing is said where a length is not split."""
  if partitioning.num_shards('length') == 1:
    return x
  return partitioning.constrain(x, 'batch', 'length', *[None] * (x.ndim - 2))
