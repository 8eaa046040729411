"""Rows with the fields of each public dataset, and a way to build them."""

import gzip
import importlib
import json

import pytest
import tensorflow_datasets


def user(text):
  return {'role': 'user', 'content': text}


def assistant(text):
  return {'role': 'assistant', 'content': text}


MESSAGE = {
    'message_id': 'm-1', 'parent_id': None, 'user_id': 'u-1',
    'created_date': '2023-02-05T14:23:50.983374+00:00', 'text': 'Ça va?',
    'role': 'prompter', 'lang': 'fr', 'review_count': 3, 'review_result': True,
    'deleted': False, 'rank': None, 'synthetic': False, 'model_name': None,
    'detoxify': {'toxicity': 0.00044308538781479, 'threat': 1.1e-05},
    'message_tree_id': 'm-1', 'tree_state': 'ready_for_export',
    'emojis': {'name': ['+1', '_skip_reply'], 'count': [2, 1]},
    'labels': {'name': [], 'value': [], 'count': []},
}
# As another release writes them: nulls left out, labels by their names.
REPLY = {
    'message_id': 'm-2', 'parent_id': 'm-1', 'text': '', 'role': 'assistant',
    'rank': 0, 'labels': {'spam': {'value': 0.1, 'count': 3}},
}

# (builder, config): rows.
ROWS = {
    ('alpaca', None): [
        {'instruction': 'Add.', 'input': '1 2', 'output': '3'},
        {'instruction': 'Sing.', 'input': '', 'output': 'La.', 'text': 'Sing'},
    ],
    ('dolly', None): [
        {'instruction': 'Which?', 'context': '', 'response': 'That.',
         'category': 'open_qa'},
    ],
    ('gsm8k', 'main'): [
        {'question': 'Two and two?', 'answer': '2+2 = <<2+2=4>>4\n#### 4'}],
    ('gsm8k', 'socratic'): [
        {'question': 'Two and two?', 'answer': 'How many? ** 4\n#### 4'}],
    ('hh_rlhf', 'harmless_base'): [
        {'chosen': '\n\nHuman: Hi\n\nAssistant: Hello \u2028 you\x00\r\n',
         'rejected': '\n\nHuman: Hi\n\nAssistant:'}],
    ('hh_rlhf', 'helpful_rejection_sampled'): [
        {'chosen': '\n\nHuman: a\n\nAssistant: b',
         'rejected': '\n\nHuman: a\n\nAssistant: c'}],
    ('oasst', 'messages'): [MESSAGE, REPLY],
    ('oasst', 'trees'): [
        {'message_tree_id': 'm-1', 'tree_state': 'ready_for_export',
         'prompt': MESSAGE | {'replies': [REPLY | {'replies': []}]}}],
    ('self_instruct', None): [
        {'id': 'seed_task_0', 'name': 'none', 'instruction': 'Wait.',
         'instances': [], 'is_classification': False},
        {'id': 'seed_task_1', 'name': 'two', 'instruction': 'Negate.',
         'instances': [{'input': 'yes', 'output': 'no'},
                       {'input': '', 'output': ''}],
         'is_classification': True},
    ],
    ('ultrachat', 'sft'): [
        {'prompt': 'Hi', 'prompt_id': 'f0e3',
         'messages': [user('Hi'), assistant('Yes?'), user('No'),
                      assistant('')]},
        {'prompt': 'x', 'prompt_id': 'f0e4',
         'messages': [user('x'), assistant('y')]},
    ],
    ('ultrafeedback_binarized', 'prefs'): [
        {'prompt': 'Hi', 'prompt_id': 'a1',
         'chosen': [user('Hi'), assistant('Good')],
         'rejected': [user('Hi'), assistant('Bad')],
         'messages': [user('Hi'), assistant('Good')],
         'score_chosen': 7.3, 'score_rejected': 1 / 3},
    ],
}


@pytest.fixture
def build(tmp_path):
  """Builds files' rows, {name of a file: rows}; returns the data's folder."""

  def build_files(name, config, files):
    folder = tmp_path / 'files'
    for path, rows in files.items():
      path = folder / path
      path.parent.mkdir(parents=True, exist_ok=True)
      text = ''.join(json.dumps(row) + '\n' for row in rows).encode()
      path.write_bytes(gzip.compress(text) if path.suffix == '.gz' else text)
    return build_folder(name, config, folder, tmp_path / 'built')

  return build_files


def build_folder(name, config, folder, out):
  """Builds the files of a folder; returns the folder of the dataset."""
  module = importlib.import_module(
      f'alignjax.data.builders.{name}.{name}_dataset_builder')
  builder = module.Builder(
      data_dir=out, config=config, file_format='array_record')
  builder.download_and_prepare(
      download_config=tensorflow_datasets.download.DownloadConfig(
          manual_dir=folder))
  return builder.data_path
