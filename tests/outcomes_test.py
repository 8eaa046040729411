"""How a run ends: rows counted once, curves averaged, one summary."""

import json
import math

import pytest

from alignjax import metrics
from alignjax import outcomes
from alignjax import runs
from alignjax import testbed


def log(folder, stage, values, **more):
  """Writes metrics.jsonl of a stage: one step per value of `loss`."""
  with metrics.JsonlWriter(folder / 'metrics.jsonl') as writer:
    for step, value in enumerate(values, 1):
      writer.write(step, stage, {'loss': value} | more)


def losses(rows):
  return [(row['stage'], row['loss']) for row in rows]


@pytest.fixture
def staged(tmp_path):
  """The workdir of a run with two stages in folders, base before sft."""
  workdir = tmp_path / 'first'
  for name, stage, values in (
      ('base', 'pretrain', [3.0, 2.0]), ('sft', 'sft', [1.5])):
    (workdir / name).mkdir(parents=True)
    log(workdir / name, stage, values)
  return workdir


EXPECTED = [('pretrain', 3.0), ('pretrain', 2.0), ('sft', 1.5)]


def test_rows_of_all_stages_are_collected_one_after_the_other(staged):
  assert losses(outcomes.collect_metrics(staged)) == EXPECTED


def test_rows_written_to_one_file_are_not_counted_twice(staged):
  path = staged / 'metrics.jsonl'
  for _ in range(2):  # Again, as after an interruption right behind it.
    outcomes.write_metrics(path, outcomes.collect_metrics(staged))
    assert losses(metrics.read_jsonl(path)) == EXPECTED
    assert losses(outcomes.collect_metrics(staged)) == EXPECTED
  assert sorted(p.name for p in staged.iterdir()) == [
      'base', 'metrics.jsonl', 'sft']


def test_a_run_that_trained_itself_follows_its_stages(staged):
  log(staged, 'ppo', [0.1])
  assert losses(outcomes.collect_metrics(staged)) == [*EXPECTED, ('ppo', 0.1)]


def test_the_one_file_alone_is_read_too(staged, tmp_path):
  path = tmp_path / 'alone' / 'metrics.jsonl'
  path.parent.mkdir()
  outcomes.write_metrics(path, outcomes.collect_metrics(staged))
  assert losses(outcomes.collect_metrics(path.parent)) == EXPECTED


def test_a_value_that_is_not_finite_survives(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  outcomes.write_metrics(path, [{'step': 1, 'stage': 'ppo', 'loss': math.inf}])
  assert losses(outcomes.collect_metrics(tmp_path)) == [('ppo', math.inf)]


def test_no_rows_make_no_file(tmp_path):
  outcomes.write_metrics(tmp_path / 'metrics.jsonl', [])
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('stage', ['ppo', 'grpo'])
def test_a_point_of_the_curve_is_the_mean_of_five_iterations(stage):
  rows = [{'step': i, 'stage': stage, 'kl': float(i), 'reward': 2.0 * i}
          for i in range(1, 8)]
  rows.insert(3, {'step': 1, 'stage': 'sft', 'loss': 1.0})
  assert outcomes.ppo_curve(rows) == [
      {'step': 5, 'kl': 3.0, 'proxy': 6.0}, {'step': 7, 'kl': 6.5,
                                             'proxy': 13.0}]
  assert outcomes.ppo_curve(rows[3:4]) == []
  # Neither a reward model nor KTO draws one.
  for other in ({'reward': 1.0}, {'kl': 1.0, 'desirable_reward': 1.0}):
    assert outcomes.ppo_curve([{'step': 1, 'stage': 'reward'} | other]) == []


def test_a_run_without_models_ends_in_its_own_numbers(tmp_path):
  cfg = runs.RunConfig(workdir=str(tmp_path / 'r'))
  with runs.start(cfg, 'reward') as run:
    log(run.workdir, 'reward', [0.7, 0.6], accuracy=0.5)
    run.finish({'accuracy': 0.75})
    summary = outcomes.write(run, cfg, {})
  assert summary['reward_model'] == {'accuracy': 0.75}
  assert summary['seconds'].keys() == {'reward'} and summary['models'] == {}
  assert json.loads((tmp_path / 'r/summary.json').read_text()) == summary
  page = (tmp_path / 'r' / 'report.html').read_text()
  assert 'src="http' not in page and 'href="http' not in page


def test_what_has_ended_is_not_compared_again(tmp_path):
  cfg = runs.RunConfig(workdir=str(tmp_path / 'r'), resume=True)
  with runs.start(cfg, 'reward') as run:
    run.finish({'accuracy': 0.75})
    first = outcomes.write(run, cfg, {})
  (tmp_path / 'r' / 'report.html').unlink()
  with runs.start(cfg, 'reward') as run:
    assert outcomes.write(run, cfg, {'gone': 'no/where'}) == first
  assert not (tmp_path / 'r' / 'report.html').exists()


def test_transcripts_take_the_kinds_in_turn():
  prompts = testbed.prompts(testbed.make_world(seed=0), 'test', count=60)
  prompts.sort(key=lambda p: p.kind)
  chosen = outcomes._some_of_each_kind(prompts)
  kinds = [prompts[i].kind for i in chosen]
  assert len(kinds) == outcomes.NUM_TRANSCRIPTS == 2 * len(testbed.KINDS)
  assert set(kinds[:5]) == set(kinds[5:]) == set(testbed.KINDS)
