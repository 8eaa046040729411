"""Breaks runs and checkpoints on purpose, and counts what came of it.

  python -m tests.faults --kills 50 --corruptions 200 --full-disks 20 --terms 5

Kills: SFT, DPO and PPO runs of the testbed get SIGKILL at moments drawn over
their whole length, and are resumed until they end; metrics and model must be
those of a run that nothing befell, byte for byte. Terms: the same with SIGTERM,
which must leave a checkpoint of the very step. Corruptions: a checkpoint's file
has a bit flipped, is cut, zeroed in part, deleted, or changes places with
another; the restore must name it and take the step before. Full disks: a save
in a folder with too little room (a mounted tmpfs; root only) must leave the
step before, and succeed once there is room.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import checkpoints
from alignjax import cli
from alignjax import metrics
from alignjax.checkpoints import room as room_lib
from alignjax.errors import InputError

CORRUPTIONS = ('flip', 'truncate', 'zero', 'delete', 'swap')
_TIMEOUT = 300.0  # Seconds that a run may take.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """How often each is tried."""

  kills: int = 0        # SIGKILLs, over SFT, DPO and PPO in turn.
  terms: int = 0        # SIGTERMs, likewise.
  corruptions: int = 0  # Files of a checkpoint that are damaged.
  full_disks: int = 0   # Saves without room.
  seed: int = 0         # Of the moments and of the damage.
  json: str = ''        # File for the result.


def main(cfg: Config) -> None:
  """Tries them and prints the counts; status 1 if one was not survived."""
  draw, result = random.Random(cfg.seed), {}
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    if cfg.kills or cfg.terms:
      runs = Runs(root)
      result['kills'] = kill(runs, cfg.kills, draw)
      result['terms'] = terminate(runs, cfg.terms, draw)
    result['corruptions'] = corrupt(root / 'bits', cfg.corruptions, draw)
    result['full_disks'] = fill_disks(root / 'disk', cfg.full_disks, draw)
  print(json.dumps(result, indent=1))
  if cfg.json:
    pathlib.Path(cfg.json).write_text(json.dumps(result, indent=1) + '\n')
  if any(value != counts['tried'] for counts in result.values()
         for name, value in counts.items() if name in _ALL):
    sys.exit(1)


_ALL = ('identical', 'detected', 'recovered', 'intact', 'went_on', 'lost_none')


class Runs:
  """Short runs of three stages, and what each leaves if nothing befalls it."""

  def __init__(self, root: pathlib.Path):
    """Trains the models that the stages start from."""
    self._root, self._count, self.whole = root, 0, {}
    first = ('--num-steps', '8', '--batch-size', '16', '--save-every', '2')
    self.commands = {'sft': ['sft', *first]}
    base = root / 'sft_base'
    self._finish(['sft', '--num-steps', '20', '--workdir', str(base)])
    model = ['--model', str(base / 'model')]
    self._finish(['reward', *model, '--num-steps', '8', '--batch-size', '16',
                  '--workdir', str(root / 'rm')])
    self.commands = {
        'sft': ['sft', *model, *first],
        'dpo': ['dpo', *model, *first],
        'ppo': ['ppo', *model, '--reward-model', str(root / 'rm' / 'model'),
                '--num-steps', '6', '--batch-size', '16', '--save-every', '2',
                '--min-ended', '0']}
    for name in self.commands:  # Once to compile: moments are drawn over the
      self.whole[name] = self.uninterrupted(name)  # second one's length.
    for name in self.commands:
      self.whole[name] = self.uninterrupted(name)

  def uninterrupted(self, name: str) -> tuple[dict, float]:
    """What a run leaves, and its seconds."""
    workdir, began = self.new(name), time.monotonic()
    self._finish([*self.commands[name], '--workdir', str(workdir)])
    return left_by(workdir), time.monotonic() - began

  def new(self, name: str) -> pathlib.Path:
    """A workdir that is not there yet."""
    self._count += 1
    return self._root / f'{name}_{self._count}'

  def start(self, name: str, workdir: pathlib.Path) -> subprocess.Popen:
    """The stage's command, which makes the workdir or goes on in it."""
    return _start([*self.commands[name], '--workdir', str(workdir),
                   '--resume'])

  def finish(self, name: str, workdir: pathlib.Path) -> dict:
    """Goes on to the end; what is left then."""
    self._finish([*self.commands[name], '--workdir', str(workdir), '--resume'])
    return left_by(workdir)

  def _finish(self, command: list[str]) -> None:
    process = _start(command)
    _, said = process.communicate(timeout=_TIMEOUT)
    if process.returncode:
      raise InputError(f'{" ".join(command)} ended with status '
                       f'{process.returncode}: {said[-500:]}')


