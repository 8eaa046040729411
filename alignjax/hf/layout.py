"""Where each tensor of a model file lives in the parameter tree.

A torch Linear stores [out, in]; the tree stores [in, out] with heads unfolded,
so a matrix is one reshape and one transpose away. Some families keep several
matrices in one tensor, one after the other or head by head; they are taken
apart. RoPE is the rotate-half form on both sides: nothing is permuted.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np

from alignjax.models.config import ModelConfig
from alignjax.models.language import CausalLM

Params = dict  # Nested dictionaries of arrays, see ModelConfig.

HEAD = 'score.weight'

# Leading axes of a matrix that are inputs. What is not named is a vector, or a
# table, which is stored as it is.
_INPUTS = {'query': 1, 'key': 1, 'value': 1, 'gate': 1, 'up': 1, 'down': 1,
           'out': 2, 'head': 1}
_TABLES = ('embed', 'unembed', 'position_embed')


class Names(NamedTuple):
  """What a family calls the tensors of a file."""

  prefix: str             # Of all but the unembedding and the score.
  layers: str
  unembed: str
  leaves: Mapping[str, str]  # Outside and inside of layers; without suffix.
  # Leaves that share a tensor.
  fused: Mapping[tuple[str, ...], str] = {}
  by_head: bool = False   # Shared tensors hold head after head of each.
  is_linear: bool = True  # [out, in]; GPT-2's Conv1D is [in, out].


_LLAMA = Names('model.', 'layers', 'lm_head', {
    'embed': 'embed_tokens', 'final_norm': 'norm',
    'attention_norm': 'input_layernorm',
    'query': 'self_attn.q_proj', 'key': 'self_attn.k_proj',
    'value': 'self_attn.v_proj', 'out': 'self_attn.o_proj',
    'query_norm': 'self_attn.q_norm', 'key_norm': 'self_attn.k_norm',
    'mlp_norm': 'post_attention_layernorm',
    'gate': 'mlp.gate_proj', 'up': 'mlp.up_proj', 'down': 'mlp.down_proj'})
# With norms behind each half, the one before the MLP has another name.
_NORMED_BEHIND = _LLAMA._replace(leaves={
    **_LLAMA.leaves, 'mlp_norm': 'pre_feedforward_layernorm',
    'post_attention_norm': 'post_attention_layernorm',
    'post_mlp_norm': 'post_feedforward_layernorm'})
_QKV = 'query', 'key', 'value'
_NAMES = {
    'gemma2': _NORMED_BEHIND,
    'gemma3_text': _NORMED_BEHIND,
    'olmo2': _NORMED_BEHIND,
    'phi3': _LLAMA._replace(fused={
        _QKV: 'self_attn.qkv_proj', ('gate', 'up'): 'mlp.gate_up_proj'}),
    'gpt2': Names('transformer.', 'h', 'lm_head', {
        'embed': 'wte', 'position_embed': 'wpe', 'final_norm': 'ln_f',
        'attention_norm': 'ln_1', 'out': 'attn.c_proj', 'mlp_norm': 'ln_2',
        'up': 'mlp.c_fc', 'down': 'mlp.c_proj'},
        fused={_QKV: 'attn.c_attn'}, is_linear=False),
    'gpt_neox': Names('gpt_neox.', 'layers', 'embed_out', {
        'embed': 'embed_in', 'final_norm': 'final_layer_norm',
        'attention_norm': 'input_layernorm', 'out': 'attention.dense',
        'mlp_norm': 'post_attention_layernorm',
        'up': 'mlp.dense_h_to_4h', 'down': 'mlp.dense_4h_to_h'},
        fused={_QKV: 'attention.query_key_value'}, by_head=True),
}


class Slot(NamedTuple):
  """One tensor of the file and its place, or places, in the tree."""

  name: str                            # In the file.
  paths: tuple[tuple[str, ...], ...]   # In the tree.
  shapes: tuple[tuple[int, ...], ...]  # In the tree, of one layer.
  inputs: int = 0            # Leading axes that are inputs.
  is_table: bool = False     # Stored as it is.
  is_linear: bool = True     # A matrix is stored [out, in].
  by_head: bool = False      # Parts alternate head by head.
  layer: int | None = None   # Row of stacked leaves; None if not stacked.

  @property
  def file_shape(self) -> tuple[int, ...]:
    """Shape in the file."""
    if self.is_table:
      return self.shapes[0]
    outputs = sum(math.prod(shape[self.inputs:]) for shape in self.shapes)
    if not self.inputs:
      return (outputs,)
    inputs = math.prod(self.shapes[0][:self.inputs])
    return (outputs, inputs) if self.is_linear else (inputs, outputs)

  def to_tree(self, tensor: np.ndarray) -> list[np.ndarray]:
    """The file's tensor as the tree's leaves, or as one row of each."""
    if self.is_table:
      return [tensor]
    if self.inputs and self.is_linear:
      tensor = tensor.T
    if len(self.shapes) == 1:
      parts = [tensor]
    elif self.by_head:  # [..., H · parts · head_dim]
      heads, head_dim = self.shapes[0][-2:]
      split = tensor.reshape(*tensor.shape[:-1], heads, -1, head_dim)
      parts = [split[..., i, :] for i in range(len(self.shapes))]
    else:
      sizes = [math.prod(shape[self.inputs:]) for shape in self.shapes]
      parts = np.split(tensor, np.cumsum(sizes)[:-1], axis=-1)
    return [part.reshape(shape)
            for part, shape in zip(parts, self.shapes, strict=True)]

  def to_file(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
    """The tree's leaves, or one row of each, as the file's tensor."""
    if self.is_table:
      return leaves[0]
    lead = (math.prod(self.shapes[0][:self.inputs]),) if self.inputs else ()
    if self.by_head:
      tensor = np.stack(leaves, axis=-2).reshape(*lead, -1)
    else:
      tensor = np.concatenate(
          [leaf.reshape(*lead, -1) for leaf in leaves], axis=-1)
    return tensor.T if self.inputs and self.is_linear else tensor


def slots(config: ModelConfig, *, is_reward_model: bool = False) -> list[Slot]:
  """Every tensor that the model has.

  Tensors of one stacked leaf stand together, so that a leaf is complete, and
  can leave the host, before the next is begun.
  """
  one = dataclasses.replace(
      config, num_layers=1, scan_layers=False, lora=None)
  shapes = {name: leaf.shape if hasattr(leaf, 'shape') else
            {inner: x.shape for inner, x in leaf.items()}
            for name, leaf in jax.eval_shape(
                CausalLM(one).init, jax.random.key(0)).items()}
  names = _NAMES.get(config.family, _LLAMA)
  of_layer = shapes.pop('layers_0')
  if is_reward_model:
    shapes.pop('unembed', None)
  found = [_slot(names, [leaf], [shape], ())
           for leaf, shape in shapes.items()]
  grouped = _group(names, of_layer)
  if config.scan_layers:
    order = [(i, group) for group in grouped for i in range(config.num_layers)]
  else:
    order = [(i, group) for i in range(config.num_layers) for group in grouped]
  for i, group in order:
    parent = 'layers' if config.scan_layers else f'layers_{i}'
    slot = _slot(names, group, [of_layer[leaf] for leaf in group], (parent,), i)
    found.append(slot._replace(layer=i if config.scan_layers else None))
  if is_reward_model:
    found.append(Slot(HEAD, (('head',),), ((config.hidden_size,),), 1))
  return found


def unembed_name(config: ModelConfig) -> str:
  """What the file calls the unembedding."""
  return _NAMES.get(config.family, _LLAMA).unembed + '.weight'


def prefix(config: ModelConfig) -> str:
  """What all names but the heads' begin with, where heads are in the file."""
  return _NAMES.get(config.family, _LLAMA).prefix


