"""Claims about reading whatever lies at a path."""

import gzip
import json
import sys

import pyarrow as pa
from pyarrow import parquet
import pytest

from alignjax import types
from alignjax.data import files
from alignjax.data import formats
from alignjax.data import records

ROWS = [
    {'prompt': 'two and two', 'response': 'four', 'score': 0.5, 'tags': ['a']},
    {'prompt': 'é\u2028', 'response': '', 'score': None, 'tags': []},
    {'prompt': None, 'response': 'x', 'score': 2.0, 'tags': None},
]
NUMBERED = list(enumerate(ROWS, 1))


def read(path, split='train', on_error=None):
  return list(files.read_records(path, split, on_error))


def error_of(path, split='train') -> str:
  """The one line that a person sees."""
  with pytest.raises(types.InputError) as caught:
    read(path, split)
  message = str(caught.value)
  assert '\n' not in message
  return message


def lines(rows) -> bytes:
  return ''.join(json.dumps(row) + '\n' for row in rows).encode()


def save_parquet(rows, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  parquet.write_table(pa.Table.from_pylist(rows), path)


def save_stream(rows, path):
  table = pa.Table.from_pylist(rows)
  with pa.ipc.new_stream(path, table.schema) as writer:
    writer.write_table(table)


def save_to_disk(shards, folder, split='train'):
  """As `datasets.Dataset.save_to_disk` lays it out."""
  folder.mkdir(parents=True)
  names = [
      f'data-{i:05d}-of-{len(shards):05d}.arrow' for i in range(len(shards))]
  for rows, name in zip(shards, names, strict=True):
    save_stream(rows, folder / name)
  (folder / 'dataset_info.json').write_text('{"features": {}}')
  (folder / 'state.json').write_text(json.dumps({
      '_data_files': [{'filename': name} for name in names],
      '_split': split,
  }))
  return folder


@pytest.mark.parametrize(
    'name', ['a.jsonl', 'a.json', 'a.parquet', 'a.arrow', 'a.txt', 'a'])
@pytest.mark.parametrize('kind', ['lines', 'array', 'parquet', 'arrow', 'file'])
def test_a_file_is_what_it_starts_with_whatever_its_name(tmp_path, kind, name):
  path = tmp_path / name
  if kind == 'lines':
    path.write_bytes(lines(ROWS))
  elif kind == 'array':
    path.write_text('\n ' + json.dumps(ROWS, indent=2))
  elif kind == 'parquet':
    save_parquet(ROWS, path)
  elif kind == 'arrow':
    save_stream(ROWS, path)
  else:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as writer:
      writer.write_table(table)
  assert read(path) == NUMBERED


@pytest.mark.parametrize('data', [lines(ROWS), json.dumps(ROWS).encode()],
                         ids=['lines', 'array'])
def test_gzip_is_unpacked_whatever_is_in_it(write, data):
  assert read(write(gzip.compress(data), 'a.json.gz')) == NUMBERED


def test_the_same_rows_of_any_kind_are_the_same_examples(tmp_path):
  rows = [{'prompt': 'p', 'chosen': 'a', 'rejected': 'b'}]
  (tmp_path / 'a.jsonl').write_bytes(lines(rows))
  (tmp_path / 'a.json').write_text(json.dumps(rows))
  save_parquet(rows, tmp_path / 'a.parquet')
  save_to_disk([rows], tmp_path / 'saved')
  save_parquet(rows, tmp_path / 'hub' / 'train-00000-of-00001.parquet')
  files_of = dict.fromkeys(('a.jsonl', 'a.json', 'a.parquet'), '') | {
      'saved': '/data-00000-of-00001.arrow',
      'hub': '/train-00000-of-00001.parquet'}
  for name, file in files_of.items():
    pairs, _ = formats.preferences(tmp_path / name)
    assert [(p.prompt, p.chosen, p.rejected, p.where) for p in pairs] == [
        ('p', 'a', 'b', f'{tmp_path / name}{file}:1')]


def test_a_saved_dataset_is_read_shard_after_shard(tmp_path):
  folder = save_to_disk([ROWS[:2], ROWS[2:]], tmp_path / 'saved')
  assert read(folder) == NUMBERED


def test_a_saved_dataset_is_its_own_split_and_no_other(tmp_path):
  folder = save_to_disk([ROWS], tmp_path / 'saved', 'train_sft')
  assert read(folder) == read(folder, 'train_sft') == NUMBERED
  assert "no split 'test'; it has train_sft" in error_of(folder, 'test')


def test_a_saved_dict_of_datasets_has_its_splits(tmp_path):
  save_to_disk([ROWS[:1]], tmp_path / 'train')
  save_to_disk([ROWS[1:]], tmp_path / 'test', 'test')
  (tmp_path / 'dataset_dict.json').write_text('{"splits": ["train", "test"]}')
  assert read(tmp_path) == NUMBERED[:1]
  assert [row for _, row in read(tmp_path, 'test')] == ROWS[1:]
  assert "no split 'dev'; it has test, train;" in error_of(tmp_path, 'dev')


def test_a_saved_dataset_that_lacks_a_file_is_refused(tmp_path):
  folder = save_to_disk([ROWS, ROWS], tmp_path / 'saved')
  (folder / 'data-00001-of-00002.arrow').unlink()
  assert 'data-00001-of-00002.arrow: there is no such' in error_of(folder)


def test_a_saved_dataset_with_indices_is_refused(tmp_path):
  folder = save_to_disk([ROWS], tmp_path / 'saved')
  state = json.loads((folder / 'state.json').read_text())
  state['_indices_data_files'] = [{'filename': 'indices.arrow'}]
  (folder / 'state.json').write_text(json.dumps(state))
  assert 'flatten_indices()' in error_of(folder)


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"_data_files": [1]}'])
def test_a_damaged_state_is_refused(tmp_path, text):
  folder = save_to_disk([ROWS], tmp_path / 'saved')
  (folder / 'state.json').write_text(text)
  assert error_of(folder).startswith(f"{folder / 'state.json'}: ")


