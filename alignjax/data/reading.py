"""Reads all records of a file, and keeps account of every one.

A record gives rows or is dropped by name: `num_records == num_kept +
len(dropped)`. A self-instruct task counts as many records as it has instances,
a tree as many as it has messages.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import os
import pathlib
from typing import Any, Literal

from alignjax import types
from alignjax.data import files
from alignjax.data import records
from alignjax.data import rules
from alignjax.data import shapes
from alignjax.data import trees

OnBadRecord = Literal['error', 'skip']

# (record, shape, 'file:line', repairs) -> rows; names what it repairs.
ReadRecord = Callable[
    [dict[str, Any], shapes.Format, str, list[str]], Iterable[Any]]
# Messages, linked -> (row, messages in it).
ReadTrees = Callable[
    [list[trees.Message]], Iterator[tuple[Any, list[trees.Message]]]]

_SHOWN = 3  # Lines that a summary names of each reason.


@dataclasses.dataclass(frozen=True)
class Reading:
  """What was read from a file, and what was left out."""

  path: str
  format: shapes.Format
  noun: str                             # What the rows are, in the plural.
  num_rows: int                         # Rows kept.
  dropped: tuple[tuple[str, str], ...]  # (reason, where) of rows dropped.
  repaired: tuple[tuple[str, str], ...] = ()  # (what, where).
  num_records: int = 0                  # Records in the file,
  num_kept: int = 0                     # and those that gave rows.
  is_conversational: bool = False       # Whether the first record held turns.

  def __str__(self) -> str:
    name = pathlib.Path(self.path).name
    shape = self.format.value
    if self.is_conversational and not shape.endswith(')'):
      shape += ', conversational'
    text = f'{self.num_rows:,} {self.noun} from {name} ({shape})'
    if self.dropped:
      text += f'; {summarize_dropped(self.dropped)}'
    if self.repaired:
      text += f"; {summarize_dropped(self.repaired, verb='repaired')}"
    return text

  def summary(self) -> dict[str, Any]:
    """The counts, and some places, as JSON holds them."""
    return {
        'path': self.path,
        'shape': self.format.value,
        'is_conversational': self.is_conversational,
        'records': self.num_records,
        'kept': self.num_kept,
        self.noun: self.num_rows,
        'dropped': _count(self.dropped),
        'repaired': _count(self.repaired),
    }


def summarize_dropped(
    dropped: Iterable[tuple[str, str]], *, verb: str = 'dropped'
) -> str:
  """'dropped 5: 4 empty response (lines 87, 517, 9, ...), 1 prompts differ'."""
  by_reason = _group(dropped)
  parts = []
  for reason, wheres in by_reason.items():
    lines = [where.rpartition(':')[2] for where in wheres]
    count = f'{len(lines):,} ' if len(by_reason) > 1 else ''
    more = ', ...' if len(lines) > _SHOWN else ''
    word = 'line' if len(lines) == 1 else 'lines'
    parts.append(f"{count}{reason} ({word} {', '.join(lines[:_SHOWN])}{more})")
  total = sum(map(len, by_reason.values()))
  return f"{verb} {total:,}: {', '.join(parts)}"


def read_file(
    path: str | os.PathLike[str],
    read: ReadRecord,
    noun: str,
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
    on_bad_record: OnBadRecord = 'error',
    read_trees: ReadTrees | None = None,
) -> tuple[list[Any], Reading]:
  """Reads every record, and holds the dropped ones against the limit.

  Args:
    path: A file or folder; see files.py.
    read: Gives the rows of one record.
    noun: What the rows are, in the plural.
    split: Which split of a folder.
    max_dropped: The share of the records, in [0, 1], that may be dropped.
    on_bad_record: 'error' stops at the first record that is not what it should
      be; 'skip' drops it by the name of its rule.
    read_trees: Gives the rows of OpenAssistant's messages; None has none.

  Returns:
    The rows, and what was read.

  Raises:
    InputError: See `formats.demonstrations`.
  """
  if not 0 <= max_dropped <= 1:
    raise types.InputError(
        f'max_dropped={max_dropped} is not a share; use a number from 0 to 1.'
    )
  if on_bad_record not in ('error', 'skip'):
    raise types.InputError(
        f'on_bad_record={on_bad_record!r} is not known; use error or skip.')
  account = _Account(os.fspath(path), noun, max_dropped, on_bad_record)
  for where, record in files.each_record(path, split):
    for part, at in account.parts(record, where):
      account.take(part, at, read, read_trees)
  if account.messages:
    account.take_trees(read_trees)
  return account.finish()


class _Account:
  """The rows read so far and what became of every record."""

  def __init__(self, path, noun, max_dropped, on_bad_record):
    self.path, self.noun = path, noun
    self.max_dropped, self.on_bad_record = max_dropped, on_bad_record
    self.format: shapes.Format | None = None  # Of the first that was read.
    self.is_conversational = False
    self.items, self.dropped, self.repaired = [], [], []
    self.messages: list[trees.Message] = []
    self.num_records = self.num_kept = 0
    self.first: str | None = None  # What is said of the first dropped one.
    self.wrong_shape: types.InputError | None = None

  def parts(self, record, where) -> list[tuple[Any, str]]:
    """The records that a record stands for, and where each stands."""
    if isinstance(record, rules.BadRecord) or not shapes.is_task(record) or (
        len(record['instances']) < 2):
      return [(record, where)]
    return [(record | {'instances': [instance]}, f'{where}[{i}]')
            for i, instance in enumerate(record['instances'])]

  def take(self, record, where, read, read_trees) -> None:
    """Reads one record, or drops it."""
    self.num_records += 1
    repairs: list[str] = []
    try:
      if isinstance(record, rules.BadRecord):
        raise record
      format_ = self.format or shapes.sniff(record, where)
      if format_ in shapes.TREES and read_trees:
        self.collect(record, format_, where)
      else:
        items = list(read(record, format_, where, repairs))
        self._check_shape(record, format_, where)
        self.items += items
        self.num_kept += 1
      self._settle(record, format_)
    except rules.BadRecord as error:
      self.stop_or_drop(error, where)
    except rules.Unusable as row:
      self._settle(record, format_)
      self.drop(row.reason, where, f'{where}: {row.detail}')
    except rules.WrongShape as error:
      if self.on_bad_record == 'error' or self.format:
        raise
      self.wrong_shape = self.wrong_shape or error
      self.drop('another shape', where, str(error).rstrip('.'))
    else:
      self.repaired += [(what, where) for what in repairs]

  def collect(self, record, format_, where) -> None:
    """Keeps messages until the whole file is there."""
    if format_ == shapes.Format.OASST_MESSAGES:
      messages = [trees.read_message(record, where)]
    else:
      messages = trees.read_tree(record, where)
    self._check_shape(record, format_, where)
    self.messages += messages
    self.num_records += len(messages) - 1

  def take_trees(self, read_trees: ReadTrees) -> None:
    """Reads the messages of the whole file, and says which are of no use."""
    kept, left_out = trees.join(self.messages)
    for message, problem in left_out:
      if isinstance(problem, rules.BadRecord):
        self.stop_or_drop(problem, message.where)
      else:
        self.drop(problem.reason, message.where,
                  f'{message.where}: {problem.detail}')
    used = set()
    for item, messages in read_trees(kept):
      self.items.append(item)
      used.update(map(id, messages))
    for message in kept:
      if id(message) in used:
        self.num_kept += 1
      else:
        self.drop('unused message', message.where,
                  f'{message.where}: the message is in none of the {self.noun}')

  def stop_or_drop(self, error: rules.BadRecord, where: str) -> None:
    """What `on_bad_record` says."""
    if self.on_bad_record == 'error':
      raise error
    self.drop(error.rule, where, str(error).rstrip('.'))

  def drop(self, reason: str, where: str, detail: str) -> None:
    """Takes note of a record that gives no row."""
    self.dropped.append((reason, where))
    if reason not in rules.LEFT_OUT:
      self.first = self.first or detail

  def finish(self) -> tuple[list[Any], Reading]:
    """The rows and the reading; InputError if too many were dropped."""
    if self.format is None and self.wrong_shape:
      raise self.wrong_shape
    counted = sum(
        reason not in rules.LEFT_OUT for reason, _ in self.dropped)
    if counted > self.max_dropped * self.num_records:
      raise types.InputError(
          f'{self.first}; {counted:,} of {self.num_records:,} rows would be'
          f' dropped, more than max_dropped={self.max_dropped:g} of them;'
          ' repair the rows, or pass a larger --max-dropped.'
      )
    if not self.items:
      raise types.InputError(
          f'{self.path}: all {self.num_records:,} rows were dropped'
          f' ({summarize_dropped(self.dropped)}); give at least one that has'
          ' text.'
      )
    return self.items, Reading(
        self.path, self.format, self.noun, len(self.items),
        tuple(self.dropped), tuple(self.repaired), self.num_records,
        self.num_kept, self.is_conversational)

  def _settle(self, record, format_) -> None:
    """The first record that could be read says what the file is."""
    if self.format is None:
      self.format = format_
      self.is_conversational = shapes.is_conversational(record, format_)

  def _check_shape(self, record, format_, where) -> None:
    """BadRecord if a record has fields that make it something else.

    A row with a label among rows without is no row without a label.
    """
    own = shapes.sniff(record, where)
    if own != format_:
      raise rules.BadRecord(
          'another shape',
          f"{where}: the fields ({records.show_names(record)}) are of the"
          f" shape '{own.value}', and the file's first are '{format_.value}';"
          ' give files of one shape each.',
      )


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
  grouped = collections.defaultdict(list)
  for reason, where in pairs:
    grouped[reason].append(where)
  return grouped


def _count(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
  """By name: how many, and where the first few stand."""
  return {
      reason: {'count': len(wheres), 'first': wheres[:_SHOWN]}
      for reason, wheres in _group(pairs).items()
  }
