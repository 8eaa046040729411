"""Claims about built datasets: they give back the rows of their files."""

import json
import pathlib
import shutil
import sys

import grain
import hypothesis
from hypothesis import strategies as st
import pytest
import tensorflow_datasets

from alignjax import data
from alignjax import types
from alignjax.data import tfds
from alignjax.data.builders import base
from tests.data.builders import conftest

NAMES = sorted({name for name, _ in conftest.ROWS})


def read(directory, split='train'):
  return [record for _, record in tfds.read_tfds(directory, split)]


def error_of(function, *args, **kwargs):
  with pytest.raises(types.InputError) as caught:
    function(*args, **kwargs)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_every_builder_there_is_has_rows_here():
  folder = pathlib.Path(base.__file__).parent
  found = [path.parent.name for path in folder.glob('*/*_dataset_builder.py')]
  assert sorted(found) == NAMES


@pytest.mark.parametrize(('name', 'config'), conftest.ROWS, ids=str)
def test_rows_come_back_as_they_were_and_in_their_order(build, name, config):
  rows = conftest.ROWS[name, config]
  train, test = rows * 3, rows[-1:]
  folder = config.replace('_', '-') if config else 'all'
  directory = build(name, config, {
      f'{folder}/train.jsonl.gz': train, f'{folder}/test.jsonl': test})
  assert read(directory) == train
  assert read(directory, 'test') == test
  # 1 == True == 1.0 in Python, and not in JSON.
  dumps = lambda rows: json.dumps(rows, sort_keys=True)
  assert dumps(read(directory)) == dumps(train)
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize(('name', 'config', 'kind', 'count'), [
    ('alpaca', None, 'demonstrations', 2),
    ('dolly', None, 'demonstrations', 1),
    ('gsm8k', 'main', 'demonstrations', 1),
    ('hh_rlhf', 'helpful_rejection_sampled', 'preferences', 1),
    ('ultrachat', 'sft', 'prompts', 2),
    ('ultrafeedback_binarized', 'prefs', 'preferences', 1),
])
def test_a_dataset_reads_like_its_file(
    build, tmp_path, write, name, config, kind, count):
  rows = conftest.ROWS[name, config]
  directory = build(name, config, {f'{config}-train.jsonl': rows})
  built, reading = getattr(data, kind)(directory)
  filed, reading_of_file = getattr(data, kind)(write(rows))
  assert reading.num_rows == len(built) == count
  assert reading.format == reading_of_file.format
  assert [row.where for row in built] == [
      f'{directory}:{i + 1}' for i in range(count)]
  plain = lambda row: {k: v for k, v in vars(row).items() if k != 'where'}
  assert [plain(row) for row in built] == [plain(row) for row in filed]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_TEXTS = st.text(st.characters(exclude_categories=['Cs']), max_size=5)


@hypothesis.settings(
    max_examples=10,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.lists(
    st.fixed_dictionaries(
        {'message_id': _TEXTS, 'text': _TEXTS, 'role': _TEXTS},
        optional={'rank': _VALUES, 'labels': _VALUES, 'parent_id': _VALUES}),
    min_size=1, max_size=20))
def test_any_value_of_a_nullable_field_comes_back(build, tmp_path, rows):
  for folder in ('files', 'built'):
    shutil.rmtree(tmp_path / folder, ignore_errors=True)
  directory = build('oasst', 'messages', {'train.jsonl': rows})
  assert json.dumps(read(directory), sort_keys=True) == json.dumps(
      rows, sort_keys=True)


def test_records_are_read_one_by_one_and_by_grain(build):
  rows = [{'question': f'q{i}', 'answer': f'a{i}'} for i in range(50)]
  directory = build('gsm8k', 'main', {'train.jsonl': rows})
  records = tfds.TfdsRecords(directory)
  assert len(records) == 50
  assert (records[7], records[-1]) == (rows[7], rows[49])
  for index in (50, -51):
    with pytest.raises(IndexError):
      records[index]
  dataset = grain.MapDataset.source(records).shuffle(seed=3)
  shuffled = [dataset[i] for i in range(50)]
  assert shuffled != rows
  assert sorted(shuffled, key=rows.index) == rows
  assert list(dataset[20:30]) == shuffled[20:30]


def test_a_mixture_of_datasets_is_read_from_disk(build):
  rows = [{'question': f'q{i}', 'answer': f'a{i}'} for i in range(6)]
  directory = build('gsm8k', 'main', {
      'train.jsonl': rows, 'test.jsonl': [{'question': 'x', 'answer': 'y'}]})
  mixed = data.mix([tfds.TfdsRecords(directory),
                    tfds.TfdsRecords(directory, 'test')], [6, 1])
  assert sorted(record['question'] for record in mixed) == [
      'q0', 'q1', 'q2', 'q3', 'q4', 'q5', 'x']


def test_a_part_of_a_split_can_be_read(build):
  rows = [{'question': str(i), 'answer': 'a'} for i in range(10)]
  directory = build('gsm8k', 'main', {'train.jsonl': rows})
  assert read(directory, 'train[20%:50%]') == rows[2:5]
  message = error_of(tfds.TfdsRecords, directory, 'train[1:')
  assert "cannot read the split 'train[1:'" in message


def test_what_a_dataset_holds_is_told_in_its_folder(build):
  directory = build('oasst', 'messages', {'train.jsonl': [conftest.REPLY]})
  info = tensorflow_datasets.builder_from_directory(str(directory)).info
  assert info.splits['train'].num_examples == 1
  assert info.features['rank'].doc.desc.startswith('Holds JSON')
  assert 'rank' in info.metadata[base.JSON_FIELDS]
  assert not info.features['text'].doc.desc


