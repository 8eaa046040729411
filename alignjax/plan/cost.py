"""What a program costs by arithmetic: FLOPs, time, and memory without XLA.

XLA's own counts are no use here: loop bodies are counted once and kernels not
at all. These count matmuls, of which everything else is a few percent.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignjax.models import ModelConfig
from alignjax.models import presets

GIB = 2**30


class Work(NamedTuple):
  """Tokens that a program reads, and how often each is gone through."""

  rows: int
  length: int
  passes: float  # 1 forward; 3 with the backward pass; 4 with remat.
  useful: float  # The same without recomputation: what a model needs.
  reads: float = 0.0  # Bytes that a chip must read, one token after another.


def matmul_flops(config: ModelConfig, rows: int, length: int) -> float:
  """FLOPs of one forward pass: 2 for each weight and token, and attention.

    2 N T B + 2 · 2 L H h B T² / 2

  N without the embedding's look-up but with the unembedding; causal attention
  is half of a square, twice (scores and values).
  """
  weights = presets.count_parameters(config) - (
      0 if config.tie_embeddings else config.vocab_size * config.hidden_size)
  attention = (2 * config.num_layers * config.num_heads * config.head_dim
               * rows * length**2)
  return 2.0 * weights * rows * length + attention


def flops(config: ModelConfig, work: Work) -> tuple[float, float]:
  """(FLOPs that are executed, FLOPs that the model needs)."""
  once = matmul_flops(config, work.rows, work.length)
  return work.passes * once, work.useful * once


def activation_gib(config: ModelConfig, rows: int, length: int, *,
                   is_training: bool, chunk_size: int | None) -> float:
  """An estimate of a chip's temporaries, from the shapes of one layer.

  Training holds each layer's input in bf16 (without remat, all that its
  backward pass reads), one layer's inside twice in f32, the logits of a chunk
  twice in f32, and one layer's gathered weights; a forward pass one layer's
  inside once and no inputs. XLA may hold more: treat it as within a factor of
  two.

  Args:
    config: of the model.
    rows: on one chip.
    length: tokens of a row.
    is_training: with the backward pass.
    chunk_size: columns whose logits exist at one time.
  """
  tokens = rows * length
  width, inner = config.hidden_size, config.intermediate_size
  inside = tokens * (4 * width + 3 * inner) + 2 * rows * (
      config.num_heads * min(length, config.attention_block or length) * length)
  logits = rows * min(length, chunk_size or length) * config.vocab_size
  layer = presets.count_parameters(config) / config.num_layers
  kept = tokens * width
  if not config.remat:
    kept = tokens * (6 * width + 3 * inner)
    if not config.attention_block:
      kept += rows * config.num_heads * length**2
  held = 2 * kept * config.num_layers if is_training else 0
  times = 2 if is_training else 1
  table = config.vocab_size * width * 2
  return (held + times * (4 * inside + 4 * logits) + 2 * layer + table) / GIB


def seconds(needed: float, num_chips: int, tflops: float,
            utilisation: float) -> float:
  """Of a program, at a share of the chips' peak."""
  return needed / (num_chips * tflops * 1e12 * utilisation)


def shard_bytes(tree, *, with_host: bool = True) -> float:
  """Bytes of a tree on one device, by the shardings of its leaves.

  Args:
    tree: of arrays or ShapeDtypeStructs.
    with_host: whether what lies in its host's memory counts as well.
  """
  total = 0.0
  for leaf in jax.tree.leaves(tree):
    if not with_host and leaf.sharding.memory_kind == 'pinned_host':
      continue
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(
        leaf.shape)
    total += math.prod(shape) * _itemsize(leaf.dtype)
  return total


def _itemsize(dtype) -> float:
  """Bytes of a number on a device; of a PRNG key, of its words."""
  if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
    return 8
  if dtype in (jnp.int4, jnp.uint4):
    return 0.5  # Two share a byte there, if not in numpy.
  return dtype.itemsize
