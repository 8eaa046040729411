"""Where numbers leave the device: JSON lines, the console, TensorBoard.

A step returns `Mean`s; `to_floats` divides each once, on the host. A writer
takes `write(step, stage, metrics)`; `JsonlWriter` and `TensorBoardWriter` are
the two there are. Only the first process of a multi-host run writes or prints.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import math
import os
import sys
import threading
import time
from typing import Any, TextIO

import jax
import numpy as np
import rich.console
import rich.progress
import rich.table

from alignjax import types

_RESERVED = ('step', 'stage', 'nonfinite')


def to_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
  """Fetches metrics in one transfer and takes each mean on the host.

  Args:
    metrics: name to `Mean`, [] array or number.

  Returns:
    The same names as Python floats; a `Mean` that weighed nothing is 0.

  Raises:
    InputError: if a value is not a scalar.
  """
  floats = {}
  for name, value in jax.device_get(dict(metrics)).items():
    parts = value if isinstance(value, types.Mean) else (value, 1.0)
    if any(np.size(part) != 1 for part in parts):
      raise types.InputError(
          f'metric {name!r} has shape {np.shape(parts[0])}; a metric is one '
          'number: return Mean.of(values, weight).')
    total, weight = (float(np.asarray(part).item()) for part in parts)
    floats[name] = total / weight if weight else 0.0
  return floats


class JsonlWriter:
  """Appends one JSON object per line and flushes each.

      {"step": 20, "stage": "sft", "loss": 1.5, "grad_norm": 0.7}

  NaN and infinities are no JSON: such a value is written as null and spelled
  out under "nonfinite", from where `read_jsonl` restores it. Keep clock times
  out of the metrics if a resumed file shall equal an uninterrupted one.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self._path = os.fspath(path)
    self._file = None

  def write(self, step: int, stage: str, metrics: Mapping[str, float]) -> None:
    """Appends one row; the names step, stage and nonfinite are taken."""
    taken = [name for name in metrics if name in _RESERVED]
    if taken:
      raise types.InputError(
          f'metric name {taken[0]!r} is taken by the row itself; rename it.')
    if _is_first_process():
      row = {'step': int(step), 'stage': stage} | dict(metrics)
      self._open().write(_dump(row) + '\n')
      self._file.flush()

  def truncate_after(self, step: int, stage: str | None = None) -> None:
    """Drops what an interrupted run wrote beyond the step it restarts from.

    The file is cut before the first row beyond `step`, later stages included,
    since they will run again.

    Args:
      step: the last step to keep, that of the restored checkpoint.
      stage: count only this stage's rows when looking for the cut; all if None.
    """
    if not _is_first_process() or not os.path.exists(self._path):
      return
    self._open()
    with open(self._path, 'rb') as file:
      rows = list(_parse(file.read(), self._path))
    cuts = [start for start, row in rows
            if stage in (None, row['stage']) and row['step'] > step]
    if cuts:
      self._file.truncate(cuts[0])

  def close(self) -> None:
    """Closes the file; a later write opens it again."""
    if self._file:
      self._file.close()
      self._file = None

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()

  def _open(self) -> TextIO:
    """The file, opened at its end once a half-written last line is mended."""
    if self._file is None:
      os.makedirs(os.path.dirname(self._path) or '.', exist_ok=True)
      _mend(self._path)
      self._file = open(  # noqa: SIM115, it stays open until `close`.
          self._path, 'a', encoding='utf-8', newline='\n')
    return self._file


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The rows of a metrics file, non-finite values restored.

  A last line that is still being written is left out.

  Raises:
    InputError: if the file is missing or another line is not such a row.
  """
  try:
    with open(path, 'rb') as file:
      data = file.read()
  except OSError as error:
    raise types.InputError(
        f'{os.fspath(path)}: {error.strerror}; give the metrics.jsonl of a '
        'run.') from error
  return [row for _, row in _parse(data, os.fspath(path))]


def _dump(row: Mapping[str, Any]) -> str:
  """One line of valid JSON: non-finite floats become null, and are named."""
  nonfinite = {name: str(value) for name, value in row.items()
               if isinstance(value, float) and not math.isfinite(value)}
  plain = {name: None if name in nonfinite else value
           for name, value in row.items()}
  if nonfinite:
    plain['nonfinite'] = nonfinite
  return json.dumps(plain, allow_nan=False, ensure_ascii=False)


def _parse(data: bytes, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (offset in bytes, row) of each line."""
  start = 0
  for number, line in enumerate(data.splitlines(keepends=True), 1):
    try:
      row = json.loads(line)
      stage, step = row['stage'], row['step']
      if not isinstance(stage, str) or not isinstance(step, int):
        raise TypeError
      for name, value in row.pop('nonfinite', {}).items():
        row[name] = float(value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError,
            RecursionError) as error:
      if start + len(line) == len(data) and not line.endswith(b'\n'):
        return  # Its writer was stopped, or is about to finish it.
      raise types.InputError(
          f'{path}, line {number}: {line[:60]!r} is not a metrics row, a JSON '
          'object with "step" and "stage"; mend or delete the line.'
      ) from error
    yield start, row
    start += len(line)


