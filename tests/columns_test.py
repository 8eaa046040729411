"""Columns by blocks: the same numbers and gradients, fewer at one time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import columns
from alignjax import partitioning
from alignjax import sharding

X = jax.random.normal(jax.random.key(0), (4, 24, 3))
Y = jax.random.normal(jax.random.key(1), (4, 24))


def mixed(x, y):
  return jnp.sin(x) * y[..., None]


def in_blocks(block):
  return lambda x, y: columns.by_blocks(mixed, (x, y), block)


@pytest.mark.parametrize('spec', ['data:8', 'sequence:8', 'data:2,sequence:4',
                                  'fsdp:2,sequence:2,tensor:2'])
@pytest.mark.parametrize('block', [1, 5, 8, 24, 99])
def test_blocks_change_nothing(spec, block):
  loss = lambda f: lambda x, y: jnp.sum(jnp.cos(f(x, y)))
  mesh = sharding.make_mesh(spec)
  for ours, plain in ((in_blocks(block), mixed),
                      (jax.grad(loss(in_blocks(block)), (0, 1)),
                       jax.grad(loss(mixed), (0, 1)))):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
                 partitioning.jit(ours, mesh)(X, Y), plain(X, Y))


@pytest.mark.parametrize('block, width', [(4, 4), (8, 8), (2, 4)])
def test_a_block_has_columns_of_every_part(block, width):
  """Over four parts a block of 8 is two columns of each, and one of 2 is 4."""
  seen = []

  def look(x):
    jax.debug.callback(lambda c: seen.append(sorted(c)), x[0])
    return x

  where = jnp.broadcast_to(jnp.arange(24), (1, 24))
  mesh = sharding.make_mesh('sequence:4', jax.devices()[:4])
  jax.block_until_ready(partitioning.jit(
      lambda x: columns.by_blocks(look, (x,), block), mesh)(where))
  jax.effects_barrier()
  each = width // 4
  assert sorted(map(tuple, seen)) == [
      tuple(6 * part + first + i for part in range(4) for i in range(each))
      for first in range(0, 6, each)]
