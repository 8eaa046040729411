"""Records of a TensorFlow Datasets directory, read without TensorFlow."""

from collections.abc import Iterator
import os
from typing import Any

import numpy as np
import tensorflow_datasets

from alignjax import types


def read_tfds(
    directory: str | os.PathLike[str], split: str = 'train'
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the examples of a prepared dataset, with numbers from 1.

  Args:
    directory: What a builder wrote with `file_format='array_record'`; other
      formats need TensorFlow. It is the folder that holds dataset_info.json.
    split: The name of a split, such as 'train'.

  Yields:
    (number, record), with bytes as text and arrays as lists, so that a record
    looks as it would in a JSONL file.

  Raises:
    InputError: No dataset there, no such split, another file format.
  """
  try:
    builder = tensorflow_datasets.builder_from_directory(os.fspath(directory))
  except Exception as error:  # The library raises many kinds.
    raise types.InputError(
        f'{directory}: holds no TFDS dataset ({_first_line(error)}); give the'
        ' folder with dataset_info.json, or a .jsonl file.'
    ) from error
  if split not in builder.info.splits:
    raise types.InputError(
        f'{directory}: has no split {split!r}; it has'
        f" {', '.join(sorted(builder.info.splits))}; use one of them."
    )
  file_format = builder.info.file_format
  if file_format is None or file_format.value != 'array_record':
    raise types.InputError(
        f'{directory}: the file format is'
        f' {getattr(file_format, "value", None)!r}; only array_record can be'
        " read without TensorFlow; prepare it with file_format='array_record'."
    )
  source = builder.as_data_source(split=split)
  for i in range(len(source)):
    where = f'{directory}:{i + 1}'
    yield i + 1, {k: _plain(v, where) for k, v in source[i].items()}


def _plain(value: Any, where: str) -> Any:
  """A value as JSON would have given it."""
  if isinstance(value, bytes):
    try:
      return value.decode('utf-8')
    except UnicodeDecodeError as error:
      raise types.InputError(
          f'{where}: byte {error.start + 1} of a text'
          f' (0x{value[error.start]:02x}) is not UTF-8; prepare the dataset'
          ' from UTF-8 text.'
      ) from error
  if isinstance(value, dict):
    plain = {k: _plain(v, where) for k, v in value.items()}
    return _as_messages(plain)
  if isinstance(value, np.ndarray):
    return [_plain(v, where) for v in value.tolist()]
  if isinstance(value, np.generic):
    return _plain(value.item(), where)
  if isinstance(value, (list, tuple)):
    return [_plain(v, where) for v in value]
  return value


def _as_messages(value: dict[str, Any]) -> Any:
  """A sequence of objects comes as an object of lists; turns it round."""
  columns = list(value.values())
  if (
      columns
      and all(isinstance(column, list) for column in columns)
      and len({len(column) for column in columns}) == 1
  ):
    return [
        dict(zip(value, row, strict=True))
        for row in zip(*columns, strict=True)
    ]
  return value


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
