"""A long run of the testbed: memory, live arrays and compilations over it.

  python -m tests.faults.soak OUT.json sft --num-steps 10000 --workdir DIR ...

It is the experiment itself, looked at from a hook of its loop. OUT gets what
the process held at twenty points of the run, and how often each program was
compiled, before the run's tenth part and after it.
"""

import collections
import gc
import json
import logging
import pathlib
import re
import resource
import runpy
import subprocess
import sys
import tempfile

import jax

_COMPILED = re.compile(r'Finished XLA compilation of (\S+)')
_POINTS = 20


class Compilations(logging.Handler):
  """Counts what jax says that it compiles."""

  def __init__(self):
    """Begins to listen."""
    super().__init__(logging.DEBUG)
    self.counts = collections.Counter()
    jax.config.update('jax_log_compiles', True)
    for name in ('dispatch', 'interpreters.pxla', 'compiler'):
      logger = logging.getLogger(f'jax._src.{name}')
      logger.addHandler(self)
      logger.propagate = False

  def emit(self, record):
    if found := _COMPILED.search(record.getMessage()):
      self.counts[found[1]] += 1


class Watch:
  """Notes resident memory and live arrays; a hook of the loop."""

  def __init__(self, num_steps: int, compilations: Compilations):
    """Looks at every twentieth part of the run, a step ahead of a save.

    A step that is saved has more arrays for as long as it is the newest.
    """
    self._every = max(1, num_steps // _POINTS)
    self._compilations, self.points = compilations, []
    self.counts, self.early = {}, {}  # Compilations so far, and by the tenth.

  def __call__(self, step, state, metrics, tokens):
    del metrics, tokens
    if (step + 1) % self._every:
      return
    jax.block_until_ready(state)
    gc.collect()
    self.points.append({
        'step': step, 'rss': _resident(), 'arrays': len(jax.live_arrays())})
    self.counts = dict(self._compilations.counts)
    if len(self.points) <= 2:
      self.early = self.counts

  def result(self) -> dict:
    """What `run` returns."""
    # The first tenth fills caches and compiles what saves and looks need.
    rest = self.points[1:] or self.points
    return {
        'points': self.points,
        'rss_growth': max(p['rss'] for p in rest) / rest[0]['rss'] - 1,
        'arrays_constant': len({p['arrays'] for p in rest}) == 1,
        'step_compilations': self.counts.get('jit(update)', 0),
        'later_compilations': sum(self.counts.values())
                              - sum(self.early.values())}


def _resident() -> int:
  """Bytes of this process's memory."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize()


def run(count: int) -> dict:
  """`count` steps of SFT on the testbed, in a process of their own."""
  if not count:
    return {'tried': 0}
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / 'soak.json'
    subprocess.run(
        [sys.executable, '-m', 'tests.faults.soak', str(out), 'sft',
         '--workdir', f'{folder}/run', '--num-steps', str(count),
         '--save-every', str(max(1, count // _POINTS))],
        check=True, stdout=subprocess.DEVNULL)
    found = json.loads(out.read_text())
  is_flat = (found['rss_growth'] < 0.05 and found['arrays_constant']
             and found['step_compilations'] == 1
             and not found['later_compilations'])
  return {'tried': count, 'flat': count * is_flat} | found


def main(out: pathlib.Path, experiment: str, num_steps: int) -> None:
  """Runs the experiment with one more hook in its longest loop."""
  from alignjax.train import loop
  fit, compilations = loop.fit, Compilations()

  def watched(*args, **kwargs):
    if kwargs['num_steps'] != num_steps:  # The base model's, before it.
      return fit(*args, **kwargs)
    compilations.counts.clear()
    watch = Watch(num_steps, compilations)
    kwargs['hooks'] = (*kwargs['hooks'], watch)
    state = fit(*args, **kwargs)
    out.write_text(json.dumps(watch.result(), indent=1) + '\n')
    return state

  loop.fit = watched
  runpy.run_module(f'experiments.{experiment}', run_name='__main__',
                   alter_sys=True)


if __name__ == '__main__':
  _, path, name, *sys.argv[1:] = sys.argv
  main(pathlib.Path(path), name,
       int(sys.argv[1 + sys.argv.index('--num-steps')]))
