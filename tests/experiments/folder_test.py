"""Every script on a Hugging Face folder and a file of rows."""

import math
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from alignjax.types import InputError
from experiments import dpo
from experiments import instructgpt
from experiments import ppo
from experiments import sft

ROOT = pathlib.Path(__file__).parents[2]
SIZES = dict(batch_size=16, max_length=48)


def test_sft_on_a_folder(foreign, tmp_path, left):
  workdir = str(tmp_path / 'sft')
  sft.main(sft.Config(
      workdir=workdir, model=foreign.model, data=foreign.demonstrations,
      num_steps=2, num_microbatches=2, chunk_size=7, **SIZES))
  assert left(workdir).is_whole
  scores = left(workdir).summary['models']
  assert scores.keys() == {'base', 'sft'}
  assert 'gold' not in scores['sft'] and scores['sft']['kl'] > 0


def test_dpo_on_a_folder_starts_at_log_two(foreign, tmp_path, left):
  workdir = str(tmp_path / 'dpo')
  dpo.main(dpo.Config(workdir=workdir, model=foreign.model, data=foreign.pairs,
                      num_steps=1, **SIZES))
  assert left(workdir).is_whole
  loss = left(workdir).rows('dpo')[0]['loss']
  np.testing.assert_allclose(loss, math.log(2), atol=1e-6)


def test_ppo_on_a_folder_trains_its_reward_model_first(foreign, tmp_path, left):
  workdir = tmp_path / 'ppo'
  ppo.main(ppo.Config(
      workdir=str(workdir), model=foreign.model, data=foreign.pairs,
      num_steps=1, reward_steps=1, max_new_tokens=8, min_ended=0.0, **SIZES))
  assert left(workdir).is_whole
  assert left(workdir).rows('ppo')[0]['kl'] == 0.0
  measured = left(workdir / 'reward').summary
  assert measured['held_out_pairs'] == 10  # A quarter of the 40.
  scores = left(workdir).summary['models']
  assert 'proxy' in scores['ppo'] and scores['ppo']['length'] <= 8


def test_a_crash_before_the_first_checkpoint_blocks_nothing(
    foreign, tmp_path, left):
  cfg = dict(workdir=str(tmp_path / 'sft'), model=foreign.model,
             data=foreign.demonstrations, num_steps=2, **SIZES)
  sft.stage(sft.Config(**cfg))
  weights = left(cfg['workdir']).weights
  rows = (tmp_path / 'sft' / 'metrics.jsonl').read_bytes()
  (tmp_path / 'sft' / 'summary.json').unlink()
  for name in ('checkpoints', 'model'):
    shutil.rmtree(tmp_path / 'sft' / name)
  with pytest.raises(InputError, match='add --resume to go on with it'):
    sft.stage(sft.Config(**cfg))
  sft.stage(sft.Config(**cfg, resume=True))
  assert left(cfg['workdir']).weights == weights
  assert (tmp_path / 'sft' / 'metrics.jsonl').read_bytes() == rows


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_bits(foreign, tmp_path, left):
  """By SIGKILL, once three steps are on record."""
  one_device = os.environ | {
      'XLA_FLAGS': '--xla_force_host_platform_device_count=1'}

  def command(name, *more):
    return [
        sys.executable, '-m', 'experiments.sft', '--workdir', tmp_path / name,
        '--model', foreign.model, '--data', foreign.demonstrations,
        '--num-steps', '40', '--save-every', '2', '--batch-size', '16',
        '--max-length', '48', *more]

  def run(*args):
    return subprocess.run(
        command(*args), cwd=ROOT, env=one_device, capture_output=True,
        text=True, check=False)

  assert run('whole').returncode == 0
  rows = tmp_path / 'cut' / 'metrics.jsonl'
  process = subprocess.Popen(
      command('cut'), cwd=ROOT, env=one_device, stderr=subprocess.DEVNULL)
  while not rows.exists() or rows.read_bytes().count(b'\n') < 3:
    assert process.poll() is None
    time.sleep(0.02)
  process.kill()
  process.wait()
  assert rows.read_bytes().count(b'\n') < 40
  again = run('cut')
  assert again.returncode == 2 and '--resume' in again.stderr
  assert run('cut', '--resume').returncode == 0
  cut, whole = left(tmp_path / 'cut'), left(tmp_path / 'whole')
  assert cut.weights == whole.weights
  assert cut.rows('sft') == whole.rows('sft')
  assert cut.summary['models'] == whole.summary['models']


@pytest.mark.slow
def test_all_stages_on_a_folder(foreign, tmp_path, left):
  summary = instructgpt.main(instructgpt.Config(
      workdir=str(tmp_path / 'run'), model=foreign.model, data=foreign.pairs,
      sft_steps=2, reward_steps=2, dpo_steps=2, ppo_iterations=2,
      num_minibatches=2, max_new_tokens=8, min_ended=0.0, **SIZES))
  assert left(tmp_path / 'run').is_whole
  assert summary['models'].keys() == {'base', 'sft', 'dpo', 'ppo'}
  assert all('proxy' in model for model in summary['models'].values())
  assert summary['seconds'].keys() == {'sft', 'reward', 'dpo', 'ppo'}
