"""Rotary positions and the ways of stretching them, by hand and by identity."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.models import rope

STRETCHED = {
    'linear': rope.Linear(4.0),
    'llama 3': rope.Llama3(8.0, 1.0, 4.0, 64),
    'yarn': rope.Yarn(4.0, 64, 1.1),
    'long': rope.LongRope((1.0,) * 4, (1.0, 2.0, 4.0, 8.0), 64, 1.2),
}


def turned(x, positions, which=None, fraction=1.0):
  r = rope.Rope(100.0, fraction, which)
  return rope.rotate(x, *r.angles(positions, x.shape[-1]))


@pytest.mark.parametrize('which', [None, *STRETCHED.values()])
def test_rotated_products_depend_on_relative_position_only(which):
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 5, 2, 8))
  positions = jnp.arange(5)[None]
  scores = lambda shift: jnp.einsum(
      'bthd,bshd->bhts', *(turned(x, positions + shift, which) for x in (q, k)))
  np.testing.assert_allclose(scores(0), scores(17), atol=1e-5)


def test_rotation_keeps_lengths_and_leaves_position_zero_alone():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
  got = turned(x, jnp.array([[0, 1, 9]]))
  np.testing.assert_allclose(got[:, 0], x[:, 0], atol=1e-6)
  np.testing.assert_allclose(jnp.linalg.norm(got, axis=-1),
                             jnp.linalg.norm(x, axis=-1), rtol=1e-5)


def test_only_the_first_dimensions_turn():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
  got = turned(x, jnp.array([[1, 2, 3]]), fraction=0.5)
  np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
  assert jnp.abs(got[..., :4] - x[..., :4]).min(axis=-1).min() > 0


def test_a_pair_turns_by_its_own_angle():
  x = jnp.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
  got = turned(x, jnp.array([[3]])).ravel()  # θ^0 = 1 radian a token.
  np.testing.assert_allclose(got, [math.cos(3), 0, math.sin(3), 0], atol=1e-6)


def test_layers_without_positions_turn_nothing():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
  np.testing.assert_array_equal(
      rope.rotate(x, *rope.still(jnp.array([[0, 5, 9]]), 4)), x)


def test_linear_stretching_divides_positions():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
  np.testing.assert_allclose(
      turned(x, jnp.array([[0, 4, 8]]), STRETCHED['linear']),
      turned(x, jnp.array([[0, 1, 2]])), atol=1e-6)


def test_llama3_keeps_short_waves_and_divides_long_ones():
  # Wavelengths of 16, 32 and 128 tokens in a first length of 64: 4, 2, ½ waves.
  plain = 2 * math.pi / np.array([16.0, 32.0, 128.0])
  got = STRETCHED['llama 3'].stretch(plain, 1e4) / plain
  np.testing.assert_allclose(got, [1.0, 1 / 3 + 2 / 3 / 8, 1 / 8])


def test_yarn_keeps_the_first_dimensions_and_divides_the_last():
  plain = 1e4 ** -(np.arange(32) / 32)
  got = rope.Yarn(4.0, 2_048, 1.1).stretch(plain, 1e4) / plain
  assert got[0] == 1.0 and got[-1] == 0.25
  assert np.all(np.diff(got) <= 0)


def test_attention_factors_scale_cosines_and_sines():
  plain = rope.Rope().angles(jnp.array([[3]]), 8)
  yarn = rope.Rope(scaling=rope.Yarn(1.0, 64, 1.25)).angles(
      jnp.array([[3]]), 8)
  for got, due in zip(yarn, plain, strict=True):
    np.testing.assert_allclose(got, 1.25 * due, rtol=1e-6)


def test_long_rows_and_short_ones_of_a_batch_turn_each_their_own_way():
  short, long = jnp.array([[10, 20]]), jnp.array([[10, 64]])
  r = rope.Rope(scaling=STRETCHED['long'])
  both = r.angles(jnp.concatenate([short, long]), 8)[1]
  np.testing.assert_array_equal(both[:1], r.angles(short, 8)[1])
  np.testing.assert_array_equal(both[1:], r.angles(long, 8)[1])
  assert jnp.abs(both[0, 0] - both[1, 0]).max() > 0.01


@pytest.mark.parametrize('which', STRETCHED.values())
def test_frequencies_halve_the_dimensions_that_turn(which):
  r = rope.Rope(scaling=which)
  assert r.frequencies(8).shape[-1] == 4
  assert rope.Rope(fraction=0.5).frequencies(8).shape == (2,)