def _start(command: list[str]) -> subprocess.Popen:
  return subprocess.Popen(
      [sys.executable, '-m', f'experiments.{command[0]}', *command[1:]],
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})


def left_by(workdir: pathlib.Path) -> dict[str, str]:
  """{file: SHA-256} of the metrics and of the model."""
  files = [workdir / 'metrics.jsonl', *sorted((workdir / 'model').iterdir())]
  return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
          for file in files}


def kill(runs: Runs, count: int, draw: random.Random) -> dict:
  """SIGKILLs at moments drawn over a run's length."""
  identical, phases = 0, {}
  for i in range(count):
    name = list(runs.commands)[i % 3]
    whole, seconds = runs.whole[name]
    workdir = runs.new(name)
    process = runs.start(name, workdir)
    if i // 3 % 2:  # Half of them while it steps and saves.
      _wait_for_steps(process, workdir)
      time.sleep(draw.uniform(0, 1.0))
    else:
      time.sleep(draw.uniform(0.15, 1.0) * seconds)
    phase = _phase(workdir)
    process.kill()
    process.communicate()
    is_same = runs.finish(name, workdir) == whole
    identical += is_same
    phases[phase] = phases.get(phase, 0) + 1
    print(f'kill {i + 1}/{count}: {name}, {phase}: '
          f'{"identical" if is_same else "DIFFERS"}', file=sys.stderr)
    shutil.rmtree(workdir)
  return {'tried': count, 'identical': identical, 'phases': phases}


def _wait_for_steps(process, workdir: pathlib.Path) -> pathlib.Path:
  """metrics.jsonl, once it has a line or the run has ended."""
  log = workdir / 'metrics.jsonl'
  while process.poll() is None and not (log.exists() and log.stat().st_size):
    time.sleep(0.01)
  return log


def _phase(workdir: pathlib.Path) -> str:
  """Where a run is, as its folder shows it."""
  if (workdir / 'summary.json').exists():
    return 'done'
  if (workdir / 'model').exists():
    return 'after training'
  saves = list((workdir / 'checkpoints').glob('step_*'))
  if any(not (path / 'manifest.json').exists() for path in saves):
    return 'in a save'
  return 'in a step' if (workdir / 'metrics.jsonl').exists() else 'starting'


def terminate(runs: Runs, count: int, draw: random.Random) -> dict:
  """SIGTERMs while a run takes steps: how long until it has ended, saved."""
  identical, lost_none, waits = 0, 0, []
  for i in range(count):
    name = list(runs.commands)[i % 3]
    workdir = runs.new(name)
    process = runs.start(name, workdir)
    log = _wait_for_steps(process, workdir)
    time.sleep(draw.uniform(0, 0.2))
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    waits.append(time.monotonic() - began)
    steps = [row['step'] for row in metrics.read_jsonl(log)]
    saved = checkpoints.latest_step(workdir / 'checkpoints')
    # Behind the last step a run is not stopped but ended: that is saved too.
    lost_none += saved == max(steps)
    identical += runs.finish(name, workdir) == runs.whole[name][0]
    print(f'term {i + 1}/{count}: {name} at step {max(steps)}, saved {saved}, '
          f'status {process.returncode}, {waits[-1]:.2f} s', file=sys.stderr)
    shutil.rmtree(workdir)
  return {'tried': count, 'lost_none': lost_none, 'identical': identical,
          'seconds': max(waits, default=0.0)}


def _state(step: int) -> dict:
  draw = np.random.default_rng(step)
  return {'step': jnp.int32(step), 'params': {
      f'layer_{i}': jnp.asarray(draw.normal(size=(64, 33)), jnp.float32)
      for i in range(4)}, 'key': jax.random.key(step)}


