"""What flows between the floors: batches, trajectories, means, input errors.

Every array of a batch leads with B, the rows. Per-token arrays are [B, T] and
column t speaks of `tokens[:, t]`: `logprobs[:, t]` is log p(tokens[:, t] |
tokens[:, <t]) with `logprobs[:, 0] = 0`, and `values[:, t]` is the value before
token t was written. Masks are boolean and made where the tokens are made; no
mask is ever recovered by comparing tokens with a pad id.

A loss sees responses in rows of their own, always. What a MODEL reads of them
may be fewer rows (`Rows`): then the batch is in cells, parts that share no row
with each other, and every array leads with [C, B / C] (`split_cells`) for as
long as it may be cut into microbatches or spread over devices.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from alignjax.errors import InputError as InputError


class Mean(NamedTuple):
  """A mean that has not been taken yet, so that it can still be merged."""

  total: jax.Array   # [] sum of the weighted values.
  weight: jax.Array  # [] sum of the weights: tokens, pairs or sequences.

  @classmethod
  def of(cls, values: jax.Array, weight: jax.Array) -> 'Mean':
    """The mean of `values` under `weight` or a boolean mask, same shape."""
    weight = jnp.broadcast_to(weight, values.shape).astype(jnp.float32)
    kept = jnp.where(weight > 0, values.astype(jnp.float32), 0.0)
    return cls(jnp.sum(kept * weight), jnp.sum(weight))

  def compute(self) -> jax.Array:
    """Total over weight; 0 where nothing was weighed."""
    return self.total / jnp.where(self.weight == 0, 1.0, self.weight)


@flax.struct.dataclass
class Rows:
  """What a model reads of a batch whose responses share rows.

  C cells hold B / C rows of the batch each, in M rows of S columns. Tokens of
  one segment see each other, unless they are of two branches; see
  `models.attention.visible`.
  """

  tokens: jax.Array          # [C, M, S] int32
  attention_mask: jax.Array  # [C, M, S] bool, real tokens.
  segments: jax.Array        # [C, M, S] int32, by prompt or by response.
  branches: jax.Array        # [C, M, S] int32, 0 for what branches share.
  positions: jax.Array       # [C, M, S] int32, within the response's own text.
  # [C, B / C, ..., T] int32: where in its cell's M · S columns the token of
  # each column of the batch is read. Columns without a token say 0.
  index: jax.Array
  # [C, N] int32, ascending: the columns of a cell whose tokens bear loss, which
  # are all that is unembedded; M · S fills it up. None: all columns are.
  wanted: jax.Array | None = None
  # No column of a row before this one is any response's.
  start: int = flax.struct.field(pytree_node=False, default=0)


@flax.struct.dataclass
class TokenBatch:
  """Rows of text, some of whose tokens bear loss: SFT and pretraining."""

  tokens: jax.Array          # [B, T] int32
  attention_mask: jax.Array  # [B, T] bool, real tokens.
  loss_mask: jax.Array       # [B, T] bool, tokens that bear loss.
  weight: jax.Array          # [B] float32, of each token; 0 for filler rows.
  rows: Rows | None = None  # What the model reads, if not these rows.


@flax.struct.dataclass
class PreferenceBatch:
  """Pairs: column 0 is the chosen response, column 1 the rejected one."""

  tokens: jax.Array          # [B, 2, T] int32, prompt and response.
  attention_mask: jax.Array  # [B, 2, T] bool
  loss_mask: jax.Array       # [B, 2, T] bool, the response's tokens.
  weight: jax.Array          # [B] float32, 0 for filler pairs.
  strength: jax.Array | None = None  # [B] int32, 0 (unsure) to 3 (sure).
  ref_logprobs: jax.Array | None = None  # [B, 2, T] nats, by annotation.
  rows: Rows | None = None  # What the model reads, if not these rows.


@flax.struct.dataclass
class UnpairedBatch:
  """Responses that are desirable or not, and the same prompts mismatched.

  Row i of `mismatched` is prompt i with the response of the row after it: what
  KTO measures its KL on.
  """

  tokens: jax.Array          # [B, T] int32, prompt and response.
  attention_mask: jax.Array  # [B, T] bool
  loss_mask: jax.Array       # [B, T] bool, the response's tokens.
  desirable: jax.Array       # [B] bool
  weight: jax.Array          # [B] float32, 0 for filler rows.
  mismatched: TokenBatch     # [B, T]; weight 0 where there is no other row.
  ref_logprobs: jax.Array | None = None  # [B] nats, by annotation.
  kl: jax.Array | None = None  # [B] nats, the batch's z0 in each row.
  rows: Rows | None = None  # What the model reads, if not these rows.


@flax.struct.dataclass
class RankingBatch:
  """Prompts with K ranked responses each; rows may hold fewer."""

  tokens: jax.Array          # [B, K, T] int32, prompt and response.
  attention_mask: jax.Array  # [B, K, T] bool
  ranks: jax.Array           # [B, K] int32, 0 for the best; equal ones tie.
  mask: jax.Array            # [B, K] bool, the responses that exist.
  weight: jax.Array          # [B] float32, 0 for filler rows.
  rows: Rows | None = None  # What the model reads, if not these rows.


@flax.struct.dataclass
class PromptBatch:
  """Prompts to sample from, padded on the LEFT: answers start in one column."""

  tokens: jax.Array          # [B, P] int32
  attention_mask: jax.Array  # [B, P] bool
  prompt_id: jax.Array       # [B] int32, names the prompt for the sampler.
  sample_id: jax.Array       # [B] int32, tells samples of one prompt apart.
  weight: jax.Array          # [B] float32, 0 for filler rows.
  # Where models but the sampler will read them, the responses' places blank.
  rows: Rows | None = None
  # The last columns, in which all prompts are; None: nobody looked.
  width: int | None = flax.struct.field(pytree_node=False, default=None)


@flax.struct.dataclass
class PromptTextBatch:
  """Prompts to sample from, and pretraining text to stay fluent on: PPO-ptx."""

  prompts: PromptBatch
  text: TokenBatch  # Its rows are spread over the iteration's minibatches.

  @property
  def attention_mask(self) -> jax.Array:
    """The prompts', by which an iteration's tokens are counted."""
    return self.prompts.attention_mask


@flax.struct.dataclass
class Trajectory:
  """Prompts with sampled responses, T = P + R, and what annotators added."""

  tokens: jax.Array           # [B, T] int32, response from column P on.
  attention_mask: jax.Array   # [B, T] bool
  response_mask: jax.Array    # [B, T] bool, sampled tokens, EOS included.
  weight: jax.Array           # [B] float32, 0 for filler rows.
  sampler_logprobs: jax.Array  # [B, T] nats, as the decoder saw them.
  logprobs: jax.Array | None = None      # [B, T] nats, the training forward's.
  ref_logprobs: jax.Array | None = None  # [B, T] nats
  kl: jax.Array | None = None            # [B, T] nats, as it is penalised.
  values: jax.Array | None = None        # [B, T] before each token.
  reward: jax.Array | None = None        # [B] a model's score, or a rule's.
  advantages: jax.Array | None = None    # [B, T] as the method has them.
  returns: jax.Array | None = None       # [B, T]
  on_policy: jax.Array | None = None     # [B] bool, the policy sampled it.
  rows: Rows | None = None  # What the model reads, if not these rows.


Batch = TokenBatch | PreferenceBatch | UnpairedBatch | RankingBatch | Trajectory


def split_cells(batch: Batch) -> Batch:
  """From [B, ...] to [C, B / C, ...], as its rows are; they stay as they are.

  Every leaf then leads with C, so that a batch is cut, shuffled and spread over
  devices by cells, and a cell keeps its rows. Without rows nothing changes.
  """
  if batch.rows is None:
    return batch
  num_cells = batch.rows.tokens.shape[0]
  return _but_rows(
      lambda x: x.reshape(num_cells, -1, *x.shape[1:]), batch)


def merge_cells(batch: Batch) -> Batch:
  """From [C, B / C, ...] to [B, ...], which losses take; undoes `split_cells`.

  A batch that is not in cells is returned as it is.
  """
  if batch.weight.ndim == 1:
    return batch
  return _but_rows(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def _but_rows(function, batch: Batch) -> Batch:
  """Maps all leaves of a batch but those of its rows."""
  is_rows = lambda x: isinstance(x, Rows)
  return jax.tree.map(
      lambda x: x if is_rows(x) else function(x), batch, is_leaf=is_rows)
