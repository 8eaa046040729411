"""Files become records: JSON, one object per line or one list of objects.

Plain, gzip, or Zstandard where pyarrow is installed. Whatever cannot be read is
refused at the line where it stands. Nothing is guessed, skipped or repaired,
except that blank lines, a byte order mark and CRLF line ends are no part of the
data. Memory holds one line, and no line of more than `MAX_LINE` bytes.
"""

from collections.abc import Iterator
import gzip
import io
import itertools
import json
import os
import pathlib
from typing import Any, BinaryIO
import zlib

from alignjax import types
from alignjax.data import rules

BadRecord = rules.BadRecord
Record = dict[str, Any]

MAX_LINE = 2**24  # Bytes; a line of 16 MiB is a book, or a missing newline.

BOM = b'\xef\xbb\xbf'
_GZIP_MAGIC = b'\x1f\x8b'
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_CHUNK = 2**16  # Bytes read at a time where nothing is kept.
_SHOWN = 40  # Characters of a bad value that an error shows.
_NAMES = 8   # Fields that an error lists.


def read_jsonl(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, Record]]:
  """Yields the objects of a JSONL file with their line numbers, from 1.

  Args:
    path: A file of one JSON object per line, in UTF-8; gzip and Zstandard are
      recognized by their first bytes.

  Yields:
    (line number, object); memory holds one line at a time.

  Raises:
    InputError: A missing or empty file; a line that is no JSON object, not
      UTF-8 or of more than `MAX_LINE` bytes; NaN or Infinity, which are not
      JSON; half a surrogate pair, which no tokenizer can encode; compressed
      data that ends early.
  """
  for line, record in each_line(path):
    if isinstance(record, BadRecord):
      raise record
    yield line, record


def each_line(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, Record | BadRecord]]:
  """As `read_jsonl`, but what is wrong with a line comes in its place."""
  path = pathlib.Path(path)
  is_empty = True
  with open_binary(path) as file:
    for number, line in _lines(file, path):
      where = f'{path}:{number}'
      if number == 1 and line is not None:
        line = line.removeprefix(BOM)
      if line is None:
        is_empty = False
        yield number, BadRecord(
            'long line',
            f'{where}: the line is longer than {MAX_LINE:,} bytes, the most'
            ' that is read; end each record with a newline, or split the'
            ' record.',
        )
      elif line.strip():
        is_empty = False
        yield number, parse(line, where)
  if is_empty:
    raise empty_file(path)


def empty_file(path: pathlib.Path) -> types.InputError:
  """The error for a file without any record."""
  return types.InputError(
      f'{path}: the file is empty; it must hold one JSON object per line.'
  )


def show(value: Any) -> str:
  """A value as an error shows it: as JSON would write it, on one line."""
  if isinstance(value, str):
    value = value[: _SHOWN + 1]  # Not all of a book to show its start.
  try:
    text = json.dumps(value, ensure_ascii=False)
  except (TypeError, ValueError):
    text = repr(value)
  except RecursionError:
    text = f'a {type(value).__name__} of many levels'
  return _shorten(text)


def show_names(record: Record) -> str:
  """The names of a record's fields, the first few."""
  return ', '.join(
      _shorten(repr(name)) for name in list(record)[:_NAMES]) or 'none'


def _shorten(text: str) -> str:
  """The text's start, with nothing that ends a line or is no character."""
  cut = text if len(text) <= _SHOWN else text[:_SHOWN] + '...'
  return ''.join(
      c if c.isprintable() else c.encode('unicode_escape').decode()
      for c in cut)


