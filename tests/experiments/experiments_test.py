"""Every script on the smallest settings of the testbed."""

import json
import math
import pathlib
import shutil

import numpy as np
import pytest

from alignjax import hf
from alignjax import metrics
from alignjax.types import InputError
from experiments import dpo
from experiments import evaluate
from experiments import instructgpt
from experiments import ppo
from experiments import preferences
from experiments import reward
from experiments import sft

pytestmark = pytest.mark.slow  # Some twenty programs compile.

SIZES = dict(batch_size=16, max_length=48)


def records_of(path):
  """The records of a JSONL file."""
  return [json.loads(line) for line in pathlib.Path(path).open()]


# --- All stages on one command.


@pytest.fixture(scope='module')
def first(base, tmp_path_factory):
  """The config of a run of all stages that has been run."""
  cfg = instructgpt.Config(
      workdir=str(tmp_path_factory.mktemp('first') / 'run'), model=base,
      sft_steps=3, reward_steps=2, dpo_steps=3, ppo_iterations=3,
      preference_prompts=32, save_every=1, resume=True, min_ended=0.0, **SIZES)
  instructgpt.main(cfg)
  return cfg


@pytest.fixture(scope='module')
def made(first):
  """Folders that a run of all stages leaves, by name."""
  workdir = pathlib.Path(first.workdir)
  return {name: str(workdir / path) for name, path in {
      'sft': 'sft/model', 'ppo': 'ppo/model', 'reward': 'reward/model',
      'pairs': 'preferences/preferences.jsonl'}.items()}


def test_all_stages_leave_their_files_and_a_model_each(first, left):
  assert left(first.workdir).is_whole
  for stage in ('sft', 'dpo', 'ppo'):
    config, _ = hf.load_model(pathlib.Path(first.workdir) / stage / 'model')
    assert config.hidden_size == 16
  hf.load_reward_model(pathlib.Path(first.workdir) / 'reward' / 'model')


def test_the_summary_says_what_is_promised_of_every_model(first, left):
  summary = left(first.workdir).summary
  assert list(summary['models']) == ['base', 'sft', 'dpo', 'ppo']
  for model in summary['models'].values():
    low, high = model['gold_ci']
    assert 0 <= low <= model['gold'] <= high <= 1
    assert 0 <= model['win_rate_vs_sft'] <= 1
    assert model['kl'] >= 0 and 1 <= model['length'] <= 32
  assert summary['models']['sft']['kl'] == 0
  assert summary['models']['base']['kl'] > 0
  assert 0 <= summary['reward_model']['accuracy'] <= 1
  assert summary['seconds'].keys() == {
      'sft', 'preferences', 'reward', 'dpo', 'ppo'}
  assert all(s >= 0 for s in summary['seconds'].values())


def test_one_file_holds_the_metrics_of_all_stages_once(first):
  rows = metrics.read_jsonl(pathlib.Path(first.workdir) / 'metrics.jsonl')
  assert [(row['stage'], row['step']) for row in rows] == [
      ('sft', 1), ('sft', 2), ('sft', 3), ('reward', 1), ('reward', 2),
      ('dpo', 1), ('dpo', 2), ('dpo', 3), ('ppo', 1), ('ppo', 2), ('ppo', 3)]


def test_ppo_starts_at_its_reference_and_then_leaves_it(first, left):
  kl = [row['kl'] for row in left(first.workdir).rows('ppo')]
  assert kl[0] == 0.0 and kl[2] != 0.0


def test_dpo_starts_at_log_two(first, left):
  loss = [row['loss'] for row in left(first.workdir).rows('dpo')]
  np.testing.assert_allclose(loss[0], math.log(2), atol=1e-6)
  assert loss[2] != loss[1] != loss[0]


def test_a_run_that_is_done_returns_at_once(first, left):
  files = [path for path in pathlib.Path(first.workdir).rglob('*')
           if path.is_file() and path.name != 'config.json']
  before = {path: path.stat().st_mtime_ns for path in files}
  assert instructgpt.main(first) == left(first.workdir).summary
  assert {path: path.stat().st_mtime_ns for path in files} == before


@pytest.mark.parametrize('stage, later', [
    ('sft', ['preferences', 'reward', 'dpo', 'ppo']), ('ppo', [])])
