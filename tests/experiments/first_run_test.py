"""The first command of the README, with fewer steps: nothing is given."""

import dataclasses
import pathlib

import pytest

from alignjax import metrics
from experiments import instructgpt
from experiments import pretrain


@pytest.mark.slow
def test_all_stages_run_from_nothing(tmp_path, left, monkeypatch):
  """By one layer: three take a minute to compile for every stage."""
  whole = pretrain.model_config
  monkeypatch.setattr(
      pretrain, 'model_config', lambda cfg, size: dataclasses.replace(
          whole(cfg, size), num_layers=1))
  workdir = tmp_path / 'runs' / 'first'
  instructgpt.main(instructgpt.Config(
      workdir=str(workdir), pretrain_steps=4, sft_steps=2, reward_steps=2,
      dpo_steps=2, ppo_iterations=2, preference_prompts=16, batch_size=16,
      min_ended=0.0))
  run = left(workdir)
  assert run.is_whole
  assert run.summary['models'].keys() == {'base', 'sft', 'dpo', 'ppo'}
  assert run.summary['seconds'].keys() == {
      'base', 'sft', 'preferences', 'reward', 'dpo', 'ppo'}
  rows = metrics.read_jsonl(workdir / 'metrics.jsonl')
  stages = dict.fromkeys(row['stage'] for row in rows)
  assert list(stages) == ['pretrain', 'sft', 'reward', 'dpo', 'ppo']
  assert run.rows('ppo')[0]['kl'] == 0.0
  for path in ('base', 'sft', 'reward', 'dpo', 'ppo'):
    assert pathlib.Path(workdir / path / 'model' / 'config.json').exists()
