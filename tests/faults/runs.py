"""Short runs that are killed, or told to stop, and are resumed."""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from alignjax import checkpoints
from alignjax import metrics
from alignjax.errors import InputError
from tests.faults import watched

_TIMEOUT = 300.0  # Seconds that a run may take.


class Runs:
  """Short runs of three stages, and what each leaves if nothing befalls it.

  Attributes:
    whole: by stage, what an uninterrupted run leaves.
    phases: by stage, the seconds that each of its phases took.
  """

  def __init__(self, root: pathlib.Path):
    """Trains the models that the stages start from, and runs each stage."""
    self._root, self._count, self.whole, self.phases = root, 0, {}, {}
    short = ('--batch-size', '16', '--save-every', '2')
    base, judge = root / 'sft_base', root / 'rm'
    self._run(['sft', '--num-steps', '20'], base)
    model = ('--model', str(base / 'model'))
    self._run(['reward', *model, '--num-steps', '8', *short[:2]], judge)
    self.commands = {
        'sft': ['sft', *model, '--num-steps', '8', *short],
        'dpo': ['dpo', *model, '--num-steps', '8', *short],
        'ppo': ['ppo', *model, '--reward-model', str(judge / 'model'),
                '--num-steps', '6', *short, '--min-ended', '0']}
    for name, command in self.commands.items():
      self._run(command, self.new(name))  # Compiles; the next is timed.
      workdir = self.new(name)
      self._run(command, workdir)
      self.whole[name] = left_by(workdir)
      self.phases[name] = seconds_by_phase(workdir.with_suffix('.log'))

  def new(self, name: str) -> pathlib.Path:
    """A workdir that is not there yet."""
    self._count += 1
    return self._root / f'{name}_{self._count}'

  def start(self, name: str, workdir: pathlib.Path) -> subprocess.Popen:
    """The stage's command, which makes the workdir or goes on in it."""
    return _start([*self.commands[name], '--resume'], workdir)

  def finish(self, name: str, workdir: pathlib.Path) -> dict:
    """Goes on to the end; what is left then."""
    self._run([*self.commands[name], '--resume'], workdir)
    return left_by(workdir)

  def _run(self, command: list[str], workdir: pathlib.Path) -> None:
    process = _start(command, workdir)
    _, said = process.communicate(timeout=_TIMEOUT)
    if process.returncode:
      raise InputError(f'{" ".join(command)} ended with status '
                       f'{process.returncode}: {said[-500:]}')


def _start(command: list[str], workdir: pathlib.Path) -> subprocess.Popen:
  return subprocess.Popen(
      [sys.executable, '-m', 'tests.faults.watched',
       str(workdir.with_suffix('.log')), *command, '--workdir', str(workdir)],
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})


def left_by(workdir: pathlib.Path) -> dict[str, str]:
  """{file: SHA-256} of metrics and model; the comparison's figures."""
  files = [workdir / 'metrics.jsonl', *sorted((workdir / 'model').iterdir())]
  left = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
          for file in files}
  summary = json.loads((workdir / 'summary.json').read_text())
  return left | {'models': json.dumps(summary['models'], sort_keys=True)}


def events(log: pathlib.Path) -> list[tuple[float, str, str]]:
  """(seconds, 'begin' or 'end', phase) of every line that is whole."""
  if not log.exists():
    return []
  lines = log.read_text().rpartition('\n')[0].splitlines()
  return [(float(at), what, name) for at, what, name in map(str.split, lines)]


def seconds_by_phase(log: pathlib.Path) -> dict[str, list[float]]:
  """{phase: how long each time}, of a run that has ended."""
  began, found = {}, {}
  for at, what, name in events(log):
    if what == 'begin':
      began[name] = at
    else:
      found.setdefault(name, []).append(at - began[name])
  return found


def under_way(log: pathlib.Path) -> list[str]:
  """What a run was in when its log ends, the narrowest last."""
  counts = {}
  for _, what, name in events(log):
    counts[name] = counts.get(name, 0) + (1 if what == 'begin' else -1)
  return [name for name in watched.PHASES if counts.get(name)]


def kill(runs: Runs, count: int, draw: random.Random) -> dict:
  """SIGKILLs within a phase that is drawn, at a moment that is drawn."""
  identical, met = 0, {}
  for i in range(count):
    name = list(runs.commands)[i % 3]
    workdir = runs.new(name)
    process = runs.start(name, workdir)
    log = workdir.with_suffix('.log')
    _wait_for_moment(process, log, runs.phases[name], draw)
    process.kill()
    process.communicate()
    phase = (under_way(log) or ['between'])[-1]
    is_same = runs.finish(name, workdir) == runs.whole[name]
    identical += is_same
    met[phase] = met.get(phase, 0) + 1
    print(f'kill {i + 1}/{count}: {name}, {phase}: '
          f'{"identical" if is_same else "DIFFERS"}', file=sys.stderr)
    shutil.rmtree(workdir)
  return {'tried': count, 'identical': identical, 'phases': met}


def _wait_for_moment(
    process, log: pathlib.Path, phases: dict[str, list[float]],
    draw: random.Random) -> None:
  """Until one of a phase's times, and some way into it."""
  phase = draw.choice(sorted(phases))
  which = draw.randrange(len(phases[phase]))
  if phase == 'rollout':  # Those of the comparison are an eval.
    which = draw.randrange(max(1, len(phases[phase]) - 2))
  while process.poll() is None:
    begun = sum(event[1:] == ('begin', phase) for event in events(log))
    if begun > which:
      break
    time.sleep(0.002)
  time.sleep(draw.uniform(0, phases[phase][which]))


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
    identical += runs.finish(name, workdir) == runs.whole[name]
    print(f'term {i + 1}/{count}: {name} at step {max(steps)}, saved {saved}, '
          f'status {process.returncode}, {waits[-1]:.2f} s', file=sys.stderr)
    shutil.rmtree(workdir)
  return {'tried': count, 'lost_none': lost_none, 'identical': identical,
          'seconds': max(waits, default=0.0)}


def _wait_for_steps(process, workdir: pathlib.Path) -> pathlib.Path:
  """metrics.jsonl, once it has a line or the run has ended."""
  log = workdir / 'metrics.jsonl'
  while process.poll() is None and not (log.exists() and log.stat().st_size):
    time.sleep(0.01)
  return log
