"""The decoder: one linen module for every family, up to hidden states.

It stops before the unembedding. Who needs log-probabilities takes them from
the hidden states in chunks (`alignjax.logprobs`), so [B, T, V] never exists.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from alignjax.models import attention
from alignjax.models import cache as cache_lib
from alignjax.models import lora as lora_lib
from alignjax.models import rope
from alignjax.models import splash
from alignjax.models.config import ModelConfig
from alignjax.models.quantize import dequantize
from alignjax.models.quantize import is_quantized
from alignjax.partitioning import constrain
from alignjax.partitioning import num_shards
from alignjax.partitioning import splits_weights
from alignjax.partitioning import UNEMBEDDING
from alignjax.partitioning import whole

_ACTIVATIONS = {
    'silu': jax.nn.silu,
    'gelu': functools.partial(jax.nn.gelu, approximate=False),
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
}


# What a scanned layer keeps for its backward pass, if it need not make it all
# anew: what its matmuls gave. The rest is twice as large, and little work.
_KEEP_MATMULS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable, attention.KEEP)


class View(NamedTuple):
  """Where the tokens of a call stand, for each kind of attention."""

  seen: jax.Array  # [kinds, B, T, S] bool
  cos: jax.Array   # [kinds, B, T, half]
  sin: jax.Array   # [kinds, B, T, half]


def rms_norm(
    x: jax.Array, scale: jax.Array, *, eps: float, offset: float = 0.0
) -> jax.Array:
  """x / √(mean x² + ε) · (scale + offset) over the last axis, in float32."""
  wide = x.astype(jnp.float32)
  wide *= jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + eps)
  return (wide * (scale.astype(jnp.float32) + offset)).astype(x.dtype)


def layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float
) -> jax.Array:
  """(x − mean x) / √(var x + ε) · scale + bias over the last axis, in float32.
  """
  wide = x.astype(jnp.float32)
  wide -= jnp.mean(wide, -1, keepdims=True)
  wide *= jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + eps)
  return (wide * scale.astype(jnp.float32)
          + bias.astype(jnp.float32)).astype(x.dtype)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """[B, T, D] by [D, ...]: rows flattened, the matmul CPUs and TPUs like."""
  # What is split over two axes of a mesh, rows and length, has no flat form.
  is_flat = num_shards('length') == 1
  rows = x.reshape(-1, x.shape[-1]) if is_flat else x
  flat = rows @ kernel.reshape(kernel.shape[0], -1).astype(x.dtype)
  return flat.reshape(*x.shape[:-1], *kernel.shape[1:])


def multiply(
    x: jax.Array, kernel: jax.Array, axes: tuple[str, ...], inputs: int
) -> jax.Array:
  """[B, T, in] by [in..., out...] over the mesh: the smaller one travels.

  In training that is the kernel, gathered for one layer at a time; in decoding
  it is x, one token of all rows, and each device multiplies by the part of the
  kernel that it has.

  Args:
    x: [B, T, in], rows over the batch's axes.
    kernel: in any dtype; used in that of x.
    axes: the kernel's logical axes.
    inputs: how many of them are inputs.
  """
  flat = lambda k: k.reshape(-1, *k.shape[inputs:])
  if x.size >= kernel.size or not splits_weights():
    return project(x, flat(whole(kernel, x.dtype, *axes)))
  axis = axes[0] if inputs == 1 else None
  x = constrain(constrain(x, 'batch', None, axis), 'rows', None, axis)
  y = project(x, flat(kernel.astype(x.dtype)))
  if 'embed' in axes[inputs:]:
    y = constrain(y, 'rows', None, *axes[inputs:])
    y = constrain(y, 'batch', None, *axes[inputs:])  # One axis at a time.
  return constrain(y, 'batch', None, *(
      None if axis == 'embed' else axis for axis in axes[inputs:]))


class _Block(nn.Module):
  """What layers and the decoder are written with: weights, biases, norms."""

  config: ModelConfig

  def _weight(self, name, shape, axes, fan_in):
    init = nn.initializers.normal(fan_in**-0.5)
    return self.param(name, nn.with_logical_partitioning(init, axes), shape)

  def _linear(self, name, x, shape, axes, *, inputs=1, bias=False):
    """[B, T, in] by the matrix `name` [in..., out...], with what it has."""
    fan_in = math.prod(shape[:inputs])
    quantized = (self.has_variable('params', name)
                 and self.get_variable('params', name))
    if is_quantized(quantized):
      # Made anew in the backward pass: what is kept is the quantized matrix.
      y = jax.checkpoint(lambda x, q: multiply(
          x, dequantize(q, x.dtype), axes, inputs))(x, quantized)
    else:
      weight = self._weight(name, shape, axes, fan_in)
      y = multiply(x, weight, axes, inputs)
    lora = self.config.lora
    if lora is not None and name in lora.targets:
      a, b = self._adapter(name, shape, axes, inputs)
      low = multiply(x, a, (*axes[:inputs], 'rank'), inputs)
      y += lora.scale * multiply(low, b, ('rank', *axes[inputs:]), 1)
    if bias:
      y += self._bias(f'{name}_bias', shape[inputs:], tuple(
          'norm' if axis == 'embed' else axis for axis in axes[inputs:])
      ).astype(y.dtype)
    return y

  def _adapter(self, name, shape, axes, inputs):
    """A, uniform within ±1/√in, and B, zeros: the start changes nothing."""
    rank, bound = self.config.lora.rank, math.prod(shape[:inputs]) ** -0.5
    uniform = lambda key, shape: jax.random.uniform(
        key, shape, minval=-bound, maxval=bound)
    part = lambda suffix, init, shape, axes: self.param(
        name + suffix, nn.with_logical_partitioning(init, axes), shape)
    return (
        part(lora_lib.A, uniform, (*shape[:inputs], rank),
             (*axes[:inputs], 'rank')),
        part(lora_lib.B, nn.initializers.zeros, (rank, *shape[inputs:]),
             ('rank', *axes[inputs:])))

  def _bias(self, name, shape, axes):
    init = nn.with_logical_partitioning(nn.initializers.zeros, axes)
    return self.param(name, init, shape)

  def _norm(self, name, x, axes=('norm',)):
    """Normalizes the last len(axes) dimensions of x, together."""
    c, shape = self.config, x.shape[x.ndim - len(axes):]
    ones = nn.initializers.constant(1.0 - c.norm_offset)
    scale = self.param(name, nn.with_logical_partitioning(ones, axes), shape)
    flat = x.reshape(*x.shape[:x.ndim - len(axes)], -1)
    if c.norm == 'layer':
      bias = self._bias(f'{name}_bias', shape, axes)
      normed = layer_norm(flat, scale.ravel(), bias.ravel(), eps=c.norm_eps)
    else:
      normed = rms_norm(
          flat, scale.ravel(), eps=c.norm_eps, offset=c.norm_offset)
    return normed.reshape(x.shape)


class Layer(_Block):
  """One block: attention, then an MLP, each with its norms and a residual."""

  @nn.compact
  def __call__(self, x, view, kind, layer_cache, column):
    """[B, T, D] → [B, T, D] and the layer's cache (None if none was given)."""
    norms = self.config.norms
    entry = lambda name, y: self._norm(name, y) if norms != 'post' else y
    leave = lambda name, y: self._norm(name, y) if norms != 'pre' else y
    mixed, layer_cache = self._attend(
        entry('attention_norm', x), View(*(of[kind] for of in view)),
        layer_cache, column)
    after = constrain(x + leave('post_attention_norm', mixed),
                      'batch', 'length', None)
    thought = self._mlp(entry('mlp_norm', x if self.config.parallel else after))
    y = after + leave('post_mlp_norm', thought)
    return constrain(y, 'batch', 'length', None), layer_cache

  def _attend(self, x, view, layer_cache, column):
    c = self.config
    d, hd = c.hidden_size, c.head_dim

    def heads(name, count, axis):
      y = self._linear(
          name, x, (d, count, hd), ('embed', axis, 'head_dim'),
          bias=c.attention_bias != 'none')
      return constrain(y, 'batch', 'length', axis, None)

    def normed(name, y, axis):
      if c.qk_norm == 'none':
        return y
      return self._norm(
          name, y, (axis, 'head_dim') if c.qk_norm == 'all' else ('head_dim',))

    query = heads('query', c.num_heads, 'heads')
    key = heads('key', c.num_kv_heads, 'kv_heads')
    value = heads('value', c.num_kv_heads, 'kv_heads')
    query = normed('query_norm', query, 'heads')
    key = normed('key_norm', key, 'kv_heads')
    query = rope.rotate(query, view.cos, view.sin)
    key = rope.rotate(key, view.cos, view.sin)
    key, value = (
        constrain(x.swapaxes(1, 2), 'batch', 'kv_heads', None, None)
        for x in (key, value))
    attend = functools.partial(
        attention.attend, block=c.attention_block,
        is_causal=layer_cache is None)
    if layer_cache is not None:
      layer_cache = cache_lib.write(layer_cache, key, value, column)
      key, value, *shared = layer_cache
      layer_cache = cache_lib.without_shared(layer_cache)
      if shared[0] is not None:
        attend = functools.partial(attention.attend_behind, *shared)
    elif c.attention_kernel == 'splash':
      attend = splash.attend
    mixed = attend(query, key, value, view.seen, scale=c.attention_scale,
                   softcap=c.attention_softcap)
    y = self._linear(
        'out', mixed.reshape(*mixed.shape[:2], -1), (c.num_heads, hd, d),
        ('heads', 'head_dim', 'embed'), inputs=2,
        bias=c.attention_bias == 'all')
    return y, layer_cache

  def _mlp(self, x):
    c = self.config
    d, f = c.hidden_size, c.intermediate_size

    linear = functools.partial(self._linear, bias=c.mlp_bias)
    act = _ACTIVATIONS[c.activation]
    wide = (d, f), ('embed', 'mlp')
    gate = linear('gate', x, *wide) if c.gated_mlp else None
    up = linear('up', x, *wide)
    inner = act(up) if gate is None else act(gate) * up
    return linear('down', inner, (f, d), ('mlp', 'embed'))


