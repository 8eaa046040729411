"""Tests of the grouped bootstrap and of win rates."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import types
from alignjax.evaluation import bootstrap

_few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
_scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]),
                   min_size=8, max_size=8)


def _coverage(groups_known):
  """How often a 95 % interval holds the true mean 0, in 200 small worlds."""
  covered = 0
  groups = np.repeat(np.arange(30), 6)
  for world in range(200):
    rng = np.random.default_rng(world)
    values = rng.normal(size=30)[groups] + 0.3 * rng.normal(size=180)
    low, high = bootstrap.bootstrap_interval(
        values, groups if groups_known else None, num_resamples=400, seed=world)
    covered += low < 0 < high
  return covered / 200


def test_grouped_intervals_hold_the_truth_as_often_as_they_say():
  assert 0.90 <= _coverage(groups_known=True) <= 0.98


def test_intervals_that_ignore_the_groups_are_too_narrow():
  assert _coverage(groups_known=False) < 0.7


def test_a_coin_interval_is_that_of_the_normal_approximation():
  values = np.repeat([0.0, 1.0], 200)
  low, high = bootstrap.bootstrap_interval(values, num_resamples=5_000)
  half = 1.96 * 0.5 / np.sqrt(400)
  assert low == pytest.approx(0.5 - half, abs=0.005)
  assert high == pytest.approx(0.5 + half, abs=0.005)


@_few
@hypothesis.given(_scores)
def test_the_interval_lies_within_the_values_and_repeats(values):
  groups = list('aabbccdd')
  low, high = bootstrap.bootstrap_interval(values, groups, num_resamples=50)
  assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
  assert (low, high) == bootstrap.bootstrap_interval(
      values, groups, num_resamples=50)


def test_a_lower_level_gives_a_narrower_interval():
  values = np.random.default_rng(0).normal(size=50)
  wide = bootstrap.bootstrap_interval(values, level=0.95)
  narrow = bootstrap.bootstrap_interval(values, level=0.5)
  assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_groups_of_unequal_size_weigh_by_their_values():
  # Every resample of these two groups holds means 0, 3/4 or 1 only.
  low, high = bootstrap.bootstrap_interval([0, 1, 1, 1], list('abbb'))
  assert (low, high) == (0, 1)


def test_one_group_has_no_interval():
  assert np.isnan(bootstrap.bootstrap_interval([1, 2], ['rice', 'rice'])).all()


def test_a_tie_is_half_a_win():
  assert bootstrap.win_rate([1, 0, 2, 5], [0, 0, 3, 4]) == 2.5 / 4


@_few
@hypothesis.given(_scores, _scores)
def test_the_win_rates_of_two_rivals_add_up_to_one(a, b):
  assert bootstrap.win_rate(a, b) + bootstrap.win_rate(b, a) == 1
  assert bootstrap.win_rate(a, a) == 0.5


def test_a_small_but_steady_advantage_wins_because_scores_are_paired():
  dishes = np.repeat(np.arange(20), 4)
  b = np.random.default_rng(0).normal(size=80)
  low, high = bootstrap.win_rate_interval(
      b + 0.01, b, dishes, num_resamples=100, seed=1)
  assert (low, high) == (1, 1)


@pytest.mark.parametrize('call', [
    lambda: bootstrap.bootstrap_interval([]),
    lambda: bootstrap.bootstrap_interval([1, 2], ['a']),
    lambda: bootstrap.bootstrap_interval([1, 2], level=95),
    lambda: bootstrap.win_rate([1, 2], [1]),
    lambda: bootstrap.win_rate([], []),
])
def test_what_cannot_be_compared_is_said_in_one_line(call):
  with pytest.raises(types.InputError) as error:
    call()
  assert '\n' not in str(error.value)
