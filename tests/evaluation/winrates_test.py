"""Win rates: exact intervals, lengths taken out, models on one scale."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import evaluation
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError


def test_the_sign_test_of_eight_wins_and_two_losses():
  found = evaluation.sign_test([1] * 8 + [0] * 2 + [0.5] * 5)
  assert (found.wins, found.losses, found.ties) == (8, 2, 5)
  assert found.p_value == pytest.approx(112 / 1024)
  assert (found.low, found.high) == pytest.approx((0.4439, 0.9748), abs=1e-4)


@hypothesis.given(st.integers(0, 30), st.integers(0, 30))
def test_the_interval_holds_one_half_where_the_test_does_not_reject(wins, loss):
  if not wins + loss:
    return
  found = evaluation.sign_test([1] * wins + [0] * loss)
  assert (found.low <= 0.5 <= found.high) == (found.p_value > 0.05)
  other = evaluation.sign_test([1] * loss + [0] * wins)
  assert found.low == pytest.approx(1 - other.high, abs=1e-9)


def test_a_share_of_none_has_the_closed_form():
  low, high = evaluation.share_interval(0, 10)
  assert low == 0 and high == pytest.approx(1 - 0.025**0.1, abs=1e-9)
  assert evaluation.share_interval(10, 10)[1] == 1


def _padded(judge, seed=0):
  """Scores of a model's responses against the same ones, padded."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(10, 40, 400)
  padding = judge.get('padding', lambda rng: rng.integers(1, 20, 400))(rng)
  scores = judge['score'](rng, padding)
  return evaluation.length_controlled(scores, lengths, lengths + padding,
                                      num_resamples=200)


@pytest.mark.parametrize('judge', [
    {'score': lambda rng, d: (rng.random(400) < 1 / (
        1 + np.exp(3 * np.tanh(d / 10)))).astype(float)},  # Likes length.
    {'score': lambda rng, d: (rng.random(400) < 1 / (
        1 + np.exp(-2 * np.tanh(d / 10)))).astype(float)},  # Likes brevity.
    {'score': lambda rng, d: np.zeros(400)},  # The longer one, always.
    {'score': lambda rng, d: np.ones(400)},
    {'score': lambda rng, d: np.zeros(400),
     'padding': lambda rng: np.full(400, 7)},  # All padded alike.
    {'score': lambda rng, d: np.full(400, 0.5)}])
def test_against_its_own_padded_responses_a_model_wins_half(judge):
  found = _padded(judge)
  assert found.low <= 0.5 <= found.high


def test_an_annotator_who_likes_length_is_seen_through():
  world = sources.WORLD
  annotator = testbed.panel(0, length_bias=0.8, confidence_bias=0.0,
                            list_bias=0.0, noise=0.3, stress=0.0)[0]
  scores, lengths, padded = [], [], []
  for n, prompt in enumerate(testbed.prompts(world, 'test', count=300)):
    plain = testbed.perfect_response(world, prompt)
    longer = ' '.join([plain] + ['i hope this helps .'] * (1 + n % 4))
    like = [annotator.utility(world, prompt, text) for text in (plain, longer)]
    scores.append(float(like[0] > like[1]))
    lengths.append(len(plain.split()))
    padded.append(len(longer.split()))
  found = evaluation.length_controlled(scores, lengths, padded)
  assert found.low <= 0.5 <= found.high


def test_a_better_model_of_equal_lengths_keeps_its_win_rate():
  rng = np.random.default_rng(0)
  scores = (rng.random(500) < 0.7).astype(float)
  length = rng.integers(5, 50, 500)
  same = evaluation.length_controlled(scores, length, length)
  assert same.controlled == pytest.approx(scores.mean(), abs=2e-3)
  other = evaluation.length_controlled(
      scores, length, rng.permutation(length))
  assert other.controlled == pytest.approx(scores.mean(), abs=0.02)
  assert other.low > 0.6


def test_swapping_the_models_gives_the_complement():
  rng = np.random.default_rng(1)
  scores = rng.choice([0.0, 0.5, 1.0], 200)
  a, b = rng.integers(5, 50, (2, 200))
  one = evaluation.length_controlled(scores, a, b)
  other = evaluation.length_controlled(1 - scores, b, a)
  assert one.controlled + other.controlled == pytest.approx(1, abs=1e-9)


def test_ten_of_eleven_is_four_hundred_points():
  scale = evaluation.strengths({('a', 'b'): [1.0] * 1000 + [0.0] * 100})
  assert scale.names == ('a', 'b')
  assert scale.elo[0] - scale.elo[1] == pytest.approx(400, abs=1)
  assert scale.low[0] < scale.elo[0] < scale.high[0]


def test_the_order_of_comparisons_does_not_move_the_scale():
  rng = np.random.default_rng(0)
  scores = {pair: rng.choice([0.0, 0.5, 1.0], 60)
            for pair in (('a', 'b'), ('b', 'c'), ('a', 'c'))}
  turned = {(b, a): 1 - s for (a, b), s in reversed(scores.items())}
  one, other = evaluation.strengths(scores), evaluation.strengths(turned)
  at = dict(zip(other.names, other.elo, strict=True))
  np.testing.assert_allclose(one.elo, [at[n] for n in one.names], atol=1e-3)


@pytest.mark.parametrize('call', [
    lambda: evaluation.sign_test([0.3]), lambda: evaluation.sign_test([]),
    lambda: evaluation.share_interval(3, 2),
    lambda: evaluation.length_controlled([1.0], [1, 2], [1, 2]),
    lambda: evaluation.strengths({('a', 'b'): [1], ('b', 'c'): [1, 0]})])
def test_what_cannot_be_compared_is_refused(call):
  with pytest.raises(InputError):
    call()
