"""Files become records: one JSON object per line, plain or gzip.

Whatever cannot be read is refused at the line where it stands. Nothing is
guessed, skipped or repaired, except that blank lines, a byte order mark and
CRLF line ends are no part of the data.
"""

from collections.abc import Iterator
import gzip
import json
import os
import pathlib
from typing import Any, BinaryIO
import zlib

from alignjax import types

_BOM = b'\xef\xbb\xbf'
_GZIP_MAGIC = b'\x1f\x8b'
_SHOWN = 40  # Characters of a bad value that an error shows.


def read_jsonl(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the objects of a JSONL file with their line numbers, from 1.

  Args:
    path: A file of one JSON object per line, in UTF-8; gzip is recognized by
      its first bytes.

  Yields:
    (line number, object); memory holds one line at a time.

  Raises:
    InputError: A missing or empty file; a line that is no JSON object or not
      UTF-8; NaN or Infinity, which are not JSON; half a surrogate pair, which
      no tokenizer can encode; gzip data that ends early.
  """
  path = pathlib.Path(path)
  line_number = 0
  is_empty = True
  with _open(path) as file:
    try:
      for line_number, line in enumerate(file, start=1):
        if line_number == 1:
          line = line.removeprefix(_BOM)
        if line.strip():
          is_empty = False
          yield line_number, _parse(line, f'{path}:{line_number}')
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise types.InputError(
          f'{path}:{line_number + 1}: the gzip data is cut off or damaged'
          f' ({error}); copy or download the file again.'
      ) from error
  if is_empty:
    raise types.InputError(
        f'{path}: the file is empty; it must hold one JSON object per line.'
    )


def show(value: Any) -> str:
  """A value as an error shows it: as JSON would write it, on one line."""
  try:
    text = json.dumps(value, ensure_ascii=False)
  except (TypeError, ValueError):
    text = repr(value)
  return _shorten(text)


def _shorten(text: str) -> str:
  return text if len(text) <= _SHOWN else text[:_SHOWN] + '...'


def _open(path: pathlib.Path) -> BinaryIO:
  """The file's bytes, unpacked if it is gzip."""
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


def _parse(line: bytes, where: str) -> dict[str, Any]:
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as error:
    raise types.InputError(
        f'{where}: byte {error.start + 1} of the line'
        f' (0x{line[error.start]:02x}) is not UTF-8; save the file as UTF-8.'
    ) from error
  try:
    value = json.loads(text, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:
    reason = error
    if isinstance(error, json.JSONDecodeError):
      reason = f'{error.msg} at character {error.pos + 1}'
    raise types.InputError(
        f'{where}: {_shorten(repr(text.strip()))} is not JSON ({reason}); each'
        ' line must be one JSON object.'
    ) from error
  if not isinstance(value, dict):
    raise types.InputError(
        f'{where}: {show(value)} is not a JSON object; each line must be one,'
        ' such as {"prompt": "...", "response": "..."}.'
    )
  if '\\ud' in text.lower():  # The only way in for half a surrogate pair.
    _check_unicode(value, where)
  return value


def _refuse_constant(name: str):
  raise ValueError(f'{name} is no JSON value, write null')


def _check_unicode(record: dict[str, Any], where: str):
  """InputError if a text of the record holds half a surrogate pair."""
  for field, value in record.items():
    try:
      json.dumps({field: value}, ensure_ascii=False).encode('utf-8')
    except UnicodeEncodeError as error:
      half = ord(error.object[error.start])
      raise types.InputError(
          f'{where}: field {show(field)} holds half a surrogate pair'
          f' (\\u{half:04x}), which is no character; write the whole character'
          ' or \\ufffd.'
      ) from error
