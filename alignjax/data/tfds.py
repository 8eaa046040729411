"""Records of a TensorFlow Datasets directory, read without TensorFlow."""

from collections.abc import Iterator, Sequence
import json
import os
from typing import Any

import numpy as np
import tensorflow_datasets

from alignjax import types


class TfdsRecords(Sequence):
  """The records of one split, read from disk when they are asked for.

  `records[i]` reads one record, and `grain.MapDataset.source(records)` any that
  a pipeline asks for. A record looks as it would in a JSONL file.
  """

  def __init__(
      self, directory: str | os.PathLike[str], split: str = 'train'
  ):
    """Opens a split.

    Args:
      directory: What a builder wrote with `file_format='array_record'`; other
        formats need TensorFlow. It is the folder of dataset_info.json.
      split: The name of a split, such as 'train', or a part of one, such as
        'train[:10%]'.

    Raises:
      InputError: No dataset there, no such split, another file format.
    """
    self._directory = os.fspath(directory)
    builder = _open(self._directory, split)
    self._features = builder.info.features
    self._json_fields = frozenset(
        (builder.info.metadata or {}).get('json_fields', ()))
    self._source = _source(builder, self._directory, split)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not -len(self) <= index < len(self):
      raise IndexError(f'record {index} of {len(self)}')
    index %= len(self)
    where = f'{self._directory}:{index + 1}'
    return self._to_record(self._source[index], where)

  def _to_record(self, example: dict[str, Any], where: str) -> dict[str, Any]:
    record = {}
    for name, value in example.items():
      value = _plain(value, self._features[name], where)
      if name in self._json_fields:
        if not value:  # The row did not have the field.
          continue
        value = json.loads(value)
      record[name] = value
    return record


def read_tfds(
    directory: str | os.PathLike[str], split: str = 'train'
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (number from 1, record); see `TfdsRecords`."""
  records = TfdsRecords(directory, split)
  for i in range(len(records)):
    yield i + 1, records[i]


def _open(directory: str, split: str) -> Any:
  """The builder of a folder, which must hold the split as ArrayRecord."""
  try:
    builder = tensorflow_datasets.builder_from_directory(directory)
  except Exception as error:  # The library raises many kinds.
    raise types.InputError(
        f'{directory}: holds no TFDS dataset ({_first_line(error)}); give the'
        ' folder with dataset_info.json, or a .jsonl file.'
    ) from error
  if split.partition('[')[0] not in builder.info.splits:
    raise types.InputError(
        f'{directory}: has no split {split!r}; it has'
        f" {', '.join(sorted(builder.info.splits))}; use one of them."
    )
  file_format = builder.info.file_format
  if file_format is None or file_format.value != 'array_record':
    name = None if file_format is None else file_format.value
    raise types.InputError(
        f'{directory}: the file format is {name!r}; only array_record can be'
        " read without TensorFlow; prepare it with file_format='array_record'."
    )
  return builder


def _source(builder: Any, directory: str, split: str) -> Any:
  """The examples of a split by index."""
  try:
    return builder.as_data_source(split=split)
  except Exception as error:  # A split's name is a language of its own.
    raise types.InputError(
        f'{directory}: cannot read the split {split!r}'
        f' ({_first_line(error)}); use {", ".join(sorted(builder.info.splits))}'
        " or a part such as 'train[:10%]'."
    ) from error


def _plain(value: Any, feature: Any, where: str) -> Any:
  """A value as JSON would have given it."""
  if isinstance(feature, tensorflow_datasets.features.FeaturesDict):
    return {k: _plain(v, feature[k], where) for k, v in value.items()}
  if isinstance(feature, tensorflow_datasets.features.Sequence):
    inner = feature.feature
    if isinstance(inner, tensorflow_datasets.features.FeaturesDict):
      return [_plain(row, inner, where) for row in _rows(value)]
    return [_plain(item, inner, where) for item in value]
  return _plain_leaf(value, where)


def _plain_leaf(value: Any, where: str) -> Any:
  """A text, a number or an array as JSON would have given it."""
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, list):
    return [_plain_leaf(item, where) for item in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, bytes):
    try:
      return value.decode('utf-8')
    except UnicodeDecodeError as error:
      raise types.InputError(
          f'{where}: byte {error.start + 1} of a text'
          f' (0x{value[error.start]:02x}) is not UTF-8; prepare the dataset'
          ' from UTF-8 text.'
      ) from error
  return value


def _rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
  """A sequence of objects comes as an object of sequences; turns it round."""
  columns = {
      k: _rows(v) if isinstance(v, dict) else v for k, v in columns.items()}
  return [
      dict(zip(columns, row, strict=True))
      for row in zip(*columns.values(), strict=True)
  ]


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
