"""A log of thumbs becomes rows: no press counts twice."""

import json

import hypothesis
from hypothesis import strategies as st
import pytest

from alignjax import feedback
from alignjax.types import InputError

_presses = st.lists(st.builds(
    feedback.Thumb, st.sampled_from('pq'), st.sampled_from('abcd'),
    st.booleans(), st.sampled_from('xyz')), max_size=20)


def press(prompt, response, is_good, user=''):
  return feedback.Thumb(prompt, response, is_good, user)


@hypothesis.given(_presses)
def test_pressing_everything_again_changes_nothing(presses):
  once, twice = (feedback.digest(x) for x in (presses, presses + presses))
  assert once.rows == twice.rows
  assert twice.repeated == once.repeated + len(presses)


def test_a_user_may_think_better_of_it():
  found = feedback.digest([press('p', 'a', True, 'x'),
                           press('p', 'a', False, 'x')])
  assert [row.record()['label'] for row in found.rows] == [False]


def test_a_response_is_one_row_however_often_it_was_shown():
  found = feedback.digest(
      [press('p', 'a', True) for _ in range(99)] + [press('q', 'b', False)])
  assert [(r.response, r.good, r.bad) for r in found.rows] == [
      ('a', 99, 0), ('b', 0, 1)]


def test_split_votes_are_left_out_and_counted():
  found = feedback.digest([press('p', 'a', True, 'x'),
                           press('p', 'a', False, 'y')])
  assert not found.rows and found.split == 1


def test_a_popular_prompt_keeps_its_share_of_both_kinds():
  log = [press('p', f'r{n}', n < 15) for n in range(20)]
  found = feedback.digest(log, max_per_prompt=6)
  labels = [row.record()['label'] for row in found.rows]
  assert labels.count(True) == labels.count(False) == 3
  assert found.crowded == 14


@pytest.mark.parametrize('record, field', [
    ({'prompt': '', 'response': 'r', 'is_good': True}, 'prompt'),
    ({'prompt': 'p', 'is_good': True}, 'response'),
    ({'prompt': 'p', 'response': 'r', 'is_good': 1}, 'is_good')])
def test_what_is_no_press_is_named(record, field, tmp_path):
  path = tmp_path / 'log.jsonl'
  path.write_text(json.dumps(record) + '\n')
  with pytest.raises(InputError, match=f"log.jsonl:1: field '{field}'"):
    feedback.read_thumbs(path)
