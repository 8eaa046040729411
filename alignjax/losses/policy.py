"""Losses of policy-gradient training, one value per token.

Masks stay with the caller, which takes the mean over response tokens. Under a
masked token anything finite may lie: no loss here turns it into a NaN. Only
`gspo_loss` is one value per response, and takes the mask.

With ρ = π / π_old they differ in what becomes of a token whose ρ has left the
range [1 − ε, 1 + ε′]:

    loss        the token's gradient
    reinforce   −A, whatever ρ
    ppo_clip    −ρA; 0 where A pushes ρ further out
    gspo        −sA / |y| with one s for the response; 0 as in ppo_clip
    cispo       −min(ρ, 1 + ε′) A: never 0
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
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> jax.Array:
  """Clipped surrogate loss of proximal policy optimisation.

    ρ_t = π(y_t | y_<t) / π_old(y_t | y_<t)
    L_t = −min(ρ_t A_t, clamp(ρ_t, 1 − ε, 1 + ε′) A_t)
    L_t ← min(L_t, −c A_t)  where A_t < 0, if c is given

  Schulman et al. (2017), https://arxiv.org/abs/1707.06347, eq. 7. A range that
  is higher than it is low, ε′ > ε, is that of Yu et al. (2025),
  https://arxiv.org/abs/2503.14476; the second clip is that of Ye et al. (2019),
  https://arxiv.org/abs/1912.09729. One departure: log ρ is clamped to ±20 nats,
  so that ρ cannot overflow.

  Args:
    logprobs: [B, T] the policy's log-probability of each token, in nats, at the
      sampling temperature.
    old_logprobs: [B, T] the same when the rollout was made. No gradient flows
      through it.
    advantages: [B, T] A, whitened as a rule. No gradient flows through it.
    clip: ε, in (0, 1).
    clip_high: ε′ > 0, how far ρ may rise; ε when None. 0.28 lets unlikely
      tokens grow.
    dual_clip: c > 1, the ratio past which a bad token costs no more; no bound
      when None. 3 is usual.

  Returns:
    [B, T] float32 losses. At π = π_old each is −A and its gradient with respect
    to `logprobs` is −A.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape, or
      `dual_clip` is not above 1.
  """
  inputs = (logprobs, old_logprobs, advantages)
  _check(inputs)
  logprobs, old_logprobs, advantages = (
      x.astype(jnp.float32) for x in inputs)
  old_logprobs, advantages = jax.lax.stop_gradient((old_logprobs, advantages))

  loss = _clipped_surrogate(
      _ratio(logprobs - old_logprobs), advantages, clip,
      clip if clip_high is None else clip_high)
  if dual_clip is None:
    return loss
  chex.assert_scalar_in(dual_clip, 1.0, float('inf'), included=False)
  return jnp.where(
      advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)


def reinforce_loss(logprobs: jax.Array, advantages: jax.Array) -> jax.Array:
  """Plain policy gradient: each token's log-probability, by its advantage.

    L_t = −A_t log π(y_t | y_<t)

  Williams (1992), https://doi.org/10.1007/BF00992696. For responses that the
  policy itself has just sampled: nothing here corrects for an older one.

  Args:
    logprobs: [B, T] the policy's log-probability of each token, in nats, at the
      sampling temperature.
    advantages: [B, T] A. No gradient flows through it.

  Returns:
    [B, T] float32 losses, whose gradient with respect to `logprobs` is −A:
    that of `ppo_clip_loss` at π = π_old.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  inputs = (logprobs, advantages)
  _check(inputs)
  logprobs, advantages = (x.astype(jnp.float32) for x in inputs)
  return -jax.lax.stop_gradient(advantages) * logprobs


