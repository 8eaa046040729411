"""What flows between the floors: batches, trajectories, means, input errors.

Every array of a batch leads with B, the rows. Per-token arrays are [B, T] and
column t speaks of `tokens[:, t]`: `logprobs[:, t]` is log p(tokens[:, t] |
tokens[:, <t]) with `logprobs[:, 0] = 0`, and `values[:, t]` is the value before
token t was written. Masks are boolean and made where the tokens are made; no
mask is ever recovered by comparing tokens with a pad id.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp


class InputError(ValueError):
  """What the user gave cannot be used: names the value, the rule, the repair.

  The command line prints its one line and exits with status 2.
  """


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
class TokenBatch:
  """Rows of text, some of whose tokens bear loss: SFT and pretraining."""

  tokens: jax.Array          # [B, T] int32
  attention_mask: jax.Array  # [B, T] bool, real tokens.
  loss_mask: jax.Array       # [B, T] bool, tokens that bear loss.
  weight: jax.Array          # [B] float32, of each token; 0 for filler rows.


@flax.struct.dataclass
class PreferenceBatch:
  """Pairs: column 0 is the chosen response, column 1 the rejected one."""

  tokens: jax.Array          # [B, 2, T] int32, prompt and response.
  attention_mask: jax.Array  # [B, 2, T] bool
  loss_mask: jax.Array       # [B, 2, T] bool, the response's tokens.
  weight: jax.Array          # [B] float32, 0 for filler pairs.
  strength: jax.Array | None = None  # [B] int32, 0 (unsure) to 3 (sure).
  ref_logprobs: jax.Array | None = None  # [B, 2, T] nats, by annotation.


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


@flax.struct.dataclass
class RankingBatch:
  """Prompts with K ranked responses each; rows may hold fewer."""

  tokens: jax.Array          # [B, K, T] int32, prompt and response.
  attention_mask: jax.Array  # [B, K, T] bool
  ranks: jax.Array           # [B, K] int32, 0 for the best; equal ones tie.
  mask: jax.Array            # [B, K] bool, the responses that exist.
  weight: jax.Array          # [B] float32, 0 for filler rows.


@flax.struct.dataclass
class PromptBatch:
  """Prompts to sample from, padded on the LEFT: answers start in one column."""

  tokens: jax.Array          # [B, P] int32
  attention_mask: jax.Array  # [B, P] bool
  prompt_id: jax.Array       # [B] int32, names the prompt for the sampler.
  sample_id: jax.Array       # [B] int32, tells samples of one prompt apart.
  weight: jax.Array          # [B] float32, 0 for filler rows.


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
  values: jax.Array | None = None        # [B, T] before each token.
  reward: jax.Array | None = None        # [B] a model's score, or a rule's.
  advantages: jax.Array | None = None    # [B, T] as the method has them.
  returns: jax.Array | None = None       # [B, T]
