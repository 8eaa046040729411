"""The curves of over-optimisation: planted ones are found, and best of n."""

import itertools
import math

import numpy as np
import pytest

from alignjax import evaluation

KL = np.array([0.0, 0.5, 1.0, 3.0, 8.0, 20.0])


@pytest.mark.parametrize('form', ['best_of_n', 'rl'])
def test_a_planted_curve_is_found(form):
  planted = evaluation.Fit(form, 0.4, 0.15, 0.0)
  found = evaluation.fit_overoptimization(
      form, KL, 0.3 + planted.gain(np.sqrt(KL)), start=0.3)
  np.testing.assert_allclose(
      [found.alpha, found.beta, found.residual], [0.4, 0.15, 0.0], atol=1e-9)


def test_the_rl_curve_by_hand():
  curve = evaluation.Fit('rl', 0.4, 0.1, 0.0)
  np.testing.assert_allclose(
      curve.gain([0.0, 1.0, math.e]), [0.0, 0.4, 0.3 * math.e], atol=1e-12)


@pytest.mark.parametrize('form', ['best_of_n', 'rl'])
def test_no_place_is_higher_than_the_peak(form):
  curve = evaluation.Fit(form, 0.4, 0.15, 0.0)
  around = curve.peak * np.array([0.9, 1.0, 1.1])
  below, peak, above = curve.gain(around)
  assert peak > below and peak > above


def test_a_curve_that_only_climbs_peaks_nowhere():
  assert evaluation.Fit('rl', 0.4, 0.0, 0.0).peak == math.inf


def test_one_place_is_too_few():
  with pytest.raises(ValueError, match='fewer than two different values'):
    evaluation.fit_overoptimization('rl', [0.0, 2.0, 2.0], [0, 1, 1], start=0)


def test_the_first_of_one_costs_nothing_and_of_four_what_is_known():
  assert evaluation.best_of_n_kl(1) == 0.0
  np.testing.assert_allclose(evaluation.best_of_n_kl(4), math.log(4) - 0.75)


def test_best_of_n_is_the_mean_over_all_subsets():
  rng = np.random.default_rng(0)
  proxy, gold = rng.normal(size=(2, 3, 6))
  for n in (1, 2, 5, 6):
    worth = [
        [(p[list(s)].max(), g[list(s)][p[list(s)].argmax()])
         for s in itertools.combinations(range(6), n)]
        for p, g in zip(proxy, gold)]
    np.testing.assert_allclose(
        evaluation.best_of_n(proxy, gold, n), np.mean(worth, axis=(0, 1)))


def test_more_than_there_are_is_refused():
  with pytest.raises(ValueError, match='n=3 is not among 2'):
    evaluation.best_of_n(np.zeros((1, 2)), np.zeros((1, 2)), 3)
