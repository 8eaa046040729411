"""Claims about reading what a TFDS builder wrote, without TensorFlow."""

import importlib
import sys
import textwrap

import pytest

from alignjax import types
from alignjax.data import formats

# A builder must be a module of a package that bears its name.
BUILDER = '''
    import numpy as np
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version('1.0.0')

      def _info(self):
        text = tfds.features.Text()
        turns = tfds.features.Sequence({'role': text, 'content': text})
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({
                'chosen': turns, 'rejected': turns, 'score': np.float32,
                'tags': tfds.features.Sequence(text),
                'labels': {'name': tfds.features.Sequence(text),
                           'count': tfds.features.Sequence(np.int64)},
                'pages': tfds.features.Sequence(
                    {'at': {'line': np.int64}, 'on': np.bool_}),
                'grid': tfds.features.Tensor(shape=(2, 2), dtype=np.int64)}))

      def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

      def _generate_examples(self):
        for i in range(3):
          turns = [{'role': 'user', 'content': f'caf\\u00e9 {i}'}]
          yield i, {
              'chosen': turns + [{'role': 'assistant', 'content': 'good'}],
              'rejected': turns + [{'role': 'assistant', 'content': 'bad'}],
              'score': 1.5, 'tags': ['a', 'b'],
              'labels': {'name': ['x', 'y'], 'count': [1, 2]},
              'pages': [{'at': {'line': 3}, 'on': True}],
              'grid': [[1, 2], [3, 4]]}
'''


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  """The folder of a prepared dataset of three pairs."""
  root = tmp_path_factory.mktemp('tfds')
  package = root / 'tiny_pairs'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'tiny_pairs_dataset_builder.py').write_text(
      textwrap.dedent(BUILDER))
  (package / 'README.md').write_text('Three pairs.')
  (package / 'CITATIONS.bib').write_text('')
  (package / 'TAGS.txt').write_text('')
  sys.path.insert(0, str(root))
  try:
    module = importlib.import_module('tiny_pairs.tiny_pairs_dataset_builder')
    builder = module.Builder(data_dir=root / 'data',
                             file_format='array_record')
    builder.download_and_prepare()
  finally:
    sys.path.remove(str(root))
  return builder.data_path


def test_records_look_as_they_would_in_a_jsonl_file(dataset):
  tfds = importlib.import_module('alignjax.data.tfds')
  rows = list(tfds.read_tfds(str(dataset)))
  assert [i for i, _ in rows] == [1, 2, 3]
  record = min((r for _, r in rows), key=lambda r: r['chosen'][0]['content'])
  assert record == {
      'chosen': [{'role': 'user', 'content': 'café 0'},
                 {'role': 'assistant', 'content': 'good'}],
      'rejected': [{'role': 'user', 'content': 'café 0'},
                   {'role': 'assistant', 'content': 'bad'}],
      'score': 1.5,
      'tags': ['a', 'b'],
      # An object of lists is not a list of objects, though TFDS gives both so.
      'labels': {'name': ['x', 'y'], 'count': [1, 2]},
      'pages': [{'at': {'line': 3}, 'on': True}],
      'grid': [[1, 2], [3, 4]],
  }


def test_tensorflow_is_not_needed(dataset):
  assert len(formats.preferences(str(dataset))[0]) == 3
  assert 'tensorflow' not in sys.modules


def test_a_folder_reads_as_any_file_does(dataset):
  rows, reading = formats.preferences(str(dataset))
  assert {row.prompt[0]['content'] for row in rows} == {
      'café 0', 'café 1', 'café 2'}
  assert {(row.chosen, row.rejected) for row in rows} == {('good', 'bad')}
  assert rows[0].where == f'{dataset}:1'
  assert reading.format == formats.Format.CHAT_PREFERENCE


def test_an_unknown_split_is_refused_with_those_there_are(dataset):
  with pytest.raises(types.InputError, match="no split 'test'; it has train"):
    formats.preferences(str(dataset), split='test')


def test_a_folder_that_holds_no_dataset_is_refused(tmp_path):
  with pytest.raises(types.InputError) as caught:
    formats.preferences(tmp_path)
  message = str(caught.value)
  assert message.startswith(f'{tmp_path}: holds no dataset')
  assert 'TFDS' in message and '\n' not in message
