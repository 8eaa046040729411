"""Who sees whom, positions, and grouped-query attention.

The gradient of attention is written out, not derived (`_attend_heads`): it
makes the scores again, keys as rows, so that no large array is transposed or
kept, which autodiff does. Where a token sees none after it, a block of queries
meets the keys up to its own end only: half of all scores are never made.
"""

import functools

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from alignjax import columns
from alignjax import partitioning

# Names what attention keeps for its gradient: results, and two numbers a row.
_KEPT = 'attention'
KEEP = jax.checkpoint_policies.save_only_these_names(_KEPT)

# Queries of a block that meets the keys before its end: at least so many, and
# at most so many blocks, each of which is compiled.
_PREFIX_BLOCK, _MAX_BLOCKS = 64, 8

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
    block: int | None = None, is_causal: bool = False,
) -> jax.Array:
  """Grouped-query attention with a float32 softmax.

  Args:
    query: [B, T, H, head_dim].
    key: [B, K, S, head_dim], K divides H; head h reads K-head h // (H / K).
    value: [B, K, S, head_dim].
    seen: [B, T, S] bool.
    scale: of the scores; 1/√head_dim if None.
    softcap: c > 0 bounds the scores, as c tanh(score / c); None does not.
    block: queries whose scores exist at one time, [B, H, block, S]; they are
      made again in the backward pass. None, or T not above it, is all at once.
    is_causal: whether T = S and `seen` is lower triangular: what it hides above
      the diagonal is then not computed.

  Returns:
    [B, T, H, head_dim] as query. Columns that `seen` hides change nothing.
  """
  length, _, head_dim = query.shape[1:]
  scale = head_dim**-0.5 if scale is None else scale
  is_split = partitioning.num_shards('length') > 1
  # Of rows made of two dimensions, a mesh can split the first.
  tokens, heads = (2, 3) if is_split else (3, 2)

  def mixed(query, seen, end=None):
    """[B, t, H, head_dim], of the keys before `end`."""
    grouped = query.reshape(*query.shape[:2], key.shape[1], -1, head_dim)
    y = _attend_heads(
        jnp.moveaxis(grouped, (1, 3), (tokens, heads)), key[:, :, :end],
        value[:, :, :end], jnp.expand_dims(seen[:, :, :end], heads - 1), scale,
        softcap)
    return jnp.moveaxis(y, (tokens, heads), (1, 3)).reshape(query.shape)

  if block is not None and length > block:
    return columns.by_blocks(mixed, (query, seen), block, policy=KEEP)
  if not is_causal or is_split:
    return mixed(query, seen)
  block = max(_PREFIX_BLOCK, -(-length // _MAX_BLOCKS))
  return jnp.concatenate([
      mixed(query[:, i:i + block], seen[:, i:i + block], i + block)
      for i in range(0, length, block)], axis=1)


def attend_behind(
    shared_key: jax.Array, shared_value: jax.Array, query: jax.Array,
    key: jax.Array, value: jax.Array, seen: jax.Array, *,
    scale: float | None = None, softcap: float | None = None,
) -> jax.Array:
  """`attend` of one token a row, to columns that a group of rows shares too.

  To what they share, the rows of a group are queries of one row: its keys are
  read once for all of them. The two softmaxes are merged by their maxima and
  sums.

  Args:
    shared_key: [B / n, K, P, head_dim], of n rows side by side.
    shared_value: the same.
    query: [B, 1, H, head_dim].
    key: [B, K, S, head_dim], each row's own, behind the shared ones.
    value: the same.
    seen: [B, 1, P + S] bool.
    scale: of the scores; 1/√head_dim if None.
    softcap: see `attend`.

  Returns:
    [B, 1, H, head_dim] as query; no gradient is made for it.
  """
  width, head_dim = shared_key.shape[-2:]
  scale = head_dim**-0.5 if scale is None else scale

  def part(key, value, seen):
    """Results [B, 1, H, head_dim], maxima and sums [B, 1, H, 1]."""
    rows = key.shape[0]
    grouped = query.reshape(rows, -1, key.shape[1], query.shape[2]
                            // key.shape[1], head_dim)
    _, (*_, mixed, most, total) = _forward(
        jnp.moveaxis(grouped, 1, 3), key, value,
        seen.reshape(rows, 1, -1, seen.shape[-1]), scale, softcap)
    return (jnp.moveaxis(x, 3, 1).reshape(*query.shape[:3], -1)
            for x in (mixed, most, total))

  of_shared, of_own = (part(shared_key, shared_value, seen[..., :width]),
                       part(key, value, seen[..., width:]))
  (mixed, most, total), (other, other_most, other_total) = of_shared, of_own
  highest = jnp.maximum(most, other_most)
  total *= jnp.exp(most - highest)
  other_total *= jnp.exp(other_most - highest)
  merged = mixed * total + other * other_total
  return (merged / (total + other_total)).astype(query.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend_heads(query, key, value, seen, scale, softcap):
  """Attention of rows of queries to each key head.

  Args:
    query: [B, K, n, m, head_dim]; n and m are G heads and T tokens, or T and G.
    key: [B, K, S, head_dim].
    value: [B, K, S, head_dim].
    seen: [B, n, m, S] bool, with 1 for heads.
    scale: of the scores.
    softcap: of the scaled scores; None has none.

  Returns:
    [B, K, n, m, head_dim].
  """
  return _forward(query, key, value, seen, scale, softcap)[0]


def _forward(query, key, value, seen, scale, softcap):
  """What `_attend_heads` returns, and what its gradient is made from."""
  rows = query.reshape(*query.shape[:2], -1, query.shape[-1])
  scores = _scores(rows, key, scale, softcap).reshape(*query.shape[:4], -1)
  scores = jnp.where(seen[:, None], scores, _NEVER)
  most = jnp.max(scores, axis=-1, keepdims=True)
  weights = jnp.exp(scores - most)
  total = jnp.sum(weights, axis=-1, keepdims=True)
  mixed = jnp.matmul(
      weights.astype(value.dtype).reshape(*rows.shape[:3], -1), value,
      preferred_element_type=jnp.float32).reshape(query.shape)
  mixed, most, total = (checkpoint_name(x, _KEPT) for x in (
      (mixed / total).astype(query.dtype), most, total))
  return mixed, (query, key, value, seen, mixed, most, total)


def _backward(scale, softcap, kept, gradient):
  """Gradients of query, key and value.

  With O the results, S the scores and P the weights, the last two with keys as
  rows, and the sum over head_dim:

    dV = P dO,  dS = P (V dOᵀ − Σ O dO),  dK = dS Q,  dQᵀ = Kᵀ dS
  """
  query, key, value, seen, mixed, most, total = kept
  heads, (n, m) = query.shape[:2], query.shape[2:4]
  rows, d_rows = (x.reshape(*heads, n * m, -1) for x in (query, gradient))
  of_row = lambda x: x.reshape(*heads, 1, n * m)
  seen = jnp.broadcast_to(
      jnp.moveaxis(seen, 3, 1), (heads[0], key.shape[2], n, m))
  seen = seen.reshape(heads[0], 1, -1, n * m)
  scores = _scores(key, rows, scale, softcap)
  weights = jnp.exp(
      jnp.where(seen, scores, _NEVER) - of_row(most)) / of_row(total)
  d_value = weights.astype(value.dtype) @ d_rows
  d_weights = jnp.matmul(value, d_rows.swapaxes(2, 3),
                         preferred_element_type=jnp.float32)
  drift = of_row(jnp.sum(gradient.astype(jnp.float32) * mixed, axis=-1))
  d_scores = jnp.where(seen, weights * (d_weights - drift), 0.0) * scale
  if softcap is not None:
    d_scores *= 1.0 - (scores / softcap) ** 2
  d_scores = d_scores.astype(query.dtype)
  d_query = (key.swapaxes(2, 3) @ d_scores).swapaxes(2, 3)
  return d_query.reshape(query.shape), d_scores @ rows, d_value, None


_attend_heads.defvjp(_forward, _backward)


def _scores(rows, others, scale, softcap):
  """[..., n, m] float32 of [..., n, head_dim] and [..., m, head_dim]."""
  times = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
  if 4 * rows.shape[-2] <= others.shape[-2]:  # In decoding, the cache stays.
    scores = times(others, rows.swapaxes(-1, -2)).swapaxes(-1, -2) * scale
  else:
    scores = times(rows, others.swapaxes(-1, -2)) * scale
  return scores if softcap is None else softcap * jnp.tanh(scores / softcap)
