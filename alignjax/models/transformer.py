"""The decoder: one linen module for the Llama family, up to hidden states.

It stops before the unembedding. Who needs log-probabilities takes them from
the hidden states in chunks (`alignjax.logprobs`), so [B, T, V] never exists.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from alignjax.models import attention
from alignjax.models import cache as cache_lib
from alignjax.models.config import ModelConfig


def rms_norm(x: jax.Array, scale: jax.Array, *, eps: float) -> jax.Array:
  """x / √(mean x² + ε) · scale over the last axis, in float32 inside."""
  wide = x.astype(jnp.float32)
  wide *= jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + eps)
  return (wide * scale.astype(jnp.float32)).astype(x.dtype)


def _project(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """[B, T, D] by [D, ...]: rows flattened, the matmul CPUs and TPUs like."""
  rows = x.reshape(-1, x.shape[-1])
  flat = rows @ kernel.reshape(kernel.shape[0], -1).astype(x.dtype)
  return flat.reshape(*x.shape[:-1], *kernel.shape[1:])


class Layer(nn.Module):
  """One pre-norm block: attention, then a SwiGLU MLP, each with a residual."""

  config: ModelConfig

  def _weight(self, name, shape, axes, fan_in):
    init = nn.initializers.normal(fan_in**-0.5)
    return self.param(name, nn.with_logical_partitioning(init, axes), shape)

  def _scale(self, name):
    init = nn.with_logical_partitioning(nn.initializers.ones, ('norm',))
    return self.param(name, init, (self.config.hidden_size,))

  @nn.compact
  def __call__(self, x, positions, seen, layer_cache, column):
    """[B, T, D] → [B, T, D] and the layer's cache (None if none was given)."""
    c = self.config
    d, hd, f = c.hidden_size, c.head_dim, c.intermediate_size
    kv = (d, c.num_kv_heads, hd), ('embed', 'kv_heads', 'head_dim'), d

    normed = rms_norm(x, self._scale('attention_norm'), eps=c.norm_eps)
    query = self._weight('query', (d, c.num_heads, hd),
                         ('embed', 'heads', 'head_dim'), d)
    query = _project(normed, query)
    key = _project(normed, self._weight('key', *kv))
    value = _project(normed, self._weight('value', *kv))
    query = attention.rotate(query, positions, theta=c.rope_theta)
    key = attention.rotate(key, positions, theta=c.rope_theta)
    if layer_cache is not None:
      layer_cache = cache_lib.write(layer_cache, key, value, column)
      key, value = layer_cache
    mixed = attention.attend(query, key, value, seen)
    out = self._weight('out', (c.num_heads, hd, d),
                       ('heads', 'head_dim', 'embed'), c.num_heads * hd)
    mixed = mixed.reshape(*mixed.shape[:2], -1)
    x += _project(mixed, out.reshape(-1, d))

    normed = rms_norm(x, self._scale('mlp_norm'), eps=c.norm_eps)
    gate = _project(normed, self._weight('gate', (d, f), ('embed', 'mlp'), d))
    up = _project(normed, self._weight('up', (d, f), ('embed', 'mlp'), d))
    down = self._weight('down', (f, d), ('mlp', 'embed'), f)
    x += _project(jax.nn.silu(gate) * up, down)
    return x, layer_cache


class Transformer(nn.Module):
  """Tokens → hidden states of the last layer, normed, before unembedding."""

  config: ModelConfig

  @nn.compact
  def __call__(self, tokens, positions, seen, cache=None, column=None):
    """Runs the decoder.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32, for the rotary embedding.
      seen: [B, T, S] bool, S = T without a cache, else its columns.
      cache: what earlier tokens left, or None.
      column: [] int32, where in the cache these T tokens are written.

    Returns:
      [B, T, D] hidden states, and the cache with these tokens in it (or None).
    """
    c = self.config
    vocab_axes = ('vocab', 'embed')
    init = nn.with_logical_partitioning(
        nn.initializers.normal(c.hidden_size**-0.5), vocab_axes)
    shape = (c.vocab_size, c.hidden_size)
    embed = self.param('embed', init, shape)
    if not c.tie_embeddings:
      self.param('unembed', init, shape)  # Read by `CausalLM.unembedding`.

    x = embed[tokens].astype(c.dtype)
    layer = nn.remat(Layer, prevent_cse=not c.scan_layers) if c.remat else Layer
    if c.scan_layers:
      stack = nn.scan(
          layer, variable_axes={'params': 0}, split_rngs={'params': True},
          in_axes=(nn.broadcast, nn.broadcast, 0, nn.broadcast),
          length=c.num_layers, metadata_params={nn.PARTITION_NAME: 'layers'})
      layers_cache = None if cache is None else cache['layers']
      x, layers_cache = stack(c, name='layers')(
          x, positions, seen, layers_cache, column)
      cache = None if cache is None else {'layers': layers_cache}
    else:
      written = {}
      for i in range(c.num_layers):
        name = f'layers_{i}'
        before = None if cache is None else cache[name]
        x, written[name] = layer(c, name=name)(
            x, positions, seen, before, column)
      cache = None if cache is None else written

    scale = self.param(
        'final_norm',
        nn.with_logical_partitioning(nn.initializers.ones, ('norm',)),
        (c.hidden_size,))
    return rms_norm(x, scale, eps=c.norm_eps), cache