def _mend(path: str) -> None:
  """Ends a last line without newline, or removes it where it is cut short."""
  if not os.path.exists(path):
    return
  with open(path, 'r+b') as file:
    data = file.read()
    tail = data[data.rfind(b'\n') + 1:]
    if tail:
      try:
        json.loads(tail)
        file.write(b'\n')
      except (ValueError, RecursionError):
        file.truncate(len(data) - len(tail))


class TensorBoardWriter:
  """Writes metrics as TensorBoard scalars named stage/metric."""

  def __init__(
      self, folder: str | os.PathLike[str], *, purge_step: int | None = None):
    """Opens an event file; on resume, events from `purge_step` on are void."""
    try:
      import tensorboardX  # pylint: disable=g-import-not-at-top
    except ImportError as error:
      raise types.InputError(
          'TensorBoardWriter needs tensorboardX, which is not installed; run '
          "pip install 'alignjax[tensorboard]'.") from error
    self._writer = None
    if _is_first_process():
      self._writer = tensorboardX.SummaryWriter(
          os.fspath(folder), purge_step=purge_step)

  def write(self, step: int, stage: str, metrics: Mapping[str, float]) -> None:
    """Adds one point to each metric's curve."""
    if self._writer:
      for name, value in metrics.items():
        self._writer.add_scalar(f'{stage}/{name}', value, int(step))

  def close(self) -> None:
    if self._writer:
      self._writer.close()


class Console:
  """What a person watching a run sees: a progress line, notes, tables.

  On a terminal the progress line is redrawn in place. Elsewhere (a log file,
  CI) it is a plain line at most every `interval` seconds, and always the first
  and the last.
  """

  def __init__(self, *, stream: TextIO | None = None, interval: float = 5.0):
    """Prints to `stream`, stderr by default; `interval` in seconds."""
    self._stream = sys.stderr if stream is None else stream
    self.interval = interval
    self.is_terminal = self._stream.isatty()
    # A file has no width: without one, rich would squeeze tables into 80.
    self._rich = rich.console.Console(
        file=self._stream, highlight=False, markup=False, emoji=False,
        soft_wrap=True, width=None if self.is_terminal else 10_000)

  def note(self, message: str) -> None:
    """Prints one line."""
    if _is_first_process():
      self._rich.print(message)
      self._stream.flush()

  def table(
      self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
  ) -> None:
    """Prints a table; numbers are rounded and flush right."""
    if not _is_first_process():
      return
    table = rich.table.Table(
        title=title, title_justify='left', title_style='bold', box=None,
        pad_edge=False)
    for index, column in enumerate(columns):
      is_number = bool(rows) and all(
          isinstance(row[index], (int, float, np.number)) for row in rows)
      table.add_column(
          column, justify='right' if is_number else 'left',
          no_wrap=not self.is_terminal)
    for row in rows:
      table.add_row(*(format_value(value) for value in row))
    self._rich.print(table)
    self._stream.flush()

  @contextlib.contextmanager
  def working(self, message: str) -> Iterator[None]:
    """Says that something slow has begun, that it goes on, and what it took."""
    done, start = threading.Event(), time.monotonic()
    self.note(f'{message} ...')

    def remind():
      while not done.wait(30.0):
        self.note(f'{message}: {_duration(time.monotonic() - start)} so far')

    threading.Thread(target=remind, daemon=True).start()
    outcome = 'failed after'
    try:
      yield
      outcome = 'took'
    finally:
      done.set()
      spent = _duration(time.monotonic() - start)
      self.note(f'{message}: {outcome} {spent}')

  def progress(self, stage: str, total: int) -> 'Progress':
    """A progress line for `total` steps; call its `update` after each."""
    return Progress(self, self._rich, stage, total)


