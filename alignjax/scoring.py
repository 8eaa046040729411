"""What models say of whole rows: the training forward, read in several ways.

Objectives and annotators both call these, so that a policy and its reference
are read by the same code. `start` is the first column that is wanted (known at
trace time), and `chunk_size` how many columns are unembedded at a time; see
`alignjax.logprobs`.
"""

import jax
import jax.numpy as jnp

from alignjax import logprobs as logprobs_lib
from alignjax.models import CausalLM
from alignjax.models import ScalarModel


def token_logprobs(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array, *,
    start: int = 0, chunk_size: int | None = None, temperature: float = 1.0,
) -> jax.Array:
  """[B, T] log-probability in nats of each token given those before it.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, T] int32.
    attention_mask: [B, T] bool.
    start: columns before it are not unembedded and come out 0.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits; what the response was sampled with.

  Returns:
    [B, T] float32, at most 0; column 0 is 0.
  """
  hidden = model.hidden(params, tokens, attention_mask)
  return logprobs_lib.token_logprobs(
      hidden, model.unembedding(params), tokens, start=start,
      chunk_size=chunk_size, temperature=temperature)


def token_logprobs_and_entropy(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array, *,
    start: int = 0, chunk_size: int | None = None, temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """`token_logprobs`, and the entropy of what each token was drawn from.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, T] int32.
    attention_mask: [B, T] bool.
    start: columns before it are not unembedded and come out 0.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits; what the response was sampled with.

  Returns:
    Two [B, T] float32 arrays in nats, of one forward pass.
  """
  hidden = model.hidden(params, tokens, attention_mask)
  unembedding = model.unembedding(params)
  settings = dict(start=start, chunk_size=chunk_size, temperature=temperature)
  return (
      logprobs_lib.token_logprobs(hidden, unembedding, tokens, **settings),
      logprobs_lib.token_entropy(hidden, unembedding, **settings))


def response_logprobs(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array,
    loss_mask: jax.Array, *, chunk_size: int | None = None,
) -> jax.Array:
  """[B] log-probability in nats of each response, summed over its tokens.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, T] int32, prompt and response.
    attention_mask: [B, T] bool.
    loss_mask: [B, T] bool, the response's tokens, EOS included.
    chunk_size: columns whose logits exist at one time; None is all of them.

  Returns:
    [B] float32, at most 0; 0 for a response without tokens.
  """
  logprobs = token_logprobs(
      model, params, tokens, attention_mask, chunk_size=chunk_size)
  return sum_tokens(logprobs, loss_mask)


def pair_token_logprobs(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array,
    loss_mask: jax.Array, *, chunk_size: int | None = None,
    temperature: float = 1.0,
) -> jax.Array:
  """[B, K, T] log-probability in nats of each response token, 0 elsewhere.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, K, T] int32; K = 2 for pairs, chosen first.
    attention_mask: [B, K, T] bool.
    loss_mask: [B, K, T] bool, the response's tokens, EOS included.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits; what the responses were sampled with.

  Returns:
    [B, K, T] float32. Reduce it over T with `sum_tokens` or `mean_tokens`.
  """
  flat = lambda x: x.reshape(-1, x.shape[-1])  # Rows stay on their device.
  logprobs = token_logprobs(model, params, flat(tokens), flat(attention_mask),
                            chunk_size=chunk_size, temperature=temperature)
  return jnp.where(loss_mask, logprobs.reshape(tokens.shape), 0.0)


def pair_token_collision(
    model: CausalLM, params, tokens: jax.Array, attention_mask: jax.Array,
    loss_mask: jax.Array, *, chunk_size: int | None = None,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """`pair_token_logprobs`, and log Σ_v p(v)² of what each was drawn from.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: [B, K, T] int32.
    attention_mask: [B, K, T] bool.
    loss_mask: [B, K, T] bool.
    chunk_size: columns whose logits exist at one time; None is all of them.
    temperature: divides the logits; what the responses were sampled with.

  Returns:
    Two [B, K, T] float32 arrays in nats, 0 outside the responses, of one
    forward pass.
  """
  flat = lambda x: x.reshape(-1, x.shape[-1])
  hidden = model.hidden(params, flat(tokens), flat(attention_mask))
  unembedding = model.unembedding(params)
  settings = dict(chunk_size=chunk_size, temperature=temperature)
  both = (
      logprobs_lib.token_logprobs(
          hidden, unembedding, flat(tokens), **settings),
      logprobs_lib.token_collision(hidden, unembedding, **settings))
  return tuple(
      jnp.where(loss_mask, x.reshape(tokens.shape), 0.0) for x in both)


def sum_tokens(logprobs: jax.Array, mask: jax.Array) -> jax.Array:
  """[...] log-probability of each response in nats: [..., T] summed."""
  return jnp.sum(logprobs, axis=-1, where=mask)


def mean_tokens(logprobs: jax.Array, mask: jax.Array) -> jax.Array:
  """[...] nats per token of each response; 0 for one without tokens."""
  count = jnp.sum(mask, axis=-1)
  return sum_tokens(logprobs, mask) / jnp.maximum(count, 1)


def rewards(
    model: ScalarModel, params, tokens: jax.Array, attention_mask: jax.Array
) -> jax.Array:
  """[B] reward of each row: the head's number on its LAST real token.

  That is EOS if it was written; never padding, on whichever side it stands.
  """
  scalars = model.scalars(params, tokens, attention_mask)
  columns = jnp.arange(tokens.shape[1])
  last = jnp.max(jnp.where(attention_mask, columns, 0), axis=1)
  is_last = columns == last[:, None]
  return jnp.sum(scalars, axis=1, where=is_last)


def token_values(
    model: ScalarModel, params, tokens: jax.Array, attention_mask: jax.Array
) -> jax.Array:
  """[B, T] value BEFORE each token: the head's number one column earlier.

  Column 0, before which nothing was read, is 0.
  """
  scalars = model.scalars(params, tokens, attention_mask)
  return jnp.pad(scalars[:, :-1], ((0, 0), (1, 0)))
