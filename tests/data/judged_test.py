"""Claims about labels, ranks, scores and steps."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from alignjax import types
from alignjax.data import formats
from alignjax.data import judged


def labeled(label):
  return {'prompt': 'q', 'completion': 'r', 'label': label}


def scored(chosen, rejected):
  return {'prompt': 'q', 'chosen': 'a', 'rejected': 'b',
          'score_chosen': chosen, 'score_rejected': rejected}


def rated(*scores, texts='abcdef'):
  return {'instruction': 'q', 'completions': [
      {'response': text, 'overall_score': score}
      for text, score in zip(texts, scores, strict=False)]}


def error_of(reader, path, **settings) -> str:
  with pytest.raises(types.InputError) as caught:
    reader(path, **settings)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize(('label', 'due'), [
    ('true', True), ('True', True), (' FALSE ', False)])
def test_a_label_that_is_written_out_is_read_and_said(write, label, due):
  path = write([labeled(True), labeled(label)])
  rows, reading = formats.unpaired(path)
  assert [row.desirable for row in rows] == [True, due]
  assert reading.repaired == (('label as text', f'{path}:2'),)
  assert str(reading).endswith('repaired 1: label as text (line 2)')
  assert reading.summary()['repaired'] == {
      'label as text': {'count': 1, 'first': [f'{path}:2']}}


def test_a_row_that_is_dropped_was_not_repaired(write):
  path = write([labeled(True), labeled('true') | {'completion': ''}])
  _, reading = formats.unpaired(path, max_dropped=0.5)
  assert reading.repaired == () and len(reading.dropped) == 1


def test_scores_that_tie_are_left_out_and_do_not_count_as_bad(write):
  path = write([scored(2, 1.5), scored(7.0, 7.0), scored(3, 3)])
  rows, reading = formats.preferences(path, max_dropped=0.0)
  assert len(rows) == 1
  assert [reason for reason, _ in reading.dropped] == ['score tie'] * 2
  assert len(formats.demonstrations(path)[0]) == 3  # Each was chosen.


@pytest.mark.parametrize(('row', 'words'), [
    (scored(1, 2), "'score_rejected' is 2, more than 'score_chosen', 1"),
    (scored('9', 2), "'score_chosen' is \"9\"; it must be a number"),
    (scored(True, 0), "'score_chosen' is true"),
])
def test_scores_that_are_none_or_contradict_stop_the_run(write, row, words):
  path = write([scored(2, 1), row])
  message = error_of(formats.preferences, path)
  assert message.startswith(f'{path}:2: ') and words in message


def test_a_pair_without_scores_needs_none(write):
  rows = [scored(None, None), scored(None, 1)]
  assert len(formats.preferences(write(rows))[0]) == 2


@given(st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_ranks_go_down_as_scores_go_up(scores):
  record = rated(*(score / 2 for score in scores))
  if len(set(scores)) == 1:
    with pytest.raises(judged.Unusable, match='score tie'):
      judged.read_ranking(record, formats.Format.ULTRAFEEDBACK, 'f:1', [])
    return
  ranked = judged.read_ranking(record, formats.Format.ULTRAFEEDBACK, 'f:1', [])
  for a, rank_a in zip(scores, ranked.ranks, strict=True):
    assert rank_a == len({b for b in scores if b > a})
  assert len(judged.pairs_of(ranked)) == sum(
      a > b for a in scores for b in scores)
  assert judged.best_of(ranked)[1] == 'abcdef'[scores.index(max(scores))]


@pytest.mark.parametrize(('row', 'words'), [
    (rated(1, None), "'completions[1].overall_score' is null"),
    (rated(1, '3'), "'completions[1].overall_score' is \"3\""),
    (rated(1, 2, texts=['a', None]), "'completions[1].response' is null"),
    ({'instruction': 'q', 'completions': [{'response': 'a'}] * 2},
     "'completions[0].overall_score' is missing"),
    ({'instruction': 'q', 'completions': 'a'}, "'completions' is \"a\""),
    ({'instruction': 'q', 'completions': ['a']}, "'completions' is [\"a\"]"),
    ({'instruction': None, 'completions': []}, "'instruction' is null"),
])
def test_ratings_that_are_none_stop_the_run(write, row, words):
  path = write([rated(1, 2), row])
  message = error_of(formats.rankings, path)
  assert message.startswith(f'{path}:2: ') and words in message


@pytest.mark.parametrize(('row', 'reason'), [
    (rated(1, 2, texts=['a', ' ']), 'empty response'),
    (rated(1, 2, texts=['a', 'a']), 'one response'),
    (rated(1), 'one response'), (rated(), 'one response'),
    (rated(1, 2) | {'instruction': ''}, 'empty prompt'),
])
def test_ratings_that_teach_nothing_are_dropped(write, row, reason):
  path = write([rated(1, 2), row])
  _, reading = formats.rankings(path, max_dropped=0.5)
  assert reading.dropped == ((reason, f'{path}:2'),)


@pytest.mark.parametrize(('change', 'words'), [
    ({'labels': [True]}, "'labels' is [true]; it must be a list of 2"),
    ({'labels': [True, 'maybe']}, "'labels[1]' is \"maybe\""),
    ({'labels': True}, "'labels' is true"),
    ({'completions': []}, "'completions' is []"),
    ({'completions': ['a', None]}, "'completions[1]' is null"),
    ({'completions': ['a', [{'role': 'user', 'content': 'b'}]]},
     "'completions[1]' is [{"),
])
def test_steps_that_are_none_stop_the_run(write, change, words):
  good = {'prompt': 'q', 'completions': ['a', 'b'], 'labels': [True, False]}
  path = write([good, good | change])
  message = error_of(formats.unpaired, path)
  assert message.startswith(f'{path}:2: ') and words in message


@pytest.mark.parametrize('ranks', [[0, 2, 1], [2, 0, 1]])
def test_equal_responses_are_one_at_their_best_rank(write, ranks):
  path = write([
      {'prompt': 'q', 'responses': ['x', 'x', 'y'], 'ranks': ranks}])
  ((row,), reading) = formats.rankings(path)
  assert (row.responses, row.ranks) == (('x', 'y'), (0, 1))
  assert reading.repaired == (('equal responses merged', f'{path}:1'),)
