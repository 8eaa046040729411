"""Two programs taking turns: what is compared is the same, and adds up."""

import json
import math
import os
import pathlib
import sys

import pytest

from alignjax.errors import InputError
from benchmarks import tiny
from benchmarks import versus


@pytest.fixture
def flags(tiny_llama, pairs_file) -> dict:
  """What every comparison here is of."""
  return dict(model=tiny_llama, data=pairs_file, batch_size=8, max_length=48,
              learning_rate=1e-2, max_new_tokens=8, python=sys.executable)


class Fake:
  """A worker of known speed."""

  def __init__(self, seconds, losses):
    self._seconds, self._losses = seconds, iter(losses)
    self.first = {'loss': next(self._losses), 'first_step_seconds': 9.0,
                  'prepare_seconds': 0.0}

  def step(self):
    """See `versus.Worker`."""
    return {'seconds': self._seconds.pop(0), 'cpu_seconds': 1.0,
            'loss': next(self._losses, 0.0)}

  def end(self):
    """See `versus.Worker`."""
    return {'rss_gib': 2.0}


def test_ratios_are_of_neighbours_and_their_median_is_told():
  cfg = versus.Config(model='m', data='d', turns=3, batch_size=8)
  ours = Fake([5.0, 5.0, 1.0, 2.0, 4.0], [3.0, 2.0, 1.0])
  theirs = Fake([5.0, 5.0, 3.0, 2.0, 8.0], [3.0, 2.00005, 1.0])
  found = versus.compare(cfg, ours, theirs)
  assert found['speed_ratios'] == [3.0, 1.0, 2.0]
  assert found['speed_ratio'] == 2.0 and found['rss_ratio'] == 1.0
  assert found['loss_difference'] == pytest.approx(5e-5)  # Of the second.
  assert found['rows_per_second'] == [8 / 2.0, 8 / 3.0]


def test_who_does_other_work_is_not_timed():
  cfg = versus.Config(model='m', data='d')
  with pytest.raises(InputError, match=r'differ by 5\.0e-01.*the same work'):
    versus.compare(cfg, Fake([1.0] * 9, [3.0, 2.0, 1.0]),
                   Fake([1.0] * 9, [3.0, 2.5, 1.0]))


@pytest.mark.slow
@pytest.mark.parametrize('task', ['sft', 'dpo', 'kto', 'reward'])
@pytest.mark.parametrize('layout', ['padded', 'branched'])
def test_our_worker_trains(task, layout, flags, tmp_path):
  cfg = versus.Config(task=task, layout=layout, turns=1, **flags)
  worker = versus.Worker(
      'benchmarks.ours', sys.executable, versus.prepare(cfg, tmp_path))
  losses = [worker.first['loss'], *(worker.step()['loss'] for _ in range(3))]
  assert worker.end()['rss_gib'] > 0.05
  assert len(set(losses)) == 4 and all(map(math.isfinite, losses))
  if task == 'dpo':
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)


def test_what_a_comparison_cannot_use_is_refused(flags, tmp_path):
  with pytest.raises(InputError, match=r'pairs fit .* 8000 are needed'):
    versus.prepare(versus.Config(turns=997, **flags), tmp_path)
  with pytest.raises(InputError, match='warmup=1'):
    versus.main(versus.Config(warmup=1, **flags))
  with pytest.raises(InputError, match='task=kto: of tunix there are sft'):
    versus.main(versus.Config(peer='tunix', task='kto', **flags))
  with pytest.raises(InputError, match=r'batch_size=8 does not hold .* of 3'):
    versus.prepare(
        versus.Config(task='ppo', num_samples=3, **flags), tmp_path)
  with pytest.raises(InputError, match='peer_microbatches=3 does not divide'):
    versus.prepare(
        versus.Config(task='ppo', peer_microbatches=3, **flags), tmp_path)


@pytest.mark.parametrize('any_length, max_length, max_new_tokens', [
    (True, 40, 3), (False, 15, 8)])
