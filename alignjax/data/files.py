"""Where records lie: a file of some kind, or a folder of files by split.

    rows.jsonl, .jsonl.gz, .jsonl.zst   an object per line
    rows.json                           the same, or one list of objects
    rows.parquet, rows.arrow            rows, by pyarrow
    FOLDER/dataset_dict.json            datasets' DatasetDict.save_to_disk
    FOLDER/state.json                   datasets' Dataset.save_to_disk
    FOLDER/features.json                a TFDS dataset, as ArrayRecord
    FOLDER/**/train-00000-of-00002.parquet, FOLDER/**/train/0000.parquet,
    FOLDER/**/test.jsonl.gz             a copy of a Hub dataset, split by name
"""

from collections.abc import Callable, Iterator
import json
import os
import pathlib
import re

from alignjax import types
from alignjax.data import arrays
from alignjax.data import arrow
from alignjax.data import records

Row = tuple[str, records.Record | records.BadRecord]

_SUFFIXES = ('.parquet', '.arrow', '.jsonl', '.json')
_PACKED = ('.gz', '.zst')
# 'train-00000-of-00002', or with a hash behind it, as older files have.
_SHARD = re.compile(r'(.+?)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?')


def read_records(
    path: str | os.PathLike[str], split: str = 'train'
) -> Iterator[Row]:
  """Yields ('file:row', record) for all rows of a file or folder.

  Args:
    path: See the table above.
    split: Which split of a folder that holds several.

  Yields:
    Where a record stands, and the record, or a `BadRecord` in its place. Rows
    are numbered from 1 in their own file.

  Raises:
    InputError: Nothing there, or nothing that can be read; no such split; a
      part of it is missing.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    yield from _read_file(path)
    return
  if (path / 'features.json').exists():
    from alignjax.data import tfds  # Only here: it takes a second to import.

    for row, record in tfds.read_tfds(path, split):
      yield f'{path}:{row}', record
    return
  for file in find_files(path, split):
    yield from _read_file(file)


def find_files(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
  """The files of a split, in their order; InputError if there are none."""
  listing = folder / 'dataset_dict.json'
  if listing.exists():
    names = _read_json(listing).get('splits')
    if not isinstance(names, list) or split not in names:
      raise _no_split(folder, split, names if isinstance(names, list) else [])
    return _saved_files(folder / split)
  if (folder / 'state.json').exists():
    return _saved_files(folder)  # One split, whatever it was called.
  return _hub_files(folder, split)


def _read_file(path: pathlib.Path) -> Iterator[Row]:
  """The rows of one file, by what its first bytes or its name say."""
  for row, record in _reader(path)(path):
    yield f'{path}:{row}', record


def _reader(path: pathlib.Path) -> Callable:
  try:
    with open(path, 'rb') as file:
      magic = file.read(len(arrow.ARROW_MAGIC))
  except OSError:
    return records.each_line  # It says what is wrong.
  suffix = _kind(path)
  if magic.startswith(arrow.PARQUET_MAGIC) or suffix == '.parquet':
    return arrow.each_parquet_row
  if magic == arrow.ARROW_MAGIC or suffix == '.arrow':
    return arrow.each_arrow_row
  if suffix == '.json' and arrays.is_array(path):
    return arrays.each_element
  return records.each_line


def _kind(path: pathlib.Path) -> str:
  """The suffix that names the format, '.jsonl' of 'rows.jsonl.gz'."""
  if path.suffix in _PACKED:
    path = path.with_suffix('')
  return path.suffix


def _saved_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The Arrow files that a saved dataset's state.json lists."""
  path = folder / 'state.json'
  state = _read_json(path)
  listed = state.get('_data_files')
  if not isinstance(listed, list) or not listed or not all(
      isinstance(item, dict) and isinstance(item.get('filename'), str)
      for item in listed):
    raise types.InputError(
        f"{path}: field '_data_files' is {records.show(listed)}; it must list"
        ' the Arrow files; save the dataset again.'
    )
  if state.get('_indices_data_files'):
    raise types.InputError(
        f"{path}: field '_indices_data_files' picks rows of a table, as old"
        ' versions of datasets saved them; save the dataset again with'
        ' flatten_indices().'
    )
  files = [folder / item['filename'] for item in listed]
  for file in files:
    if file.parent != folder or not file.is_file():
      raise types.InputError(
          f'{path}: lists the file {records.show(file.name)}, which is not in'
          ' the folder; copy the folder again.'
      )
  return files


def _hub_files(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
  """The files that bear the split's name, in the folder or below it."""
  found = {}  # By (config, split).
  for path in sorted(folder.rglob('*')):
    name = path.relative_to(folder)
    if (_kind(path) in _SUFFIXES and path.is_file()
        and not path.name.startswith('dataset_info')
        and not any(part.startswith('.') for part in name.parts)):
      found.setdefault(_config_and_split(name), []).append(path)
  splits = sorted({name for _, name in found})
  own = {config: files for (config, name), files in found.items()
         if name == split}
  if not own:
    raise _no_split(folder, split, splits)
  if len(own) > 1:
    configs = ', '.join(repr(config or '.') for config in sorted(own))
    raise types.InputError(
        f'{folder}: the split {split!r} lies in {len(own)} folders below it'
        f' ({configs}); give one of them.'
    )
  (files,) = own.values()
  _check_whole(folder, split, files)
  return files


def _config_and_split(path: pathlib.Path) -> tuple[str, str]:
  """What a path below a dataset's folder says of a file."""
  stem = path.name.partition('.')[0]
  folders = [part for part in path.parts[:-1] if part != 'data']
  shard = _SHARD.fullmatch(stem)
  if shard:
    return '/'.join(folders), shard[1]
  if stem.isdigit() and folders:  # default/train/0000.parquet
    return '/'.join(folders[:-1]), folders[-1]
  return '/'.join(folders), stem


def _check_whole(folder, split: str, files: list[pathlib.Path]) -> None:
  """InputError if one of the split's numbered parts is missing, or twice."""
  shards = [_SHARD.fullmatch(file.name.partition('.')[0]) for file in files]
  if not any(shards):
    return
  numbers = [(int(shard[2]), int(shard[3])) for shard in shards if shard]
  total = max(total for _, total in numbers)
  if len(numbers) != len(files) or sorted(numbers) != [
      (i, total) for i in range(total)]:
    raise types.InputError(
        f'{folder}: the split {split!r} has {total} parts by their names, and'
        f" there are {len(files)} files ({', '.join(f.name for f in files[:4])}"
        f"{', ...' if len(files) > 4 else ''}); copy the folder again."
    )


def _no_split(folder, split: str, names: list) -> types.InputError:
  if not names:
    return types.InputError(
        f'{folder}: holds no dataset; give a folder that datasets or TFDS'
        ' wrote, one of files named by split, such as train.parquet, or a'
        ' .jsonl file.'
    )
  shown = ', '.join(str(name) for name in names[:8])
  return types.InputError(
      f'{folder}: has no split {split!r}; it has {shown}; give one of them as'
      ' --split.'
  )


def _read_json(path: pathlib.Path) -> dict:
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:
    raise types.InputError(
        f'{path}: is not JSON ({error}); copy the folder again.') from error
  if not isinstance(value, dict):
    raise types.InputError(
        f'{path}: holds {records.show(value)}, not an object; copy the folder'
        ' again.')
  return value
