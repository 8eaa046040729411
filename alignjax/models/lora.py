"""Low-rank adapters: a small trained difference beside each frozen matrix.

    y = x W + scale · (x A) B,   A [in, r], B [r, out]

Hu et al. (2021), https://arxiv.org/abs/2106.09685. Adapters are leaves of the
parameter tree, beside the matrix that they adapt:

    layers_0
      query          [D, H, head_dim]   frozen
      query_lora_a   [D, r]             trained
      query_lora_b   [r, H, head_dim]   trained, 0 at the start

`split` takes the tree apart into base and adapters, `join` puts it together;
the base alone, under the configuration without adapters, is the model before
training, so that a reference costs no memory.
"""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp

from alignjax.models import quantize

TARGETS = ('query', 'key', 'value', 'out', 'gate', 'up', 'down')
A, B = '_lora_a', '_lora_b'


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which projections have adapters, and how large they are."""

  rank: int = 16
  alpha: float = 32.0
  targets: tuple[str, ...] = TARGETS
  rank_stabilised: bool = False  # α/√r: https://arxiv.org/abs/2312.03732.

  @property
  def scale(self) -> float:
    """α / r, or α / √r."""
    root = math.sqrt(self.rank) if self.rank_stabilised else self.rank
    return self.alpha / root


def split(params: chex.ArrayTree) -> tuple[dict, dict]:
  """(base, adapters), two trees whose leaves are all those of `params`.

  Entries without leaves are left out, so `adapters` names adapted layers only.
  """
  base, adapters = {}, {}
  for name, value in params.items():
    if isinstance(value, dict):
      inner = split(value)
      for tree, part in zip((base, adapters), inner, strict=True):
        if part:
          tree[name] = part
    else:
      (adapters if name.endswith((A, B)) else base)[name] = value
  return base, adapters


def join(base: chex.ArrayTree, adapters: chex.ArrayTree) -> dict:
  """The one tree with the leaves of both: `split` undone.

  A leaf that both have is the second's.
  """
  joined = dict(base)
  for name, value in adapters.items():
    joined[name] = join(base.get(name, {}), value) if isinstance(
        value, dict) else value
  return joined


def merge(params: chex.ArrayTree, lora: Lora) -> dict:
  """The parameters of a plain model that computes the same: W + scale · A B.

  Args:
    params: with adapters; stacked layers may lead with [L].
    lora: the adapters' configuration.

  Returns:
    The base's tree, in the base's dtype (float32 where it was quantized). Its
    logits are those of the adapted model up to rounding.
  """
  base, _ = split(params)
  merged = {}
  for name, value in base.items():
    if isinstance(value, dict):
      merged[name] = merge(params[name], lora)
    elif name + A in params:
      merged[name] = _merged(
          value, params[name + A], params[name + B], lora.scale)
    elif quantize.is_quantized(value):
      merged[name] = quantize.dequantize(value, jnp.float32)
    else:
      merged[name] = value
  return merged


def _merged(w: jax.Array, a: jax.Array, b: jax.Array, scale: float):
  """W + scale · A B, whatever leads, [..., in..., out...]."""
  if quantize.is_quantized(w):
    w = quantize.dequantize(w, jnp.float32)
  stacked = a.ndim + b.ndim - 2 - w.ndim  # 1 if [L] leads in all three.
  lead = w.shape[:stacked]
  rank = a.shape[-1]
  flat_a = a.astype(jnp.float32).reshape(*lead, -1, rank)
  flat_b = b.astype(jnp.float32).reshape(*lead, rank, -1)
  difference = (flat_a @ flat_b).reshape(w.shape)
  return (w.astype(jnp.float32) + scale * difference).astype(w.dtype)