def test_a_stage_stopped_in_the_middle_ends_in_the_same_bits(
    stage, later, first, left):
  """Its last checkpoint was not yet written, nor anything after it."""
  workdir = pathlib.Path(first.workdir)
  models = {name: left(workdir / name).weights
            for name in ('sft', 'reward', 'dpo', 'ppo')}
  rows = (workdir / 'metrics.jsonl').read_bytes()
  for name in ('summary.json', 'metrics.jsonl', 'report.html',
               f'{stage}/summary.json'):
    (workdir / name).unlink()
  for name in (f'{stage}/model', f'{stage}/checkpoints/step_00000003', *later):
    shutil.rmtree(workdir / name)
  instructgpt.main(first)
  for name, weights in models.items():
    assert left(workdir / name).weights == weights, name
  assert (workdir / 'metrics.jsonl').read_bytes() == rows


def test_a_run_moved_while_open_says_what_it_was_made_with(first):
  with pytest.raises(InputError, match='sft_steps=3, not 4'):
    instructgpt.main(
        instructgpt.Config(**vars(first) | {'sft_steps': 4}))


# --- Each script alone, on a testbed model.


def test_sft_compares_with_what_it_started_from(base, tmp_path, left):
  workdir = str(tmp_path / 'sft')
  folder = sft.main(sft.Config(
      workdir=workdir, model=base, num_steps=3, **SIZES))
  assert left(workdir).is_whole
  assert left(workdir).summary['models'].keys() == {'base', 'sft'}
  assert hf.load_tokenizer(folder).vocab_size > 100


def test_the_reward_model_is_measured_on_held_out_pairs(made, tmp_path, left):
  workdir = str(tmp_path / 'reward')
  reward.main(reward.Config(
      workdir=workdir, model=made['sft'], data=made['pairs'], num_steps=2,
      num_held_out=24, **SIZES))
  assert left(workdir).is_whole
  measured = left(workdir).summary['reward_model']
  pairs = len(records_of(made['pairs']))
  assert measured['held_out_pairs'] == 24
  assert measured['pairs'] == pairs - 24
  assert 0 <= measured['accuracy'] <= 1


def test_dpo_alone_starts_at_log_two_and_is_judged(made, tmp_path, left):
  workdir = str(tmp_path / 'dpo')
  dpo.main(dpo.Config(
      workdir=workdir, model=made['sft'], data=made['pairs'], num_steps=1,
      beta=0.5, label_smoothing=0.1, **SIZES))
  assert left(workdir).is_whole
  loss = left(workdir).rows('dpo')[0]['loss']
  np.testing.assert_allclose(loss, math.log(2), atol=1e-6)
  summary = left(workdir).summary
  assert 'gold' in summary['models']['dpo']
  # One step is measured on the pairs that it was taken on, and on others.
  assert summary['dpo']['trained']['loss'] < math.log(2)
  assert summary['dpo']['held_out']['loss'] != math.log(2)
  assert summary['dpo']['held_out_pairs'] > 0


def test_ppo_alone_draws_the_run_that_it_is_compared_with(
    first, made, tmp_path, left):
  workdir = str(tmp_path / 'hack')
  ppo.main(ppo.Config(
      workdir=workdir, model=made['sft'], reward_model=made['reward'],
      num_steps=2, kl_coef=0.0, compare=first.workdir, min_ended=0.0, **SIZES))
  assert left(workdir).is_whole
  summary = left(workdir).summary
  assert len(summary['curves']) == 2
  assert summary['models']['ppo']['proxy'] != 0
  rows = left(workdir).rows('ppo')
  assert [row['kl_coef'] for row in rows] == [0.0, 0.0]
  assert {'gold', 'reward', 'decode_gap'} <= rows[0].keys()


def test_preferences_are_pairs_that_differ(made):
  lines = records_of(made['pairs'])
  assert all(row['chosen'] != row['rejected'] for row in lines)
  assert {0.5 < row['agreement'] <= 1 for row in lines} == {True}


def test_preferences_with_a_policy_that_knows_nothing_keep_gold_ties(
    base, tmp_path):
  _, test = preferences.stage(preferences.Config(
      workdir=str(tmp_path / 'p'), model=base, num_prompts=8,
      num_test_prompts=8, batch_size=64))
  assert {row['gold_margin'] for row in records_of(test)} == {0.0}


def test_evaluate_compares_the_models_it_is_given(base, made, tmp_path):
  cfg = evaluate.Config(
      workdir=str(tmp_path / 'e'), resume=True, reward_model=made['reward'],
      models=(f'base={base}', f'sft={made["sft"]}', f'mine={made["ppo"]}'))
  summary = evaluate.main(cfg)
  assert list(summary['models']) == ['base', 'sft', 'mine']
  assert all('proxy' in model for model in summary['models'].values())
  assert evaluate.main(cfg) == json.loads(json.dumps(summary))