def open_binary(path: pathlib.Path) -> BinaryIO:
  """The file's bytes, unpacked if it is gzip or Zstandard."""
  try:
    with open(path, 'rb') as file:
      magic = file.read(len(_ZSTD_MAGIC))
    if magic.startswith(_GZIP_MAGIC):
      return gzip.open(path, 'rb')
    if magic == _ZSTD_MAGIC:
      from alignjax.data import arrow  # Only here: pyarrow may be missing.

      return io.BufferedReader(arrow.unpack_zstd(path))
    for suffix, name in (('.gz', 'gzip'), ('.zst', 'Zstandard')):
      if magic and path.suffix == suffix:
        raise types.InputError(
            f'{path}: the name ends in {suffix} but the data is not {name} (it'
            f' starts with {magic[:2]!r}); rename the file or compress it.'
        )
    return open(path, 'rb')
  except FileNotFoundError as error:
    raise types.InputError(
        f'{path}: there is no such file; give the path of a .jsonl or'
        ' .jsonl.gz file.'
    ) from error
  except OSError as error:
    raise types.InputError(
        f'{path}: cannot be read ({error.strerror}); give the path of a .jsonl'
        ' or .jsonl.gz file.'
    ) from error


def read_some(file: BinaryIO, size: int, where: str, *, line: bool) -> bytes:
  """The next bytes, or the next line of at most so many.

  Raises:
    InputError: The compressed data is damaged.
  """
  try:
    return file.readline(size) if line else file.read(size)
  except (EOFError, zlib.error, OSError) as error:
    kind = 'gzip' if isinstance(file, gzip.GzipFile) else 'file\'s'
    raise types.InputError(
        f'{where}: the {kind} data is cut off or damaged'
        f' ({_shorten(str(error))}); copy or download the file again.'
    ) from error


def parse(line: bytes, where: str) -> Record | BadRecord:
  """The object that a line holds, or what is wrong with it."""
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as error:
    return BadRecord(
        'not UTF-8',
        f'{where}: byte {error.start + 1} of the line'
        f' (0x{line[error.start]:02x}) is not UTF-8; save the file as UTF-8.',
    )
  try:
    value = json.loads(text, parse_constant=refuse_constant)
  except (ValueError, RecursionError) as error:
    return not_json(text, error, where)
  return check_record(value, '\\ud' in text.lower(), where)


def not_json(text: str, error: Exception, where: str) -> BadRecord:
  """What is said of text that is no JSON."""
  reason = error
  if isinstance(error, json.JSONDecodeError):
    reason = f'{error.msg} at character {error.pos + 1}'
  start = text[: 4 * _SHOWN].strip()
  return BadRecord(
      'not JSON',
      f'{where}: {_shorten(repr(start))} is not JSON ({reason}); each line must'
      ' be one JSON object.',
  )


def check_record(
    value: Any, has_escapes: bool, where: str
) -> Record | BadRecord:
  """The value if it is an object of text that can be encoded.

  Args:
    value: What JSON gave.
    has_escapes: Whether a `\\ud...` was written somewhere, which is the only
      way in for half a surrogate pair.
    where: Names the record.

  Returns:
    The value, or what is wrong with it.
  """
  if not isinstance(value, dict):
    return BadRecord(
        'wrong type',
        f'{where}: {show(value)} is not a JSON object; each line must be one,'
        ' such as {"prompt": "...", "response": "..."}.',
    )
  if not has_escapes:
    return value
  for field, content in value.items():
    try:
      json.dumps({field: content}, ensure_ascii=False).encode('utf-8')
    except UnicodeEncodeError as error:
      half = ord(error.object[error.start])
      return BadRecord(
          'half a character',
          f'{where}: field {show(field)} holds half a surrogate pair'
          f' (\\u{half:04x}), which is no character; write the whole character'
          ' or \\ufffd.',
      )
    except RecursionError as error:
      return not_json(show(content), error, where)
  return value


def refuse_constant(name: str):
  """JSON has no NaN or Infinity, though Python's reader takes them."""
  raise ValueError(f'{name} is no JSON value, write null')


def _lines(
    file: BinaryIO, path: pathlib.Path
) -> Iterator[tuple[int, bytes | None]]:
  """(number, line) from 1; None in place of a line that is too long."""
  for number in itertools.count(1):
    where = f'{path}:{number}'
    line = read_some(file, MAX_LINE + 1, where, line=True)
    if not line:
      return
    if len(line) <= MAX_LINE or line.endswith(b'\n'):
      yield number, line
      continue
    while line and not line.endswith(b'\n'):
      line = read_some(file, _CHUNK, where, line=True)
    yield number, None
