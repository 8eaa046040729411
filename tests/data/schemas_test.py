"""Public datasets as they are: fields, what each reader makes of them.

Each file of schemas/ has the fields and types of a published dataset, or of one
of TRL's types, and invented text.
"""

import json
import pathlib
import re

import pytest

from alignjax import types
from alignjax.data import formats
from alignjax.data.formats import Format

FILES = pathlib.Path(__file__).parent / 'schemas'
READERS = ('demonstrations', 'preferences', 'unpaired', 'rankings', 'prompts',
           'documents')

# File: (shape, whether it holds turns, rows by reader; None is refused).
SHAPES = {
    'hh_harmless_base': (Format.HH, True, (2, 2, 4, 2, 2, None)),
    'hh_helpful_base': (Format.HH, True, (2, 2, 4, 2, 2, None)),
    'hh_helpful_online': (Format.HH, True, (1, 1, 2, 1, 1, None)),
    'hh_helpful_rejection_sampled': (Format.HH, True, (1, 1, 2, 1, 1, None)),
    'ultrafeedback_binarized': (
        Format.CHAT_PREFERENCE, True, (2, 1, 2, 1, 2, None)),
    'ultrafeedback': (
        Format.ULTRAFEEDBACK, False, (2, 7, None, 2, 3, None)),
    'ultrachat_200k': (Format.MESSAGES, True, (2, None, None, None, 2, None)),
    'ultrachat': (Format.ULTRACHAT, True, (2, None, None, None, 2, None)),
    'dolly': (Format.DOLLY, False, (2, None, None, None, 2, None)),
    'alpaca': (Format.ALPACA, False, (2, None, None, None, 2, None)),
    'self_instruct': (
        Format.SELF_INSTRUCT, False, (3, None, None, None, 3, None)),
    'gsm8k': (Format.QUESTION, False, (2, None, None, None, 2, None)),
    'sharegpt': (Format.SHAREGPT, True, (2, None, None, None, 2, None)),
    'oasst_messages': (
        Format.OASST_MESSAGES, True, (2, 3, None, 1, 2, None)),
    'oasst_trees': (Format.OASST_TREES, True, (2, 3, None, 1, 2, None)),
    'trl_language_modelling': (
        Format.TEXT, False, (None, None, None, None, None, 2)),
    'trl_language_modelling_chat': (
        Format.MESSAGES, True, (1, None, None, None, 1, None)),
    'trl_prompt_only': (
        Format.PROMPT, False, (None, None, None, None, 1, None)),
    'trl_prompt_only_chat': (
        Format.PROMPT, True, (None, None, None, None, 1, None)),
    'trl_prompt_completion': (
        Format.COMPLETION, False, (1, None, None, None, 1, None)),
    'trl_prompt_completion_chat': (
        Format.COMPLETION, True, (1, None, None, None, 1, None)),
    'trl_preference': (Format.PREFERENCE, False, (1, 1, 2, 1, 1, None)),
    'trl_preference_chat': (
        Format.CHAT_PREFERENCE, True, (1, 1, 2, 1, 1, None)),
    'trl_implicit_preference': (Format.IMPLICIT, False, (1, 1, 2, 1, 1, None)),
    'trl_implicit_preference_chat': (
        Format.CHAT_PREFERENCE, True, (1, 1, 2, 1, 1, None)),
    'trl_unpaired': (
        Format.LABELED_COMPLETION, False, (None, None, 2, None, 2, None)),
    'trl_unpaired_chat': (
        Format.LABELED_COMPLETION, True, (None, None, 2, None, 2, None)),
    'trl_stepwise': (Format.STEPWISE, False, (1, None, 2, None, 2, None)),
    'trl_stepwise_chat': (Format.STEPWISE, True, (1, None, 1, None, 1, None)),
    'ranking': (Format.RANKING, False, (1, 2, None, 1, 1, None)),
    'response': (Format.RESPONSE, False, (1, None, None, None, 1, None)),
    'labeled': (
        Format.LABELED_RESPONSE, False, (None, None, 2, None, 2, None)),
}


def user(text):
  return {'role': 'user', 'content': text}


