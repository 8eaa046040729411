"""Records of a path, whatever lies there.

What a file is is told by how it starts, not by its name: JSON lines, one JSON
array (both plain or gzip), Parquet, Arrow. A folder is one of

  data-*.arrow, state.json         `Dataset.save_to_disk` of Hugging Face
  dataset_dict.json, train/, ...   `DatasetDict.save_to_disk`
  features.json, *.array_record*   TensorFlow Datasets
  train-00000-of-00002.parquet,    files by split, as the Hub holds them, here
  data/test.jsonl, ...             or in data/: a name's first word is the split

None of it needs `datasets` or TensorFlow; Parquet and Arrow need pyarrow.
"""

from collections.abc import Callable, Iterable, Iterator
import json
import os
import pathlib
import re
from typing import Any

from alignjax import types
from alignjax.data import arrow
from alignjax.data import records

Numbered = Iterator[tuple[int, dict[str, Any]]]

_START = 2**16  # Bytes that tell a file's kind; so many blanks may lead.
_SUFFIXES = ('.jsonl', '.jsonl.gz', '.json', '.json.gz', '.parquet')
_DESCRIPTIONS = ('dataset_info.json', 'dataset_infos.json')
_SHARD = re.compile(r'-(\d+)-of-(\d+)(?=\.)')
_KNOWN = (
    'a .jsonl, .json or .parquet file (.gz for the first two), or a folder of'
    ' save_to_disk or TFDS (with dataset_info.json), or of such files named by'
    ' split'
)


class NoDataError(types.InputError):
  """The folder is of no kind that holds records."""


def read_records(
    path: str | os.PathLike[str],
    split: str = 'train',
    on_error: records.OnError | None = None,
) -> Numbered:
  """Yields (number, record) of a path, one at a time.

  Args:
    path: A file or a folder; see the module.
    split: Of a folder, the split to read. A file is read whole, and so is a
      folder of `Dataset.save_to_disk`, which is one split, by the name that it
      was saved with or 'train'.
    on_error: Called with the error of a record that cannot be used; reading
      goes on with the next. Without it the error is raised. What is missing,
      empty or damaged raises either way, and so does a record of TFDS.

  Yields:
    (number, record): a line of JSONL, else the how manieth element or row, from
    1. Of a split in many files, numbers go on from one file to the next.

  Raises:
    InputError: Nothing that can be read; no such split; a shard is missing.
  """
  path = pathlib.Path(path)
  files = _files_of(path, split)
  if files is None:
    from alignjax.data import tfds  # Only here: it takes a second to import.

    yield from tfds.read_tfds(path, split)
  elif path.is_dir():
    yield from _read_files(files, path, on_error)
  else:
    yield from _read_file(path, on_error)


def each_record(
    path: str | os.PathLike[str], split: str = 'train'
) -> Iterator[tuple[str, records.Record | records.BadRecord]]:
  """Yields ('file:number', record), or what is wrong with one in its place.

  The arguments and errors are those of `read_records`, but numbers begin anew
  with each file of a folder.
  """
  path = pathlib.Path(path)
  files = _files_of(path, split)
  if files is None:
    for number, record in read_records(path, split):
      yield f'{path}:{number}', record
    return
  bad: list[records.BadRecord] = []
  is_empty = True
  for file in files:
    try:
      for number, record in _read_file(file, bad.append):
        yield from ((_where(error), error) for error in bad)
        bad.clear()
        yield f'{file}:{number}', record
      is_empty = False
    except records.NoRecordsError:
      if len(files) == 1 and file == path:
        raise
    yield from ((_where(error), error) for error in bad)
    bad.clear()
  if is_empty:
    raise _empty(path)


def _files_of(path: pathlib.Path, split: str) -> list[pathlib.Path] | None:
  """The files of a path's split, in their order; None for a TFDS dataset."""
  if not path.is_dir():
    return [path]
  if (path / 'state.json').is_file():
    return _saved(path, split)
  if (path / 'dataset_dict.json').is_file():
    splits = _load(path / 'dataset_dict.json').get('splits', [])
    if split not in splits:
      raise _no_split(path, split, splits)
    return _saved(path / split, split)
  if not (path / 'features.json').is_file() and (hub := _by_split(path)):
    if split not in hub:
      raise _no_split(path, split, hub)
    _check_shards(hub[split], path, split)
    return hub[split]
  if (path / 'dataset_info.json').is_file():
    return None
  raise NoDataError(f'{path}: the folder holds no records; give {_KNOWN}.')


def _where(error: records.BadRecord) -> str:
  """The 'file:number' that an error's line begins with."""
  return re.match(r'.*?:\d+(?=:)', str(error), re.DOTALL)[0]


def _read_file(
    path: pathlib.Path, on_error: records.OnError | None
) -> Numbered:
  return _reader(path)(path, on_error)


