"""Coefficients of agreement: worked numbers, and what must not matter."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import feedback
from alignjax.types import InputError

NAN = float('nan')
_ratings = st.lists(
    st.lists(st.sampled_from([0, 1, 2, NAN]), min_size=8, max_size=8),
    min_size=3, max_size=4)


def test_cohen_s_kappa_of_a_worked_table():
  # 20 both yes, 15 both no, 5 and 10 apart: p_o 0.7, p_e 0.5.
  a = [1] * 25 + [0] * 25
  b = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
  assert feedback.cohen_kappa(a, b) == pytest.approx(0.4)


def test_weights_forgive_near_misses():
  a, b = [0, 1, 2, 3] * 5, [1, 2, 3, 3] * 5
  plain, linear, quadratic = (
      feedback.cohen_kappa(a, b, weights=w)
      for w in ('none', 'linear', 'quadratic'))
  assert plain < linear < quadratic


def test_krippendorff_s_own_example():
  # Content Analysis, chapter 11: nominal alpha 0.743, interval 0.849.
  text = ('1 2 3 3 2 1 4 1 2 . . .', '1 2 3 3 2 2 4 1 2 5 . 3',
          '. 3 3 3 2 3 4 2 2 5 1 .', '1 2 3 3 2 4 4 1 2 5 1 .')
  ratings = [[NAN if x == '.' else float(x) for x in row.split()]
             for row in text]
  assert feedback.krippendorff_alpha(ratings) == pytest.approx(0.743, abs=5e-4)
  assert feedback.krippendorff_alpha(
      ratings, level='interval') == pytest.approx(0.849, abs=5e-4)


@hypothesis.given(_ratings, st.randoms(use_true_random=False))
def test_the_order_of_annotators_and_items_does_not_matter(ratings, rng):
  ratings = np.array(ratings, float)
  if np.sum(np.sum(~np.isnan(ratings), axis=0) >= 2) == 0:
    return
  shuffled = ratings.copy()
  rows, columns = list(range(len(ratings))), list(range(8))
  rng.shuffle(rows)
  rng.shuffle(columns)
  shuffled = ratings[rows][:, columns]
  np.testing.assert_allclose(
      feedback.krippendorff_alpha(ratings),
      feedback.krippendorff_alpha(shuffled), rtol=1e-9, atol=1e-12)


def test_perfect_agreement_is_one_and_one_category_says_nothing():
  assert feedback.krippendorff_alpha([[0, 1, 2], [0, 1, 2]]) == 1
  assert feedback.fleiss_kappa([[0, 1, 2], [0, 1, 2]]) == 1
  assert np.isnan(feedback.krippendorff_alpha([[1, 1], [1, 1]]))


def test_the_interval_holds_the_value_and_narrows_with_items():
  rng = np.random.default_rng(0)
  widths = []
  for count in (50, 800):
    truth = rng.integers(2, size=count)
    flips = rng.random((4, count)) < 0.2
    found = feedback.agreement_interval(
        feedback.krippendorff_alpha, np.where(flips, 1 - truth, truth),
        num_resamples=200)
    assert found.low < found.value < found.high
    widths.append(found.high - found.low)
  assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


@pytest.mark.parametrize('call, says', [
    (lambda: feedback.cohen_kappa([1, NAN], [NAN, 1]), 'no item'),
    (lambda: feedback.fleiss_kappa([[1, NAN], [1, 1]]), 'krippendorff_alpha'),
    (lambda: feedback.krippendorff_alpha([[1, NAN], [NAN, 1]]), 'two ratings'),
    (lambda: feedback.krippendorff_alpha([[1, 2]]), 'at least 2'),
    (lambda: feedback.krippendorff_alpha([[-1, 2], [1, 2]], level='ratio'),
     'interval'),
    (lambda: feedback.krippendorff_alpha([['a'], ['b']]), 'rectangle')])
def test_what_has_no_agreement_is_named(call, says):
  with pytest.raises(InputError, match=says):
    call()