class Transformer(_Block):
  """Tokens → hidden states of the last layer, normed, before unembedding."""

  @nn.compact
  def __call__(self, tokens, positions, seen, key_positions=None, cache=None,
               column=None):
    """Runs the decoder.

    Args:
      tokens: [B, T] int32.
      positions: [B, T] int32.
      seen: [B, T, S] bool, S = T without a cache, else its columns.
      key_positions: [B, S] int32, `positions` without a cache.
      cache: what earlier tokens left, or None.
      column: [] int32, where in the cache these T tokens are written.

    Returns:
      [B, T, D] hidden states, and the cache with these tokens in it (or None).
    """
    c = self.config
    table = c.vocab_size, c.hidden_size
    embed = self._weight('embed', table, ('vocab', 'embed'), c.hidden_size)
    if not c.tie_embeddings:  # Read by `CausalLM.unembedding`.
      self._weight('unembed', table, UNEMBEDDING, c.hidden_size)
    # Each device looks up its part of the width, for all rows of its data axis:
    # the table is never gathered, and its gradient is summed in float32.
    x = embed[constrain(tokens, 'rows', None)].astype(c.dtype)
    for place in (('rows', None, 'embed'), ('batch', None, 'embed'),
                  ('batch', 'length', None)):  # One axis moves at a time.
      x = constrain(x, *place)
    if c.embed_scale != 1.0:
      x *= jnp.asarray(c.embed_scale, c.dtype)  # Rounded: Gemma was so trained.
    if c.learned_positions:
      places = self._weight('position_embed', (c.max_positions, c.hidden_size),
                            ('positions', 'embed'), c.hidden_size)
      x += places[positions].astype(c.dtype)
    view = _view(c, positions, constrain(seen, 'batch', 'length', None),
                 positions if key_positions is None else key_positions)
    x, cache = self._layers(x, view, cache, column)
    return self._norm('final_norm', x), cache

  def _layers(self, x, view, cache, column):
    c = self.config
    layer = Layer
    if c.remat:
      layer = nn.remat(Layer, prevent_cse=not c.scan_layers)
    elif c.scan_layers:
      layer = nn.remat(Layer, prevent_cse=False, policy=_KEEP_MATMULS)
    kinds = [c.attention_of(i) for i in range(c.num_layers)]
    if c.scan_layers:
      stack = nn.scan(
          layer, variable_axes={'params': 0}, split_rngs={'params': True},
          in_axes=(nn.broadcast, 0, 0, nn.broadcast),
          length=c.num_layers, metadata_params={nn.PARTITION_NAME: 'layers'})
      layers_cache = None if cache is None else cache['layers']
      x, written = stack(c, name='layers')(
          x, view, jnp.asarray(kinds), layers_cache, column)
      return x, None if cache is None else {
          'layers': cache_lib.with_shared(written, layers_cache)}
    written = {}
    for i, kind in enumerate(kinds):
      name = f'layers_{i}'
      before = None if cache is None else cache[name]
      x, own = layer(c, name=name)(x, view, jnp.int32(kind), before, column)
      if cache is not None:
        written[name] = cache_lib.with_shared(own, before)
    return x, None if cache is None else written


def _view(c: ModelConfig, positions, seen, key_positions) -> View:
  """What each kind of attention sees and how far it turns."""
  turning = {kind.rope.num_turning(c.head_dim) for kind in c.attention
             if kind.rope is not None} or {0}
  (turning,) = turning  # One for all kinds: they share a layer's program.
  kinds = []
  for kind in c.attention:
    angles = (rope.still(positions, turning // 2) if kind.rope is None
              else kind.rope.angles(positions, c.head_dim))
    kinds.append(View(
        attention.within(seen, positions, key_positions, kind.window), *angles))
  return View(*(jnp.stack(of) for of in zip(*kinds, strict=True)))
