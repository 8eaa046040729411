"""Frozen matrices in 8 or 4 bits.

A quantized leaf (a `qwix.QArray`) stands in the parameter tree where the matrix
stood; the decoder multiplies by what it stands for, made anew for each use and
never kept. It is for bases under adapters: nothing differentiates through it.
"""

import math
import sys
from typing import Literal

import chex
import jax
import jax.numpy as jnp

Kind = Literal['int8', 'nf4']

# Inputs that share a scale with nf4, as in https://arxiv.org/abs/2305.14314.
_TILE = 64

# The layers' matrices, and how many of their axes are inputs.
_INPUTS = {'query': 1, 'key': 1, 'value': 1, 'out': 2, 'gate': 1, 'up': 1,
           'down': 1}


def is_quantized(leaf) -> bool:
  """Whether a leaf of a parameter tree is a quantized matrix.

  Qwix takes a third of a second to import, and most runs have none.
  """
  qwix = sys.modules.get('qwix')
  return qwix is not None and isinstance(leaf, qwix.QArray)


def quantize(
    params: chex.ArrayTree, kind: Kind, *, num_stacked: int = 0
) -> chex.ArrayTree:
  """The tree with its layers' matrices quantized; the rest stays as it is.

  With int8 all inputs of an output share a scale; with nf4, 64 of them do (or
  the largest number below that divides them).

  Args:
    params: a decoder's, or a part of it; `layers` is taken for stacked.
    kind: int8, or nf4 (16 levels at the quantiles of a normal distribution).
    num_stacked: axes that lead before a matrix: 1 in stacked layers.

  Returns:
    The tree with quantized leaves of the matrices' shapes. An int8 weight is
    off by at most 1/254 of the largest of its output.
  """
  quantized = {}
  for name, value in params.items():
    if isinstance(value, dict):
      quantized[name] = quantize(
          value, kind, num_stacked=num_stacked + (name == 'layers'))
    elif name in _INPUTS:
      quantized[name] = _quantize(value, kind, num_stacked, _INPUTS[name])
    else:
      quantized[name] = value
  return quantized


def _quantize(w: jax.Array, kind: Kind, num_stacked: int, num_inputs: int):
  import qwix
  inputs = range(num_stacked, num_stacked + num_inputs)
  apart, tiles = set(range(w.ndim)) - set(inputs), {}
  if kind == 'nf4':  # Of two input axes, each head keeps its own scales.
    *heads, last = inputs
    apart |= set(heads)
    tiles = {last: math.gcd(w.shape[last], _TILE)}
  return qwix.quantize(jnp.asarray(w, jnp.float32), kind,
                       channelwise_axes=sorted(apart), tiled_axes=tiles)


def dequantize(matrix, dtype) -> jax.Array:
  """The matrix that a quantized one stands for."""
  import qwix
  return qwix.dequantize(matrix).astype(dtype)


def quantized_axes(
    axes: chex.ArrayTree, params: chex.ArrayTree
) -> chex.ArrayTree:
  """Logical axes of a quantized tree: scales lie as their matrices do.

  Args:
    axes: of the tree before, as `CausalLM.axes()` gives them.
    params: the quantized tree, or its shapes.
  """
  fit = lambda spec, leaf: (
      jax.tree.map(lambda _: spec, leaf) if is_quantized(leaf)
      else spec)
  return jax.tree.map(
      fit, axes, params,
      is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))
