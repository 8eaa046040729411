"""Where each tensor of a Llama file lives in the parameter tree.

A torch Linear stores [out, in]; the tree stores [in, out] with heads unfolded,
so every matrix is one reshape and one transpose away. RoPE is the rotate-half
form on both sides: nothing is permuted.
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from alignjax.models.config import ModelConfig

Params = dict  # Nested dictionaries of arrays, see ModelConfig.

HEAD = 'score.weight'
UNEMBED = 'lm_head.weight'


class Slot(NamedTuple):
  """One tensor of the file and its place in the tree."""

  name: str               # In the file.
  path: tuple[str, ...]   # In the tree.
  shape: tuple[int, ...]  # In the tree, of one layer.
  inputs: int = 0         # Leading axes that are inputs; 0: stored as it is.
  layer: int | None = None  # Row of a stacked leaf; None if it is not stacked.

  @property
  def file_shape(self) -> tuple[int, ...]:
    """Shape in the file."""
    if not self.inputs:
      return self.shape
    return (math.prod(self.shape[self.inputs:]),
            math.prod(self.shape[:self.inputs]))

  def to_tree(self, tensor: np.ndarray) -> np.ndarray:
    """The file's tensor as the tree's leaf, or as one row of it."""
    return (tensor.T if self.inputs else tensor).reshape(self.shape)

  def to_file(self, leaf: np.ndarray) -> np.ndarray:
    """The tree's leaf, or one row of it, as the file's tensor."""
    if not self.inputs:
      return leaf
    return leaf.reshape(math.prod(self.shape[:self.inputs]), -1).T


def slots(config: ModelConfig, *, is_reward_model: bool = False) -> list[Slot]:
  """Every tensor that the model has, in the order in which it is written."""
  c = config
  d, f, heads, kv_heads = (
      c.hidden_size, c.intermediate_size, c.num_heads, c.num_kv_heads)
  per_layer = {  # Leaf: name in the file, shape in the tree, axes of input.
      'attention_norm': ('input_layernorm', (d,), 0),
      'query': ('self_attn.q_proj', (d, heads, c.head_dim), 1),
      'key': ('self_attn.k_proj', (d, kv_heads, c.head_dim), 1),
      'value': ('self_attn.v_proj', (d, kv_heads, c.head_dim), 1),
      'out': ('self_attn.o_proj', (heads, c.head_dim, d), 2),
      'mlp_norm': ('post_attention_layernorm', (d,), 0),
      'gate': ('mlp.gate_proj', (d, f), 1),
      'up': ('mlp.up_proj', (d, f), 1),
      'down': ('mlp.down_proj', (f, d), 1),
  }
  found = [Slot('model.embed_tokens.weight', ('embed',), (c.vocab_size, d))]
  for i in range(c.num_layers):
    layer = 'layers' if c.scan_layers else f'layers_{i}'
    for leaf, (name, shape, inputs) in per_layer.items():
      found.append(Slot(f'model.layers.{i}.{name}.weight', (layer, leaf), shape,
                        inputs, i if c.scan_layers else None))
  found.append(Slot('model.norm.weight', ('final_norm',), (d,)))
  if is_reward_model:
    found.append(Slot(HEAD, ('head',), (d,), 1))  # D inputs, one output.
  elif not c.tie_embeddings:
    found.append(Slot(UNEMBED, ('unembed',), (c.vocab_size, d)))
  return found


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
