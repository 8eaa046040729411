"""Records of a JSON file that is one list of objects.

The list is read piece by piece: memory holds a piece and one record.
"""

from collections.abc import Iterator
import json
import os
import pathlib
from typing import Any, BinaryIO

from alignjax import types
from alignjax.data import records

_PIECE = 2**20  # Bytes read at a time.
_SPACE = ' \t\r\n'

_strict = json.JSONDecoder(parse_constant=records.refuse_constant)
_lenient = json.JSONDecoder(parse_int=str)  # Finds where a bad value ends.


def is_array(path: str | os.PathLike[str]) -> bool:
  """Whether a file begins as a list does."""
  with records.open_binary(pathlib.Path(path)) as file:
    start = records.read_some(file, _PIECE, str(path), line=False)
  return start.removeprefix(records.BOM).lstrip().startswith(b'[')


def each_element(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, records.Record | records.BadRecord]]:
  """Yields (number from 1, record) of a list, or what is wrong with one.

  Raises:
    InputError: The list is empty; or it breaks off, is no JSON at some place or
      holds a record of more than `MAX_LINE` bytes, after which nothing more can
      be read; or gzip data is damaged.
  """
  path = pathlib.Path(path)
  with records.open_binary(path) as file:
    text = _Text(file, path)
    text.skip('[', 0)
    if text.peek() == ']':
      raise records.empty_file(path)
    number = 0
    while True:
      number += 1
      text.number = number
      yield number, _element(text, f'{path}:{number}')
      if text.peek() == ']':
        text.skip(']', number)
        break
      text.skip(',', number)
    if text.peek():
      raise text.broken(f'there is more after the list: {text.start()}')


def _element(text: '_Text', where: str) -> records.Record | records.BadRecord:
  """The next value of the list."""
  while True:
    problem = None
    try:
      try:
        value, end = _strict.raw_decode(text.buffer, text.at)
      except json.JSONDecodeError:
        raise
      except ValueError as error:  # NaN, or a number of thousands of digits.
        problem = error
        value, end = _lenient.raw_decode(text.buffer, text.at)
    except json.JSONDecodeError as error:
      if text.more(where):
        continue
      raise text.broken(f'{error.msg} in or after {text.start()}') from error
    except RecursionError as error:
      raise text.broken(f'too many levels in {text.start()}') from error
    # A number may go on in the next piece; other values show their end.
    if end < len(text.buffer) or isinstance(value, (dict, list, str)):
      break
    if not text.more(where):
      raise text.broken('the list does not end')
  written = text.buffer[text.at:end]
  text.at = end
  if len(written) > records.MAX_LINE:
    return text.too_long(where)
  if problem is not None:
    return records.not_json(written, problem, where)
  return records.check_record(value, '\\ud' in written.lower(), where)


class _Text:
  """The part of a file that was read and not used yet."""

  def __init__(self, file: BinaryIO, path: pathlib.Path):
    self.file, self.path = file, path
    self.buffer, self.at, self.number = '', 0, 0
    self._rest, self._is_first, self._piece = b'', True, _PIECE

  def more(self, where: str) -> bool:
    """Reads on, twice as much each time; False at the end of the file.

    Raises:
      BadRecord: a record is longer than is read.
    """
    self.buffer, self.at = self.buffer[self.at:], 0
    if len(self.buffer) > records.MAX_LINE:
      raise self.too_long(where)
    data = records.read_some(
        self.file, max(_PIECE, len(self.buffer)), where, line=False)
    if not data:
      return False
    if self._is_first:
      data, self._is_first = data.removeprefix(records.BOM), False
    data, self._rest = self._rest + data, b''
    try:
      self.buffer += data.decode('utf-8')
    except UnicodeDecodeError as error:
      if len(data) - error.start >= 4:  # No character cut in two.
        raise self.broken(
            f'a byte is not UTF-8 (0x{data[error.start]:02x})') from error
      self.buffer += data[:error.start].decode('utf-8')
      self._rest = data[error.start:]
    return True

  def peek(self) -> str:
    """The next character that is no white space; '' at the end."""
    while True:
      rest = self.buffer[self.at:self.at + _PIECE].lstrip(_SPACE)
      if rest:
        self.at = self.buffer.index(rest[0], self.at)
        return rest[0]
      self.at = min(self.at + _PIECE, len(self.buffer))
      if self.at >= len(self.buffer) and not self.more(str(self.path)):
        return ''

  def skip(self, char: str, number: int) -> None:
    """Passes over a character that must be there."""
    if self.peek() != char:
      raise self.broken(
          f'{self.start() or "the end"} stands where {char!r} should')
    self.at += 1
    self.peek()

  def start(self) -> str:
    """What comes next, shortened."""
    return records.show(self.buffer[self.at:self.at + 80])

  def broken(self, reason: Any) -> types.InputError:
    """The error after which the rest of a file says nothing."""
    return types.InputError(
        f'{self.path}:{self.number or 1}: the list is no JSON from this record'
        f' on ({reason}); write the file again, or as .jsonl with one record'
        ' per line.'
    )

  def too_long(self, where: str) -> records.BadRecord:
    """The error for a record longer than is read."""
    return records.BadRecord(
        'long line',
        f'{where}: the record is longer than {records.MAX_LINE:,} bytes, the'
        ' most that is read; split it.',
    )
