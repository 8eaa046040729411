"""How far a policy has moved from its reference, and how hard to pull it back.

`token_kl` is the divergence itself, over the whole vocabulary. The k1, k2 and
k3 estimators see one sampled token and are named after Schulman (2020),
http://joschu.net/blog/kl-approx.html. With d = log π(y) − log π_ref(y):

    name  value            as a penalty in the reward   as a loss to minimise
    k1    d                unbiased                     gradient is 0 on average
    k2    d²/2             biased, low variance         gradient of the KL
    k3    exp(−d) − 1 + d  unbiased, never negative     biased gradient

The last column holds for y drawn from π, and for the gradient taken through
`logprobs` alone: that a penalty works as a reward does not make it a loss.
It holds token by token, at prefixes taken as given. In a reward, a token also
answers for the KL of the tokens after it; as a loss, it does not.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# Largest relative error that moves the coefficient (Ziegler et al. 2019, 2.2).
_MAX_ERROR = 0.2
# How far from its target a KL still counts for more.
_MAX_RATIO = 4.0


def token_kl(logits: jax.Array, ref_logits: jax.Array) -> jax.Array:
  """KL divergence of the policy from the reference over the vocabulary.

    KL(π ‖ π_ref) = Σ_v π_v (log π_v − log π_ref,v)

  For whole sequences use `logprobs.exact_kl`, which holds no logits.

  Args:
    logits: [..., V] the policy's unnormalised log-probabilities; −inf forbids a
      token.
    ref_logits: [..., V] the reference's. No gradient flows through it.

  Returns:
    [...] float32 divergences in nats: 0 at π = π_ref, and infinite where the
    policy may emit what the reference forbids.

  Raises:
    AssertionError: if the inputs are not float arrays of one shape.
  """
  chex.assert_equal_shape((logits, ref_logits))
  chex.assert_type((logits, ref_logits), float)
  logprobs = jax.nn.log_softmax(logits.astype(jnp.float32))
  ref_logprobs = jax.lax.stop_gradient(
      jax.nn.log_softmax(ref_logits.astype(jnp.float32)))
  probs = jnp.exp(logprobs)
  log_ratio = jnp.where(probs > 0, logprobs - ref_logprobs, 0.0)
  return jnp.sum(probs * log_ratio, axis=-1)


def kl_k1(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
  """The log-ratio of each sampled token: the KL penalty of RLHF.

    k1 = log π(y_t | y_<t) − log π_ref(y_t | y_<t)

  Schulman (2020), http://joschu.net/blog/kl-approx.html. Not a loss: its
  gradient is that of log π(y_t), which is 0 on average and does not see π_ref.

  Args:
    logprobs: [B, T] the policy's log-probabilities, in nats.
    ref_logprobs: [B, T] the reference's. No gradient flows through it.

  Returns:
    [B, T] float32 estimates in nats, of either sign; their mean over tokens
    drawn from π is the KL.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  return _log_ratio(logprobs, ref_logprobs)


