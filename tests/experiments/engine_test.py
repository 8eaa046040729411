"""PPO whose samples come from a server process of our own."""

import dataclasses
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

from alignjax.types import InputError
from experiments import ppo
from experiments import reward

ROOT = pathlib.Path(__file__).parents[2]
SIZES = dict(batch_size=16, max_length=48)


@pytest.fixture(scope='module')
def server(base):
  """The URL of `alignjax serve` of the base model."""
  process = subprocess.Popen(
      [sys.executable, '-m', 'alignjax', 'serve', '--model', base,
       '--port', '0'], cwd=ROOT, stderr=subprocess.PIPE, text=True,
      env=os.environ | {'XLA_FLAGS': ''})
  url = next(found.group() for line in process.stderr
             if (found := re.search(r'http://[\d.]+:\d+', line)))
  yield url
  process.kill()
  process.wait()


@pytest.fixture(scope='module')
def cfg(base, server, tmp_path_factory):
  """A config of PPO through the engine, with a reward model that is there."""
  root = tmp_path_factory.mktemp('engine')
  judge = reward.stage(reward.Config(
      workdir=str(root / 'reward'), model=base, num_steps=1, **SIZES))
  return ppo.Config(
      workdir=str(root / 'ppo'), model=base, reward_model=judge, num_steps=3,
      max_new_tokens=16, min_ended=0.0, engine=server, save_every=1, **SIZES)


@pytest.mark.slow
def test_an_engine_with_the_same_weights_is_the_policy(cfg, left, tmp_path):
  ppo.stage(cfg)
  rows = left(cfg.workdir).rows('ppo')
  for row in rows:
    assert math.isclose(row['importance'], 1.0, abs_tol=1e-4)
    assert row['decode_gap'] < 1e-3
  assert rows[0]['kl'] == 0.0
  # Interrupted after two iterations and resumed, it ends in the same bits.
  parts = dataclasses.replace(cfg, workdir=str(tmp_path / 'parts'))
  ppo.stage(dataclasses.replace(parts, num_steps=2, decay='constant'))
  config = pathlib.Path(parts.workdir, 'config.json')
  config.write_text(config.read_text().replace(
      '"num_steps": 2', '"num_steps": 3'))
  pathlib.Path(parts.workdir, 'summary.json').unlink()
  ppo.stage(dataclasses.replace(parts, resume=True))
  assert left(parts.workdir).weights == left(cfg.workdir).weights


@pytest.mark.slow
def test_older_weights_weigh_other_than_one(cfg, left, tmp_path):
  ppo.stage(dataclasses.replace(
      cfg, workdir=str(tmp_path / 'stale'), engine_sync_every=2,
      learning_rate=0.05, max_decode_gap=99.0))
  first, second, third = left(tmp_path / 'stale').rows('ppo')
  assert math.isclose(first['importance'], 1.0, abs_tol=1e-4)
  assert abs(second['importance'] - 1.0) > 1e-4
  assert second['decode_gap'] > 1e-2
  assert math.isclose(third['importance'], 1.0, abs_tol=1e-4)


@pytest.mark.slow
def test_a_server_of_another_model_is_refused_and_nothing_saved(
    cfg, foreign, tmp_path):
  workdir = tmp_path / 'other'
  other = reward.stage(reward.Config(
      workdir=str(tmp_path / 'reward'), model=foreign.model,
      data=foreign.pairs, num_steps=1, **SIZES))
  with pytest.raises(InputError, match=r'refuses .* another shape'):
    ppo.stage(dataclasses.replace(
        cfg, workdir=str(workdir), model=foreign.model, reward_model=other,
        data=foreign.pairs))
  assert not list(workdir.rglob('checkpoints'))


@pytest.mark.parametrize('settings, said', [
    (dict(engine='localhost:80'), 'is no URL'),
    (dict(engine='http://h', lora_rank=4), 'lora_rank=4 trains adapters'),
    (dict(engine_sync_every=2), 'there is none'),
    (dict(engine_folder='w'), 'there is none')])
def test_settings_without_meaning_are_refused(settings, said):
  with pytest.raises(InputError, match=said):
    ppo.resolve(ppo.Config(workdir='w', **settings))


def test_what_an_engine_samples_is_weighed_by_default():
  assert ppo.resolve(ppo.Config(workdir='w')).importance_cap is None
  engine = ppo.Config(workdir='w', engine='http://h')
  assert ppo.resolve(engine).importance_cap == 2.0
