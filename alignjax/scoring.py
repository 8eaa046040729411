"""What models say of whole rows: the training forward, read in several ways.

Objectives and annotators both call these, so that a policy and its reference
are read by the same code. `start` is the first column that is wanted (known at
trace time), and `chunk_size` how many columns are unembedded at a time; see
`alignjax.logprobs`.

`rows` is what the model reads instead of `tokens` where responses share rows
(`types.Rows`). What it says there is filed under the columns of `tokens`, so
that the result is that of reading each response in a row of its own. What is
filed is one number per token; hidden states never move.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignjax import logprobs as logprobs_lib
from alignjax import partitioning
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.types import Rows


def token_logprobs(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array, *,
    rows: Rows | None = None, start: int = 0, chunk_size: int | None = None,
    temperature: float = 1.0,
) -> jax.Array:
  """[..., T] log-probability in nats of each token given those before it.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [..., T] int32: [B, T], or [B, K, T].
    attention_mask: [..., T] bool.
    rows: what the model reads; None is `tokens`, each row by itself.
    start: columns before it are not unembedded and come out 0.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits; what the response was sampled with.

  Returns:
    [..., T] float32, at most 0; column 0 is 0.
  """
  return _of_tokens(
      (logprobs_lib.token_logprobs,), model, params, tokens, attention_mask,
      rows, start, chunk_size, temperature)[0]


def token_logprobs_and_entropy(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array, *,
    rows: Rows | None = None, start: int = 0, chunk_size: int | None = None,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """`token_logprobs`, and the entropy of what each token was drawn from.

  The arguments are those of `token_logprobs`.

  Returns:
    Two [..., T] float32 arrays in nats, of one forward pass.
  """
  return _of_tokens(
      (logprobs_lib.token_logprobs, _unread(logprobs_lib.token_entropy)),
      model, params, tokens, attention_mask, rows, start, chunk_size,
      temperature)


def token_logprobs_and_kl(
    model: CausalLM, params, ref_model: CausalLM, ref_params,
    tokens: jax.Array, attention_mask: jax.Array, *, rows: Rows | None = None,
    start: int = 0, chunk_size: int | None = None, temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Both models' `token_logprobs`, and the divergence between them.

  Args:
    model: the policy.
    params: its parameters.
    ref_model: the reference, of the policy's vocabulary.
    ref_params: its parameters.
    tokens: [..., T] int32.
    attention_mask: [..., T] bool.
    rows: what the models read; None is `tokens`, each row by itself.
    start: columns before it are not unembedded and come out 0.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits of both.

  Returns:
    Three [..., T] float32 arrays in nats, of one forward pass each: log π,
    log π_ref, and KL(π ‖ π_ref) over the vocabulary at each token.
  """
  read, mask, shared = _read(tokens, attention_mask, rows)
  states = [(m.hidden(p, read, mask, **shared), m.unembedding(p))
            for m, p in ((model, params), (ref_model, ref_params))]

  def statistics(read, *hidden, **settings):
    pairs = [(h, u) for h, (_, u) in zip(hidden, states, strict=True)]
    return *(logprobs_lib.token_logprobs(*pair, read, **settings)
             for pair in pairs), logprobs_lib.exact_kl(
                 *pairs[0], *pairs[1], **settings)

  return _said(
      statistics, read, [h for h, _ in states], tokens, attention_mask, rows,
      start, chunk_size=chunk_size, temperature=temperature,
      softcap=model.config.logit_softcap)


