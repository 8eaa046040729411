"""Two processes of four devices are one of eight; one that dies ends the other.

Processes of their own on this machine, over loopback: the scripts, as users
start them.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
from safetensors import numpy as safetensors

from experiments import reward
from experiments import sft

pytestmark = pytest.mark.slow
_TIMEOUT = 15


@pytest.fixture(scope='module')
def folders(base, tmp_path_factory) -> dict[str, str]:
  """A policy, a reward model and pairs, of one layer each."""
  root = tmp_path_factory.mktemp('hosts')
  small = dict(seed=0, num_steps=2, batch_size=16, max_length=48)
  policy = sft.stage(sft.Config(
      workdir=str(root / 'sft'), model=base, **small))
  pairs = [{'prompt': f'how do i make rice {i}', 'chosen': 'boil it',
            'rejected': 'no'} for i in range(40)]
  path = root / 'pairs.jsonl'
  path.write_text(''.join(json.dumps(pair) + '\n' for pair in pairs))
  judge = reward.stage(reward.Config(
      workdir=str(root / 'reward'), model=policy, data=str(path), **small))
  return {'policy': policy, 'reward': judge, 'pairs': str(path)}


def flags_of(script, folders):
  return ['--model', folders['policy'], '--mesh', 'data:-1', '--batch-size',
          '16', *{
              'sft': ['--num-steps', '6', '--save-every', '2'],
              'dpo': ['--num-steps', '3', '--data', folders['pairs'],
                      '--num-held-out', '8'],
              'ppo': ['--num-steps', '2', '--reward-model', folders['reward']],
          }[script]]


def start(script, workdir, flags, count=1, devices=8):
  """Starts the processes of a run."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | {
      'JAX_NUM_CPU_DEVICES': str(devices)}
  processes = []
  for i in range(count):
    own = env if count == 1 else env | {
        'ALIGNJAX_COORDINATOR': f'127.0.0.1:{port}',
        'ALIGNJAX_NUM_PROCESSES': str(count), 'ALIGNJAX_PROCESS_ID': str(i),
        'ALIGNJAX_TIMEOUT': str(_TIMEOUT)}
    processes.append(subprocess.Popen(
        [sys.executable, '-m', f'experiments.{script}', '--workdir',
         str(workdir), *flags], env=own, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True))
  return processes


def run(*args, **kwargs):
  """Runs them to the end, which must be a good one."""
  for process in start(*args, **kwargs):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def lines(workdir):
  return [json.loads(line) for line in
          (workdir / 'metrics.jsonl').read_text().splitlines()]


def weights(workdir):
  return safetensors.load_file(workdir / 'model' / 'model.safetensors')


@pytest.mark.parametrize('script', ['sft', 'dpo', 'ppo'])
def test_two_processes_have_the_losses_of_one(script, folders, tmp_path):
  flags = flags_of(script, folders)
  run(script, tmp_path / 'one', flags)
  run(script, tmp_path / 'two', flags, count=2, devices=4)
  one, two = lines(tmp_path / 'one'), lines(tmp_path / 'two')
  assert len(one) == len(two) > 1
  for a, b in zip(one, two, strict=True):
    assert a.keys() == b.keys()
    assert a['loss'] == pytest.approx(b['loss'], abs=1e-5)
  for name, want in weights(tmp_path / 'one').items():
    np.testing.assert_allclose(
        weights(tmp_path / 'two')[name], want, atol=1e-5)


# So many that a run cannot end before it is killed.
LONG = ['--num-steps', '40']


def until_saved(workdir, process, step=2):
  """Waits for a step's checkpoint while the process is there."""
  until = time.monotonic() + 200
  while not (workdir / f'checkpoints/step_{step:08d}/manifest.json').exists():
    assert process.poll() is None and time.monotonic() < until
    time.sleep(0.02)


class Killed(NamedTuple):
  """A run of two processes, of which the second was killed."""

  workdir: pathlib.Path
  status: int    # Of the first.
  said: str      # On its stderr.
  seconds: float  # Until it ended, too.


@pytest.fixture(scope='module')
def killed(folders, tmp_path_factory) -> Killed:
  """An SFT run whose second process was killed some time after step 2."""
  workdir = tmp_path_factory.mktemp('killed') / 'run'
  first, second = start(
      'sft', workdir, flags_of('sft', folders) + LONG, count=2, devices=4)
  until_saved(workdir, first)
  second.send_signal(signal.SIGKILL)
  since = time.monotonic()
  _, said = first.communicate(timeout=4 * _TIMEOUT)
  second.communicate()
  return Killed(workdir, first.returncode, said, time.monotonic() - since)


def test_the_others_end_and_name_the_process_that_died(killed):
  assert killed.status == 70, killed.said
  assert killed.seconds < 2 * _TIMEOUT
  last = killed.said.splitlines()[-1]
  assert 'process 1 of 2' in last and socket.gethostname() in last
  assert not (killed.workdir / 'model').exists()


def test_the_first_process_is_named_as_well(folders, tmp_path):
  first, second = start('sft', tmp_path / 'run',
                        flags_of('sft', folders) + LONG, count=2, devices=4)
  until_saved(tmp_path / 'run', second)
  first.send_signal(signal.SIGKILL)
  _, said = second.communicate(timeout=4 * _TIMEOUT)
  first.communicate()
  assert second.returncode == 70, said
  assert 'error: process 0 of 2' in said


@pytest.fixture(scope='module')
def whole(folders, tmp_path_factory) -> pathlib.Path:
  """The run that was killed, where nobody killed it."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  run('sft', workdir, flags_of('sft', folders) + LONG, count=2, devices=4)
  return workdir


@pytest.mark.parametrize('count, devices', [(2, 4), (1, 8), (2, 2), (1, 1)])
def test_what_was_killed_goes_on_on_any_number_of_processes_and_devices(
    count, devices, killed, whole, folders, tmp_path):
  """Bit for bit on as many, to 1e-5 on others, with the same data order."""
  workdir = tmp_path / 'run'
  shutil.copytree(killed.workdir, workdir)
  config = json.loads((workdir / 'config.json').read_text())
  config['workdir'] = str(workdir)
  (workdir / 'config.json').write_text(json.dumps(config))
  run('sft', workdir, [*flags_of('sft', folders), *LONG, '--resume'],
      count=count, devices=devices)
  assert len(lines(workdir)) == 40
  for a, b in zip(lines(whole), lines(workdir), strict=True):
    assert a['loss'] == pytest.approx(b['loss'], abs=1e-5)
  for name, want in weights(whole).items():
    got = weights(workdir)[name]
    if (count, devices) == (2, 4):
      np.testing.assert_array_equal(got, want)
    else:
      np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize('told', [0, 1])
def test_a_signal_to_one_of_them_stops_all_at_one_step_saved(
    told, whole, folders, tmp_path):
  workdir = tmp_path / 'run'
  flags = flags_of('sft', folders) + LONG
  processes = start('sft', workdir, flags, count=2, devices=4)
  until_saved(workdir, processes[0])
  processes[told].send_signal(signal.SIGTERM)
  for process in processes:
    _, said = process.communicate(timeout=4 * _TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert 'which is saved' in said
  step = lines(workdir)[-1]['step']
  assert 2 <= step < 40
  assert (workdir / f'checkpoints/step_{step:08d}/manifest.json').exists()
  run('sft', workdir, [*flags, '--resume'], count=2, devices=4)
  assert (workdir / 'metrics.jsonl').read_bytes() == (
      whole / 'metrics.jsonl').read_bytes()
  for name, want in weights(whole).items():
    np.testing.assert_array_equal(weights(workdir)[name], want)
