"""Rotary positions: how fast each pair of dimensions turns, and the turning.

A model that was stretched to longer texts turns more slowly than one that was
trained at its first length; each way of stretching is a dataclass here, with
the frequencies that it makes of the unstretched ones.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Linear:
  """Every frequency divided by `factor`: positions are interpolated.

  Chen et al. (2023), https://arxiv.org/abs/2306.15595.
  """

  factor: float

  def stretch(self, frequencies: jax.Array, theta: float) -> jax.Array:
    """[half] frequencies of the stretched model."""
    del theta
    return frequencies / self.factor


@dataclasses.dataclass(frozen=True)
class Llama3:
  """Long waves divided by `factor`, short ones kept, a ramp between.

  A wave is long if fewer than `low` of it fit into the first length, and short
  if more than `high` do. Dubey et al. (2024), https://arxiv.org/abs/2407.21783.
  """

  factor: float
  low: float
  high: float
  original_length: int  # Tokens, before the model was stretched.

  def stretch(self, frequencies: jax.Array, theta: float) -> jax.Array:
    """[half] frequencies of the stretched model."""
    del theta
    waves = self.original_length * frequencies / (2 * math.pi)
    kept = jnp.clip((waves - self.low) / (self.high - self.low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / self.factor)


@dataclasses.dataclass(frozen=True)
class Yarn:
  """A ramp over dimensions from kept to divided, and sharper attention.

  Peng et al. (2023), https://arxiv.org/abs/2309.00071, section 3.
  """

  factor: float
  original_length: int      # Tokens.
  attention_factor: float   # Multiplies cos and sin, so scores by its square.
  beta_fast: float = 32.0   # Turns in the first length; more are kept.
  beta_slow: float = 1.0    # Fewer are divided by `factor`.
  truncate: bool = True     # The ramp begins and ends at whole dimensions.

  def stretch(self, frequencies: jax.Array, theta: float) -> jax.Array:
    """[half] frequencies of the stretched model."""
    half = len(frequencies)
    at = lambda turns: half * math.log(
        self.original_length / (turns * 2 * math.pi)) / math.log(theta)
    low, high = at(self.beta_fast), at(self.beta_slow)
    if self.truncate:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    width = (high - low) or 0.001
    divided = jnp.clip((jnp.arange(half) - low) / width, 0.0, 1.0)
    return frequencies * (1.0 - divided + divided / self.factor)


@dataclasses.dataclass(frozen=True)
class LongRope:
  """A divisor of its own per frequency; rows past the first length use others.

  Ding et al. (2024), https://arxiv.org/abs/2402.13753. Which of the two a row
  gets is read off its own last position, so that a row does not depend on its
  batch.
  """

  short: tuple[float, ...]  # [half] divisors.
  long: tuple[float, ...]
  original_length: int      # Tokens.
  attention_factor: float   # Multiplies cos and sin.

  def stretch(self, frequencies: jax.Array, theta: float) -> jax.Array:
    """[2, half] frequencies: of rows within the first length, and past it."""
    del theta
    return frequencies / jnp.asarray([self.short, self.long])


Scaling = Linear | Llama3 | Yarn | LongRope


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary positions of a layer.

  Su et al. (2021), https://arxiv.org/abs/2104.09864, with dimensions i and
  i + half as a pair instead of 2i and 2i + 1.
  """

  theta: float = 10_000.0         # Base of the wavelengths.
  fraction: float = 1.0           # Of a head's dimensions that turn, the first.
  scaling: Scaling | None = None  # How the model was stretched.

  def num_turning(self, head_dim: int) -> int:
    """How many of a head's dimensions turn."""
    return int(head_dim * self.fraction)

  def frequencies(self, head_dim: int) -> jax.Array:
    """[half] radians per token, or [2, half] where they depend on the length.

    θ^(−i/half) before stretching, half of the dimensions that turn.
    """
    half = self.num_turning(head_dim) // 2
    plain = self.theta ** -(jnp.arange(half, dtype=jnp.float32) / half)
    return self.scaling.stretch(plain, self.theta) if self.scaling else plain

  def angles(
      self, positions: jax.Array, head_dim: int
  ) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines, [B, T, half] each, by which queries and keys turn.

    Args:
      positions: [B, T] int.
      head_dim: of the queries.
    """
    frequencies = self.frequencies(head_dim)
    magnitude = 1.0
    if isinstance(self.scaling, (Yarn, LongRope)):
      magnitude = self.scaling.attention_factor
    if isinstance(self.scaling, LongRope):
      is_long = jnp.max(positions, axis=1) >= self.scaling.original_length
      frequencies = frequencies[is_long.astype(jnp.int32)][:, None]
    angle = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angle) * magnitude, jnp.sin(angle) * magnitude


def still(
    positions: jax.Array, half: int
) -> tuple[jax.Array, jax.Array]:
  """The angles of a layer without rotary positions: nothing turns."""
  shape = (*positions.shape, half)
  return jnp.ones(shape, jnp.float32), jnp.zeros(shape, jnp.float32)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the first 2·half dimensions of each head.

    (x₁, x₂) ↦ (x₁ cos φ − x₂ sin φ, x₂ cos φ + x₁ sin φ)

  Args:
    x: [B, T, heads, head_dim] queries or keys; x₁ and x₂ are halves of the
      dimensions that turn.
    cos: [B, T, half] float32.
    sin: [B, T, half] float32.

  Returns:
    [B, T, heads, head_dim] as x; the dot product of a rotated query and key
    depends on the difference of their positions only.
  """
  cos, sin = cos[:, :, None], sin[:, :, None]
  half = cos.shape[-1]
  left, right, rest = jnp.split(
      x.astype(jnp.float32), (half, 2 * half), axis=-1)
  turned = [left * cos - right * sin, right * cos + left * sin, rest]
  return jnp.concatenate(turned, -1).astype(x.dtype)
