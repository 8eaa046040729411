"""Drawing a token: the right frequencies, the right sets, never the forbidden.

The quantile of chi-square in use is the one that chance exceeds once in 10⁵.
"""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.rollout import sampling

# χ²(7) at 1 − 10⁻⁵, for eight tokens.
CHI_SQUARE_7 = 35.3
PROBS = np.array([0.30, 0.25, 0.15, 0.12, 0.08, 0.05, 0.03, 0.02])
LOGITS = jnp.log(PROBS)


def draws(logits, num=20_000, seed=0, **kwargs):
  """[num] tokens drawn from one row of logits, each with a key of its own."""
  keys = jax.random.split(jax.random.key(seed), num)
  rows = jnp.broadcast_to(logits, (num, len(logits)))
  draw = jax.jit(lambda k, r: sampling.sample(k, r, **kwargs))
  return jax.tree.map(np.asarray, draw(keys, rows))


def chi_square(tokens, probs):
  expected = len(tokens) * probs
  counts = np.bincount(tokens, minlength=len(probs))
  return np.sum((counts - expected) ** 2 / expected)


def test_frequencies_follow_the_softmax():
  tokens, logprobs = draws(LOGITS + 3.0)
  assert tokens.dtype == np.int32
  assert chi_square(tokens, PROBS) < CHI_SQUARE_7
  np.testing.assert_allclose(logprobs, np.log(PROBS)[tokens], rtol=1e-5)


@pytest.mark.parametrize('temperature', [0.5, 2.0])
def test_the_temperature_divides_the_logits(temperature):
  tokens, logprobs = draws(LOGITS, temperature=temperature)
  probs = PROBS ** (1 / temperature)
  probs /= probs.sum()
  assert chi_square(tokens, probs) < CHI_SQUARE_7
  assert chi_square(tokens, PROBS) > 10 * CHI_SQUARE_7
  np.testing.assert_allclose(logprobs, np.log(probs)[tokens], rtol=1e-4)


def test_temperature_zero_takes_the_likeliest_and_its_plain_logprob():
  tokens, logprobs = draws(LOGITS[::-1], num=8, temperature=0.0)
  np.testing.assert_array_equal(tokens, 7)
  np.testing.assert_allclose(logprobs, np.log(0.30), rtol=1e-5)


def test_top_k_and_top_p_leave_the_frequencies_among_the_kept():
  tokens, logprobs = draws(LOGITS, top_k=6, top_p=0.75)
  # Of the top six (0.95), 0.30 + 0.25 + 0.15 is 0.737: one more is needed.
  kept = np.where(np.arange(8) < 4, PROBS, 0)
  expected = len(tokens) * kept[:4] / kept.sum()
  counts = np.bincount(tokens, minlength=8)
  assert counts[4:].sum() == 0
  assert np.sum((counts[:4] - expected) ** 2 / expected) < 26  # χ²(3).
  # The logprob stays that of the whole softmax.
  np.testing.assert_allclose(logprobs, np.log(PROBS)[tokens], rtol=1e-5)


@pytest.mark.parametrize('kwargs, kept', [
    (dict(), range(8)),
    (dict(top_k=1), [0]),
    (dict(top_k=3), [0, 1, 2]),
    (dict(top_k=8), range(8)),
    (dict(top_k=99), range(8)),      # More than there are.
    (dict(top_p=1e-6), [0]),         # The likeliest is always kept.
    (dict(top_p=0.29), [0]),         # 0.30 reaches it.
    (dict(top_p=0.31), [0, 1]),
    (dict(top_p=0.56), [0, 1, 2]),   # 0.55 does not.
    (dict(top_p=0.99), range(8)),    # 0.98 does not.
    (dict(top_k=2, top_p=0.5), [0]),     # 0.30 / 0.55 of what top-k leaves.
    (dict(top_k=2, top_p=0.56), [0, 1]),
])
def test_exactly_the_right_tokens_are_kept(kwargs, kept):
  order = np.array([3, 0, 6, 1, 7, 5, 2, 4])  # Unsorted in the second row.
  rows = jnp.stack([LOGITS, LOGITS[order]])
  filtered = np.asarray(sampling.filter_logits(rows, **kwargs))
  is_kept = np.isin(np.arange(8), list(kept))
  np.testing.assert_array_equal(np.isfinite(filtered[0]), is_kept)
  np.testing.assert_array_equal(np.isfinite(filtered[1]), is_kept[order])
  np.testing.assert_array_equal(filtered[0][is_kept], rows[0][is_kept])