def assistant(text):
  return {'role': 'assistant', 'content': text}


def read(reader, name):
  """(rows, reading), whose account is whole."""
  rows, reading = getattr(formats, reader)(FILES / f'{name}.jsonl')
  assert reading.num_records == reading.num_kept + len(reading.dropped)
  return rows, reading


def test_every_shape_has_a_file_and_every_file_a_claim():
  assert {shape for shape, *_ in SHAPES.values()} == set(Format)
  assert {path.stem for path in FILES.iterdir()} == set(SHAPES)


@pytest.mark.parametrize('name', SHAPES)
def test_each_reader_takes_a_dataset_or_says_what_it_needs(name):
  shape, is_conversational, counts = SHAPES[name]
  for reader, count in zip(READERS, counts, strict=True):
    if count is None:
      with pytest.raises(types.InputError) as caught:
        read(reader, name)
      message = str(caught.value)
      assert re.match(re.escape(f'{FILES / name}.jsonl:1') + r'(\[0\])?: ',
                      message)
      assert ';' in message and '\n' not in message
    else:
      rows, reading = read(reader, name)
      assert (len(rows), reading.num_rows) == (count, count)
      assert reading.format == shape
      assert reading.is_conversational == is_conversational
      assert ('conversational' in str(reading)) == is_conversational


def test_the_docs_have_a_dash_where_a_reader_refuses():
  text = (FILES.parents[2] / 'docs/data.md').read_text('utf-8')
  cells = {}
  for line in text.splitlines():
    names = [cell.strip() for cell in line.split('|')[1:-1]]
    if len(names) == 8 and names[0].startswith('`'):
      cells[names[0].strip('`')] = [cell != '–' for cell in names[2:]]
  due = {shape.value: [count is not None for count in counts]
         for shape, _, counts in SHAPES.values()}
  assert cells == due


@pytest.mark.parametrize('name', SHAPES)
def test_a_table_of_each_dataset_gives_the_rows_that_its_lines_do(
    tmp_path, name):
  pa = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  text = (FILES / f'{name}.jsonl').read_text('utf-8')
  # A table has no objects of no fields, as the last replies of a tree are.
  rows = [json.loads(line.replace('"replies": []', '"replies": null'))
          for line in text.splitlines()]
  path = tmp_path / 'rows.parquet'
  parquet.write_table(pa.Table.from_pylist(rows), path)
  for reader, count in zip(READERS, SHAPES[name][2], strict=True):
    if count is not None:
      due, told = read(reader, name)
      got, reading = getattr(formats, reader)(path)
      assert [str(row).replace(str(path), 'f') for row in got] == [
          str(row).replace(str(FILES / f'{name}.jsonl'), 'f') for row in due]
      assert (reading.format, reading.num_kept) == (told.format, told.num_kept)


# --- What the rows are.


def test_a_binarized_tie_is_left_out_and_said():
  rows, reading = read('preferences', 'ultrafeedback_binarized')
  assert (rows[0].prompt, rows[0].chosen, rows[0].rejected) == (
      (user('Name two primes.'),), '2 and 3.', '1 and 4.')
  assert [reason for reason, _ in reading.dropped] == ['score tie']
  assert 'dropped 1: score tie (line 2)' in str(reading)


def test_scores_become_ranks_in_which_equal_scores_tie():
  rows, reading = read('rankings', 'ultrafeedback')
  assert rows[0].prompt == 'Why is the sky blue?'
  assert rows[0].responses == (
      'Because.', 'Air scatters blue light most.', 'Scattering.',
      'Blue light is scattered.')
  assert rows[0].ranks == (2, 0, 1, 1)
  # "Yes." was rated 6 and 7.5.
  assert rows[1].responses == ('Yes.', 'No.', 'They rest.')
  assert rows[1].ranks == (0, 2, 0)
  assert [name for name, _ in reading.repaired] == ['equal responses merged']
  assert [name for name, _ in reading.dropped] == ['score tie']