def test_ppo_s_prompts_are_as_they_come_unless_one_asks(
    any_length, max_length, max_new_tokens, flags, tmp_path):
  settings = json.loads(pathlib.Path(versus.prepare(versus.Config(
      task='ppo', any_length=any_length, turns=1, **flags | dict(
          max_length=max_length, max_new_tokens=max_new_tokens, batch_size=2)),
                                                    tmp_path)).read_text())
  rows = map(json.loads, pathlib.Path(
      settings['rows']).read_text().splitlines())
  lengths = {min(len(row['prompt']), max_length - max_new_tokens)
             for row in rows}
  assert (len(lengths) > 1) == any_length
  assert settings['any_length'] is any_length
  assert settings['peer_microbatches'] == 1  # Of two rows.


@pytest.mark.parity
@pytest.mark.parametrize('task', ['sft', 'dpo', 'kto', 'reward', 'generate'])
def test_the_first_losses_are_trl_s(task, flags, tmp_path):
  """Three steps of AdamW at a rate that moves a tiny model."""
  pytest.importorskip('trl', minversion='1.16', reason='trl is not installed')
  path = tmp_path / 'result.json'
  versus.main(versus.Config(task=task, turns=1, json=str(path), **flags))
  found = json.loads(path.read_text())
  assert found['loss_difference'] < 1e-5
  ours = [a for a, _ in found['losses']]
  assert max(ours) - min(ours) > 1e-4  # They are of different steps.


@pytest.mark.parity
@pytest.mark.parametrize('task', ['sft', 'dpo'])
def test_the_first_losses_are_tunix_s(task, pairs_file, tmp_path):
  """In its own environment, which no other package here can share."""
  python = os.environ.get('ALIGNJAX_TUNIX')
  if not python:
    pytest.skip('ALIGNJAX_TUNIX is not set; it names a Python with Tunix 0.1')
  model, path = tmp_path / 'tiny', tmp_path / 'result.json'
  tiny.main(tiny.Config(model=str(model), data=pairs_file, vocab_size=300))
  versus.main(versus.Config(
      peer='tunix', task=task, turns=1, json=str(path), model=str(model),
      data=pairs_file, batch_size=8, max_length=256, learning_rate=1e-3,
      python=python))
  found = json.loads(path.read_text())
  assert found['loss_difference'] < 1e-4
  ours = [a for a, _ in found['losses']]
  assert max(ours) - min(ours) > 1e-4  # They are of different steps.


@pytest.mark.parity
def test_grpo_s_loss_of_given_responses_is_trl_s(flags, tmp_path):
  """What the two sample differs, at a rate that leaves both as they are."""
  pytest.importorskip('trl', minversion='1.16', reason='trl is not installed')
  path = tmp_path / 'result.json'
  versus.main(versus.Config(
      task='grpo', turns=1, json=str(path), **flags | dict(
          max_length=11, max_new_tokens=4,
          batch_size=64)))  # A prompt for each device.
  found = json.loads(path.read_text())
  assert found['loss_difference'] < 1e-5
  ours = [a for a, _ in found['losses']]
  assert max(ours) - min(ours) > 1e-4  # They are of different responses.


@pytest.mark.parity
@pytest.mark.parametrize('num_samples, any_length', [
    (1, False), (4, False), (2, True)])
def test_ppo_writes_and_learns_what_trl_s_does(
    num_samples, any_length, flags, tmp_path, monkeypatch):
  """TRL 1.12's loop; of prompts to which the tiny model writes no padding.

  TRL finds a response's end by the pad token, and ours by EOS.
  """
  folder = os.environ.get('ALIGNJAX_TRL_PPO')
  if not folder:
    pytest.skip('ALIGNJAX_TRL_PPO is not set; it names a folder with TRL 1.12')
  monkeypatch.setenv('PYTHONPATH', folder)
  path = tmp_path / 'result.json'
  versus.main(versus.Config(task='ppo', turns=1, json=str(path), **flags | dict(
      max_length=40 if any_length else 15, batch_size=8 * num_samples,
      max_new_tokens=3 if any_length else 8,
      num_samples=num_samples,
      any_length=any_length, peer_microbatches=min(num_samples, 2))))
  found = json.loads(path.read_text())
  assert found['loss_difference'] < 1e-5
  ours = [a for a, _ in found['losses']]
  assert max(ours) - min(ours) > 1e-4  # They are of different prompts.
