"""Parquet and Arrow files become the records that JSON would have given.

A struct is an object, a list or a tensor's storage a list, a map with texts for
keys an object; dictionaries and run ends are decoded; binary that is UTF-8 is
text; decimals and all floats are Python floats; times are ISO 8601 texts, those
with a zone in UTC. What JSON has no form for (NaN, other bytes, durations) is
refused with its field and row.

pyarrow is imported when such a file is read: it is an extra.
"""

from collections.abc import Callable, Iterator
import datetime
import math
import os
import pathlib
from typing import Any

from alignjax import types
from alignjax.data import records

_BATCH = 256  # Rows that are turned into Python objects at once.
_BUFFER = 2**20  # Bytes of a Parquet column that are read ahead.
_EPOCH = datetime.datetime(1970, 1, 1)
_DIGITS = {'s': 0, 'ms': 3, 'us': 6, 'ns': 9}  # Of a second's fraction.
_END = b'\xff\xff\xff\xff\0\0\0\0'  # Closes an Arrow stream.
_FILE_MAGIC = b'ARROW1'

# Fields that tell an object of lists to be the columns of a list of objects, as
# the `Sequence` of Hugging Face's datasets stores one.
_COLUMNS = (
    {'role', 'content'}, {'from', 'value'}, {'input', 'output'},
    {'response', 'overall_score'},
)


class _NoJsonError(Exception):
  """A value that JSON has no form for; holds the field and what is wrong."""

  def __init__(self, field: str, reason: str):
    super().__init__(f"field '{field}' {reason}")


