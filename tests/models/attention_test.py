"""Who sees whom, by small tables and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.models import attention


def attend(q, k, v, seen, **settings):
  """`attention.attend` of keys and values [B, S, K, head_dim]."""
  return attention.attend(
      q, k.swapaxes(1, 2), v.swapaxes(1, 2), seen, **settings)


def test_branches_see_the_prompt_and_themselves():
  branches = jnp.array([[0, 0, 1, 1, 2, 2]])
  seen = attention.visible(jnp.ones((1, 6), bool), branches=branches)[0]
  expected = [[1, 0, 0, 0, 0, 0],
              [1, 1, 0, 0, 0, 0],
              [1, 1, 1, 0, 0, 0],
              [1, 1, 1, 1, 0, 0],
              [1, 1, 0, 0, 1, 0],
              [1, 1, 0, 0, 1, 1]]
  np.testing.assert_array_equal(seen, np.array(expected, bool))


def test_segments_do_not_see_each_other():
  segments = jnp.array([[1, 1, 2, 2]])
  seen = attention.visible(jnp.ones((1, 4), bool), segments)[0]
  assert not seen[2:, :2].any() and seen[3, 2] and seen[1, 0]


def test_padding_is_never_seen():
  mask = jnp.array([[0, 1, 1], [1, 1, 0]], bool)
  seen = attention.visible(mask)
  assert not seen[0, :, 0].any() and not seen[1, :, 2].any()


def test_positions_count_real_tokens_on_either_side_of_padding():
  mask = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
  positions = attention.count_positions(mask)
  np.testing.assert_array_equal(positions, [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]])


def test_a_window_is_of_positions_not_of_columns():
  seen = attention.visible(jnp.array([[0, 0, 1, 1, 1, 1]], bool))
  positions = jnp.array([[0, 0, 0, 1, 2, 3]])
  got = attention.within(seen, positions, positions, 2)[0]
  np.testing.assert_array_equal(got[5], [0, 0, 0, 0, 1, 1])
  np.testing.assert_array_equal(got[2], [0, 0, 1, 0, 0, 0])
  assert attention.within(seen, positions, positions, None) is seen


def test_scale_and_softcap_bound_the_scores():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 3, 2, 8))
  seen = attention.visible(jnp.ones((1, 3), bool))
  plain = attend(q, k, v, seen)
  np.testing.assert_array_equal(
      attend(q, k, v, seen, scale=8 ** -0.5), plain)
  np.testing.assert_allclose(
      attend(q, k, v, seen, softcap=1e4), plain, atol=1e-5)
  flat = attend(100 * q, k, v, seen, softcap=1e-4)
  means = jnp.cumsum(v, axis=1) / jnp.arange(1, 4)[:, None, None]
  np.testing.assert_allclose(flat, means, atol=1e-3)


def test_grouped_queries_equal_repeated_keys():
  keys = jax.random.split(jax.random.key(0), 3)
  q = jax.random.normal(keys[0], (2, 4, 6, 8))
  k, v = (jax.random.normal(key, (2, 4, 3, 8)) for key in keys[1:])
  seen = attention.visible(jnp.ones((2, 4), bool))
  grouped = attend(q, k, v, seen)
  repeat = lambda x: jnp.repeat(x, 2, axis=2)
  np.testing.assert_allclose(
      grouped, attend(q, repeat(k), repeat(v), seen), atol=1e-5)


def test_hidden_keys_change_nothing_and_blind_rows_are_finite():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 3, 2, 8))
  seen = jnp.array([[[1, 0, 0], [1, 1, 0], [0, 0, 0]]], bool)
  out = attend(q, k, v, seen)
  changed = attend(q, k.at[:, 2].set(99.0), v.at[:, 2].set(9.0), seen)
  np.testing.assert_array_equal(out[:, :2], changed[:, :2])
  assert jnp.isfinite(out).all()


@pytest.mark.parametrize('settings', [{}, dict(scale=0.5, softcap=2.0)])
def test_what_rows_share_is_as_if_each_had_it(settings):
  keys = jax.random.split(jax.random.key(0), 6)
  draw = lambda i, *shape: jax.random.normal(keys[i], shape)
  query = draw(0, 6, 1, 4, 8)  # Two groups of three rows.
  shared = draw(1, 2, 2, 5, 8), draw(2, 2, 2, 5, 8)
  own = draw(3, 6, 2, 3, 8), draw(4, 6, 2, 3, 8)
  seen = jax.random.bernoulli(keys[5], 0.5, (6, 1, 8)).at[:, :, 4].set(True)
  seen = seen.at[0, :, 5:].set(False)  # Nothing of its own yet.
  whole = (jnp.concatenate([jnp.repeat(a, 3, axis=0), b], axis=2)
           for a, b in zip(shared, own, strict=True))
  np.testing.assert_allclose(
      attention.attend_behind(*shared, query, *own, seen, **settings),
      attention.attend(query, *whole, seen, **settings), atol=1e-6)


@pytest.mark.parametrize('block', [1, 3, 4, 9])
def test_blocks_of_queries_give_what_all_at_once_gives(block):
  """A branched row, softcapped, whose length no block but 1 divides."""
  keys = jax.random.split(jax.random.key(0), 3)
  q = jax.random.normal(keys[0], (2, 7, 4, 8))
  k, v = (jax.random.normal(key, (2, 7, 2, 8)) for key in keys[1:])
  seen = attention.visible(
      jnp.array([[1, 1, 1, 1, 1, 1, 0], [1] * 7], bool),
      branches=jnp.array([[0, 0, 1, 1, 2, 2, 0]] * 2))

  def loss(q, k, v, block):
    return jnp.sum(jnp.sin(attend(
        q, k, v, seen, softcap=3.0, block=block)))

  grad = jax.value_and_grad(loss, (0, 1, 2))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
      grad(q, k, v, block), grad(q, k, v, None))


def test_blocks_hold_the_scores_of_one_block():
  args = [jnp.zeros((1, 512, 2, 8))] * 3
  seen = jnp.ones((1, 512, 512), bool)

  def temporaries(block):
    loss = lambda q, k, v: jnp.sum(attend(
        q, k, v, seen, block=block) ** 2)
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*args).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(32) < temporaries(None) / 4


@pytest.mark.parametrize('settings', [
    {}, {'softcap': 3.0, 'scale': 0.2}, {'block': 50}, {'is_causal': True},
    {'is_causal': True, 'softcap': 3.0}])
def test_the_written_gradient_is_the_derived_one(settings):
  """Of packed, branched, padded rows; 150 columns are three causal blocks."""
  keys = jax.random.split(jax.random.key(0), 4)
  q, weight = (jax.random.normal(key, (2, 150, 4, 8)) for key in keys[:2])
  k, v = (jax.random.normal(key, (2, 150, 2, 8)) for key in keys[2:])
  column = jnp.arange(150)
  seen = attention.visible(
      jnp.stack([column < 120, column >= 0]),
      jnp.stack([column // 100, column // 40]),
      jnp.stack([(column % 100) // 45, column % 40 // 15]))

  def derived(q, k, v):
    k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
    scores = jnp.einsum('bthd,bshd->bhts', q, k) * settings.get(
        'scale', 8 ** -0.5)
    if cap := settings.get('softcap'):
      scores = cap * jnp.tanh(scores / cap)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30))
    return jnp.einsum('bhts,bshd->bthd', weights, v)

  written = lambda *args: attend(*args, seen, **settings)
  both = [jax.value_and_grad(
      lambda *args, f=f: jnp.sum(weight * f(*args)), (0, 1, 2))(q, k, v)
          for f in (written, derived)]
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
      *both)


def test_what_is_above_the_diagonal_is_not_computed():
  """Eight blocks see 1/8, 2/8 ... 8/8 of the keys: 9/16 of all scores."""
  args = [jnp.zeros((1, 512, 2, 64))] * 3
  seen = attention.visible(jnp.ones((1, 512), bool))
  flops = [jax.jit(lambda *args, c=is_causal: attend(
      *args, seen, is_causal=c)).lower(*args).compile().cost_analysis()['flops']
           for is_causal in (True, False)]
  assert 0.5 < flops[0] / flops[1] < 0.6