def gspo_loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    *,
    clip: float = 3e-4,
    clip_high: float = 4e-4,
) -> jax.Array:
  """Clipped surrogate loss of one ratio per response.

    s = exp(1/|y| Σ_t log(π(y_t | y_<t) / π_old(y_t | y_<t)))
    L = −min(s A, clamp(s, 1 − ε, 1 + ε′) A)

  Zheng et al. (2025), https://arxiv.org/abs/2507.18071. A mean of log-ratios
  moves far less than one of them does, hence the narrow range. One departure:
  log s is clamped to ±20 nats.

  Args:
    logprobs: [B, T] the policy's log-probability of each token, in nats, at the
      sampling temperature.
    old_logprobs: [B, T] the same when the rollout was made. No gradient flows
      through it.
    advantages: [B] A, one per response. No gradient flows through it.
    mask: [B, T] booleans, the response's tokens, |y| of them.
    clip: ε, in (0, 1).
    clip_high: ε′ > 0.

  Returns:
    [B] float32 losses, 0 for a row without a response. At π = π_old each is −A
    and its gradient with respect to a response token's `logprobs` is −A / |y|.

  Raises:
    AssertionError: if the shapes do not fit, or the types are not float, float,
      float and bool.
  """
  inputs = (logprobs, old_logprobs, advantages, mask)
  chex.assert_rank(inputs, (2, 2, 1, 2))
  chex.assert_equal_shape((logprobs, old_logprobs, mask))
  chex.assert_equal_shape_prefix((logprobs, advantages), 1)
  chex.assert_type(inputs, (float, float, float, bool))
  logprobs, old_logprobs, advantages = (
      x.astype(jnp.float32) for x in inputs[:3])
  old_logprobs, advantages = jax.lax.stop_gradient((old_logprobs, advantages))

  log_ratio = jnp.where(mask, logprobs - old_logprobs, 0.0)
  length = jnp.sum(mask, axis=1, dtype=jnp.float32)
  ratio = _ratio(jnp.sum(log_ratio, axis=1) / jnp.maximum(length, 1.0))
  loss = _clipped_surrogate(ratio, advantages, clip, clip_high)
  return jnp.where(length > 0, loss, 0.0)


def cispo_loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    *,
    clip_high: float = 4.0,
) -> jax.Array:
  """Policy gradient whose importance weight is clipped, and no token with it.

    ρ_t = π(y_t | y_<t) / π_old(y_t | y_<t)
    L_t = −sg(min(ρ_t, 1 + ε′)) A_t log π(y_t | y_<t)

  MiniMax (2025), https://arxiv.org/abs/2506.13585, eq. 4 and 5, without their
  lower bound, which they leave open too; sg stops the gradient. TRL's
  `epsilon_high` is the whole bound, 1 + ε′ here. One departure: log ρ is
  clamped to ±20 nats.

  Args:
    logprobs: [B, T] the policy's log-probability of each token, in nats, at the
      sampling temperature.
    old_logprobs: [B, T] the same when the rollout was made. No gradient flows
      through it.
    advantages: [B, T] A. No gradient flows through it.
    clip_high: ε′ > 0. The paper names no number; 4 bounds the weight by 5.

  Returns:
    [B, T] float32 losses. The gradient with respect to `logprobs` is
    −min(ρ, 1 + ε′) A, and nowhere 0 unless A is.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  weights = importance_weights(logprobs, old_logprobs, cap=1.0 + clip_high)
  _check((logprobs, advantages))
  return reinforce_loss(logprobs, weights * advantages.astype(jnp.float32))


def importance_weights(
    logprobs: jax.Array, sampler_logprobs: jax.Array, *, cap: float = 2.0
) -> jax.Array:
  """Weights that correct for a sampler that is not quite the trained policy.

    w_t = min(π(y_t | y_<t) / π_sampler(y_t | y_<t), C)

  Yao et al. (2025), https://fengyao.notion.site/off-policy-rl. To multiply a
  token's loss with, where responses were drawn by another program, in another
  precision, or from parameters a few steps old. One departure: the log-ratio is
  clamped to ±20 nats.

  Args:
    logprobs: [B, T] log-probabilities by the forward pass of training, in nats,
      before any update on these responses.
    sampler_logprobs: [B, T] those that the sampler drew with.
    cap: C ≥ 1. It bounds the variance, at the price of a small bias.

  Returns:
    [B, T] float32 weights in (0, C], without gradient; 1 where the two agree.

  Raises:
    AssertionError: if the inputs are not float arrays of one [B, T] shape.
  """
  inputs = (logprobs, sampler_logprobs)
  _check(inputs)
  logprobs, sampler_logprobs = jax.lax.stop_gradient(
      tuple(x.astype(jnp.float32) for x in inputs))
  return jnp.minimum(_ratio(logprobs - sampler_logprobs), cap)


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


def _ratio(log_ratio: jax.Array) -> jax.Array:
  """The exponential, held between e⁻²⁰ and e²⁰."""
  return jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def _clipped_surrogate(
    ratio: jax.Array, advantages: jax.Array, clip: float, clip_high: float
) -> jax.Array:
  """−min(ρA, clamp(ρ, 1 − ε, 1 + ε′) A), element by element."""
  clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip_high)
  return jnp.maximum(-ratio * advantages, -clipped * advantages)


def _check(inputs: tuple[jax.Array, ...]) -> None:
  """Float arrays of one [B, T] shape."""
  chex.assert_rank(inputs, 2)
  chex.assert_equal_shape(inputs)
  chex.assert_type(inputs, float)