def read_parquet(
    path: str | os.PathLike[str], on_error: records.OnError | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (row number from 1, record) of a Parquet file.

  Args:
    path: A Parquet file. Memory holds 256 rows, and of each column 1 MiB and
      the page that is read.
    on_error: As in `records.read_jsonl`, called for a bad row.

  Raises:
    InputError: pyarrow is missing; the file is cut off or no Parquet, or has no
      rows; a value that JSON has no form for.
  """
  pa = _pyarrow(path)
  from pyarrow import parquet  # pyarrow does not import it by itself.

  def batches():
    with parquet.ParquetFile(
        path,
        buffer_size=_BUFFER,
        pre_buffer=False,  # True holds the whole file, and is the default.
    ) as file:
      yield from file.iter_batches(batch_size=_BATCH)

  whole = _whole(pa, batches(), path, 'Parquet')
  yield from _records(pa, whole, path, on_error)


def read_arrow(
    path: str | os.PathLike[str], on_error: records.OnError | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
  """As `read_parquet`, of an Arrow stream or file; its batches come one by one.

  Memory holds one batch as it was written; `datasets` writes 1,000 rows.
  """
  pa = _pyarrow(path)

  def batches():
    with pa.OSFile(os.fspath(path), 'rb') as file:
      if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
        file.seek(0)
        reader = pa.ipc.open_file(file)
        found = (reader.get_batch(i) for i in range(reader.num_record_batches))
      else:
        _check_end(file)
        found = pa.ipc.open_stream(file)
      for batch in found:
        batch.validate(full=True)  # Wrong offsets would end the process.
        yield batch

  whole = _whole(pa, batches(), path, 'Arrow')
  yield from _records(pa, whole, path, on_error)


def _pyarrow(path: str | os.PathLike[str]) -> Any:
  try:
    import pyarrow
  except ImportError as error:
    raise types.InputError(
        f'{path}: a Parquet or Arrow file needs pyarrow, which is not'
        " installed; run pip install 'alignjax[parquet]', or give the records"
        ' as .jsonl.'
    ) from error
  return pyarrow


def _whole(
    pa: Any, batches: Iterator[Any], path: str | os.PathLike[str], kind: str
) -> Iterator[Any]:
  """The batches; what pyarrow cannot read is an InputError of one line."""
  try:
    yield from batches
  except FileNotFoundError as error:
    raise types.InputError(
        f'{path}: there is no such file; give the path of one.') from error
  except (pa.ArrowException, OSError, EOFError, ValueError) as error:
    raise types.InputError(
        f'{path}: the {kind} data is cut off, damaged or no {kind} at all'
        f' ({_first_line(error)}); copy or download the file again.'
    ) from error


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _check_end(file: Any):
  """A stream that is cut off between batches would look whole."""
  size = file.size()
  file.seek(max(0, size - len(_END)))
  end = file.read(len(_END))
  file.seek(0)
  if end != _END:
    raise EOFError('the stream has no end mark')


def _records(
    pa: Any,
    batches: Iterator[Any],
    path: str | os.PathLike[str],
    on_error: records.OnError | None,
) -> Iterator[tuple[int, dict[str, Any]]]:
  number = 0
  for batch in batches:
    for start in range(0, batch.num_rows, _BATCH):
      part = batch.slice(start, _BATCH)
      for record in _part_records(pa, part, path, number, on_error):
        number += 1
        if record is not None:
          yield number, record
  if not number:
    raise records.NoRecordsError(
        f'{pathlib.Path(path)}: the file has no rows; give one that has some.')


def _part_records(
    pa: Any,
    part: Any,
    path: str | os.PathLike[str],
    before: int,
    on_error: records.OnError | None,
) -> Iterator[dict[str, Any] | None]:
  """The records of a few rows, None for one that `on_error` was told of."""
  try:
    rows = _rows(pa, part)
  except _NoJsonError:
    pass  # Row by row, to find which ones.
  else:
    yield from rows
    return
  for i in range(part.num_rows):
    try:
      row = _rows(pa, part.slice(i, 1))[0]
    except _NoJsonError as error:
      bad = records.BadRecord(
          'wrong type', f'{path}:{before + i + 1}: {error}')
      if on_error is None:
        raise bad from error
      on_error(bad)
      row = None
    yield row


def _rows(pa: Any, batch: Any) -> list[dict[str, Any]]:
  """A batch's records; _NoJsonError if one of them cannot be one."""
  names = batch.schema.names
  for name in names:
    if names.count(name) > 1:
      raise _NoJsonError(name, 'is the name of two columns; rename one')
  columns = []
  for i, name in enumerate(names):
    try:
      columns.append(_values(pa, batch.column(i), name))
    except pa.ArrowException as error:
      raise _NoJsonError(
          name,
          f'cannot be read ({_first_line(error)}); cast or drop the column',
      ) from error
  return [
      dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(pa: Any, array: Any, field: str) -> list[Any]:
  """An array's values as JSON would have given them.

  Args:
    pa: pyarrow.
    array: An Arrow array of any type.
    field: Its dotted name, for errors.

  Raises:
    _NoJsonError: A value or a type that JSON has no form for.
  """
  type_ = array.type
  is_ = pa.types
  if isinstance(array, pa.ExtensionArray):
    return _values(pa, array.storage, field)
  if is_.is_dictionary(type_):
    return _values(pa, array.dictionary_decode(), field)
  if is_.is_run_end_encoded(type_):
    import pyarrow.compute

    return _values(pa, pyarrow.compute.run_end_decode(array), field)
  if is_.is_struct(type_):
    return _structs(pa, array, field)
  if is_.is_map(type_):
    pairs = pa.list_(pa.struct([
        type_.key_field.with_name('key'), type_.item_field.with_name('value')]))
    return _each(_lists(pa, array.cast(pairs), field), _object, field)
  if _is_list(is_, type_):
    return _lists(pa, array, field)
  if is_.is_timestamp(type_):
    ticks = array.cast(pa.int64()).to_pylist()
    return _each(ticks, lambda v: _timestamp(v, type_.unit, type_.tz), field)
  return _leaves(pa, array, field)


def _leaves(pa: Any, array: Any, field: str) -> list[Any]:
  """`_values` of an array that holds no other arrays."""
  type_ = array.type
  is_ = pa.types
  if is_.is_null(type_) or is_.is_boolean(type_) or is_.is_integer(type_):
    return array.to_pylist()
  if is_.is_floating(type_):
    return _each(array.to_pylist(), _finite, field)
  if is_.is_decimal(type_):
    return _each(array.to_pylist(), lambda v: _finite(float(v)), field)
  if is_.is_date(type_):
    return _each(array.to_pylist(), lambda v: v.isoformat(), field)
  if _is_text(is_, type_):
    # Not every writer checks that a text's bytes are one.
    return _each(array.cast(pa.large_binary()).to_pylist(), _text, field)
  raise _NoJsonError(
      field,
      f'is of the type {type_}, which JSON has no form for; drop or cast the'
      ' column',
  )


def _each(
    values: list[Any], convert: Callable[[Any], Any], field: str
) -> list[Any]:
  """Converts every value that is not null."""
  out = []
  for value in values:
    try:
      out.append(None if value is None else convert(value))
    except (ValueError, OverflowError) as error:
      raise _NoJsonError(field, str(error)) from error
  return out


def _structs(pa: Any, array: Any, field: str) -> list[dict[str, Any] | None]:
  names = [array.type.field(i).name for i in range(array.type.num_fields)]
  columns = [
      _values(pa, child, f'{field}.{name}')
      for name, child in zip(names, array.flatten(), strict=True)
  ]
  structs = [
      {name: column[i] for name, column in zip(names, columns, strict=True)}
      if is_valid else None
      for i, is_valid in enumerate(array.is_valid().to_pylist())
  ]
  if any(due <= set(names) for due in _COLUMNS):
    return [_as_objects(struct) for struct in structs]
  return structs


def _as_objects(columns: dict[str, Any] | None) -> Any:
  """A list of objects, if it was stored as an object of lists."""
  lists = list((columns or {}).values())
  if (not lists or not all(isinstance(column, list) for column in lists)
      or len({len(column) for column in lists}) > 1):
    return columns
  return [
      dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _lists(pa: Any, array: Any, field: str) -> list[list[Any] | None]:
  import pyarrow.compute  # It takes a while, and is for nested fields only.

  values = _values(pa, array.flatten(), field)  # Not those below a null.
  lists, start = [], 0
  for size in pyarrow.compute.list_value_length(array).to_pylist():
    lists.append(None if size is None else values[start:start + size])
    start += size or 0
  return lists


def _is_list(is_: Any, type_: Any) -> bool:
  return (
      is_.is_list(type_)
      or is_.is_large_list(type_)
      or is_.is_fixed_size_list(type_)
      or is_.is_list_view(type_)
      or is_.is_large_list_view(type_)
  )


def _is_text(is_: Any, type_: Any) -> bool:
  return (
      is_.is_string(type_)
      or is_.is_large_string(type_)
      or is_.is_string_view(type_)
      or is_.is_binary(type_)
      or is_.is_large_binary(type_)
      or is_.is_binary_view(type_)
      or is_.is_fixed_size_binary(type_)
  )


def _object(pairs: list[dict[str, Any]]) -> dict[str, Any]:
  value = {pair['key']: pair['value'] for pair in pairs}
  if len(value) < len(pairs):
    raise ValueError('holds a key twice in one map; keep one')
  if not all(isinstance(key, str) for key in value):
    raise ValueError('is a map whose keys are no texts; cast them to texts')
  return value


def _finite(value: float) -> float:
  if not math.isfinite(value):
    raise ValueError(f'is {value}, which is no JSON value; write null')
  return value


def _text(data: bytes) -> str:
  try:
    return data.decode('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(
        f'is not UTF-8 at byte {error.start + 1} (0x{data[error.start]:02x});'
        ' write text, or drop the column'
    ) from error


def _timestamp(ticks: int, unit: str, zone: str | None) -> str:
  """ISO 8601, with the digits that the time has; UTC where there is a zone."""
  digits = _DIGITS[unit]
  seconds, fraction = divmod(ticks, 10**digits)
  try:
    text = (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat()
  except OverflowError as error:
    raise ValueError(
        f'is {ticks} {unit} from 1970, a time after the year 9999 or before'
        ' the year 1; write null'
    ) from error
  if fraction:
    text += f'.{fraction:0{digits}d}'.rstrip('0')
  return text + ('+00:00' if zone else '')
