"""Answers, panels, tools' exports: nothing is lost, ties and skips neither."""

import json

import numpy as np
import pytest

from alignjax import feedback
from alignjax.types import InputError

ITEMS = [
    feedback.Item('a', 'first', ('x', 'y', 'z'), known=(0, 1, 2)),
    feedback.Item('b', ({'role': 'user', 'content': 'second'},), ('u', 'v'))]
ANSWERS = [
    feedback.Answer('a', 'kim', ranks=(0, 1, 2)),
    feedback.Answer('a', 'lee', ranks=(0, 2, 2)),
    feedback.Answer('b', 'kim', ranks=(1, 0)),
    feedback.Answer('b', 'lee'),
    feedback.Answer('b', 'moe', ranks=(0, 0))]


def write(path, records):
  path.write_text(''.join(json.dumps(r) + '\n' for r in records))
  return path


def test_a_panel_keeps_ties_and_skips():
  panel = feedback.make_panel(ITEMS, ANSWERS)
  nan = float('nan')
  np.testing.assert_equal(panel.ratings, [
      [1, 1, 1, -1], [1, 1, 0, nan], [nan, nan, nan, 0]])
  assert panel.skips.tolist() == [0, 1, 0]
  assert panel.num_items.tolist() == [2, 1, 1]


@pytest.mark.parametrize('method', ['majority', 'dawid_skene', 'bradley_terry'])
def test_every_method_believes_a_panel_of_one(method):
  own = [a for a in ANSWERS if a.annotator == 'kim']
  pairs = feedback.aggregate(feedback.make_panel(ITEMS, own), method)
  assert [(p.item.id, p.winner, p.loser) for p in pairs] == [
      ('a', 0, 1), ('a', 0, 2), ('a', 1, 2), ('b', 1, 0)]


def test_even_votes_give_no_pair():
  split = [feedback.Answer('b', 'kim', ranks=(0, 1)),
           feedback.Answer('b', 'lee', ranks=(1, 0))]
  assert not feedback.aggregate(feedback.make_panel(ITEMS, split))


def test_dawid_skene_outvotes_two_who_guess():
  rng = np.random.default_rng(0)
  items = [feedback.Item(f'{n}', 'p', ('good', 'bad')) for n in range(120)]
  answers = []
  for item in items:
    for name, skill in (('sure', 0.95), ('g1', 0.5), ('g2', 0.5), ('h', 0.8)):
      ranks = (0, 1) if rng.random() < skill else (1, 0)
      answers.append(feedback.Answer(item.id, name, ranks=ranks))
  panel = feedback.make_panel(items, answers)
  right = {
      method: sum(p.winner == 0 for p in feedback.aggregate(panel, method))
      for method in ('majority', 'dawid_skene')}
  assert right['dawid_skene'] > right['majority']


def test_controls_tell_who_ranks_with_care():
  careless = feedback.Answer('a', 'moe', ranks=(2, 1, 0))
  found = feedback.screen_panel(ITEMS, [*ANSWERS, careless])
  assert found['kim'] == (1.0, True)
  assert found['lee'] == (pytest.approx(5 / 6), True)  # A tie counts half.
  assert found['moe'] == (0.0, False)


@pytest.mark.parametrize('tool', ['label_studio', 'argilla'])
def test_a_tool_s_export_gives_the_answers_back(tool, tmp_path):
  path = tmp_path / 'export.json'
  path.write_text(json.dumps(feedback.export_items(ITEMS, tool, ANSWERS)))
  items, answers = feedback.import_answers(path, tool)
  assert [(i.id, i.prompt, i.responses, i.known) for i in items] == [
      (i.id, i.prompt, i.responses, i.known) for i in ITEMS]
  key = lambda a: (a.item, a.annotator)
  assert sorted(answers, key=key) == sorted(ANSWERS, key=key)


