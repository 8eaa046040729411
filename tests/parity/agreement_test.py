"""Agreement and aggregation are those of published implementations."""

import numpy as np
import pytest

from alignjax import feedback

pytestmark = [pytest.mark.parity,
              pytest.mark.filterwarnings('ignore:.*:Warning:crowdkit')]


def _panel(seed, num_annotators=5, num_items=40, num_classes=4, gaps=0.2):
  """Ratings of annotators of different skill, some missing."""
  rng = np.random.default_rng(seed)
  truth = rng.integers(num_classes, size=num_items)
  skill = rng.uniform(0.4, 0.95, size=(num_annotators, 1))
  noise = rng.integers(num_classes, size=(num_annotators, num_items))
  is_right = rng.random((num_annotators, num_items)) < skill
  ratings = np.where(is_right, truth, noise).astype(float)
  ratings[rng.random(ratings.shape) < gaps] = np.nan
  return ratings


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('level', ['nominal', 'ordinal', 'interval', 'ratio'])
def test_alpha_is_the_krippendorff_package_s(seed, level):
  krippendorff = pytest.importorskip('krippendorff')
  ratings = _panel(seed, num_annotators=2 + seed % 6, gaps=0.05 * (seed % 8))
  expected = krippendorff.alpha(
      reliability_data=ratings, level_of_measurement=level)
  got = feedback.krippendorff_alpha(ratings, level=level)
  assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('seed', range(20))
def test_kappas_are_statsmodels_s(seed):
  inter_rater = pytest.importorskip('statsmodels.stats.inter_rater')
  ratings = _panel(seed, num_annotators=2 + seed % 6, gaps=0.0)
  table, _ = inter_rater.aggregate_raters(ratings.T)
  assert feedback.fleiss_kappa(ratings) == pytest.approx(
      inter_rater.fleiss_kappa(table), abs=1e-6)
  both, _ = inter_rater.to_table(ratings[:2].T.astype(int))
  for ours, theirs in [
      ('none', None), ('linear', 'linear'), ('quadratic', 'quadratic')]:
    expected = inter_rater.cohens_kappa(both, wt=theirs, return_results=False)
    got = feedback.cohen_kappa(ratings[0], ratings[1], weights=ours)
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('seed', range(10))
def test_dawid_skene_is_crowd_kit_s(seed):
  aggregation = pytest.importorskip('crowdkit.aggregation')
  pandas = pytest.importorskip('pandas')
  ratings = _panel(seed, num_annotators=7, num_items=60, num_classes=3)
  ratings = ratings[:, ~np.isnan(ratings).all(axis=0)]
  rows = [(f'a{a}', i, int(ratings[a, i])) for a, i in
          np.argwhere(~np.isnan(ratings))]
  theirs = aggregation.DawidSkene(n_iter=300, tol=-1.0)
  theirs.fit(pandas.DataFrame(rows, columns=['worker', 'task', 'label']))
  expected = theirs.probas_.sort_index().sort_index(axis=1).to_numpy()
  got = feedback.dawid_skene(ratings, max_steps=300, tolerance=0.0)
  np.testing.assert_allclose(got.posterior, expected, atol=1e-6)


@pytest.mark.parametrize('seed', range(20))
def test_bradley_terry_is_crowd_kit_s(seed):
  aggregation = pytest.importorskip('crowdkit.aggregation')
  pandas = pytest.importorskip('pandas')
  rng = np.random.default_rng(seed)
  strength = rng.normal(size=6)
  rows, wins = [], np.zeros((6, 6))
  for _ in range(300):
    i, j = rng.choice(6, size=2, replace=False)
    is_first = rng.random() < 1 / (1 + np.exp(strength[j] - strength[i]))
    winner, loser = (i, j) if is_first else (j, i)
    wins[winner, loser] += 1
    rows.append((i, j, winner))
  # Its test for convergence compares an array with itself: tol=0 turns it off.
  theirs = aggregation.BradleyTerry(n_iter=2_000, tol=0.0).fit_predict(
      pandas.DataFrame(rows, columns=['left', 'right', 'label']))
  np.testing.assert_allclose(
      feedback.bradley_terry(wins), theirs.sort_index().to_numpy(), atol=1e-6)
