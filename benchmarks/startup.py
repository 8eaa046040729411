"""How long a run takes to its first step, and in how much memory.

  python -m benchmarks.startup -- experiments.sft --model DIR --data FILE

Starts the command that follows `--` with a step to take and a folder of its
own, twice: once with empty caches, of programs and of rows, and once with what
that left.
Timed from the process's start to the first line of metrics.jsonl; the run is
then ended. `--rows 1 10` does so for the file's rows as they are, and again for
ten times as many, each under another name.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from alignjax import cli
from alignjax.data import read_records
from alignjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the measurement; what is started stands behind `--`."""

  rows: tuple[int, ...] = (1,)  # How often a row of --data is in the file.
  timeout: float = 600.0  # Seconds that a start may take.
  json: str = ''  # File for the result.


def main(cfg: Config, command: list[str]) -> None:
  """Measures; see `Config`."""
  if not command or min(cfg.rows) < 1 or (
      cfg.rows != (1,) and '--data' not in command):
    raise InputError(
        f'rows={cfg.rows}, command={command}: a module and its flags must '
        'stand behind --, with --data where rows are repeated')
  found = []
  with tempfile.TemporaryDirectory() as folder:
    for times in cfg.rows:
      folder_of = pathlib.Path(folder) / str(times)
      folder_of.mkdir()
      for cache in ('empty', 'warm'):
        found.append({'rows': times, 'cache': cache} | start(
            repeated(command, times, folder_of), folder_of, cache,
            cfg.timeout))
  show(found)
  if cfg.json:
    pathlib.Path(cfg.json).write_text(json.dumps(
        {'command': command, 'starts': found}, indent=2) + '\n')


def start(command: list[str], folder: pathlib.Path, name: str,
          timeout: float) -> dict[str, float]:
  """Seconds to a run's first step, and its GiB at most until then."""
  workdir, log = folder / name, folder / f'{name}.log'
  lines, peak, began = workdir / 'metrics.jsonl', 0.0, time.monotonic()
  with log.open('w') as said:
    process = subprocess.Popen(
        [sys.executable, '-m', *command, '--workdir', str(workdir)],
        stdout=said, stderr=said,
        env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
                          'XDG_CACHE_HOME': str(folder / 'home')})
  try:
    while not (lines.exists() and lines.stat().st_size):
      peak = max(peak, _peak_gib(process.pid))
      status = process.poll()
      if status is not None or time.monotonic() - began > timeout:
        raise InputError(
            f'{" ".join(command)}: status {status} and no step after '
            f'{time.monotonic() - began:.0f} s; {log.read_text().strip()}')
      time.sleep(0.02)
    return {'seconds': time.monotonic() - began,
            'rss_gib': max(peak, _peak_gib(process.pid))}
  finally:
    process.kill()
    process.wait()


def _peak_gib(pid: int) -> float:
  """A process's largest resident memory so far; 0 once it has ended."""
  try:
    status = pathlib.Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
  except OSError:
    return 0.0
  for line in status.splitlines():
    if line.startswith('VmHWM:'):
      return int(line.split()[1]) / 2**20
  return 0.0


def repeated(
    command: list[str], times: int, folder: pathlib.Path) -> list[str]:
  """The command with a file that holds each row so many times."""
  if times == 1:
    return command
  at = command.index('--data') + 1
  path = folder / 'rows.jsonl'
  with path.open('w', encoding='utf-8') as file:
    for _, record in read_records(command[at]):
      file.write((json.dumps(record) + '\n') * times)
  return [*command[:at], str(path), *command[at + 1:]]


def show(found: list[dict]) -> None:
  """The table."""
  print(f'{"rows":>6}{"cache":>8}{"first step, s":>16}{"GiB":>8}')
  for one in found:
    print(f'{one["rows"]:5}x{one["cache"]:>8}{one["seconds"]:16.2f}'
          f'{one["rss_gib"]:8.2f}')


if __name__ == '__main__':
  end = sys.argv.index('--') if '--' in sys.argv else len(sys.argv)
  started = sys.argv[end + 1:]
  del sys.argv[end:]
  cli.run(lambda cfg: main(cfg, started), Config)
