"""The key-value cache: what decoding remembers of the tokens before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignjax import partitioning
from alignjax.models.config import ModelConfig


class LayerCache(NamedTuple):
  """One layer's keys and values, or all layers' with a leading [L]."""

  keys: jax.Array    # [B, K, S, head_dim], rotated.
  values: jax.Array  # [B, K, S, head_dim]


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


def write(
    cache: LayerCache, keys: jax.Array, values: jax.Array, column: jax.Array
) -> LayerCache:
  """Puts [B, K, T, head_dim] keys and values at columns `column` onwards."""
  at = (0, 0, column, 0)
  return LayerCache(
      jax.lax.dynamic_update_slice(cache.keys, keys, at),
      jax.lax.dynamic_update_slice(cache.values, values, at))
