"""Batches of every kind as shapes, their rows split over a mesh."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from alignjax import sharding
from alignjax.types import PreferenceBatch
from alignjax.types import PromptBatch
from alignjax.types import Rows
from alignjax.types import TokenBatch
from alignjax.types import UnpairedBatch


class Shape(NamedTuple):
  """How large a run is."""

  rows: int                 # Responses in a batch; a pair is two.
  length: int               # Tokens, prompt and response.
  chunk_size: int | None    # Columns whose logits exist at one time.
  num_microbatches: int = 1
  lora_rank: int = 0        # 0 trains all weights.
  quantize: Literal['none', 'int8', 'nf4'] = 'none'  # The base, of adapters.
  max_new_tokens: int = 0   # Of `length`, in a rollout; 0 is half.
  num_minibatches: int = 1  # Of a rollout.
  num_epochs: int = 2       # Over a rollout.
  num_slots: int = 0        # Responses sampled at one time; 0: all.
  offload: bool = False     # Moments in the host's memory between updates.
  # 'branched': a pair shares a row, prompt | chosen | rejected, of `length`.
  layout: Literal['padded', 'branched'] = 'padded'
  # The reference is asked about all pairs before training, and let go.
  precompute_reference: bool = False

  @property
  def room(self) -> int:
    """Tokens of a sampled response."""
    return self.max_new_tokens or self.length // 2

  @property
  def num_read(self) -> int:
    """Rows that models read."""
    return self.rows // 2 if self.layout == 'branched' else self.rows


def tokens(shape: Shape, mesh) -> TokenBatch:
  """Rows of text."""
  put = on_rows(mesh)
  size = shape.rows, shape.length
  return TokenBatch(
      tokens=put(size, jnp.int32), attention_mask=put(size, bool),
      loss_mask=put(size, bool), weight=put(size[:1], jnp.float32))


def pairs(shape: Shape, mesh, *, ref: bool) -> PreferenceBatch:
  """Pairs, with the reference's logprobs or without; in cells if branched."""
  put, length, rows = on_rows(mesh), shape.length, None
  lead: tuple[int, ...] = (shape.rows // 2,)
  if shape.layout == 'branched':
    cells = sharding.num_batch_shards(mesh) * shape.num_microbatches
    lead = cells, shape.rows // 2 // cells
    read = put((*lead, length), jnp.int32)
    length -= shape.max_new_tokens or length // 4  # One response is elsewhere.
    rows = Rows(
        tokens=read, attention_mask=put(read.shape, bool), segments=read,
        branches=read, positions=read,
        index=put((*lead, 2, length), jnp.int32), start=1)
  size = *lead, 2, length
  return PreferenceBatch(
      tokens=put(size, jnp.int32), attention_mask=put(size, bool),
      loss_mask=put(size, bool), weight=put(lead, jnp.float32),
      strength=put(lead, jnp.int32),
      ref_logprobs=put(size, jnp.float32) if ref else None, rows=rows)


def on_rows(mesh):
  """Shapes whose rows are split over the mesh."""
  rows = sharding.batch_sharding(mesh)
  return lambda size, dtype: jax.ShapeDtypeStruct(size, dtype, sharding=rows)


def unpaired(shape: Shape, mesh) -> UnpairedBatch:
  """Labelled responses, without what the reference says of them."""
  rows = tokens(shape, mesh)
  return UnpairedBatch(
      tokens=rows.tokens, attention_mask=rows.attention_mask,
      loss_mask=rows.loss_mask, weight=rows.weight,
      desirable=on_rows(mesh)(rows.weight.shape, bool), mismatched=rows)


def prompts(shape: Shape, mesh) -> PromptBatch:
  """What responses are sampled to."""
  put = on_rows(mesh)
  width, each = (shape.rows, shape.length - shape.room), (shape.rows,)
  return PromptBatch(
      tokens=put(width, jnp.int32), attention_mask=put(width, bool),
      prompt_id=put(each, jnp.int32), sample_id=put(each, jnp.int32),
      weight=put(each, jnp.float32))