@pytest.mark.parametrize('place', ['', 'data'])
def test_files_are_grouped_by_the_first_word_of_their_names(tmp_path, place):
  folder = tmp_path / place
  save_parquet(ROWS[:2], folder / 'train-00000-of-00002.parquet')
  save_parquet(ROWS[2:], folder / 'train-00001-of-00002.parquet')
  save_parquet(ROWS[:1], folder / 'train_sft-00000-of-00001.parquet')
  (folder / 'test.jsonl').write_bytes(lines(ROWS[1:]))
  (tmp_path / 'README.md').write_text('words')
  (tmp_path / 'dataset_infos.json').write_text('{}')
  assert read(tmp_path) == NUMBERED
  assert read(tmp_path, 'train_sft') == NUMBERED[:1]
  assert [row for _, row in read(tmp_path, 'test')] == ROWS[1:]
  message = error_of(tmp_path, 'dev')
  assert message.startswith(f"{tmp_path}: has no split 'dev'")
  assert 'it has test, train, train_sft;' in message


def test_an_empty_file_among_others_is_no_error(tmp_path):
  schema = pa.Table.from_pylist(ROWS).schema
  parquet.write_table(
      schema.empty_table(), tmp_path / 'train-00000-of-00002.parquet')
  save_parquet(ROWS, tmp_path / 'train-00001-of-00002.parquet')
  assert read(tmp_path) == NUMBERED
  parquet.write_table(
      schema.empty_table(), tmp_path / 'train-00001-of-00002.parquet')
  assert 'its files hold no records' in error_of(tmp_path)


@pytest.mark.parametrize(
    ('names', 'fragment'),
    [
        (['train-00000-of-00003', 'train-00002-of-00003'],
         'has 2 of 3 files (missing: 1)'),
        (['train-00000-of-00001', 'train-00000-of-00002',
          'train-00001-of-00002'], 'has 3 of 2 files'),
        (['train', 'train-00000-of-00001'], 'in more than one form'),
        (['train', 'data/train'], 'in more than one form'),
    ],
)
def test_a_split_that_is_not_there_once_is_refused(tmp_path, names, fragment):
  for name in names:
    save_parquet(ROWS, tmp_path / f'{name}.parquet')
  message = error_of(tmp_path)
  assert message.startswith(f"{tmp_path}: the split 'train'")
  assert fragment in message


def test_a_bad_row_of_many_files_is_named_by_its_file(tmp_path):
  (tmp_path / 'train-00000-of-00002.jsonl').write_bytes(lines(ROWS))
  bad = tmp_path / 'train-00001-of-00002.jsonl'
  bad.write_bytes(lines(ROWS[:1]) + b'x\n' + lines(ROWS[1:2]))
  assert error_of(tmp_path).startswith(f"{bad}:2: 'x' is not JSON")
  errors = []
  assert read(tmp_path, on_error=errors.append) == [
      *NUMBERED, (4, ROWS[0]), (6, ROWS[1])]
  assert len(errors) == 1


