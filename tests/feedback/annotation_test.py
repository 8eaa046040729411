"""Tests of rankings, votes, agreement and screening."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import types
from alignjax.feedback import annotation

_few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
_ranks = st.lists(st.integers(0, 4), min_size=4, max_size=4)


@pytest.mark.parametrize('num_responses, num_pairs', [(2, 1), (4, 6), (9, 36)])
def test_a_ranking_without_ties_gives_every_pair_once(num_responses, num_pairs):
  ranks = np.random.default_rng(0).permutation(num_responses)
  pairs = annotation.ranking_to_pairs(ranks)
  assert len(pairs) == num_pairs == len({frozenset(pair) for pair in pairs})


def test_a_over_c_over_b_gives_the_three_pairs_in_order():
  a, b, c = range(3)
  assert annotation.ranking_to_pairs([0, 2, 1]) == [(a, c), (a, b), (c, b)]


def test_a_tie_gives_no_pair():
  assert annotation.ranking_to_pairs([0, 1, 1]) == [(0, 1), (0, 2)]
  assert annotation.ranking_to_pairs([2, 2, 2, 2]) == []


@_few
@hypothesis.given(_ranks)
def test_the_winner_of_a_pair_always_ranks_better(ranks):
  pairs = annotation.ranking_to_pairs(ranks)
  assert all(ranks[winner] < ranks[loser] for winner, loser in pairs)
  assert len(pairs) == sum(
      ranks[i] != ranks[j] for i in range(4) for j in range(i))


def test_a_vote_counts_opinions_and_leaves_ties_out():
  votes = annotation.majority_vote([[0, 1, 2], [0, 2, 1], [1, 0, 0]])
  assert votes == [annotation.Vote(0, 1, 2 / 3, 3),
                   annotation.Vote(0, 2, 2 / 3, 3)]  # 1 against 2 is split.


@_few
@hypothesis.given(_ranks)
def test_one_annotator_is_a_majority_of_one_mind(ranks):
  votes = annotation.majority_vote([ranks])
  assert (sorted((vote.winner, vote.loser) for vote in votes) ==
          sorted(annotation.ranking_to_pairs(ranks)))
  assert all(vote.agreement == 1 and vote.opinions == 1 for vote in votes)


@_few
@hypothesis.given(st.lists(_ranks, min_size=1, max_size=5))
def test_a_vote_does_not_depend_on_the_order_of_the_annotators(panel):
  assert (annotation.majority_vote(panel) ==
          annotation.majority_vote(panel[::-1]))


def test_a_majority_is_right_more_often_than_its_members():
  rng = np.random.default_rng(0)
  truth = np.arange(4.0)
  single = panel = 0
  for _ in range(200):
    ranks = truth + rng.normal(0, 2, size=(5, 4))
    single += sum(w < l for w, l in annotation.ranking_to_pairs(ranks[0]))
    panel += sum(v.winner < v.loser for v in annotation.majority_vote(ranks))
  assert single / 1200 < 0.75 < 0.8 < panel / 1200


def test_two_annotators_who_differ_on_one_of_three_pairs_agree_two_thirds():
  items = [[[0, 2, 1], [0, 1, 2]]]
  np.testing.assert_allclose(
      annotation.agreement_matrix(items), [[1, 2 / 3], [2 / 3, 1]])
  assert annotation.agreement_rate(items) == pytest.approx(2 / 3)


def test_agreement_weighs_pairs_over_items_of_different_size():
  items = [[[0, 1], [1, 0]], [[0, 1, 2], [0, 1, 2]]]
  assert annotation.agreement_rate(items) == pytest.approx(3 / 4)


def test_coin_tossers_agree_half_of_the_time():
  items = np.random.default_rng(0).random((400, 3, 4))
  assert annotation.agreement_rate(items) == pytest.approx(0.5, abs=0.02)


def test_annotators_without_a_common_pair_have_no_agreement():
  items = [[[0, 1], [0, 0], [0, 1]]]
  matrix = annotation.agreement_matrix(items)
  assert np.isnan(matrix[0, 1]) and matrix[0, 2] == 1
  with pytest.raises(types.InputError, match='share no pair'):
    annotation.agreement_rate([[[0, 1], [0, 0]]])


def test_screening_passes_the_careful_and_fails_the_rest():
  known = [[0, 1, 2, 3], [3, 2, 1, 0]]
  careful, reverse, lazy = (
      [known[0], known[1]], [known[1], known[0]], [[0] * 4, [0] * 4])
  items = list(zip(careful, reverse, lazy, strict=True))
  result = annotation.screen(items, known)
  assert result.agreement.tolist() == [1, 0, 0.5]
  assert result.passed.tolist() == [True, False, False]


def test_screening_ignores_pairs_that_the_known_ranking_ties():
  result = annotation.screen([[[0, 1, 2]]], [[0, 0, 1]])
  assert result.agreement.tolist() == [1.0]
  assert annotation.screen([[[0, 1]]], [[0, 0]]).passed.tolist() == [False]


def test_annotators_can_be_screened_against_their_own_earlier_ranks():
  now = [[[0, 1, 2], [0, 1, 2]]]
  before = [[[0, 1, 2], [0, 2, 1]]]
  result = annotation.screen(now, before, min_agreement=0.7)
  np.testing.assert_allclose(result.agreement, [1, 2 / 3])
  assert result.passed.tolist() == [True, False]


@pytest.mark.parametrize('call', [
    lambda: annotation.ranking_to_pairs([0]),
    lambda: annotation.ranking_to_pairs([0, float('nan')]),
    lambda: annotation.ranking_to_pairs(['first', 'second']),
    lambda: annotation.majority_vote([0, 1]),
    lambda: annotation.majority_vote([[0, 1], [0]]),
    lambda: annotation.agreement_matrix([]),
    lambda: annotation.agreement_rate([[[0, 1]]]),
    lambda: annotation.screen([[[0, 1]]], []),
    lambda: annotation.screen([[[0, 1]]], [[0, 1, 2]]),
    lambda: annotation.screen([[[0, 1]]], [[0, 1]], min_agreement=0.5),
])
def test_what_cannot_be_ranked_is_said_in_one_line(call):
  with pytest.raises(types.InputError) as error:
    call()
  assert '\n' not in str(error.value)
