"""The kernel, interpreted, against attention as it is written: values and
gradients, under every mask that a row can have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import partitioning
from alignjax import sharding
from alignjax.models import attention
from alignjax.models import splash

B, K = 8, 2


def inputs(length, heads, head_dim, seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  of = lambda key, count: jax.random.normal(key, (B, length, count, head_dim))
  return (of(keys[0], heads), of(keys[1], K), of(keys[2], K)), of(
      keys[3], heads)


def masks(length):
  """Padding on either side, documents, branches, a window."""
  columns = np.arange(length)
  real = (columns >= np.arange(B)[:, None]) & (columns < length - 3)
  parts = columns * 4 // length
  whole = np.broadcast_to(parts, (B, length))
  seen = attention.visible(jnp.asarray(real))
  positions = attention.count_positions(jnp.asarray(real))
  return real, {
      'padded': seen,
      'packed': attention.visible(jnp.asarray(real), jnp.asarray(whole // 2)),
      'branched': attention.visible(
          jnp.asarray(real), None, jnp.asarray(whole)),
      'window': attention.within(seen, positions, positions, 5)}


def both(length, heads, head_dim, kind, mesh=None, **settings):
  """(value, gradients) by the kernel and as written, of the real queries."""
  arrays, weight = inputs(length, heads, head_dim)
  real, seen = masks(length)
  weight *= real[..., None, None]
  seen = seen[kind]
  found = []
  for attend in (splash.attend, attention.attend):
    loss = lambda q, k, v, attend=attend: jnp.sum(
        weight * attend(
            q, k.swapaxes(1, 2), v.swapaxes(1, 2), seen, **settings))
    found.append(partitioning.jit(
        jax.value_and_grad(loss, (0, 1, 2)), mesh)(*arrays))
  return found


def assert_same(found):
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
      *found)


@pytest.mark.parametrize('kind', ['padded', 'packed', 'branched', 'window'])
def test_it_is_attention_under_every_mask(kind):
  assert_same(both(256, 4, 8, kind))


def test_rows_and_heads_of_any_size_and_a_scale_and_a_cap():
  assert_same(both(130, 6, 16, 'branched', scale=0.3, softcap=2.0))


@pytest.mark.parametrize('spec', [
    'data:8', 'fsdp:4,tensor:2', 'data:2,sequence:2,tensor:2',
    'data:2,tensor:4'])
def test_over_a_mesh_each_device_has_its_rows_heads_and_queries(spec):
  """With tensor:4 the two key heads do not split, nor do the four heads."""
  assert_same(both(256, 4, 8, 'branched', sharding.make_mesh(spec)))
