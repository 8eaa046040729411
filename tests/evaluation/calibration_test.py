"""Tests of accuracy, calibration and correlation."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import types
from alignjax.evaluation import calibration

_few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
_margins = st.lists(st.floats(-60, 60), min_size=6, max_size=6)


def _sample_margins(scale, size=20_000):
  """Margins of a reward model that is `scale` times as sure as it may be."""
  rng = np.random.default_rng(0)
  odds = rng.normal(0, 2, size=size)
  is_right = rng.random(size) < 1 / (1 + np.exp(-odds))
  return scale * np.where(is_right, odds, -odds)


def test_accuracy_counts_ties_half_and_filler_not_at_all():
  accuracy = calibration.pair_accuracy(
      [5, 3, 4, 9], [3, 5, 4, 0], weight=[1, 1, 1, 0])
  assert accuracy == 0.5
  assert calibration.pair_accuracy([5, 3, 4, 9], [3, 5, 4, 0]) == 2.5 / 4


def test_nan_in_a_filler_pair_changes_nothing_and_elsewhere_is_an_error():
  assert calibration.pair_accuracy([1, np.nan], [0, 0], [1, 0]) == 1
  with pytest.raises(types.InputError, match='1 of 2 pairs'):
    calibration.pair_accuracy([1, np.nan], [0, 0])


@_few
@hypothesis.given(_margins)
def test_swapping_chosen_and_rejected_mirrors_the_accuracy(margins):
  zeros = np.zeros(6)
  assert (calibration.pair_accuracy(margins, zeros) +
          calibration.pair_accuracy(zeros, margins)) == pytest.approx(1)


def test_a_gap_of_two_is_a_confidence_of_0_88():
  bins = calibration.reliability_bins([2.0])
  assert bins.confidence[7] == pytest.approx(0.8808, abs=1e-4)
  assert bins.weight.tolist() == [0] * 7 + [1, 0, 0]


@_few
@hypothesis.given(_margins)
def test_every_pair_falls_in_the_bin_of_its_confidence(margins):
  bins = calibration.reliability_bins(margins, num_bins=5)
  assert bins.weight.sum() == 6
  edges = np.linspace(0.5, 1, 6)
  filled = bins.weight > 0
  confidence = bins.confidence[filled]
  assert np.all(edges[:-1][filled] - 1e-9 <= confidence)
  assert np.all(confidence <= edges[1:][filled] + 1e-9)
  assert np.all(np.isnan(bins.accuracy) == ~filled)


def test_a_model_whose_confidence_is_true_has_no_calibration_error():
  assert calibration.expected_calibration_error(_sample_margins(1.0)) < 0.015


@pytest.mark.parametrize('scale', [0.25, 4.0])
def test_a_model_too_shy_or_too_bold_has_a_calibration_error(scale):
  error = calibration.expected_calibration_error(_sample_margins(scale))
  assert error > 0.1


def test_always_right_and_never_sure_is_the_worst_honest_error():
  assert calibration.expected_calibration_error(
      [1e-9] * 4) == pytest.approx(0.5)


def test_always_wrong_and_always_sure_is_an_error_of_one():
  assert calibration.expected_calibration_error([-50.0] * 4) == 1


def test_correlation_of_a_line_is_its_sign():
  x = np.arange(5)
  assert calibration.correlation(x, 3 * x + 1) == pytest.approx(1)
  assert calibration.correlation(x, -x) == pytest.approx(-1)
  assert calibration.correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)


def test_a_constant_score_correlates_with_nothing():
  assert calibration.correlation([0.1] * 7, range(7)) == 0


def test_rank_correlation_sees_through_an_increasing_transformation():
  x = np.array([0.1, 5.0, -3.0, 2.0, 8.0])
  assert calibration.rank_correlation(x, np.exp(x)) == pytest.approx(1)
  assert calibration.correlation(x, np.exp(x)) < 0.9


def test_tied_ranks_are_shared():
  # Ranks 0.5, 0.5, 2, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
  assert calibration.rank_correlation(
      [1, 1, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(22.5))


@pytest.mark.parametrize('call', [
    lambda: calibration.pair_accuracy([], []),
    lambda: calibration.pair_accuracy([1], [0], [0]),
    lambda: calibration.reliability_bins([1, 2], [1]),
    lambda: calibration.correlation([1], [1]),
    lambda: calibration.correlation([1, 2], [1, 2, 3]),
])
def test_what_cannot_be_graded_is_said_in_one_line(call):
  with pytest.raises(types.InputError) as error:
    call()
  assert '\n' not in str(error.value)
