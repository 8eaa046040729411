"""What changes how much a pair, or a token of it, counts in a preference loss.

Weights multiply a loss; the log-probabilities take the place of a plain sum
over the response. Neither is a loss, and any preference loss goes with them.
"""

import chex
import jax
import jax.numpy as jnp


def wpo_weights(
    chosen_token_logprobs: jax.Array,
    rejected_token_logprobs: jax.Array,
    chosen_collision: jax.Array,
    rejected_collision: jax.Array,
    chosen_mask: jax.Array,
    rejected_mask: jax.Array,
) -> jax.Array:
  """How likely the policy is to write a pair: its weight in the loss.

    log w(y) = 1/|y| Σ_t [log π(y_t | y_<t) − log Σ_v π(v | y_<t)²]
    W = min(1, w(y_w) w(y_l))

  Zhou et al. (2024), https://arxiv.org/abs/2406.11827. The sum over the
  vocabulary is the mean probability of a token that the policy draws itself, so
  that its own responses weigh about 1 however unsure it is. The plain product
  can pass 1; the bound holds it there.

  Args:
    chosen_token_logprobs: [B, T] the policy's log-probability of each token of
      the preferred response, in nats.
    rejected_token_logprobs: [B, T′] the same of the dispreferred one.
    chosen_collision: [B, T] log Σ_v π², as `logprobs.token_collision` gives it.
    rejected_collision: [B, T′] the same for the dispreferred one.
    chosen_mask: [B, T] booleans, the response's tokens.
    rejected_mask: [B, T′] the same for the dispreferred one.

  Returns:
    [B] float32 weights in [0, 1], without gradient; 1 where each token is as
    likely as a draw. A response without tokens counts as likely as a draw.

  Raises:
    AssertionError: if the shapes do not fit, or the types are not float, float
      and bool.
  """
  log_weights = _mean_excess(
      chosen_token_logprobs, chosen_collision, chosen_mask)
  others = _mean_excess(
      rejected_token_logprobs, rejected_collision, rejected_mask)
  chex.assert_equal_shape((log_weights, others))
  return jax.lax.stop_gradient(
      jnp.exp(jnp.minimum(log_weights + others, 0.0)))


def length_desensitized_logprobs(
    token_logprobs: jax.Array,
    mask: jax.Array,
    shared_length: jax.Array,
    *,
    alpha: float,
) -> jax.Array:
  """Log-probability of a response, of which a longer tail counts less.

    log π̂(y) = Σ_{t ≤ l} log π(y_t | y_<t) + α Σ_{t > l} log π(y_t | y_<t)

  Liu et al. (2024), https://arxiv.org/abs/2409.06411. With l the length of the
  pair's shorter response, only the longer one is touched. To be given to
  `dpo_loss` in place of sums, those of the reference included.

  Args:
    token_logprobs: [B, T] log-probability of each token, in nats.
    mask: [B, T] booleans, the response's tokens; the t-th of them is y_t.
    shared_length: [B] ints, l, in tokens.
    alpha: α, from 0 (the tail is cut off) to 1 (it counts in full).

  Returns:
    [B] float32 log-probabilities in nats. With α = 1 they are plain sums, and
    with α = 0 those of the first l tokens.

  Raises:
    AssertionError: if the shapes do not fit, or the types are not float, bool
      and int.
  """
  inputs = (token_logprobs, mask, shared_length)
  chex.assert_rank(inputs, (2, 2, 1))
  chex.assert_equal_shape((token_logprobs, mask))
  chex.assert_equal_shape_prefix((mask, shared_length), 1)
  chex.assert_type(inputs, (float, bool, int))

  is_shared = jnp.cumsum(mask, axis=1) <= shared_length[:, None]
  logprobs = jnp.where(mask, token_logprobs.astype(jnp.float32), 0.0)
  return jnp.sum(jnp.where(is_shared, 1.0, alpha) * logprobs, axis=1)


def _mean_excess(
    logprobs: jax.Array, collision: jax.Array, mask: jax.Array
) -> jax.Array:
  """[B] mean of logprob less collision over the mask; 0 where it is empty."""
  inputs = (logprobs, collision, mask)
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, (float, float, bool))
  excess = logprobs.astype(jnp.float32) - collision.astype(jnp.float32)
  count = jnp.sum(mask, axis=1, dtype=jnp.float32)
  return jnp.sum(excess, axis=1, where=mask) / jnp.maximum(count, 1.0)
