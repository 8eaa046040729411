"""Files become records: JSON objects by line or in one array, plain or gzip.

Whatever cannot be read is refused at the line where it stands. Nothing is
guessed or repaired, and nothing is skipped unless the caller says so, except
that blank lines, a byte order mark and CRLF line ends are no part of the data.

No file fills memory: it holds one record, and a record of more than
`MAX_BYTES` is refused before it is read, also one that unpacks out of a small
gzip file.
"""

from collections.abc import Callable, Iterator
import contextlib
import gzip
import json
import math
import os
import pathlib
import sys
from typing import Any, BinaryIO
import zlib

from alignjax import errors
from alignjax import types
from alignjax.data import elements
from alignjax.data import rules

BadRecord = rules.BadRecord
OnError = Callable[[BadRecord], None]
Record = dict[str, Any]

MAX_BYTES = 16 * 2**20  # Of one record's JSON.

_BOM = b'\xef\xbb\xbf'
_GZIP_MAGIC = b'\x1f\x8b'
_SHOWN = 40  # Characters of a bad value that an error shows.
_NAMES = 8   # Fields that an error lists.
_CHUNK = 2**20  # Bytes read at once of a line that is too long to keep.
_COUNTED = 16  # A line is measured up to this many times the limit.


class NoRecordsError(types.InputError):
  """The file is whole and holds no record."""