def test_ties_with_the_last_kept_token_are_kept():
  ties = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2]]))
  for kwargs in (dict(top_k=2), dict(top_p=0.5)):
    assert np.isfinite(sampling.filter_logits(ties, **kwargs)).all()


@hypothesis.given(
    st.lists(st.floats(-8, 8, width=32), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.integers(0, 2**31 - 1))
def test_a_token_without_probability_is_never_drawn(logits, is_out, seed):
  is_out[seed % 12] = False
  row = jnp.where(jnp.array(is_out), -jnp.inf, jnp.array(logits))
  keys = jax.random.split(jax.random.key(seed), 64)
  tokens, logprobs = _draw_64(keys, jnp.broadcast_to(row, (64, 12)))
  assert not np.asarray(is_out)[tokens].any()
  assert np.isfinite(logprobs).all()


_draw_64 = jax.jit(sampling.sample)


@pytest.mark.parametrize('u, token', [
    (0.0, 2), (1e-30, 2), (0.25, 2), (0.49, 4), (0.51, 6), (1 - 2**-23, 6)])
def test_the_uniform_is_inverted_at_its_ends_too(monkeypatch, u, token):
  """Three tokens of mass ¼, ¼, ½ among ones that are ruled out."""
  monkeypatch.setattr(jax.random, 'uniform', lambda key: jnp.float32(u))
  row = jnp.full(9, -jnp.inf).at[jnp.array([2, 4, 6])].set(
      jnp.log(jnp.array([0.26, 0.24, 0.5])))
  tokens, _ = sampling.sample(jax.random.split(jax.random.key(0), 1), row[None])
  assert tokens[0] == token


def test_rounding_of_a_long_sum_draws_no_token_without_probability(monkeypatch):
  """Prefix sums of a thousand tokens may step up where nothing was added."""
  rng = np.random.default_rng(0)
  logits = np.where(rng.random((64, 1000)) < 0.5, -np.inf,
                    rng.normal(size=(64, 1000))).astype(np.float32)
  sums = np.asarray(jnp.cumsum(jax.nn.softmax(logits), axis=-1))
  steps = (np.diff(sums) > 0) & np.isneginf(logits[:, 1:])
  rows = np.flatnonzero(steps.any(axis=1))
  assert len(rows) > 8, 'the sum no longer rounds; this test shows nothing'
  at = sums[rows, steps.argmax(axis=1)[rows]] / sums[rows].max(axis=1)
  # A batch of one key per row, whose uniform falls on the step.
  keys = jax.random.wrap_key_data(
      jnp.stack([jnp.zeros(len(rows), jnp.uint32),
                 jax.lax.bitcast_convert_type(at, jnp.uint32)], axis=1))
  monkeypatch.setattr(
      jax.random, 'uniform', lambda key: jax.lax.bitcast_convert_type(
          jax.random.key_data(key)[1], jnp.float32))
  tokens, _ = sampling.sample(keys, jnp.asarray(logits[rows]))
  assert np.isfinite(logits[rows, tokens]).all()


def test_row_keys_differ_by_prompt_and_sample_and_by_nothing_else():
  key = jax.random.key(5)
  ids = jnp.array([0, 0, 1, 1, 0]), jnp.array([0, 1, 0, 1, 0])
  data = np.asarray(jax.random.key_data(sampling.row_keys(key, *ids)))
  assert len(np.unique(data, axis=0)) == 4
  np.testing.assert_array_equal(data[0], data[4])