@pytest.mark.parametrize(('row', 'fragment'), [
    ({'chosen': None}, "field 'chosen' is null; it must be a list"),
    ({'prompt': None}, "field 'prompt' is null; it must be text"),
    ({'prompt': 3}, "field 'prompt' is 3; it must be text"),
    ({'score_chosen': None}, "field 'score_chosen' is null; it must be a num"),
    ({'score_chosen': True}, "field 'score_chosen' is true"),
    ({'score_chosen': 2**53 + 1}, "field 'score_chosen' is 9007199254740993"),
    ({'messages': [conftest.user('x'), {'role': 'user'}]},
     "field 'messages[1].content' is missing"),
    ({'messages': [conftest.user(['x'])]},
     "field 'messages[0].content' is [\"x\"]; it must be text"),
    ({'messages': [conftest.user('x') | {'name': 'A'}]},
     "field \"messages[0].name\" is none of this dataset's (role, content)"),
    ({'messages': ['x']}, "field 'messages[0]' is \"x\"; it must be an object"),
    ({'extra': 1}, "field \"extra\" is none of this dataset's (prompt, "),
])
def test_what_would_not_come_back_is_refused_with_its_line(
    build, tmp_path, row, fragment):
  good = conftest.ROWS['ultrafeedback_binarized', 'prefs'][0]
  message = error_of(build, 'ultrafeedback_binarized', 'prefs',
                     {'train.jsonl': [good, good | row]})
  assert message.startswith(f'{tmp_path}/files/train.jsonl:2: {fragment}')


def test_true_or_false_is_neither_a_number_nor_text(build):
  good = conftest.ROWS['self_instruct', None][0]
  for value in (1, 'true', None):
    message = error_of(build, 'self_instruct', None, {
        'a.jsonl': [good | {'is_classification': value}]})
    assert 'it must be true or false' in message


def test_a_whole_number_is_a_score_too(build):
  good = conftest.ROWS['ultrafeedback_binarized', 'prefs'][0]
  directory = build('ultrafeedback_binarized', 'prefs', {
      'train.jsonl': [good | {'score_chosen': 8}]})
  assert read(directory)[0]['score_chosen'] == 8


# --- Which files are of which split.


def splits_of(tmp_path, names, **kwargs):
  for name in names:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{}')
  return {split: [path.relative_to(tmp_path).as_posix() for path in paths]
          for split, paths in base.split_files(tmp_path, **kwargs).items()}


@pytest.mark.parametrize(('names', 'due'), [
    (['train.jsonl', 'test.jsonl.gz'],
     {'train': ['train.jsonl'], 'test': ['test.jsonl.gz']}),
    (['b/Train-1.jsonl', 'a/train_2.jsonl', 'notes.txt', 'train.csv'],
     {'train': ['a/train_2.jsonl', 'b/Train-1.jsonl']}),
    (['seed_tasks.jsonl'], {'train': ['seed_tasks.jsonl']}),
    (['x-validation.jsonl'], {'test': ['x-validation.jsonl']}),
    (['train.jsonl', 'example_solutions.jsonl'], {'train': ['train.jsonl']}),
    (['train/dev.jsonl', 'train/x.jsonl'],
     {'train': ['train/x.jsonl'], 'test': ['train/dev.jsonl']}),
    (['contest_train.jsonl'], {'train': ['contest_train.jsonl']}),
])
def test_words_of_a_path_name_the_split(tmp_path, names, due):
  assert splits_of(tmp_path, names) == due


def test_words_of_a_path_name_the_config(tmp_path):
  names = ['helpful-base/train.jsonl', 'harmless-base/train.jsonl',
           'train.jsonl', 'helpful_base.test.jsonl', 'base/test.jsonl']
  kwargs = {'configs': ['harmless_base', 'helpful_base']}
  assert splits_of(tmp_path, names, config='helpful_base', **kwargs) == {
      'train': ['helpful-base/train.jsonl'],
      'test': ['helpful_base.test.jsonl']}
  assert splits_of(tmp_path, names, config='harmless_base',
                   default='harmless_base', **kwargs) == {
      'train': ['harmless-base/train.jsonl', 'train.jsonl'],
      'test': ['base/test.jsonl']}


def test_a_folder_without_the_files_is_refused(tmp_path):
  message = error_of(splits_of, tmp_path, ['a.csv'])
  assert message.startswith(
      f'manual_dir={tmp_path}: holds no .jsonl or .jsonl.gz file that names')
  message = error_of(splits_of, tmp_path, ['a.jsonl', 'b.jsonl'])
  assert 'none of the 2 files names train or test' in message
  message = error_of(splits_of, tmp_path, ['train.jsonl'], config='sft',
                     configs=['prefs', 'sft'], default='prefs')
  assert "file of the config 'sft'" in message and '--config (prefs, sft)' in (
      message)


# --- The real files.


@pytest.mark.parametrize(('name', 'config', 'source', 'path', 'count'), [
    ('gsm8k', 'main', 'gsm8k_train.jsonl.gz', 'train.jsonl.gz', 7_473),
    ('hh_rlhf', 'harmless_base', 'hh_harmless.jsonl.gz',
     'harmless-base/train.jsonl.gz', 1_500),
    ('self_instruct', None, 'seed_tasks.jsonl', 'seed_tasks.jsonl', 175),
])
def test_every_row_of_a_real_file_comes_back(
    real_data, tmp_path, name, config, source, path, count):
  path = tmp_path / 'files' / path
  path.parent.mkdir(parents=True)
  shutil.copy(real_data / source, path)
  directory = conftest.build_folder(
      name, config, tmp_path / 'files', tmp_path / 'built')
  rows = [record for _, record in data.read_jsonl(real_data / source)]
  assert read(directory) == rows
  assert len(rows) == count
