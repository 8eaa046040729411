"""Sums, means and variances over the elements that a boolean mask keeps.

What lies under a masked element never matters, not even a NaN: it is replaced
before any arithmetic, so that neither value nor gradient can carry it. With

    x    = [3., 5., nan]
    mask = [T,  T,  F ]

the sum is 8, the mean 4, the variance 2 and the whitened row [−0.71, 0.71, 0].
"""

import chex
import jax
import jax.numpy as jnp

# Keeps the whitening of a constant finite.
_EPSILON = 1e-8


def masked_sum(
    x: jax.Array,
    mask: jax.Array,
    axis: int | tuple[int, ...] | None = None,
) -> jax.Array:
  """Sum of the elements that the mask keeps.

  Args:
    x: [...] floats, any rank.
    mask: [...] booleans, shaped as `x`.
    axis: the axes to sum over; all of them when None.

  Returns:
    float32 sums; 0 where the mask keeps nothing.

  Raises:
    AssertionError: if the shapes differ or the mask is not boolean.
  """
  _check(x, mask)
  return jnp.sum(x, axis=axis, where=mask, dtype=jnp.float32)


def masked_mean(
    x: jax.Array,
    mask: jax.Array,
    axis: int | tuple[int, ...] | None = None,
) -> jax.Array:
  """Mean of the elements that the mask keeps.

  Args:
    x: [...] floats, any rank.
    mask: [...] booleans, shaped as `x`.
    axis: the axes to average over; all of them when None.

  Returns:
    float32 means; 0, not NaN, where the mask keeps nothing.

  Raises:
    AssertionError: if the shapes differ or the mask is not boolean.
  """
  count = jnp.sum(mask, axis=axis, dtype=jnp.float32)
  return masked_sum(x, mask, axis) / jnp.maximum(count, 1.0)


def masked_var(
    x: jax.Array,
    mask: jax.Array,
    axis: int | tuple[int, ...] | None = None,
    *,
    ddof: int = 1,
) -> jax.Array:
  """Variance of the elements that the mask keeps, Bessel's by default.

    var = Σ (x − mean)² / (n − ddof)

  Args:
    x: [...] floats, any rank.
    mask: [...] booleans, shaped as `x`.
    axis: the axes to reduce; all of them when None.
    ddof: what is taken from the count, 1 for the unbiased estimate and 0 for
      the mean square.

  Returns:
    float32 variances; 0 where the mask keeps fewer than two elements.

  Raises:
    AssertionError: if the shapes differ or the mask is not boolean.
  """
  _check(x, mask)
  count = jnp.sum(mask, axis=axis, dtype=jnp.float32)
  mean = masked_mean(x, mask, axis)
  if axis is not None:
    mean = jnp.expand_dims(mean, axis)
  squares = jnp.square(_kept(x, mask) - mean)
  return masked_sum(squares, mask, axis) / jnp.maximum(count - ddof, 1.0)


def whiten(
    x: jax.Array, mask: jax.Array, *, shift_mean: bool = True
) -> jax.Array:
  """Scales to unit variance, and shifts to mean zero unless told otherwise.

  Mean and variance are those of all kept elements of the array as it is given.
  For numbers that depend on neither the microbatch nor the device count, give
  it the whole rollout batch.

  Args:
    x: [...] floats, any rank.
    mask: [...] booleans, shaped as `x`.
    shift_mean: False keeps the mean where it was: for rewards, whose sign
      means something.

  Returns:
    float32 of the shape of `x`, 0 where masked. The kept elements have Bessel
    variance 1, or are all equal.

  Raises:
    AssertionError: if the shapes differ or the mask is not boolean.
  """
  mean = masked_mean(x, mask)
  white = (_kept(x, mask) - mean) * jax.lax.rsqrt(
      masked_var(x, mask) + _EPSILON)
  if not shift_mean:
    white = white + mean
  return jnp.where(mask, white, 0.0)


def _kept(x: jax.Array, mask: jax.Array) -> jax.Array:
  """`x` in float32, with 0 wherever the mask keeps nothing."""
  return jnp.where(mask, x.astype(jnp.float32), 0.0)


def _check(x: jax.Array, mask: jax.Array) -> None:
  """Floats under a boolean mask of the same shape."""
  chex.assert_equal_shape((x, mask))
  chex.assert_type((x, mask), (float, bool))