def _group(names: Names, leaves: Mapping) -> list[list[str]]:
  """The leaves of a layer, those together that share a tensor."""
  groups, taken = [], set()
  for leaf in leaves:
    base, suffix = _split(leaf)
    group = next((g for g in names.fused if base in g), (base,))
    if group + (suffix,) not in taken:
      taken.add(group + (suffix,))
      groups.append([part + suffix for part in group])
  return groups


def _slot(names: Names, leaves, shapes, parent, layer=None) -> Slot:
  """The slot of leaves that share a tensor, or of the one that has its own."""
  bases, (suffix, *_) = zip(*map(_split, leaves), strict=True)
  name = (names.unembed if bases == ('unembed',)
          else names.fused[bases] if len(bases) > 1 else names.leaves[bases[0]])
  if layer is not None:
    name = f'{names.layers}.{layer}.{name}'
  if bases != ('unembed',):
    name = names.prefix + name
  return Slot(
      name + ('.bias' if suffix else '.weight'),
      tuple((*parent, leaf) for leaf in leaves), tuple(shapes),
      inputs=0 if suffix else _INPUTS.get(bases[0], 0),
      is_table=bases[0] in _TABLES, is_linear=names.is_linear,
      by_head=names.by_head and len(leaves) > 1)


def _split(leaf: str) -> tuple[str, str]:
  """('query', '_bias') of 'query_bias'."""
  base = leaf.removesuffix('_bias')
  return base, leaf[len(base):]


def stack_layers(params: Params) -> Params:
  """`layers_0` ... `layers_{L-1}` to one `layers` of [L, ...] leaves.

  Leaves stay numpy or jax arrays, as they were; other entries are untouched.
  """
  names = [name for name in params if name.startswith('layers_')]
  names.sort(key=lambda name: int(name.removeprefix('layers_')))
  stacked = jax.tree.map(
      lambda *leaves: leaves[0].__array_namespace__().stack(leaves),
      *(params[name] for name in names))
  rest = {name: leaf for name, leaf in params.items() if name not in names}
  return rest | {'layers': stacked}


def unstack_layers(params: Params) -> Params:
  """One `layers` of [L, ...] leaves to `layers_0` ...: `stack_layers` undone.
  """
  rest = {name: leaf for name, leaf in params.items() if name != 'layers'}
  num_layers = len(jax.tree.leaves(params['layers'])[0])
  return rest | {
      f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], params['layers'])
      for i in range(num_layers)}