def _reader(path: pathlib.Path) -> Callable[..., Numbered]:
  """What reads a file, told by its first bytes."""
  data, is_gzip = records.first_bytes(path, _START)
  is_arrow = data.startswith((b'ARROW1', b'\xff\xff\xff\xff'))
  if is_arrow or data.startswith(b'PAR1'):
    if is_gzip:
      raise types.InputError(
          f'{path}: Parquet or Arrow within gzip is not read; unpack it'
          ' (gunzip), these formats compress by themselves.'
      )
    return arrow.read_arrow if is_arrow else arrow.read_parquet
  if path.suffix in ('.parquet', '.arrow') and data.lstrip()[:1] not in b'{[':
    raise types.InputError(
        f'{path}: the name ends in {path.suffix} but the data is not (it starts'
        f' with {data[:4]!r}); copy or download the file again.'
    )
  if data.startswith((b'PK\x03\x04', b'\x28\xb5\x2f\xfd', b'BZh', b'\xfd7zXZ')):
    raise types.InputError(
        f'{path}: the file is packed (it starts with {data[:4]!r}); unpack it,'
        ' or pack it with gzip.'
    )
  if data.lstrip(b' \t\r\n').startswith(b'['):
    return records.read_json_array
  return records.read_jsonl


def _read_files(
    paths: Iterable[pathlib.Path],
    folder: pathlib.Path,
    on_error: records.OnError | None,
) -> Numbered:
  """Files one after the other; some may be empty, but not all."""
  before = last = 0
  is_empty = True
  for path in paths:
    try:
      for number, record in _read_file(path, on_error):
        last = before + number
        yield last, record
      is_empty = False
    except records.NoRecordsError:
      pass
    before = last
  if is_empty:
    raise _empty(folder)


def _empty(folder: pathlib.Path) -> records.NoRecordsError:
  return records.NoRecordsError(
      f'{folder}: its files hold no records; give a folder that has some.')


def _saved(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
  """The files of `Dataset.save_to_disk`, in the order of its rows."""
  state = _load(folder / 'state.json')
  if split not in ('train', folder.name, state.get('_split')):
    raise _no_split(folder, split, [state.get('_split') or 'train'])
  if state.get('_indices_data_files'):
    raise types.InputError(
        f'{folder}: the rows are chosen by a file of indices, which is not'
        ' read; load it, call flatten_indices() and save it again.'
    )
  try:
    files = [folder / entry['filename'] for entry in state['_data_files']]
  except (KeyError, TypeError) as error:
    raise types.InputError(
        f"{folder / 'state.json'}: names no files (_data_files); save the"
        ' dataset again.'
    ) from error
  for file in files:
    if not file.is_file():
      raise types.InputError(
          f'{file}: there is no such file, but state.json names it; copy or'
          ' save the folder again.'
      )
  return files


def _load(path: pathlib.Path) -> dict[str, Any]:
  try:
    value = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise types.InputError(
        f'{path}: cannot be read ({error}); save the dataset again.'
    ) from error
  if not isinstance(value, dict):
    raise types.InputError(
        f'{path}: {records.show(value)} is not a JSON object; save the dataset'
        ' again.'
    )
  return value


def _by_split(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """{split: its files} of a folder and its folder data/."""
  splits = {}
  for place in (folder, folder / 'data'):
    for path in sorted(place.glob('*')):
      if path.name.endswith(_SUFFIXES) and path.name not in _DESCRIPTIONS:
        name = re.split(r'[-.]', path.name)[0]
        splits.setdefault(name, []).append(path)
  return splits


def _check_shards(
    paths: list[pathlib.Path], folder: pathlib.Path, split: str
):
  """InputError unless the files are one whole set: none missing, none twice."""
  shards = [_SHARD.search(path.name) for path in paths]
  kinds = {
      (path.parent, _suffix(path), shard is not None)
      for path, shard in zip(paths, shards, strict=True)
  }
  if len(kinds) > 1:
    names = ', '.join(os.path.relpath(path, folder) for path in paths[:4])
    raise types.InputError(
        f"{folder}: the split '{split}' is there in more than one form"
        f' ({names}); keep one, or give the file.'
    )
  if shards[0] is None:
    return
  total = max(int(shard[2]) for shard in shards)
  missing = set(range(total)).difference(int(shard[1]) for shard in shards)
  if missing or len(paths) > total:
    raise types.InputError(
        f"{folder}: the split '{split}' has {len(paths)} of {total} files"
        f" (missing: {', '.join(map(str, sorted(missing)[:5])) or 'none'});"
        ' download it again into an empty folder.'
    )


def _suffix(path: pathlib.Path) -> str:
  return next(s for s in _SUFFIXES if path.name.endswith(s))


def _no_split(
    folder: pathlib.Path, split: str, splits: Iterable[str]
) -> types.InputError:
  return types.InputError(
      f"{folder}: has no split '{split}'; it has {', '.join(sorted(splits))};"
      ' use one of them.'
  )