def _is_state(state, step: int) -> bool:
  raw = lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(
      x.dtype, jax.dtypes.prng_key) else x)
  return all((raw(a) == raw(b)).all() for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(_state(step)), strict=True))


def corrupt(root: pathlib.Path, count: int, draw: random.Random) -> dict:
  """Damages one file of the newer of two checkpoints, and restores."""
  detected = recovered = 0
  if count:
    for step in (1, 2):
      checkpoints.save(root / 'whole', step, _state(step))
  for i in range(count):
    folder = root / 'damaged'
    shutil.copytree(root / 'whole', folder)
    newest = folder / 'step_00000002'
    how = CORRUPTIONS[i % len(CORRUPTIONS)]
    names = damage(newest, how, draw)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      found = checkpoints.restore(folder, _state(0))
    said = ' '.join(str(warning.message) for warning in caught)
    is_named = any(name in said for name in names)
    detected += is_named and found.step == 1
    recovered += found.step == 1 and _is_state(found.state, 1)
    if not is_named:
      print(f'NOT NAMED: {how} {names}: {said}', file=sys.stderr)
    shutil.rmtree(folder)
  return {'tried': count, 'detected': detected, 'recovered': recovered}


def damage(folder: pathlib.Path, how: str, draw: random.Random) -> list[str]:
  """Damages a file that is drawn, or two; their paths within the folder."""
  files = sorted(p for p in folder.rglob('*')
                 if p.is_file() and p.stat().st_size)
  file = draw.choice(files)
  data = bytearray(file.read_bytes())
  at, names = draw.randrange(len(data)), [file]
  if how == 'flip':
    data[at] ^= 1 << draw.randrange(8)
  elif how == 'truncate':
    del data[at:]
  elif how == 'zero':
    first = next(i for i, byte in enumerate(data[at:] + data[:at]) if byte)
    at = (at + first) % len(data)  # Zeros that were there damage nothing.
    data[at:at + 512] = bytes(len(data[at:at + 512]))
  elif how == 'swap':
    other = draw.choice([p for p in files if p.read_bytes() != bytes(data)])
    names.append(other)
    content = other.read_bytes()
    other.write_bytes(bytes(data))
    data = content
  file.write_bytes(bytes(data))
  if how == 'delete':
    file.unlink()
  return [p.relative_to(folder).as_posix() for p in names]


def fill_disks(root: pathlib.Path, count: int, draw: random.Random) -> dict:
  """Saves where there is too little room, then where there is enough."""
  intact = went_on = 0
  for i in range(count):
    root.mkdir()
    made = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', str(root)],
        capture_output=True, text=True, check=False)
    if made.returncode:
      root.rmdir()
      raise InputError(f'full_disks={count}: {made.stderr.strip()}; only root '
                       'may mount a folder of limited size')
    try:
      ours = _fill_one(root, is_foreseen=i % 2 == 0, draw=draw)
    finally:
      subprocess.run(['umount', str(root)], check=True)
      root.rmdir()
    intact += ours[0]
    went_on += ours[1]
  return {'tried': count, 'intact': intact, 'went_on': went_on}


def _fill_one(root, *, is_foreseen: bool, draw) -> tuple[bool, bool]:
  """(step 1 loads after the failed save, step 2 does once there is room)."""
  checkpoints.save(root / 'run', 1, _state(1))
  room = draw.randrange(0, 20_000)  # Step 2 needs 34,000.
  (root / 'filler').write_bytes(bytes(max(
      0, shutil.disk_usage(root).free - room)))
  look = room_lib.check
  if not is_foreseen:  # As when another takes the room while we write.
    room_lib.check = lambda *args: None
  try:
    checkpoints.save(root / 'run', 2, _state(2))
    return False, False
  except checkpoints.SaveError as error:
    is_told = 'bytes' in str(error) and 'step_00000002' in str(error)
  finally:
    room_lib.check = look
  found = checkpoints.restore(root / 'run', _state(0))
  is_intact = is_told and found.step == 1 and _is_state(found.state, 1)
  (root / 'filler').unlink()
  checkpoints.save(root / 'run', 2, _state(2))
  found = checkpoints.restore(root / 'run', _state(0))
  return is_intact, found.step == 2 and _is_state(found.state, 2)


if __name__ == '__main__':
  cli.run(main, Config)
