"""What a model says of tokens, from its hidden states, by chunks of time.

Logits are [B, T, V], the largest array of a training step by far. They are made
here for `chunk_size` columns at a time, reduced at once, and made again in the
backward pass, so that no array of that size is ever held.

This is also the only place that shifts. `hidden[:, t - 1]` predicts
`tokens[:, t]`, and whatever comes out is filed under the token it speaks of:

    column       0        1         2         3
    tokens       a        b         c         d
    hidden       h(a)     h(ab)     h(abc)    unused
    logprobs     0        p(b|a)    p(c|ab)   p(d|abc)       log of each
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from alignjax import columns
from alignjax import partitioning


def token_logprobs(
    hidden: jax.Array,
    unembedding: jax.Array,
    tokens: jax.Array,
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    start: int = 0,
) -> jax.Array:
  """Log-probability of each token, given the tokens before it.

    log p(y_t | y_<t) = z_t[y_t] − log Σ_v exp z_t[v],  z_t = W h_{t−1} / τ

  The matmul runs in the dtype of `hidden`, accumulates in float32, and the
  softmax is float32.

  Args:
    hidden: [B, T, D] final hidden states.
    unembedding: [V, D] one row per token of the vocabulary.
    tokens: [B, T] token ids, int32.
    chunk_size: columns whose logits exist at one time; all when None. It need
      not divide T. It changes memory and speed, not the result.
    temperature: τ > 0; what the response was sampled with.
    softcap: c > 0 bounds the logits before τ, as c tanh(z / c); None does not.
    start: first column that is wanted, known at trace time. Nothing before it
      is unembedded.

  Returns:
    [B, T] float32, in nats, at most 0. Column 0 and the columns before `start`
    are 0.

  Raises:
    AssertionError: if the shapes do not fit together, or `tokens` are not ints.
  """
  _check_states(hidden, unembedding)
  chex.assert_shape(tokens, hidden.shape[:2])
  chex.assert_type(tokens, int)
  first = _first(start, hidden)

  def chunk_logprobs(states, targets):
    z = logits(states, unembedding, temperature, softcap)
    # A masked sum, where a gather would do: it splits over a vocabulary that
    # is sharded, and its gradient needs no scatter.
    is_target = targets[..., None] == jnp.arange(unembedding.shape[0])
    target_logits = jnp.sum(z, axis=-1, where=is_target)
    return target_logits - jax.nn.logsumexp(z, axis=-1)

  return _by_chunks(
      chunk_logprobs, (hidden[:, first - 1:-1], tokens[:, first:]), chunk_size,
      first)


def token_log_normalizers(
    hidden: jax.Array,
    unembedding: jax.Array,
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    start: int = 0,
) -> jax.Array:
  """Log-normalizer of the softmax that each token was drawn from.

    log Z_t = log Σ_v exp z_t[v],  z_t = W h_{t−1} / τ

  It is what `losses.z_loss` holds near 0.

  Args:
    hidden: [B, T, D] final hidden states.
    unembedding: [V, D] one row per token of the vocabulary.
    chunk_size: columns whose logits exist at one time; all when None.
    temperature: τ > 0; what the response was sampled with.
    softcap: c > 0 bounds the logits before τ, as c tanh(z / c); None does not.
    start: first column that is wanted, known at trace time.

  Returns:
    [B, T] float32, in nats: the target's logit less its log-probability.
    Column 0 and the columns before `start` are 0.

  Raises:
    AssertionError: if the shapes do not fit together.
  """
  _check_states(hidden, unembedding)
  first = _first(start, hidden)

  def chunk_log_normalizers(states):
    z = logits(states, unembedding, temperature, softcap)
    return jax.nn.logsumexp(z, axis=-1)

  return _by_chunks(
      chunk_log_normalizers, (hidden[:, first - 1:-1],), chunk_size, first)


def token_entropy(
    hidden: jax.Array,
    unembedding: jax.Array,
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    start: int = 0,
) -> jax.Array:
  """Entropy of the distribution that each token was drawn from.

    H_t = −Σ_v p(v | y_<t) log p(v | y_<t)

  Args:
    hidden: [B, T, D] final hidden states.
    unembedding: [V, D] one row per token of the vocabulary.
    chunk_size: columns whose logits exist at one time; all when None.
    temperature: τ > 0; what the response was sampled with.
    softcap: c > 0 bounds the logits before τ, as c tanh(z / c); None does not.
    start: first column that is wanted, known at trace time.

  Returns:
    [B, T] float32, in nats, in [0, log V]. Column 0 and the columns before
    `start` are 0.

  Raises:
    AssertionError: if the shapes do not fit together.
  """
  _check_states(hidden, unembedding)
  first = _first(start, hidden)
  log_softmax = _log_softmax(unembedding, temperature, softcap)

  def chunk_entropy(states):
    logprobs = log_softmax(states)
    return -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)

  return _by_chunks(
      chunk_entropy, (hidden[:, first - 1:-1],), chunk_size, first)


def token_collision(
    hidden: jax.Array,
    unembedding: jax.Array,
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    start: int = 0,
) -> jax.Array:
  """Log-probability that two draws, where each token was drawn, are the same.

    C_t = log Σ_v p(v | y_<t)²

  It is what a token's own log-probability is measured against by
  `losses.wpo_weights`.

  Args:
    hidden: [B, T, D] final hidden states.
    unembedding: [V, D] one row per token of the vocabulary.
    chunk_size: columns whose logits exist at one time; all when None.
    temperature: τ > 0; what the response was sampled with.
    softcap: c > 0 bounds the logits before τ, as c tanh(z / c); None does not.
    start: first column that is wanted, known at trace time.

  Returns:
    [B, T] float32, in nats, from −log V, where p is uniform, to 0. Column 0 and
    the columns before `start` are 0.

  Raises:
    AssertionError: if the shapes do not fit together.
  """
  _check_states(hidden, unembedding)
  first = _first(start, hidden)
  log_softmax = _log_softmax(unembedding, temperature, softcap)

  def chunk_collision(states):
    logprobs = log_softmax(states)
    return jax.nn.logsumexp(2.0 * logprobs, axis=-1)

  return _by_chunks(
      chunk_collision, (hidden[:, first - 1:-1],), chunk_size, first)


def exact_kl(
    hidden: jax.Array,
    unembedding: jax.Array,
    ref_hidden: jax.Array,
    ref_unembedding: jax.Array,
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    start: int = 0,
) -> jax.Array:
  """KL over the vocabulary, where each token was drawn.

    KL_t = Σ_v π(v | y_<t) log(π(v | y_<t) / π_ref(v | y_<t))

  Nothing is estimated: the k1, k2 and k3 estimators of `losses.kl` need one
  sampled token only and are noisy; this needs both distributions. As a loss its
  gradient is that of the KL at each token, given the tokens before it.

  Args:
    hidden: [B, T, D] the policy's final hidden states.
    unembedding: [V, D] the policy's.
    ref_hidden: [B, T, D′] the reference's; the widths may differ. No gradient
      flows through it.
    ref_unembedding: [V, D′] the reference's. No gradient either.
    chunk_size: columns whose logits exist at one time; all when None.
    temperature: τ > 0; divides the logits of both.
    softcap: c > 0 bounds both logits before τ, as c tanh(z / c); None does not.
    start: first column that is wanted, known at trace time.

  Returns:
    [B, T] float32, in nats, 0 at π = π_ref and never below 0 but for rounding.
    Column 0 and the columns before `start` are 0.

  Raises:
    AssertionError: if the shapes do not fit together.
  """
  _check_states(hidden, unembedding)
  _check_states(ref_hidden, ref_unembedding)
  chex.assert_equal_shape_prefix((hidden, ref_hidden), 2)
  chex.assert_equal_shape_prefix((unembedding, ref_unembedding), 1)
  ref_hidden, ref_unembedding = jax.lax.stop_gradient(
      (ref_hidden, ref_unembedding))
  first = _first(start, hidden)
  log_softmax = _log_softmax(unembedding, temperature, softcap)
  ref_log_softmax = _log_softmax(ref_unembedding, temperature, softcap)

  def chunk_kl(states, ref_states):
    logprobs = log_softmax(states)
    ref_logprobs = ref_log_softmax(ref_states)
    return jnp.sum(jnp.exp(logprobs) * (logprobs - ref_logprobs), axis=-1)

  return _by_chunks(
      chunk_kl, (hidden[:, first - 1:-1], ref_hidden[:, first - 1:-1]),
      chunk_size, first)


def _first(start: int, hidden: jax.Array) -> int:
  """The first column that has both a wish and a predecessor; at most T."""
  return min(max(start, 1), hidden.shape[1])


def logits(
    states: jax.Array, unembedding: jax.Array, temperature: float = 1.0,
    softcap: float | None = None,
) -> jax.Array:
  """Logits of what follows each state, [..., V] float32.

  Args:
    states: [..., D] final hidden states.
    unembedding: [V, D].
    temperature: τ > 0; divides the logits.
    softcap: c > 0 bounds the logits before τ, as c tanh(z / c); None does not.
  """
  chex.assert_scalar_positive(temperature)
  states, table, names = _laid_out(states, unembedding)
  # The cast is inside the chunk, so that over the chunks the gradient of a
  # float32 unembedding is summed in float32, whatever the matmul runs in.
  z = jnp.einsum('...d,vd->...v', states, table,
                 preferred_element_type=jnp.float32)
  z = partitioning.constrain(z, *names)
  if softcap is not None:
    chex.assert_scalar_positive(softcap)
    z = softcap * jnp.tanh(z / softcap)
  return z / temperature


def _laid_out(states: jax.Array, table: jax.Array):
  """(states, table, names of the logits' dimensions) for the matmul.

  Over fsdp, rows of states and parts of the table are split. One of the two
  must be gathered: whichever is smaller. Where it is the states, each device
  has all rows' logits for its part of the vocabulary.
  """
  rows = ('batch', 'length')[:states.ndim - 1]
  table, whole = table.astype(states.dtype), ('vocab', None)
  if not partitioning.splits_weights():
    return states, table, (*rows, 'vocab')
  if states.size >= table.size or not partitioning.divides(
      'vocab_shard', table.shape[0]):
    return (states, partitioning.reshard(
        table, whole, partitioning.UNEMBEDDING), (*rows, 'vocab'))
  gathered = ('rows', None)[:states.ndim - 1]
  return (partitioning.reshard(states, (*gathered, None), (*rows, None)),
          table, (*gathered, 'vocab_shard'))


def _log_softmax(
    unembedding: jax.Array, temperature: float, softcap: float | None
) -> Callable[[jax.Array], jax.Array]:
  """The function from states [..., D] to log-probabilities [..., V]."""
  return lambda states: jax.nn.log_softmax(
      logits(states, unembedding, temperature, softcap))


def _by_chunks(
    chunk_fn: Callable[..., jax.Array],
    inputs: tuple[jax.Array, ...],
    chunk_size: int | None,
    first: int,
) -> jax.Array:
  """Maps [B, C, ...] to [B, C] along time; prepends `first` zero columns."""
  if chunk_size is not None:
    chex.assert_scalar_positive(chunk_size)
  length = inputs[0].shape[1]
  chunk_size = min(chunk_size or length, length)
  # Of a length that the mesh splits, a block has even parts, padded if need be.
  if chunk_size < length or partitioning.num_shards('length') > 1:
    out = columns.by_blocks(chunk_fn, inputs, chunk_size)
  else:
    # The loss is what comes next: recomputing one chunk would save nothing.
    out = chunk_fn(*inputs)
  return jnp.pad(out, ((0, 0), (first, 0)))


def _check_states(hidden: jax.Array, unembedding: jax.Array) -> None:
  """Float hidden states [B, T, D] and a float unembedding [V, D]."""
  chex.assert_rank((hidden, unembedding), (3, 2))
  chex.assert_shape(unembedding, (None, hidden.shape[-1]))
  chex.assert_type((hidden, unembedding), float)
