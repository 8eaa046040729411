"""Who sees whom, positions, and grouped-query attention."""

import jax
import jax.numpy as jnp

from alignjax import columns

# Large and finite: a row that may see nothing gets uniform weights, not NaN.
_NEVER = -1e30


def visible(
    attention_mask: jax.Array,
    segments: jax.Array | None = None,
    branches: jax.Array | None = None,
) -> jax.Array:
  """Which token may attend to which: one rule for padding, packing, branches.

  Token t sees token s if s ≤ t, s is real, both are of one segment, and s is
  of the trunk (branch 0) or of t's own branch:

      tokens      p p a a b b      a prompt with two responses
      branches    0 0 1 1 2 2
      b sees      ✓ ✓ . . ✓ ✓      the prompt and itself

  Args:
    attention_mask: [B, T] bool, real tokens.
    segments: [B, T] int, the packed document each token is of; None is one.
    branches: [B, T] int, 0 for a shared prompt, 1, 2 ... for its responses.

  Returns:
    [B, T, T] bool, `[:, t, s]` is true if t sees s. Lower triangular.
  """
  length = attention_mask.shape[1]
  seen = jnp.tril(jnp.ones((length, length), bool)) & attention_mask[:, None]
  if segments is not None:
    seen &= segments[:, :, None] == segments[:, None]
  if branches is not None:
    seen &= (branches[:, None] == 0) | (
        branches[:, :, None] == branches[:, None])
  return seen


def count_positions(attention_mask: jax.Array) -> jax.Array:
  """[B, T] int32 position of each real token: 0 at the first, left pad or not.

      attention_mask  0 0 1 1 1        positions  0 0 0 1 2
  """
  return jnp.maximum(jnp.cumsum(attention_mask.astype(jnp.int32), axis=1) - 1,
                     0)


def within(
    seen: jax.Array, positions: jax.Array, key_positions: jax.Array,
    window: int | None,
) -> jax.Array:
  """`seen`, less what lies `window` or more positions back.

  Args:
    seen: [B, T, S] bool.
    positions: [B, T] int, of the tokens that look.
    key_positions: [B, S] int, of those that are looked at.
    window: how many tokens a token sees, itself included; None is all.
  """
  if window is None:
    return seen
  return seen & (positions[:, :, None] - key_positions[:, None] < window)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array, *,
    scale: float | None = None, softcap: float | None = None,
    block: int | None = None,
) -> jax.Array:
  """Grouped-query attention with a float32 softmax.

  Args:
    query: [B, T, H, head_dim].
    key: [B, S, K, head_dim], K divides H; head h reads K-head h // (H / K).
    value: [B, S, K, head_dim].
    seen: [B, T, S] bool.
    scale: of the scores; 1/√head_dim if None.
    softcap: c > 0 bounds the scores, as c tanh(score / c); None does not.
    block: queries whose scores exist at one time, [B, H, block, S]; they are
      made again in the backward pass. None, or T not above it, is all at once.

  Returns:
    [B, T, H, head_dim] as query. Columns that `seen` hides change nothing.
  """
  batch, length, heads, head_dim = query.shape
  query = query.reshape(batch, length, key.shape[2], -1, head_dim)
  scale = head_dim**-0.5 if scale is None else scale

  def mixed(query, seen):
    scores = jnp.einsum('btkgd,bskd->bkgts', query, key,
                        preferred_element_type=jnp.float32) * scale
    if softcap is not None:
      scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(seen[:, None, None], scores, _NEVER)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum('bkgts,bskd->btkgd', weights, value)

  if block is None or length <= block:
    y = mixed(query, seen)
  else:
    y = columns.by_blocks(mixed, (query, seen), block)
  return y.reshape(batch, length, heads, head_dim)
