"""The key-value cache: what decoding remembers of the tokens before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignjax import partitioning
from alignjax.models.config import ModelConfig


class LayerCache(NamedTuple):
  """One layer's keys and values, or all layers' with a leading [L].

  Where groups of rows share their first P columns, these are held once for a
  group, and `keys` and `values` begin behind them.
  """

  keys: jax.Array    # [B, K, S, head_dim], rotated.
  values: jax.Array  # [B, K, S, head_dim]
  shared_keys: jax.Array | None = None    # [B / group, K, P, head_dim]
  shared_values: jax.Array | None = None  # [B / group, K, P, head_dim]


# By layer name, as the parameters: layers_0 ... or one stacked `layers`.
Cache = dict[str, LayerCache]


def make_cache(config: ModelConfig, batch_size: int, length: int) -> Cache:
  """An empty cache for `batch_size` rows of `length` columns."""
  shape = (batch_size, config.num_kv_heads, length, config.head_dim)
  lies = ('batch', 'kv_heads', None, None)

  def empty(*lead):
    names = ('layers',) * len(lead) + lies
    zeros = lambda: partitioning.constrain(
        jnp.zeros((*lead, *shape), config.dtype), *names)
    return LayerCache(zeros(), zeros())

  if config.scan_layers:
    return {'layers': empty(config.num_layers)}
  return {f'layers_{i}': empty() for i in range(config.num_layers)}


def cache_behind(prompts: Cache, group: int, length: int) -> Cache:
  """A cache of `length` more columns for `group` rows behind each prompt's.

  Args:
    prompts: of [B / group] rows and P columns, all written.
    group: rows, side by side, that read one prompt.
    length: columns of each row behind it.
  """

  def empty(keys):
    *lead, rows, heads, _, head_dim = keys.shape
    return partitioning.constrain(
        jnp.zeros((*lead, rows * group, heads, length, head_dim), keys.dtype),
        *['layers'] * len(lead), 'batch', 'kv_heads', None, None)

  return {name: LayerCache(empty(keys), empty(values), keys, values)
          for name, (keys, values, *_) in prompts.items()}


def without_shared(cache: LayerCache) -> LayerCache:
  """What a layer writes to, so that a loop over layers copies nothing else."""
  return cache._replace(shared_keys=None, shared_values=None)


def with_shared(written: LayerCache, before: LayerCache) -> LayerCache:
  """What a layer has written, with what was shared before."""
  return before._replace(keys=written.keys, values=written.values)


def write(
    cache: LayerCache, keys: jax.Array, values: jax.Array, column: jax.Array
) -> LayerCache:
  """Puts [B, K, T, head_dim] keys and values at columns `column` onwards.

  Columns are counted from the first of all, shared ones included; what is
  shared is not written to.
  """
  if cache.shared_keys is not None:
    column -= cache.shared_keys.shape[-2]
  at = (0, 0, column, 0)
  return cache._replace(
      keys=jax.lax.dynamic_update_slice(cache.keys, keys, at),
      values=jax.lax.dynamic_update_slice(cache.values, values, at))
