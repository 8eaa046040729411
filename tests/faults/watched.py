"""An experiment that notes when it steps, samples, saves and evaluates.

  python -m tests.faults.watched LOG ppo --workdir DIR ...

It is the experiment itself; the calls that are noted are wrapped from outside.
LOG gets a line for each that begins or ends: `seconds begin|end phase`.
"""

import contextlib
import functools
import os
import runpy
import sys
import time

import jax

PHASES = ('step', 'rollout', 'save', 'eval')


class Log:
  """Appends lines; none is lost with the process."""

  def __init__(self, path: str):
    """Opens it, behind what a run before wrote."""
    self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

  @contextlib.contextmanager
  def phase(self, name: str):
    """Notes that it begins, and that it has ended."""
    self._write('begin', name)
    try:
      yield
    finally:
      self._write('end', name)

  def around(self, name: str, function):
    """The function, noted as a phase until what it returns is computed."""

    @functools.wraps(function)
    def noted(*args, **kwargs):
      with self.phase(name):
        return jax.block_until_ready(function(*args, **kwargs))

    return noted

  def _write(self, what: str, name: str) -> None:
    os.write(self._file, f'{time.monotonic():.6f} {what} {name}\n'.encode())


def main(log: Log, experiment: str) -> None:
  """Wraps what is noted, and runs the experiment with the flags that are left.
  """
  from alignjax import checkpoints
  from alignjax import outcomes
  from alignjax import rollout
  from alignjax.checkpoints import states
  from alignjax.train import loop
  states.save = checkpoints.save = log.around('save', states.save)
  loop.fit = log.around('step', loop.fit)
  outcomes.write = log.around('eval', outcomes.write)
  make = rollout.make_generate
  rollout.make_generate = lambda *args, **kwargs: log.around(
      'rollout', make(*args, **kwargs))
  runpy.run_module(f'experiments.{experiment}', run_name='__main__',
                   alter_sys=True)


if __name__ == '__main__':
  _, path, name, *sys.argv[1:] = sys.argv
  main(Log(path), name)
