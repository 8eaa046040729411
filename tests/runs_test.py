"""A workdir holds one run, is continued when asked, and is left as it was."""

import dataclasses
import json
import math
import pathlib

import pytest

from alignjax import runs
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of a run that does nothing."""

  num_steps: int = 3
  learning_rate: float | None = None
  names: tuple[str, ...] = ('a', 'b')
  kl_horizon: float = math.inf


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
  """A folder two levels below one that exists."""
  return tmp_path / 'runs' / 'first'


def test_the_config_is_written_with_the_name_of_the_experiment(workdir):
  with runs.start(Config(workdir=str(workdir)), 'sft') as run:
    config = json.loads((workdir / 'config.json').read_text())
    assert run.is_testbed and not run.is_done
  assert config['experiment'] == 'sft' and config['num_steps'] == 3
  assert config['names'] == ['a', 'b'] and config['kl_horizon'] == 'inf'


def test_finish_writes_the_summary_that_says_done(workdir):
  with runs.start(Config(workdir=str(workdir)), 'sft') as run:
    summary = run.finish({'rows': 7, 'lost': [math.nan]})
    assert run.is_done and run.summary()['rows'] == 7
  assert summary['stage'] == 'sft' and summary['seconds'] >= 0
  text = (workdir / 'summary.json').read_text()
  assert json.loads(text)['lost'] == ['nan']  # NaN is no JSON.


def test_what_was_read_is_in_the_summary_once_however_often_it_is_written(
    workdir):
  cfg = Config(workdir=str(workdir))
  with runs.start(cfg, 'sft') as run:
    run.note_reading('read a', {'path': 'a', 'records': 3})
    run.note_reading('read a', {'path': 'a', 'records': 3})
    run.finish({'rows': 3})
  resumed = dataclasses.replace(cfg, resume=True)
  with runs.start(resumed, 'sft') as run:
    run.note_reading('read b', {'path': 'b', 'records': 4})
    summary = run.finish({'models': {}})
  assert summary['data'] == run.summary()['data'] == [
      {'path': 'a', 'records': 3}, {'path': 'b', 'records': 4}]


def test_a_run_that_reads_nothing_says_nothing_of_data(workdir):
  with runs.start(Config(workdir=str(workdir)), 'sft') as run:
    assert 'data' not in run.finish({})


def test_what_was_trained_on_is_no_test(tmp_path, workdir):
  path = tmp_path / 'p.jsonl'
  path.write_text('{}')
  config = dataclasses.make_dataclass(
      'WithTest', [('test_data', str, '')], bases=(Config,), frozen=True,
      kw_only=True)
  same = str(tmp_path / '.' / 'p.jsonl')
  with pytest.raises(InputError, match='is what --data names too'):
    runs.check(config(
        workdir=str(workdir), model=str(tmp_path), data=str(path),
        test_data=same))


def test_a_run_is_continued_with_resume_and_the_same_settings(workdir):
  cfg = Config(workdir=str(workdir))
  with runs.start(cfg, 'sft'):
    pass
  free = dataclasses.replace(cfg, resume=True, save_every=5, mesh='fsdp:-1')
  with runs.start(free, 'sft') as run:
    assert run.mesh.shape['fsdp'] == 8


def test_a_run_is_not_continued_unasked(workdir):
  cfg = Config(workdir=str(workdir))
  with runs.start(cfg, 'sft'):
    pass
  with pytest.raises(InputError, match='already holds a run; add --resume'):
    with runs.start(cfg, 'sft'):
      pass


@pytest.mark.parametrize('name, change, words', [
    ('sft', {'num_steps': 4}, 'num_steps=3, not 4'),
    ('sft', {'seed': 1}, 'seed=0, not 1'),
    ('sft', {'names': ('a',)}, r"names=\['a', 'b'\], not \['a'\]"),
    ('dpo', {}, "experiment='sft', not 'dpo'"),
])
def test_another_run_is_not_mixed_into_one(workdir, name, change, words):
  cfg = Config(workdir=str(workdir), resume=True)
  with runs.start(cfg, 'sft'):
    pass
  before = (workdir / 'config.json').read_bytes()
  with pytest.raises(InputError, match=words):
    with runs.start(dataclasses.replace(cfg, **change), name):
      pass
  assert (workdir / 'config.json').read_bytes() == before


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
  (tmp_path / 'thesis.txt').write_text('years')
  with pytest.raises(InputError, match='holds files but no run'):
    with runs.start(Config(workdir=str(tmp_path)), 'sft'):
      pass
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.txt']


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  for name in ('file', 'file/below'):
    with pytest.raises(InputError, match=f'workdir=.*{name} cannot be written'):
      with runs.start(Config(workdir=str(tmp_path / name)), 'sft'):
        pass


def test_a_config_cut_short_is_one_line(workdir):
  workdir.mkdir(parents=True)
  (workdir / 'config.json').write_text('{"exp')
  with pytest.raises(InputError, match=r'config.json is not JSON'):
    with runs.start(Config(workdir=str(workdir), resume=True), 'sft'):
      pass


@pytest.mark.parametrize('change, words', [
    ({'num_steps': 0}, 'num_steps=0 is out of range'),
    ({'learning_rate': -1e-3}, 'learning_rate=-0.001 is out of range'),
    ({'mesh': 'data:3'}, "mesh='data:3' does not cover 8 devices"),
    ({'mesh': 'rows:2'}, "'rows' is repeated or not an axis"),
    ({'model': 'no/where'}, 'model=no/where is not a folder'),
    ({'data': 'no.jsonl'}, 'data=no.jsonl is not there'),
    ({'data': __file__}, 'give a model folder too'),
    ({'model': str(pathlib.Path(__file__).parent)}, 'give a .jsonl file'),
])
def test_bad_settings_make_no_folder(tmp_path, workdir, change, words):
  with pytest.raises(InputError, match=words):
    with runs.start(Config(workdir=str(workdir), **change), 'sft'):
      pass
  assert not any(tmp_path.iterdir())


def fail_in(workdir, before_training=True):
  """A run that fails before its first step, or after it."""
  cfg = Config(workdir=str(workdir))
  with pytest.raises(InputError, match='bad row'):
    with runs.start(cfg, 'sft') as run:
      (run.workdir / 'demonstrations.jsonl').write_text('{}')
      if not before_training:
        (run.workdir / 'metrics.jsonl').write_text('{"step": 1}')
      raise InputError('bad row')


def test_a_run_that_fails_before_its_first_step_leaves_nothing(
    tmp_path, workdir):
  fail_in(workdir)
  assert not any(tmp_path.iterdir())


def test_an_empty_folder_is_left_empty_and_not_removed(workdir):
  workdir.mkdir(parents=True)
  fail_in(workdir)
  assert workdir.is_dir() and not any(workdir.iterdir())


def test_a_run_that_fails_after_its_first_step_can_be_resumed(workdir):
  fail_in(workdir, before_training=False)
  assert (workdir / 'config.json').exists()
  with runs.start(Config(workdir=str(workdir), resume=True), 'sft'):
    pass


def test_a_stage_that_was_trained_keeps_the_run_above_it(workdir):
  with pytest.raises(InputError, match='later'):
    with runs.start(Config(workdir=str(workdir)), 'ppo'):
      with runs.start(Config(workdir=str(workdir / 'sft')), 'sft') as stage:
        stage.finish({})
      raise InputError('later')
  assert (workdir / 'config.json').exists()


def test_a_resumed_run_that_fails_loses_nothing(workdir):
  with runs.start(Config(workdir=str(workdir)), 'sft'):
    pass
  with pytest.raises(InputError, match='bad row'):
    with runs.start(Config(workdir=str(workdir), resume=True), 'sft'):
      raise InputError('bad row')
  assert (workdir / 'config.json').exists()


def test_defaults_are_those_of_the_models_world(tmp_path):
  fill = lambda **given: runs.with_defaults(
      Config(workdir='w', **given), testbed={'learning_rate': 1.0},
      folder={'learning_rate': 2.0}).learning_rate
  (tmp_path / runs.TESTBED_MARK).write_text('{}')
  assert fill() == fill(model=str(tmp_path)) == 1.0
  assert fill(model=str(tmp_path.parent)) == 2.0
  assert fill(learning_rate=3.0) == 3.0
