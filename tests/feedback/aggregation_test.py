"""Votes, Dawid and Skene's EM, and Bradley-Terry strengths."""

import numpy as np
import pytest

from alignjax import feedback
from alignjax.types import InputError

NAN = float('nan')


def _panel(seed, skills, num_items=300):
  """Binary labels of annotators who are right with their own probability."""
  rng = np.random.default_rng(seed)
  truth = rng.integers(2, size=num_items)
  is_right = rng.random((len(skills), num_items)) < np.array(skills)[:, None]
  return truth, np.where(is_right, truth, 1 - truth).astype(float)


def test_dawid_skene_listens_to_those_who_are_right():
  truth, labels = _panel(0, [0.95, 0.9, 0.6, 0.6, 0.6], 2_000)
  found = feedback.dawid_skene(labels)
  by_vote = np.argmax(feedback.majority_label(labels), axis=1)
  by_model = np.argmax(found.posterior, axis=1)
  assert np.mean(by_model == truth) > np.mean(by_vote == truth) + 0.05
  assert np.argmax(found.accuracy) == 0
  assert found.accuracy[0] == pytest.approx(0.95, abs=0.06)


def test_one_who_is_always_wrong_says_as_much_as_one_who_is_right():
  _, labels = _panel(0, [0.9, 0.8, 0.7])
  turned = labels.copy()
  turned[2] = 1 - turned[2]
  np.testing.assert_allclose(
      feedback.dawid_skene(labels).posterior,
      feedback.dawid_skene(turned).posterior, atol=0.2)


def test_a_panel_of_one_is_believed():
  found = feedback.dawid_skene([[0, 1, 1, 2]])
  np.testing.assert_allclose(found.posterior, np.eye(3)[[0, 1, 1, 2]],
                             atol=1e-6)


def test_gaps_are_no_votes():
  shares = feedback.majority_label([[0, 1, NAN], [0, NAN, NAN], [1, 1, NAN]])
  np.testing.assert_allclose(shares, [[2 / 3, 1 / 3], [0, 1], [0, 0]])
  with pytest.raises(InputError, match='item 2 has no label'):
    feedback.dawid_skene([[0, 1, NAN]])


def test_strengths_are_the_shares_of_two_and_fit_of_many():
  np.testing.assert_allclose(
      feedback.bradley_terry([[0, 3], [1, 0]]), [0.75, 0.25], atol=1e-9)
  strength = np.array([0.5, 0.3, 0.15, 0.05])
  chance = strength[:, None] / (strength[:, None] + strength)
  np.testing.assert_allclose(
      feedback.bradley_terry(1000 * chance), strength, atol=1e-6)


def test_who_never_lost_has_no_finite_strength():
  with pytest.raises(InputError, match='finite strengths'):
    feedback.bradley_terry([[0, 3, 1], [0, 0, 2], [0, 1, 0]])
  strength = feedback.bradley_terry(
      [[0, 3, 1], [0, 0, 2], [0, 1, 0]], prior_wins=0.1)
  assert strength[0] > strength[1] > strength[2]


@pytest.mark.parametrize('labels', [[], [[NAN]], [[0.5]], [[-1]], 'ab'])
def test_what_is_no_label_is_refused(labels):
  with pytest.raises(InputError):
    feedback.dawid_skene(labels)