def test_ranks_become_the_pairs_of_unequal_rank():
  rows, _ = read('preferences', 'ultrafeedback')
  first = [(row.chosen, row.rejected) for row in rows
           if row.where.endswith(':1')]
  best, middle, last = 'Air scatters blue light most.', (
      'Scattering.', 'Blue light is scattered.'), 'Because.'
  assert sorted(first) == sorted(
      [(best, last)] + [(best, m) for m in middle]
      + [(m, last) for m in middle])


def test_the_best_rated_response_is_the_one_to_imitate():
  rows, _ = read('demonstrations', 'ultrafeedback')
  assert [(row.response, row.source) for row in rows] == [
      ('Air scatters blue light most.', 'evol_instruct'),
      ('Yes.', 'truthful_qa')]


def test_every_instance_of_a_task_is_a_demonstration():
  rows, reading = read('demonstrations', 'self_instruct')
  path = FILES / 'self_instruct.jsonl'
  assert [(row.prompt, row.response, row.where) for row in rows] == [
      ('Give the antonym.\n\nhot', 'cold', f'{path}:1[0]'),
      ('Give the antonym.\n\nwet', 'dry', f'{path}:1[1]'),
      ('Write a haiku.', 'Rain on the tin roof.', f'{path}:2')]
  assert reading.num_records == 3


def test_a_list_of_texts_is_a_conversation():
  rows, _ = read('demonstrations', 'ultrachat')
  assert rows[0].prompt == (
      user('What is a fjord?'), assistant('A narrow inlet.'),
      user('Name one.'))
  assert rows[0].response == 'Geirangerfjord.'


def test_shared_conversations_have_roles_of_many_names():
  rows, _ = read('demonstrations', 'sharegpt')
  assert [turn['role'] for turn in rows[0].prompt] == ['system', 'user']
  assert rows[1].prompt == (user('Bye.'),) and rows[1].response == 'See you.'


def test_a_prompt_that_is_inside_both_texts_ends_before_a_word():
  (row,), _ = read('preferences', 'trl_implicit_preference')
  assert (row.prompt, row.chosen, row.rejected) == (
      'Grass is', ' green.', ' grey.')


def test_steps_are_lines_and_good_if_all_are_right():
  rows, _ = read('unpaired', 'trl_stepwise')
  assert [row.desirable for row in rows] == [True, False]
  assert rows[0].response == '9.8 is 9.80.\n80 is more than 11.\nSo 9.8.'
  rows, reading = read('demonstrations', 'trl_stepwise')
  assert len(rows) == 1
  assert [name for name, _ in reading.dropped] == ['wrong step']
  (row,), _ = read('unpaired', 'trl_stepwise_chat')
  assert row.response == 'No divisor but 1 and 7.\nYes.'


@pytest.mark.parametrize('name', ['oasst_messages', 'oasst_trees'])
def test_trees_become_threads_pairs_rankings_and_prompts(name):
  """Both shapes tell one tree, and one of them in a scrambled order."""
  first = user('What is yeast?')
  best = 'A fungus that makes dough rise.'
  rows, _ = read('demonstrations', name)
  assert {row.response: row.prompt for row in rows} == {
      best: (first,),
      'Yes.': (first, assistant(best), user('Is it alive?'))}
  rows, _ = read('preferences', name)
  assert {(row.chosen, row.rejected) for row in rows} == {
      (best, 'A fungus.'), (best, 'A plant.'), ('A fungus.', 'A plant.')}
  assert all(row.prompt == (first,) for row in rows)
  (row,), _ = read('rankings', name)
  assert dict(zip(row.responses, row.ranks, strict=True)) == {
      best: 0, 'A fungus.': 1, 'A plant.': 2}
  rows, reading = read('prompts', name)
  assert [len(row.prompt) for row in sorted(
      rows, key=lambda row: len(row.prompt))] == [1, 3]
  reasons = [reason for reason, _ in reading.dropped]
  assert {name: reasons.count(name) for name in reasons} == {
      'failed review': 1, 'below a dropped message': 1, 'deleted': 1,
      'unused message': 3}


def test_an_input_of_white_space_is_none(write):
  (row,), _ = formats.demonstrations(write(
      [{'instruction': 'i', 'input': ' \n', 'output': 'r'}]))
  assert row.prompt == 'i'