class Progress:
  """The progress line of one stage; made by `Console.progress`."""

  def __init__(
      self, console: Console, rich_console: rich.console.Console, stage: str,
      total: int):
    self._console, self._rich = console, rich_console
    self._stage, self._total = stage, total
    self._first = None    # (time, step) at the first update, compiling done.
    self._tokens = 0      # Since then.
    self._printed_at = -math.inf
    self._pending = None  # A line not printed for want of time.
    self._bar = self._task = None

  def update(
      self, step: int, metrics: Mapping[str, float], tokens: int = 0) -> None:
    """Shows that `step` is done.

    Args:
      step: steps done, counted from 1 to `total`.
      metrics: floats; the first four are shown.
      tokens: how many were processed since the last update.
    """
    if not _is_first_process():
      return
    now = time.monotonic()
    if self._first is None:
      self._first = (now, step)
    else:
      self._tokens += tokens
    line = self._describe(step, metrics, now)
    if self._console.is_terminal:
      self._draw(step, line)
    elif now - self._printed_at >= self._console.interval or (
        step >= self._total):
      self._print(f'{self._stage} {step}/{self._total}{line}', now)
    else:
      self._pending = f'{self._stage} {step}/{self._total}{line}'

  def close(self) -> None:
    """Prints the last line if it was held back, and frees the terminal."""
    if self._pending:
      self._print(self._pending, time.monotonic())
    if self._bar:
      self._bar.stop()
      self._bar = None

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()

  def _print(self, line: str, now: float) -> None:
    self._console.note(line)
    self._printed_at, self._pending = now, None

  def _draw(self, step: int, line: str) -> None:
    """Redraws the terminal's bar."""
    if self._bar is None:
      column = rich.progress.TextColumn
      self._bar = rich.progress.Progress(
          column('{task.description}', markup=False),
          rich.progress.BarColumn(20),
          column('{task.completed:.0f}/{task.total:.0f}{task.fields[line]}',
                 markup=False),
          console=self._rich)
      self._task = self._bar.add_task(
          self._stage, total=self._total, line='')
      self._bar.start()
    self._bar.update(self._task, completed=step, line=line)

  def _describe(
      self, step: int, metrics: Mapping[str, float], now: float) -> str:
    """Metrics, rate, time left; the first step compiles and is left out."""
    shown = list(metrics.items())[:4]
    parts = [f'{name} {format_value(value)}' for name, value in shown]
    start, first_step = self._first
    spent = now - start
    if spent > 0 and step > first_step:
      if self._tokens:
        parts.append(f'{format_value(self._tokens / spent)} tokens/s')
      left = (self._total - step) * spent / (step - first_step)
      parts.append(f'{_duration(left)} left' if left else _duration(spent))
    return ''.join(f'  {part}' for part in parts)


def format_value(value: Any) -> str:
  """A number for reading: four significant digits, thousands separated."""
  if isinstance(value, (bool, np.bool_)) or not isinstance(
      value, (int, float, np.number)):
    return str(value)
  if isinstance(value, (int, np.integer)) or (
      math.isfinite(value) and abs(value) >= 1_000):
    return f'{value:,.0f}'
  return f'{value:.4g}'


def _duration(seconds: float) -> str:
  """3.2 s, 4:05 or 2:04:05."""
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02d}:{seconds:02d}'
  return f'{minutes}:{seconds:02d}'


def _is_first_process() -> bool:
  """Asked late, since the answer starts the backends."""
  return jax.process_index() == 0