@pytest.mark.parametrize('kind', ['lines', 'array', 'parquet'])
def test_a_bad_record_of_any_file_is_skipped_if_asked_to(tmp_path, kind):
  path = tmp_path / 'rows'
  if kind == 'lines':
    path.write_bytes(b'{"a": 1}\n{"a": NaN}\n{"a": 3}\n')
  elif kind == 'array':
    path.write_bytes(b'[{"a": 1}, {"a": NaN}, {"a": 3}]')
  else:
    save_parquet([{'a': 1.0}, {'a': float('nan')}, {'a': 3.0}], path)
  errors = []
  assert read(path, on_error=errors.append) == [(1, {'a': 1}), (3, {'a': 3})]
  assert [str(error).split(': ')[0] for error in errors] == [f'{path}:2']


def test_a_folder_without_records_is_refused_with_what_could_be_there(tmp_path):
  (tmp_path / 'notes.txt').write_text('words')
  message = error_of(tmp_path)
  assert message.startswith(f'{tmp_path}: the folder holds no records')
  for word in ('.jsonl', '.parquet', 'save_to_disk', 'TFDS'):
    assert word in message


def test_a_missing_path_is_named(tmp_path):
  assert 'there is no such file' in error_of(tmp_path / 'no.parquet')


@pytest.mark.parametrize(
    ('data', 'fragment'),
    [
        (b'', 'the file is empty'),
        (b'\0\0\0\0', 'the name ends in .parquet but the data is not'),
        (b'<!doctype html>', 'the name ends in .parquet but the data is not'),
        (b'PAR1', 'is cut off, damaged or no Parquet'),
        (b'ARROW1', 'is cut off, damaged or no Arrow'),
        (b'\xff\xff\xff\xff', 'is cut off, damaged or no Arrow'),
        (gzip.compress(b'PAR1'), 'within gzip is not read'),
    ],
    ids=['empty', 'zeros', 'page', 'parquet', 'arrow', 'stream', 'gzip'],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    write, data, fragment):
  path = write(data, 'rows.parquet')
  message = error_of(path)
  assert message.startswith(f'{path}: ') and fragment in message


def test_a_packed_file_is_refused_with_its_repair(write):
  assert 'unpack it' in error_of(write(b'PK\x03\x04rest', 'rows.zip'))


def test_without_pyarrow_the_extra_to_install_is_named(tmp_path, monkeypatch):
  save_parquet(ROWS, tmp_path / 'rows.parquet')
  save_to_disk([ROWS], tmp_path / 'saved')
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  for path in (tmp_path / 'rows.parquet', tmp_path / 'saved'):
    assert "pip install 'alignjax[parquet]'" in error_of(path)


@pytest.mark.parity
def test_what_datasets_saves_is_read_as_it_would_read_it(tmp_path):
  datasets = pytest.importorskip('datasets')
  rows = [
      {'id': i, 'label': i % 2, 'score': i / 4, 'none': None,
       'messages': [{'role': 'user', 'content': f'é {i}'}] * (i % 3)}
      for i in range(2_500)
  ]
  dataset = datasets.Dataset.from_list(rows).cast_column(
      'label', datasets.ClassLabel(names=['no', 'yes']))
  both = datasets.DatasetDict(
      train=dataset.select(range(5, 2_500)), test=dataset.shuffle(1))
  both['train'].save_to_disk(tmp_path / 'one', num_shards=3)
  both.save_to_disk(tmp_path / 'both')
  (tmp_path / 'hub').mkdir()
  both['train'].to_parquet(tmp_path / 'hub' / 'train-00000-of-00001.parquet')
  expected = list(enumerate(both['train'].to_list(), 1))
  assert read(tmp_path / 'one') == expected
  assert read(tmp_path / 'both') == expected
  assert read(tmp_path / 'hub') == expected
  assert [row for _, row in read(tmp_path / 'both', 'test')] == (
      both['test'].to_list())


def test_each_record_or_what_is_wrong_with_it_has_its_own_files_line(tmp_path):
  names = [f'train-0000{i}-of-00003.jsonl' for i in range(3)]
  for name, data in zip(names, (b'{"a": 1}\nx\n', b'\n', b'y\n{"a": 2}\nz\n')):
    (tmp_path / name).write_bytes(data)
  got = [(where, getattr(record, 'rule', record))
         for where, record in files.each_record(tmp_path)]
  first, _, last = (str(tmp_path / name) for name in names)
  assert got == [
      (f'{first}:1', {'a': 1}), (f'{first}:2', 'not JSON'),
      (f'{last}:1', 'not JSON'), (f'{last}:2', {'a': 2}),
      (f'{last}:3', 'not JSON')]


def test_each_record_of_nothing_is_refused(tmp_path):
  for i in range(2):
    (tmp_path / f'train-0000{i}-of-00002.jsonl').write_bytes(b'\n')
  for path in (tmp_path, tmp_path / 'train-00000-of-00002.jsonl'):
    with pytest.raises(records.NoRecordsError):
      list(files.each_record(path))