def kl_k2(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
  """Half the squared log-ratio of each sampled token.

    k2 = ½ d²,  d = log π(y_t | y_<t) − log π_ref(y_t | y_<t)

  Schulman (2020), http://joschu.net/blog/kl-approx.html. Of the three the one
  to take as a loss: its gradient is d times that of log π(y_t), as the KL's is.

  Args:
    logprobs: [B, T] the policy's log-probabilities, in nats.
    ref_logprobs: [B, T] the reference's. No gradient flows through it.

  Returns:
    [B, T] float32 estimates, at least 0; the mean of their gradients over
    tokens drawn from π is the gradient of the KL.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  return 0.5 * jnp.square(_log_ratio(logprobs, ref_logprobs))


def kl_k3(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
  """The log-ratio of each sampled token, made non-negative at no bias.

    k3 = exp(−d) − 1 + d,  d = log π(y_t | y_<t) − log π_ref(y_t | y_<t)

  Schulman (2020), http://joschu.net/blog/kl-approx.html. As a loss its gradient
  is on average that of KL(π_ref ‖ π), the divergence turned round.

  Args:
    logprobs: [B, T] the policy's log-probabilities, in nats.
    ref_logprobs: [B, T] the reference's. No gradient flows through it.

  Returns:
    [B, T] float32 estimates in nats, at least 0; their mean over tokens drawn
    from π is the KL. Infinite for d < −88, where float32 ends.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  log_ratio = _log_ratio(logprobs, ref_logprobs)
  # expm1 keeps the digits that exp(−d) − 1 loses near the reference.
  return jnp.expm1(-log_ratio) + log_ratio


class AdaptiveKLState(NamedTuple):
  """What an adaptive KL controller remembers."""

  coef: jax.Array  # [] float32, weight of the KL penalty.
  level: jax.Array | None = None  # [] float32, what it settles at; with a gain.


class AdaptiveKL(NamedTuple):
  """A pair of pure functions that steer the KL coefficient."""

  init: Callable[[], AdaptiveKLState]
  update: Callable[
      [AdaptiveKLState, jax.Array, int | jax.Array], AdaptiveKLState]


def adaptive_kl(
    init: float, target: float, horizon: float = 10_000.0, *,
    gain: float = 0.0,
) -> AdaptiveKL:
  """Controller that holds the KL near a target.

    e = clamp(KL / target − 1, −0.2, 0.2)
    level ← level (1 + e n / horizon)
    coef ← level · clamp(KL / target, ¼, 4)^gain

  Ziegler et al. (2019), https://arxiv.org/abs/1909.08593, section 2.2, whose
  K_β of 0.1 is n / horizon here and which has no gain: its coefficient is the
  level. That only ever sums errors up, and a policy answers late: the KL
  overshoots a target, by the more the shorter the horizon. With a gain the
  coefficient answers at once to where the KL is, which damps that, and the
  level finds what holds it there.

  Args:
    init: first coefficient, above 0; 0.01 to 0.1 is usual.
    target: the KL to hold, in nats per sequence, above 0; 6 to 10 is usual
      for responses of a hundred tokens and more.
    horizon: sequences over which the greatest error, if it lasts, scales the
      level by about exp(±0.2). Must exceed n / 5, else it can reach 0.
    gain: at least 0; 1 makes the coefficient proportional to the KL.

  Returns:
    `init() -> state` and `update(state, kl, num_sequences) -> state`, where
    `kl` is [] in nats, summed over tokens and averaged over the n sequences.
    The coefficient stands still at KL = target.

  Raises:
    AssertionError: if a setting is not a positive number (the gain may be 0),
      or `kl` not a scalar.
  """
  for setting in (init, target, horizon):
    chex.assert_scalar_positive(setting)
  chex.assert_scalar_non_negative(gain)

  def init_fn() -> AdaptiveKLState:
    # Two arrays, since one may not be donated twice.
    first = lambda: jnp.full((), init, jnp.float32)
    return AdaptiveKLState(first(), first() if gain else None)

  def update_fn(
      state: AdaptiveKLState,
      kl: jax.Array,
      num_sequences: int | jax.Array,
  ) -> AdaptiveKLState:
    chex.assert_rank(kl, 0)
    kl = jax.lax.stop_gradient(jnp.asarray(kl, jnp.float32))
    error = jnp.clip(kl / target - 1.0, -_MAX_ERROR, _MAX_ERROR)
    change = 1.0 + error * num_sequences / horizon
    if not gain:
      return AdaptiveKLState(state.coef * change)
    level = state.level * change
    near = jnp.clip(kl / target, 1.0 / _MAX_RATIO, _MAX_RATIO)
    return AdaptiveKLState(level * near**gain, level)

  return AdaptiveKL(init_fn, update_fn)


def _log_ratio(logprobs: jax.Array, ref_logprobs: jax.Array) -> jax.Array:
  """d [B, T] in float32 nats; no gradient to the reference."""
  inputs = (logprobs, ref_logprobs)
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)
  logprobs, ref_logprobs = (x.astype(jnp.float32) for x in inputs)
  return logprobs - jax.lax.stop_gradient(ref_logprobs)