def response_logprobs(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array,
    loss_mask: jax.Array, *, rows: Rows | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
  """[B] log-probability in nats of each response, summed over its tokens.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, T] int32, prompt and response.
    attention_mask: [B, T] bool.
    loss_mask: [B, T] bool, the response's tokens, EOS included.
    rows: what the model reads; None is `tokens`, each row by itself.
    chunk_size: columns whose logits exist at one time; None is all of them.

  Returns:
    [B] float32, at most 0; 0 for a response without tokens.
  """
  logprobs = token_logprobs(
      model, params, tokens, attention_mask, rows=rows, chunk_size=chunk_size)
  return sum_tokens(logprobs, loss_mask)


def pair_token_logprobs(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array,
    loss_mask: jax.Array, *, rows: Rows | None = None,
    chunk_size: int | None = None, temperature: float = 1.0,
) -> jax.Array:
  """[B, K, T] log-probability in nats of each response token, 0 elsewhere.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, K, T] int32; K = 2 for pairs, chosen first.
    attention_mask: [B, K, T] bool.
    loss_mask: [B, K, T] bool, the response's tokens, EOS included.
    rows: what the model reads; None is `tokens`, each row by itself.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits; what the responses were sampled with.

  Returns:
    [B, K, T] float32. Reduce it over T with `sum_tokens` or `mean_tokens`.
  """
  logprobs = token_logprobs(
      model, params, tokens, attention_mask, rows=rows, chunk_size=chunk_size,
      temperature=temperature)
  return jnp.where(loss_mask, logprobs, 0.0)


def pair_token_collision(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array,
    loss_mask: jax.Array, *, rows: Rows | None = None,
    chunk_size: int | None = None, temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """`pair_token_logprobs`, and log Σ_v p(v)² of what each was drawn from.

  The arguments are those of `pair_token_logprobs`.

  Returns:
    Two [B, K, T] float32 arrays in nats, 0 outside the responses, of one
    forward pass.
  """
  both = _of_tokens(
      (logprobs_lib.token_logprobs, _unread(logprobs_lib.token_collision)),
      model, params, tokens, attention_mask, rows, 0, chunk_size, temperature)
  return tuple(jnp.where(loss_mask, x, 0.0) for x in both)


def sum_tokens(logprobs: jax.Array, mask: jax.Array) -> jax.Array:
  """[...] log-probability of each response in nats: [..., T] summed."""
  return jnp.sum(logprobs, axis=-1, where=mask)


def mean_tokens(logprobs: jax.Array, mask: jax.Array) -> jax.Array:
  """[...] nats per token of each response; 0 for one without tokens."""
  count = jnp.sum(mask, axis=-1)
  return sum_tokens(logprobs, mask) / jnp.maximum(count, 1)


def rewards(
    model: ScalarModel, params, tokens: jax.Array, attention_mask: jax.Array,
    *, rows: Rows | None = None,
) -> jax.Array:
  """[...] reward of each row: the head's number on its LAST real token.

  That is EOS if it was written; never padding, on whichever side it stands.

  Args:
    model: a decoder with a scalar head.
    params: its parameters.
    tokens: [..., T] int32: [B, T], or [B, K, T].
    attention_mask: [..., T] bool.
    rows: what the model reads; None is `tokens`, each row by itself.
  """
  scalars = _scalars(model, params, tokens, attention_mask, rows)
  columns = jnp.arange(tokens.shape[-1])
  last = jnp.max(jnp.where(attention_mask, columns, 0), axis=-1, keepdims=True)
  return jnp.sum(scalars, axis=-1, where=columns == last)


def token_values(
    model: ScalarModel, params, tokens: jax.Array, attention_mask: jax.Array,
    *, rows: Rows | None = None,
) -> jax.Array:
  """[B, T] value BEFORE each token: the head's number one column earlier.

  Column 0, before which nothing was read, is 0. The arguments are those of
  `rewards`.
  """
  scalars = _scalars(model, params, tokens, attention_mask, rows)
  return jnp.pad(scalars[:, :-1], ((0, 0), (1, 0)))


def _scalars(model, params, tokens, attention_mask, rows):
  """[..., T] the head's number on the hidden state of each column."""
  read, mask, shared = _read(tokens, attention_mask, rows)
  return _filed(model.scalars(params, read, mask, **shared), tokens, rows)


def _of_tokens(
    statistics: tuple[Callable, ...], model, params, tokens, attention_mask,
    rows, start, chunk_size, temperature):
  """What functions of `alignjax.logprobs` say of the tokens, [..., T] each."""
  read, mask, shared = _read(tokens, attention_mask, rows)
  hidden = model.hidden(params, read, mask, **shared)
  unembedding = model.unembedding(params)
  return _said(
      lambda read, hidden, **settings: tuple(
          statistic(hidden, unembedding, read, **settings)
          for statistic in statistics),
      read, [hidden], tokens, attention_mask, rows, start,
      chunk_size=chunk_size, temperature=temperature,
      softcap=model.config.logit_softcap)


def _said(
    statistics: Callable[..., tuple[jax.Array, ...]], read, hidden, tokens,
    attention_mask, rows, start, **settings):
  """What statistics of the tokens read say, [..., T] each; see `_of_tokens`.

  Args:
    statistics: from tokens [R, S], hidden states [R, S, D] each and settings to
      arrays [R, S].
    read: [R, S].
    hidden: one or more of [R, S, D].
    tokens: [..., T].
    attention_mask: [..., T].
    rows: what was read.
    start: the first column of `tokens` that is wanted.
    **settings: for `statistics`.
  """
  # A row that a mesh splits is unembedded whole: picking would gather states.
  if (rows is None or rows.wanted is None
      or partitioning.num_shards('length') > 1):
    first = start if rows is None else min(start, rows.start)
    said = statistics(read, *hidden, start=first, **settings)
  else:
    picked, *states = _picked(read, hidden, rows)
    said = (_put_back(x[:, 1:], rows)
            for x in statistics(picked, *states, **settings))
  said = tuple(_filed(x, tokens, rows) for x in said)
  return said if rows is None else _wanted(said, attention_mask, start)


def _picked(read, hidden, rows: Rows) -> list[jax.Array]:
  """Wanted tokens, [C, 1 + N], and what predicts them, [C, N + 1, D] each.

  As everywhere, a state stands one column before the token that it predicts: so
  the first token and the last states are fillers.
  """
  num_cells = rows.wanted.shape[0]
  by_cell = lambda x: x.reshape(num_cells, -1, *x.shape[2:])
  last = rows.tokens.shape[1] * rows.tokens.shape[2] - 1
  wanted = jnp.minimum(rows.wanted, last)
  end = jnp.zeros((num_cells, 1), wanted.dtype)
  tokens_at = jnp.concatenate([end, wanted], axis=1)
  states_at = jnp.concatenate([wanted - 1, end], axis=1)
  return [jnp.take_along_axis(by_cell(read), tokens_at, axis=1)] + [
      jnp.take_along_axis(by_cell(h), states_at[..., None], axis=1)
      for h in hidden]


def _put_back(said: jax.Array, rows: Rows) -> jax.Array:
  """From the wanted tokens, [C, N], to all that were read, [R, S]; 0 else."""
  num_cells, num_rows, length = rows.tokens.shape
  cells = jnp.arange(num_cells)[:, None]
  zeros = jnp.zeros((num_cells, num_rows * length), said.dtype)
  spread = zeros.at[cells, rows.wanted].set(said, mode='drop')
  return spread.reshape(-1, length)


def _wanted(said, attention_mask, start):
  """0 where nothing was asked: what is read there is another response's."""
  # A response's first token may stand behind the last of another.
  columns = jnp.arange(attention_mask.shape[-1])
  is_wanted = attention_mask & (columns >= max(start, 1))
  return tuple(jnp.where(is_wanted, x, 0.0) for x in said)


def _unread(statistic: Callable) -> Callable:
  """A statistic of the whole distribution, which no token is looked up in."""
  return lambda hidden, unembedding, tokens, **settings: statistic(
      hidden, unembedding, **settings)


def _read(tokens, attention_mask, rows: Rows | None):
  """What the model reads, [R, S]: tokens, mask, and how they share rows."""
  flat = lambda x: x.reshape(-1, x.shape[-1])  # Rows stay on their device.
  if rows is None:
    return flat(tokens), flat(attention_mask), {}
  return flat(rows.tokens), flat(rows.attention_mask), dict(
      segments=flat(rows.segments), branches=flat(rows.branches),
      positions=flat(rows.positions))


def _filed(said: jax.Array, tokens: jax.Array, rows: Rows | None) -> jax.Array:
  """From what was read, [R, S], to the columns of `tokens`, [..., T]."""
  if rows is None:
    return said.reshape(tokens.shape)
  num_cells = rows.index.shape[0]  # No column looks beyond its own cell.
  found = jnp.take_along_axis(
      said.reshape(num_cells, -1), rows.index.reshape(num_cells, -1), axis=1)
  return found.reshape(tokens.shape)
