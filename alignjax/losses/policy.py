"""Losses of policy-gradient training, one value per token.

Masks stay with the caller, which takes the mean over response tokens. Under a
masked token anything finite may lie: no loss here turns it into a NaN.
"""

import chex
import jax
import jax.numpy as jnp

# In nats. Past e²⁰ the ratio says only that something broke; unclamped, it
# overflows at e⁸⁸ and its gradient is NaN even under a mask.
_MAX_LOG_RATIO = 20.0


def ppo_clip_loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    *,
    clip: float = 0.2,
) -> jax.Array:
  """Clipped surrogate loss of proximal policy optimisation.

    ρ_t = π(y_t | y_<t) / π_old(y_t | y_<t)
    L_t = −min(ρ_t A_t, clamp(ρ_t, 1 − ε, 1 + ε) A_t)

  Schulman et al. (2017), https://arxiv.org/abs/1707.06347, eq. 7. One
  departure: log ρ is clamped to ±20 nats, so that ρ cannot overflow.

  Args:
    logprobs: [B, T] the policy's log-probability of each token, in nats, at the
      sampling temperature.
    old_logprobs: [B, T] the same when the rollout was made. No gradient flows
      through it.
    advantages: [B, T] A, whitened as a rule. No gradient flows through it.
    clip: ε, in (0, 1).

  Returns:
    [B, T] float32 losses. At π = π_old each is −A and its gradient with respect
    to `logprobs` is −A.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  inputs = (logprobs, old_logprobs, advantages)
  _check(inputs)
  logprobs, old_logprobs, advantages = (
      x.astype(jnp.float32) for x in inputs)
  old_logprobs, advantages = jax.lax.stop_gradient((old_logprobs, advantages))

  log_ratio = jnp.clip(
      logprobs - old_logprobs, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  ratio = jnp.exp(log_ratio)
  clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
  return jnp.maximum(-ratio * advantages, -clipped * advantages)


def value_clip_loss(
    values: jax.Array,
    old_values: jax.Array,
    returns: jax.Array,
    *,
    clip: float = 0.2,
) -> jax.Array:
  """Squared error of the value, the worse of it and of its clipped self.

    V′_t = V_old,t + clamp(V_t − V_old,t, −ε, ε)
    L_t = ½ max((V_t − R_t)², (V′_t − R_t)²)

  The value loss of the PPO implementation of Dhariwal et al. (2017),
  https://github.com/openai/baselines; it is not in the PPO paper.

  Args:
    values: [B, T] V before each token, in units of reward.
    old_values: [B, T] the same when the rollout was made. No gradient flows
      through it.
    returns: [B, T] R, what is to be predicted. No gradient flows through it.
    clip: ε > 0, in units of reward.

  Returns:
    [B, T] float32 losses in squared reward, never below ½(V − R)².

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  inputs = (values, old_values, returns)
  _check(inputs)
  values, old_values, returns = (x.astype(jnp.float32) for x in inputs)
  old_values, returns = jax.lax.stop_gradient((old_values, returns))

  clipped = old_values + jnp.clip(values - old_values, -clip, clip)
  return 0.5 * jnp.maximum(
      jnp.square(values - returns), jnp.square(clipped - returns))


def policy_entropy(logits: jax.Array) -> jax.Array:
  """Entropy of a policy over its vocabulary.

    H = −Σ_v p_v log p_v,  p = softmax(logits)

  For whole sequences use `logprobs.token_entropy`, which holds no logits.

  Args:
    logits: [..., V] unnormalised log-probabilities; −inf forbids a token.

  Returns:
    [...] float32 entropies in nats, from 0 to log V, which uniform logits
    reach.

  Raises:
    AssertionError: if the logits are not floats.
  """
  chex.assert_type(logits, float)
  logprobs = jax.nn.log_softmax(logits.astype(jnp.float32))
  probs = jnp.exp(logprobs)
  return -jnp.sum(probs * jnp.where(probs > 0, logprobs, 0.0), axis=-1)


def _check(inputs: tuple[jax.Array, ...]) -> None:
  """Float arrays of one [B, T] shape."""
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)
