"""From logits to a token: temperature, top-k, top-p, and keys per token.

Every token is drawn with a key of its own, folded from (run key, prompt id,
sample id, position). So a response does not depend on its place in the batch,
on the mesh, or on who shares the batch with it.
"""

import jax
import jax.numpy as jnp

from alignjax import partitioning


def row_keys(
    key: jax.Array, prompt_id: jax.Array, sample_id: jax.Array
) -> jax.Array:
  """[B] keys, one for each (prompt, sample) pair; `key` is not consumed."""
  fold = lambda p, s: jax.random.fold_in(jax.random.fold_in(key, p), s)
  return jax.vmap(fold)(prompt_id, sample_id)


def filter_logits(
    logits: jax.Array, *, top_k: int = 0, top_p: float = 1.0
) -> jax.Array:
  """Rules out all but the likeliest tokens.

  Args:
    logits: [B, V].
    top_k: keep the k largest; 0 keeps all. Ties with the k-th are kept.
    top_p: keep the fewest tokens whose probability reaches p, in (0, 1]. The
      likeliest token is always kept, and so are ties with the last one.

  Returns:
    [B, V] logits with −inf where a token is ruled out.
  """
  if top_k:
    smallest = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
    logits = jnp.where(logits < smallest, -jnp.inf, logits)
  if top_p < 1.0:
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probs = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = jnp.where(before < top_p, ordered, jnp.inf)
    logits = jnp.where(
        logits < jnp.min(kept, axis=-1, keepdims=True), -jnp.inf, logits)
  return logits


def sample(
    keys: jax.Array, logits: jax.Array, *,
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Draws one token a row, by inverting the cumulative distribution.

  One uniform number a row, where Gumbel noise would take V of them.

  Args:
    keys: [B] PRNG keys, consumed.
    logits: [B, V] float32.
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: see `filter_logits`.
    top_p: see `filter_logits`.

  Returns:
    tokens [B] int32, and their log-probability [B] in nats under the logits
    divided by the temperature (1 if it is 0), before top-k and top-p.
  """
  # Over devices each has its own rows, of the whole vocabulary.
  logits = partitioning.constrain(logits, 'batch', None)
  logits = logits.astype(jnp.float32) / (temperature or 1.0)
  logprobs = jax.nn.log_softmax(logits, axis=-1)
  if temperature == 0:
    tokens = jnp.argmax(logits, axis=-1)
  else:
    kept = filter_logits(logits, top_k=top_k, top_p=top_p)
    probs = jax.nn.softmax(kept, axis=-1)
    # A parallel sum rounds each prefix on its own, so that it may step up at a
    # token without probability: such a token is passed over by name.
    reached = jnp.where(probs > 0, jnp.cumsum(probs, axis=-1), 0.0)
    whole = jnp.max(reached, axis=-1, keepdims=True)
    # Below `whole`, since a float32 uniform is at most 1 − 2⁻²³.
    at = jax.vmap(jax.random.uniform)(keys)[:, None] * whole
    tokens = jnp.argmax(reached > at, axis=-1)
  tokens = tokens.astype(jnp.int32)
  return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
