"""Records of Parquet files and Arrow streams, read with pyarrow alone.

Memory holds one batch of rows. What JSON cannot hold comes out as JSON would
have it: bytes as text, times in ISO form, maps as objects; and a list of
messages that was stored as an object of lists as a list of objects again.
"""

from collections.abc import Iterator
import datetime
import os
from typing import Any

from alignjax import types
from alignjax.data import records

PARQUET_MAGIC = b'PAR1'
ARROW_MAGIC = b'ARROW1'

_BATCH = 256  # Rows; of 10 kB each they are 2.5 MB.

# Fields that tell an object of lists to be the columns of a list of objects.
_COLUMNS = (
    {'role', 'content'},
    {'from', 'value'},
    {'input', 'output'},
    {'response', 'overall_score'},
)


def each_parquet_row(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, records.Record | records.BadRecord]]:
  """Yields (row from 1, record) of a Parquet file, or what is wrong with one.

  Raises:
    InputError: pyarrow is not installed; no Parquet file; no rows.
  """
  pyarrow = _import(path)

  def batches():
    with pyarrow.parquet.ParquetFile(path) as file:
      yield from file.iter_batches(batch_size=_BATCH)

  return _each_row(path, batches, pyarrow)


def each_arrow_row(
    path: str | os.PathLike[str],
) -> Iterator[tuple[int, records.Record | records.BadRecord]]:
  """The same of an Arrow IPC stream or file, as Hugging Face datasets are."""
  pyarrow = _import(path)

  def batches():
    with pyarrow.memory_map(os.fspath(path)) as source:
      if source.read(len(ARROW_MAGIC)) == ARROW_MAGIC:
        with pyarrow.ipc.open_file(source) as file:
          wholes = (file.get_batch(i) for i in range(file.num_record_batches))
          yield from _in_parts(wholes)
      else:
        source.seek(0)
        with pyarrow.ipc.open_stream(source) as stream:
          yield from _in_parts(stream)

  return _each_row(path, batches, pyarrow)


def unpack_zstd(path: str | os.PathLike[str]):
  """The bytes of a Zstandard file, unpacked as they are read."""
  return _import(path).input_stream(os.fspath(path), compression='zstd')


def _import(path: str | os.PathLike[str]):
  """The module pyarrow, which is not installed with the library."""
  try:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet
  except ImportError as error:
    raise types.InputError(
        f'{path}: Parquet, Arrow and Zstandard files are read with pyarrow,'
        " which is not installed; run pip install 'alignjax[parquet]', or write"
        ' the rows as .jsonl.'
    ) from error
  return pyarrow


def _in_parts(batches) -> Iterator[Any]:
  """Slices of few rows: a stored batch of 1,000 may be of long texts."""
  for batch in batches:
    for start in range(0, batch.num_rows, _BATCH):
      yield batch.slice(start, _BATCH)


def _each_row(path, batches, pyarrow):
  """Numbers the rows of all batches, and checks each."""
  number = 0
  try:
    for batch in batches():
      for row in _rows(batch):
        number += 1
        yield number, _to_record(row, f'{path}:{number}')
  except (pyarrow.ArrowException, OSError) as error:
    raise types.InputError(
        f'{path}: cannot be read as Parquet or Arrow data after row {number}'
        f' ({_first_line(error)}); copy or download the file again.'
    ) from error
  if not number:
    raise types.InputError(
        f'{path}: the file holds no rows; give one that does.')


def _rows(batch) -> Iterator[Any]:
  """The rows as Python values; an exception in place of one that is none."""
  try:
    yield from batch.to_pylist()
    return
  except (ValueError, OverflowError):  # UTF-8, or a time before the year 1.
    pass
  for i in range(batch.num_rows):
    try:
      yield batch.slice(i, 1).to_pylist()[0]
    except (ValueError, OverflowError) as error:
      yield error


def _to_record(row: Any, where: str) -> records.Record | records.BadRecord:
  """A row as JSON would have given it, or what is wrong with it."""
  try:
    if isinstance(row, Exception):
      raise row
    return {name: _plain(value) for name, value in row.items()}
  except UnicodeDecodeError as error:
    return records.BadRecord(
        'not UTF-8',
        f'{where}: byte {error.start + 1} of a text'
        f' (0x{error.object[error.start]:02x}) is not UTF-8; write the file'
        ' from UTF-8 text.',
    )
  except (ValueError, OverflowError) as error:
    return records.BadRecord(
        'wrong type',
        f'{where}: a value of the row is none ({_first_line(error)}); write it'
        ' as text.',
    )


def _plain(value: Any) -> Any:
  """A value as JSON would have given it."""
  match value:
    case None | bool() | int() | float() | str():
      return value
    case bytes():
      return value.decode('utf-8')
    case dict():
      return _as_rows({k: _plain(v) for k, v in value.items()})
    case [(str(), _), *_] if all(
        isinstance(item, tuple) and len(item) == 2 for item in value):
      return {k: _plain(v) for k, v in value}  # A map.
    case list() | tuple():
      return [_plain(item) for item in value]
    case datetime.date() | datetime.time():
      return value.isoformat()
    case _:
      return str(value)


def _as_rows(columns: dict[str, Any]) -> Any:
  """Turns an object of lists round if they are a list's columns."""
  lists = list(columns.values())
  if (
      any(names <= columns.keys() for names in _COLUMNS)
      and all(isinstance(column, list) for column in lists)
      and len({len(column) for column in lists}) == 1
  ):
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*lists, strict=True)
    ]
  return columns


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
