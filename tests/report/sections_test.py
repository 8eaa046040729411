"""Tests of the sections that a run's files turn into."""

import json
import math
from typing import NamedTuple

import pytest

from alignjax import evaluation
from alignjax import metrics
from alignjax import report


class _Verdict(NamedTuple):
  helpful: float
  harmless: float
  honest: float
  concise: float
  gold: float


class _Prompt(NamedTuple):
  kind: str
  dish: str


_PROMPTS = [_Prompt('how_to', 'rice'), _Prompt('fact', 'fish'),
            _Prompt('danger', 'egg')]


def _model(gold, rival=None, **numbers):
  verdicts = [_Verdict(1, 1, 1, 1, gold + 0.01 * i) for i in range(3)]
  score = evaluation.score_model(
      verdicts, _PROMPTS, ['a b c'] * 3, is_refusal=lambda text: False,
      rival_golds=rival, num_resamples=50)
  return score | numbers


def _summary():
  sft = _model(0.3, kl=0.0)
  return {
      'models': {'base': _model(0.0, sft['golds']), 'sft': sft,
                 'ppo': _model(0.6, sft['golds'], kl=1.84)},
      'reward_model': {
          'pair_accuracy': 0.733,
          'reliability': {'confidence': [0.6, math.nan], 'weight': [10, 0],
                          'accuracy': [0.7, math.nan]}},
      'seconds': {'sft': 16.2}, 'config': {'kl_coef': 0.1}}


def _titles(sections):
  return [section.title for section in sections]


def _rows():
  return [
      {'step': 1, 'stage': 'sft', 'loss': 2.0},
      {'step': 2, 'stage': 'sft', 'loss': math.nan, 'accuracy': 0.5},
      {'step': 1, 'stage': 'ppo', 'kl': 0.1}]


def test_each_stage_is_a_section_and_each_metric_a_chart():
  sections = report.training_curves(_rows())
  assert _titles(sections) == ['Training: sft', 'Training: ppo']
  assert [chart.title for chart in sections[0].blocks] == ['loss', 'accuracy']
  assert list(sections[0].blocks[1].series[0].x) == [2]


def test_a_loss_that_was_not_finite_is_told():
  loss, accuracy = report.training_curves(_rows())[0].blocks
  assert loss.caption == 'Not finite at 1 of 2 steps: 2.'
  assert accuracy.caption == ''


def test_averaged_curves_say_so():
  rows = [{'step': i, 'stage': 'sft', 'loss': 1.0} for i in range(500)]
  (section,) = report.training_curves(rows)
  assert section.blocks[0].caption == 'Each point is the mean of 3 rows.'


def test_no_rows_make_no_section():
  assert report.training_curves([]) == []


def test_curves_can_be_drawn_from_a_written_file(tmp_path):
  with metrics.JsonlWriter(tmp_path / 'm.jsonl') as writer:
    for row in _rows():
      writer.write(row['step'], row['stage'], {
          name: value for name, value in row.items()
          if name not in ('step', 'stage')})
  rows = metrics.read_jsonl(tmp_path / 'm.jsonl')
  assert 'Not finite at 1 of 2' in report.render(
      title='t', sections=report.training_curves(rows))


def test_the_whole_testbed_report_is_one_page():
  run = [{'step': 0, 'kl': 0, 'gold': 0.3, 'proxy': 0.1},
         {'step': 9, 'kl': 2, 'gold': 0.6, 'proxy': 0.9}]
  sections = report.testbed_report(
      _summary(), _rows(),
      [report.Transcript('how ?', {'sft': 'so .', 'ppo': 'thus .'})],
      runs={'ppo': run, 'ppo without KL': run})
  assert _titles(sections) == [
      'Results', 'Reward against KL', 'Gold by part and by prompt',
      'Reward model', 'The same prompts, each model', 'Training: sft',
      'Training: ppo', 'How it was made']
  text = report.render(title='t', sections=sections)
  assert 'nan' not in text
  assert '<td class="number">1.84</td>' in text and 'danger (1)' in text


def test_a_model_has_one_colour_in_every_chart():
  run = [{'step': 0, 'kl': 0, 'gold': 0.3, 'proxy': 0.1}]
  sections = report.testbed_report(
      _summary(), [], [report.Transcript('how ?', {'ppo': 'thus .'})],
      runs={'other': run, 'ppo': run})
  lines = sections[1].blocks[1].series
  bars = sections[2].blocks[0].bars
  assert [bar.color for bar in bars] == [0, 1, 2]
  assert {line.name: line.color for line in lines} == {'other': 3, 'ppo': 2}
  assert 'class="c2"' in report.render(title='t', sections=sections[4:5])


def test_the_headline_says_whether_the_intervals_overlap():
  text = report.testbed_report(_summary(), [])[0].blocks[0].body
  assert 'ppo, 0.610 [0.600, 0.620]' in text and 'do not overlap' in text
  close = {'models': {'sft': _model(0.3), 'ppo': _model(0.305)}}
  text = report.testbed_report(close, [])[0].blocks[0].body
  assert 'intervals overlap' in text


def test_what_was_not_measured_is_a_dash():
  table = report.testbed_report(_summary(), [])[0].blocks[1]
  by_model = {row[0]: row[1:] for row in table.rows}
  assert by_model['base'][2] == '–' and by_model['sft'][1] == '–'
  assert by_model['ppo'][1:3] == ['1.00 [1.00, 1.00]', '1.84']


def test_bands_are_drawn_where_runs_have_intervals():
  rows = [{'step': 0, 'kl': 0, 'gold': 0.3, 'proxy': 0.1, 'gold_low': 0.2,
           'gold_high': 0.4}]
  blocks = report.testbed_report(
      _summary(), [], runs={'a': rows})[1].blocks
  gold, proxy = blocks[1].series[0], blocks[2].series[0]
  assert gold.low == [0.2] and gold.high == [0.4] and proxy.low is None


def test_a_summary_may_come_back_from_a_file():
  summary = json.loads(json.dumps(_summary()))
  sections = report.testbed_report(summary, [])
  assert report.render(title='t', sections=sections) == report.render(
      title='t', sections=report.testbed_report(_summary(), []))


@pytest.mark.parametrize('left_out', ['reward_model', 'seconds', 'config'])
def test_the_optional_parts_of_a_summary_can_be_left_out(left_out):
  summary = _summary()
  del summary[left_out]
  assert 'Results' in _titles(report.testbed_report(summary, []))
