"""Token-level losses of supervised fine-tuning.

Unreduced: the mean over tokens has one denominator for the whole optimizer
step, which no single microbatch knows.
"""

import chex
import jax
import jax.numpy as jnp


def sft_loss(logprobs: jax.Array, loss_mask: jax.Array) -> jax.Array:
  """Cross-entropy of each token that bears loss.

    L_t = −log p(y_t | y_<t)

  Args:
    logprobs: [B, T] log-probability of each token, in nats.
    loss_mask: [B, T] booleans, the tokens that bear loss.

  Returns:
    [B, T] float32 losses in nats, 0 where masked. A token drawn uniformly from
    V others costs log V.

  Raises:
    AssertionError: if the shapes differ, or the types are not float and bool.
  """
  _check(logprobs, loss_mask)
  return jnp.where(loss_mask, -logprobs.astype(jnp.float32), 0.0)


def z_loss(log_normalizers: jax.Array, loss_mask: jax.Array) -> jax.Array:
  """Squared log-normalizer of each token's softmax: keeps logits from drifting.

    L_t = (log Z_t)²,  Z_t = Σ_v exp z_t[v]

  Chowdhery et al. (2022), https://arxiv.org/abs/2204.02311, section 5, where it
  is added with the coefficient 1e-4; here the coefficient is the caller's.

  Args:
    log_normalizers: [B, T] log Z of each token, in nats, as
      `logprobs.token_log_normalizers` gives it.
    loss_mask: [B, T] booleans, the tokens that bear loss.

  Returns:
    [B, T] float32 losses in nats², 0 where masked and where the logits are
    log-probabilities already.

  Raises:
    AssertionError: if the shapes differ, or the types are not float and bool.
  """
  _check(log_normalizers, loss_mask)
  kept = jnp.where(loss_mask, log_normalizers.astype(jnp.float32), 0.0)
  return jnp.square(kept)


def _check(x: jax.Array, mask: jax.Array) -> None:
  """Floats [B, T] under a boolean mask of the same shape."""
  chex.assert_rank((x, mask), 2)
  chex.assert_equal_shape((x, mask))
  chex.assert_type((x, mask), (float, bool))