def read_jsonl(
    path: str | os.PathLike[str],
    on_error: OnError | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the objects of a JSONL file with their line numbers, from 1.

  Args:
    path: A file of one JSON object per line, in UTF-8; gzip is recognized by
      its first bytes.
    on_error: Called with the error of a line that cannot be used; reading goes
      on with the next line. Without it the error is raised. A file that is
      missing, empty or damaged raises either way.
    max_bytes: The longest line that is read, its end not counted.

  Yields:
    (line number, object); memory holds one line at a time, and of a longer
    line than `max_bytes` no more than that.

  Raises:
    InputError: A missing or empty file; a line that is no JSON object, is too
      long, or not UTF-8; an object that holds a key twice, of which JSON's
      readers would silently keep the last; NaN, Infinity and numbers that
      would become it, which are not JSON; half a surrogate pair, which no
      tokenizer can encode; gzip data that ends early.
  """
  path = pathlib.Path(path)
  number = 0
  is_empty = True
  bound = len(_BOM) + max_bytes + len(b'\r\n')
  with _open(path) as file, _whole_gzip(lambda: f'{path}:{number + 1}'):
    while line := file.readline(bound):
      number += 1
      is_cut = len(line) == bound and not line.endswith(b'\n')
      if number == 1:
        line = line.removeprefix(_BOM)
      where = f'{path}:{number}'
      try:
        if is_cut or len(line.rstrip(b'\r\n')) > max_bytes:
          _refuse_long(file, line, where, max_bytes, on_error is not None)
        if not line.strip():
          continue
        is_empty = False
        record = _parse(line, where, 'line')
      except BadRecord as error:
        is_empty = False
        if on_error is None:
          raise
        on_error(error)
        continue
      yield number, record
  if is_empty:
    raise NoRecordsError(
        f'{path}: the file is empty; it must hold one JSON object per line.'
    )


def read_json_array(
    path: str | os.PathLike[str],
    on_error: OnError | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the objects of a file that is one JSON array, numbered from 1.

  Args:
    path: A file of `[{...}, {...}]`, on any number of lines, plain or gzip.
    on_error: As in `read_jsonl`, called for a bad element. What breaks the
      array itself raises either way: from there on, nothing is certain.
    max_bytes: The longest element that is read.

  Yields:
    (element number, object). The file is read in pieces; memory holds one
    element and at most two times `max_bytes`.

  Raises:
    InputError: As `read_jsonl`; an array that is cut off, lacks a comma's
      element, or is followed by something else.
  """
  path = pathlib.Path(path)
  number = 0
  with _open(path) as file, _whole_gzip(lambda: f'{path}:{number + 1}'):
    try:
      for number, element in enumerate(elements.split(file, max_bytes), 1):
        try:
          record = _parse(element, f'{path}:{number}', 'element')
        except BadRecord as error:
          if on_error is None:
            raise
          on_error(error)
          continue
        yield number, record
    except elements.BrokenArrayError as error:
      raise types.InputError(f'{path}:{error.number}: {error}') from error
  if not number:
    raise NoRecordsError(f'{path}: the array is empty; it must hold objects.')


def first_bytes(path: pathlib.Path, size: int) -> tuple[bytes, bool]:
  """How a file starts, unpacked if it is gzip, and whether it is gzip."""
  with _open(path) as file, _whole_gzip(lambda: f'{path}:1'):
    data = file.read(size).removeprefix(_BOM)
    return data, isinstance(file, gzip.GzipFile)


def show(value: Any) -> str:
  """A value as an error shows it: as JSON would write it, on one line."""
  if isinstance(value, str):
    value = value[: _SHOWN + 1]  # Not all of a book to show its start.
  try:
    text = json.dumps(value, ensure_ascii=False)
  except (TypeError, ValueError):
    text = repr(value)
  except RecursionError:
    text = f'a {type(value).__name__} nested too deeply'
  return _shorten(text)


def show_names(record: Record) -> str:
  """The names of a record's fields, the first few."""
  return ', '.join(
      _shorten(repr(name)) for name in list(record)[:_NAMES]) or 'none'


def _shorten(text: str) -> str:
  """The text's start, with nothing that ends a line or is no character."""
  cut = text if len(text) <= _SHOWN else text[:_SHOWN] + '...'
  return errors.printable(cut.replace('\n', '\\n'))


def _open(path: pathlib.Path) -> BinaryIO:
  """The file's bytes, unpacked if it is gzip."""
  if path.exists() and not path.is_file() and not path.is_dir():
    raise types.InputError(
        f'{path}: is a pipe or a device, which can be read only once; write'
        ' the records to a file and give its path.'
    )
  try:
    with open(path, 'rb') as file:
      magic = file.read(len(_GZIP_MAGIC))
    if magic == _GZIP_MAGIC:
      return gzip.open(path, 'rb')
    if magic and path.suffix == '.gz':
      raise types.InputError(
          f'{path}: the name ends in .gz but the data is not gzip (it starts'
          f' with {magic!r}); rename the file or compress it.'
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


@contextlib.contextmanager
def _whole_gzip(where: Callable[[], str]) -> Iterator[None]:
  """Data that does not unpack is an InputError at the place that it reached."""
  try:
    yield
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise types.InputError(
        f'{where()}: the gzip data is cut off or damaged ({error}); copy or'
        ' download the file again.'
    ) from error


def _refuse_long(
    file: BinaryIO, line: bytes, where: str, max_bytes: int, to_end: bool
):
  """Passes over the rest of a line, then raises its InputError.

  Args:
    file: Stands within the line.
    line: The line's start.
    where: 'file:line'.
    max_bytes: The limit that the line is over.
    to_end: Whether the file must stand at the next line afterwards. If not,
      counting stops early: a gzip file can unpack into days of bytes.
  """
  size = len(line.rstrip(b'\r\n'))
  is_over = line.endswith(b'\n')
  while not is_over and (to_end or size <= _COUNTED * max_bytes):
    piece = file.readline(_CHUNK)
    size += len(piece.rstrip(b'\r\n'))
    is_over = not piece or piece.endswith(b'\n')
  raise BadRecord(
      'long line',
      f'{where}: the line has {"" if is_over else "more than "}{size:,} bytes,'
      f' more than the limit of {max_bytes:,}; check that each line is one'
      ' record, and remove or split this one.'
  )


class _RefusedError(ValueError):
  """JSON as Python reads it, but not as it must be."""


def _parse(line: bytes, where: str, unit: str) -> dict[str, Any]:
  """The object of a line's or an element's bytes; BadRecord if it is none."""
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as error:
    raise BadRecord(
        'not UTF-8',
        f'{where}: byte {error.start + 1} of the {unit}'
        f' (0x{line[error.start]:02x}) is not UTF-8; save the file as UTF-8.'
    ) from error
  try:
    value = _DECODER.decode(text)
  except (ValueError, RecursionError) as error:
    raise BadRecord(
        'not JSON',
        f'{where}: {_shorten(repr(text.strip()))} is not JSON'
        f' ({_reason(error)}); each {unit} must be one JSON object.'
    ) from error
  if not isinstance(value, dict):
    raise BadRecord(
        'wrong type',
        f'{where}: {show(value)} is not a JSON object; each {unit} must be one,'
        ' such as {"prompt": "...", "response": "..."}.'
    )
  if '\\ud' in text.lower():  # The only way in for half a surrogate pair.
    _check_unicode(value, where)
  return value


def _reason(error: Exception) -> str:
  """What is wrong with a text, in a few words."""
  if isinstance(error, json.JSONDecodeError):
    return f'{error.msg} at character {error.pos + 1}'
  if isinstance(error, RecursionError):
    return 'it is nested too deeply'
  if isinstance(error, _RefusedError):
    return str(error)
  return (
      f'a number has more than {sys.get_int_max_str_digits():,} digits; write'
      ' it as text'
  )


def _refuse_constant(name: str):
  raise _RefusedError(f'{name} is no JSON value, write null')


def _finite(text: str) -> float:
  value = float(text)
  if math.isinf(value):
    raise _RefusedError(f'{_shorten(text)} is too large for a number')
  return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise _RefusedError(f'the key {show(twice)} stands twice in one object')
  return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse_constant,
    parse_float=_finite,
)


def _check_unicode(record: dict[str, Any], where: str):
  """InputError if a text of the record holds half a surrogate pair."""
  for field, value in record.items():
    try:
      json.dumps({field: value}, ensure_ascii=False).encode('utf-8')
    except RecursionError as error:
      raise BadRecord(
          'not JSON',
          f'{where}: field {show(field)} is nested too deeply; make it flatter.'
      ) from error
    except UnicodeEncodeError as error:
      half = ord(error.object[error.start])
      raise BadRecord(
          'half a character',
          f'{where}: field {show(field)} holds half a surrogate pair'
          f' (\\u{half:04x}), which is no character; write the whole character'
          ' or \\ufffd.'
      ) from error
