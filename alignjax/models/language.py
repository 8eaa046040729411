"""Models as bundles of pure functions of their parameters.

`CausalLM` gives hidden states, the unembedding and decoding; `ScalarModel`
puts one number on every token and serves as reward model and value function.
Both are frozen and hashable, so that they can be closed over by jitted code.
"""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from alignjax.models import attention
from alignjax.models.cache import Cache
from alignjax.models.config import ModelConfig
from alignjax.models.quantize import is_quantized
from alignjax.models.transformer import Transformer
from alignjax.partitioning import reshard
from alignjax.partitioning import UNEMBEDDING
from alignjax.types import InputError

Params = chex.ArrayTree


@dataclasses.dataclass(frozen=True)
class CausalLM:
  """A decoder of `config` as pure functions; parameters come first."""

  config: ModelConfig

  def _init(self, key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    variables = Transformer(self.config).init(
        key, tokens, tokens, jnp.ones((1, 1, 1), bool))
    return variables['params']

  def init(self, key: jax.Array) -> Params:
    """Random parameters, float32; the tree is `ModelConfig`'s."""
    return nn.unbox(self._init(key))

  def axes(self) -> Params:
    """The parameters' tree with each leaf's logical axis names."""
    boxed = jax.eval_shape(self._init, jax.random.key(0))
    return nn.get_partition_spec(boxed)

  def hidden(
      self, params: Params, tokens: jax.Array, attention_mask: jax.Array, *,
      segments: jax.Array | None = None, branches: jax.Array | None = None,
      positions: jax.Array | None = None,
  ) -> jax.Array:
    """[B, T, D] hidden states of whole rows: the training forward.

    Args:
      params: as `init` gives them.
      tokens: [B, T] int32.
      attention_mask: [B, T] bool; padding may stand on either side.
      segments: [B, T] int, packed documents; see `attention.visible`.
      branches: [B, T] int, responses that share a prompt; the same.
      positions: [B, T] int; by default real tokens are counted from 0.

    Returns:
      [B, T, D]; column t depends on real tokens of columns ≤ t only.
    """
    if positions is None:
      self._check_length(tokens.shape[1])
      positions = attention.count_positions(attention_mask)
    seen = attention.visible(attention_mask, segments, branches)
    return Transformer(self.config).apply(
        {'params': self._cast(params)}, tokens, positions, seen)[0]

  def _cast(self, params: Params) -> Params:
    """Stacked matrices in the dtype of the matmuls.

    Cast before the loop over layers, so that their gradients, which come out
    of matmuls in that dtype, are stacked in it as well: float32 exists one
    leaf at a time, in the optimizer.
    """
    if not self.config.scan_layers:
      return params

    def cast(path, x):
      is_matrix = (not is_quantized(x) and x.ndim > 2
                   and not path[-1].key.endswith('norm'))
      return x.astype(self.config.dtype) if is_matrix else x

    return params | {'layers': jax.tree.map_with_path(
        cast, params['layers'], is_leaf=is_quantized)}

  def unrolled(self, params: Params) -> tuple['CausalLM', Params]:
    """The model with a program for each layer, and its parameters for that.

    Faster where a layer's matrices would be copied out of the stack at every
    token; slower to compile. A model whose layers are not stacked is returned.
    """
    if not self.config.scan_layers:
      return self, params
    params = dict(params)
    layers = params.pop('layers')
    for i in range(self.config.num_layers):
      params[f'layers_{i}'] = jax.tree.map(lambda x, i=i: x[i], layers)
    return dataclasses.replace(self, config=dataclasses.replace(
        self.config, scan_layers=False)), params

  def _check_length(self, length: int) -> None:
    """Learned positions end somewhere, and jax would repeat the last one."""
    most = self.config.max_positions
    if self.config.learned_positions and length > most:
      raise InputError(
          f'a row has {length} tokens and the model has {most} learned '
          f'positions; use rows of {most} or fewer')

  def unembedding(self, params: Params) -> jax.Array:
    """[V, D], the embedding itself when they are tied.

    Over devices it lies as `partitioning.UNEMBEDDING` says.
    """
    if not self.config.tie_embeddings:
      return params['unembed']
    return reshard(params['embed'], UNEMBEDDING, ('vocab', 'embed'))

  def decode(
      self, params: Params, tokens: jax.Array, positions: jax.Array,
      attention_mask: jax.Array, cache: Cache, column: jax.Array, *,
      key_positions: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Hidden states of the next T tokens, given what the cache remembers.

    Args:
      params: as `init` gives them.
      tokens: [B, T] int32: a prompt (prefill) or one new token each.
      positions: [B, T] int32.
      attention_mask: [B, S] bool over the cache's columns, these T included.
      cache: `make_cache`'s, or an earlier call's.
      column: [] int32, the cache column of the first of the T tokens.
      key_positions: [B, S] int32, of what each column holds, these T tokens
        included; by default columns are in the order of their positions.

    Returns:
      [B, T, D] hidden states, equal to `hidden`'s up to rounding, and the
      cache with these tokens in it.
    """
    self._check_length(attention_mask.shape[1])
    if key_positions is None:
      columns = jnp.arange(attention_mask.shape[1])
      rows = column + jnp.arange(tokens.shape[1])
      is_before = columns <= rows[:, None]
      key_positions = attention.count_positions(attention_mask)
    else:
      is_before = key_positions[:, None] <= positions[:, :, None]
    seen = attention_mask[:, None] & is_before
    return Transformer(self.config).apply(
        {'params': params}, tokens, positions, seen, key_positions, cache,
        column)


@dataclasses.dataclass(frozen=True)
class ScalarModel:
  """A decoder with a linear head: one number per token.

  Read at the last token it is a reward model; read before each token, a value
  function. Parameters are `{'backbone': ..., 'head': [D]}`. The head has no
  bias: rewards are only ever compared.
  """

  config: ModelConfig

  @property
  def backbone(self) -> CausalLM:
    """The decoder under the head."""
    return CausalLM(self.config)

  def init(self, key: jax.Array, backbone: Params | None = None) -> Params:
    """A head ~ N(0, 1/(D+1)) on the given backbone, or on a random one.

    The scale is that of Stiennon et al. (2020), https://arxiv.org/abs/2009.01325.
    """
    backbone_key, head_key = jax.random.split(key)
    if backbone is None:
      backbone = self.backbone.init(backbone_key)
    width = self.config.hidden_size
    head = jax.random.normal(head_key, (width,)) * (width + 1) ** -0.5
    return {'backbone': backbone, 'head': head}

  def axes(self) -> Params:
    """The parameters' tree with each leaf's logical axis names."""
    return {'backbone': self.backbone.axes(),
            'head': jax.sharding.PartitionSpec('norm')}

  def scalars(
      self, params: Params, tokens: jax.Array, attention_mask: jax.Array,
      **shared: jax.Array | None,
  ) -> jax.Array:
    """[B, T] float32, the head's number on each column's hidden state.

    `shared` are `segments`, `branches` and `positions`, as for `hidden`.
    """
    hidden = self.backbone.hidden(
        params['backbone'], tokens, attention_mask, **shared)
    return jnp.einsum('btd,d->bt', hidden, params['head'].astype(hidden.dtype),
                      preferred_element_type=jnp.float32)