def test_what_label_studio_writes_is_read(tmp_path):
  task = {'id': 7, 'data': {'prompt': 'p', 'text1': 'x', 'text2': 'y'},
          'annotations': [
              {'completed_by': {'email': 'kim@example.org'}, 'result': [
                  {'type': 'pairwise', 'value': {'selected': 'right'}}]},
              {'completed_by': 3, 'was_cancelled': True, 'result': []}]}
  ranked = {'id': 8, 'data': {'prompt': 'q', 'items': [
      {'id': 'a', 'body': 'x'}, {'id': 'b', 'body': 'y'}]}, 'annotations': [
          {'completed_by': 3, 'result': [
              {'type': 'ranker', 'value': {'ranker': ['b', 'a']}}]}]}
  path = tmp_path / 'export.json'
  path.write_text(json.dumps([task, ranked]))
  _, answers = feedback.import_answers(path, 'label_studio')
  assert [(a.annotator, a.ranks) for a in answers] == [
      ('kim@example.org', (1, 0)), ('3', None), ('3', (1, 0))]


def test_what_argilla_wrote_in_either_version_is_read(tmp_path):
  fields = {'prompt': 'p', 'response-1': 'x', 'response-2': 'y'}
  old = {'external_id': 'o', 'fields': fields, 'responses': [
      {'user_id': 'u', 'status': 'submitted', 'values': {'ranking': {'value': [
          {'value': 'response-1', 'rank': 2},
          {'value': 'response-2', 'rank': 1}]}}},
      {'user_id': 'w', 'status': 'discarded'}]}
  new = {'id': 'n', 'fields': fields, 'responses': {'ranking': [
      {'user_id': 'u', 'value': ['response-2', 'response-1']}]}}
  path = tmp_path / 'export.json'
  path.write_text(json.dumps([old, new]))
  _, answers = feedback.import_answers(path, 'argilla')
  assert [(a.item, a.ranks) for a in answers] == [
      ('o', (1, 0)), ('o', None), ('n', (1, 0))]


@pytest.mark.parametrize('record, says', [
    ({'item': 'c', 'annotator': 'k', 'skip': True}, "'item'"),
    ({'item': 'a', 'annotator': ' ', 'skip': True}, "'annotator'"),
    ({'item': 'a', 'annotator': 'k'}, 'nothing'),
    ({'item': 'a', 'annotator': 'k', 'ranks': [0, 1]}, '3 responses'),
    ({'item': 'a', 'annotator': 'k', 'ranks': [0, 1, None]}, "'ranks'"),
    ({'item': 'a', 'annotator': 'k', 'ranks': [0, 1, 2], 'good': True},
     'ranks, good'),
    ({'item': 'a', 'annotator': 'k', 'good': 1.0}, 'true or false')])
def test_a_bad_answer_is_named_with_its_line(record, says, tmp_path):
  path = write(tmp_path / 'a.jsonl', [record])
  with pytest.raises(InputError, match=says) as caught:
    feedback.read_answers([path], ITEMS)
  assert f'{path}:1' in str(caught.value)


@pytest.mark.parametrize('record, says', [
    ({'prompt': '', 'responses': ['a', 'b']}, "'prompt'"),
    ({'prompt': 'p', 'responses': ['a']}, '2 or more'),
    ({'prompt': 'p', 'responses': ['a', 1]}, "'responses'"),
    ({'prompt': 'p', 'responses': ['a', 'b'], 'known': [0]}, "'known'"),
    ({'prompt': 'p', 'responses': ['a', 'b'], 'id': 1.5}, "'id'")])
def test_a_bad_item_is_named_with_its_line(record, says, tmp_path):
  path = write(tmp_path / 'i.jsonl', [record])
  with pytest.raises(InputError, match=says) as caught:
    feedback.read_items(path, min_responses=2)
  assert f'{path}:1' in str(caught.value)


def test_an_item_stands_once(tmp_path):
  path = write(tmp_path / 'i.jsonl', 2 * [{'prompt': 'p', 'responses': ['a']}])
  with pytest.raises(InputError, match='stands once'):
    feedback.read_items(path)


def test_the_report_has_no_nan():
  report = feedback.agreement_table(feedback.make_panel(ITEMS, ANSWERS))
  json.loads(json.dumps(report, allow_nan=False))
  assert report['annotators']['lee']['skips'] == 1
