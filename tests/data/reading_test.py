"""Claims about what becomes of every record of a file."""

import json

import pytest

from alignjax import types
from alignjax.data import formats
from alignjax.data.formats import Format

GOOD = {'prompt': 'q', 'response': 'r'}


def error_of(reader, path, **settings) -> str:
  with pytest.raises(types.InputError) as caught:
    reader(path, **settings)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def lines(*rows):
  return b''.join(
      (row if isinstance(row, bytes) else json.dumps(row).encode()) + b'\n'
      for row in rows)


# --- Bad records.

BAD = [
    (b'{"prompt"', 'not JSON'), (b'{"prompt": NaN}', 'not JSON'),
    (b'\xff', 'not UTF-8'), (b'{"a": "\\ud83d"}', 'half a character'),
    (b'[1]', 'wrong type'), ({'foo': 1}, 'missing field'),
    ({'prompt': 'q'}, 'missing field'),
    (GOOD | {'response': None}, 'wrong type'),
    (GOOD | {'label': True}, 'another shape'),
]


@pytest.mark.parametrize(('bad', 'rule'), BAD)
def test_a_bad_record_stops_the_run_or_is_dropped_by_its_rule(
    write, bad, rule):
  path = write(lines(GOOD, bad, GOOD))
  assert error_of(formats.demonstrations, path).startswith(f'{path}:2: ')
  rows, reading = formats.demonstrations(
      path, on_bad_record='skip', max_dropped=0.5)
  assert [row.where for row in rows] == [f'{path}:1', f'{path}:3']
  assert reading.dropped == ((rule, f'{path}:2'),)
  assert reading.summary() == {
      'path': str(path), 'shape': 'prompt/response',
      'is_conversational': False, 'records': 3, 'kept': 2,
      'demonstrations': 2, 'repaired': {},
      'dropped': {rule: {'count': 1, 'first': [f'{path}:2']}}}


def test_skipping_is_held_to_the_same_limit(write):
  path = write(lines(GOOD, b'x', GOOD, GOOD))
  message = error_of(formats.demonstrations, path, on_bad_record='skip')
  assert message.startswith(f"{path}:2: 'x' is not JSON")
  assert '1 of 4 rows would be dropped, more than max_dropped=0.01' in message
  assert formats.demonstrations(
      path, on_bad_record='skip', max_dropped=0.25)[1].num_kept == 3


@pytest.mark.parametrize(('bad', 'rule'), BAD[:4] + [
    ({'foo': 1}, 'unknown shape'), (GOOD | {'response': 3}, 'wrong type'),
    ({'prompt': 'q'}, 'another shape')])
def test_a_bad_first_record_does_not_settle_the_shape(write, bad, rule):
  path = write(lines(bad, GOOD, GOOD))
  rows, reading = formats.demonstrations(
      path, on_bad_record='skip', max_dropped=0.5)
  assert len(rows) == 2 and reading.format == Format.RESPONSE
  assert reading.dropped == ((rule, f'{path}:1'),)


def test_a_file_of_a_wrong_shape_is_not_skipped_through(write):
  path = write(lines(*[{'prompt': 'q'}] * 5))
  message = error_of(formats.demonstrations, path, on_bad_record='skip',
                     max_dropped=1.0)
  assert message.startswith(f'{path}:1: the rows are of the shape')


def test_a_file_of_nothing_but_bad_records_says_so(write):
  path = write(lines(b'x', b'y', b'{'))
  message = error_of(formats.demonstrations, path, on_bad_record='skip',
                     max_dropped=1.0)
  assert message.startswith(
      f'{path}: all 3 rows were dropped (dropped 3: not JSON (lines 1, 2, 3))')


def test_on_bad_record_is_one_of_two_words(write):
  path = write(lines(GOOD))
  assert "on_bad_record='ignore' is not known" in error_of(
      formats.demonstrations, path, on_bad_record='ignore')


# --- Records of another shape.


@pytest.mark.parametrize(('first', 'other'), [
    ({'prompt': 'q', 'response': 'r'}, {'prompt': 'q', 'response': 'r',
                                        'label': False}),
    ({'prompt': 'q'}, {'prompt': 'q', 'response': 'r'}),
    ({'prompt': 'q'}, {'prompt': 'q', 'chosen': 'a', 'rejected': 'b'}),
])
def test_a_record_that_says_more_than_the_first_is_not_read_as_less(
    write, first, other):
  """Else a response that is labeled bad would be imitated."""
  path = write(lines(first, other))
  reader = formats.demonstrations if 'response' in first else formats.prompts
  message = error_of(reader, path)
  assert message.startswith(f'{path}:2: the fields (')
  assert 'give files of one shape each' in message


def test_text_and_turns_may_stand_in_one_file(write):
  turns = [{'role': 'user', 'content': 'q'}]
  _, reading = formats.prompts(write(lines({'prompt': turns}, {'prompt': 'q'})))
  assert reading.is_conversational and 'conversational' in str(reading)


def test_null_in_a_field_that_may_be_missing_is_as_if_it_were(write):
  rows, _ = formats.demonstrations(write(lines(
      {'instruction': 'i', 'input': None, 'output': 'r'})))
  assert rows[0].prompt == 'i'
  chat = [{'role': 'user', 'content': 'q'},
          {'role': 'assistant', 'content': 'a'}]
  rows, _ = formats.preferences(write(lines(
      {'prompt': None, 'chosen': chat, 'rejected': [
          chat[0], chat[1] | {'content': 'b'}], 'score_chosen': None,
       'strength': None})))
  assert (rows[0].chosen, rows[0].rejected) == ('a', 'b')


# --- What is odd and kept.


@pytest.mark.parametrize('record', [
    {'prompt': 'q', 'chosen': 'one two', 'rejected': 'one'},
    {'prompt': 'q', 'chosen': '<|im_end|> [INST]', 'rejected': '</s>'},
    {'chosen': '\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d',
     'rejected': '\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: de'},
    {'chosen': [{'role': 'system', 'content': 's'},
                {'role': 'user', 'content': 'q'},
                {'role': 'assistant', 'content': 'a'}],
     'rejected': [{'role': 'system', 'content': 's'},
                  {'role': 'user', 'content': 'q'},
                  {'role': 'assistant', 'content': 'b'}]},
])
def test_what_is_odd_and_means_something_is_kept(write, record):
  rows, reading = formats.preferences(write(lines(record)))
  assert len(rows) == 1 and not reading.dropped and not reading.repaired


@pytest.mark.parametrize(('chosen', 'rejected', 'prompt'), [
    ('The sky is blue.', 'The sky is black.', 'The sky is'),
    ('Q: one? A: yes', 'Q: one? A: yes, sir', 'Q: one? A:'),
    ('a b\n\nc', 'a b\n\nd', 'a b'),
])
def test_the_prompt_inside_two_texts_ends_between_words(
    write, chosen, rejected, prompt):
  (row,), _ = formats.preferences(
      write(lines({'chosen': chosen, 'rejected': rejected})))
  assert row.prompt == prompt
  assert (prompt + row.chosen, prompt + row.rejected) == (chosen, rejected)


@pytest.mark.parametrize(('chosen', 'rejected', 'reason'), [
    ('yes', 'no', 'empty prompt'), ('a b', 'a b c', 'empty response'),
    ('a b', 'a b', 'empty response')])
def test_two_texts_without_a_prompt_or_a_response_are_dropped(
    write, chosen, rejected, reason):
  path = write(lines({'chosen': 'a b', 'rejected': 'a c'},
                     {'chosen': chosen, 'rejected': rejected}))
  _, reading = formats.preferences(path, max_dropped=0.5)
  assert reading.dropped == ((reason, f'{path}:2'),)


# --- Real files, every record of them.

HARMLESS = {
    'demonstrations': (1_496, {'empty response': 4}),
    'preferences': (1_495, {'empty response': 4, 'prompts differ': 1}),
    'unpaired': (2_990, {'empty response': 4, 'prompts differ': 1}),
    'rankings': (1_495, {'empty response': 4, 'prompts differ': 1}),
    'prompts': (1_500, {}),
}


def counts(reading):
  return {name: each['count']
          for name, each in reading.summary()['dropped'].items()}


@pytest.mark.parametrize('reader', HARMLESS)
def test_of_1500_real_pairs_each_is_a_row_or_dropped_by_name(
    real_data, reader):
  rows, reading = getattr(formats, reader)(real_data / 'hh_harmless.jsonl.gz')
  num_rows, dropped = HARMLESS[reader]
  assert reading.format == Format.HH and reading.num_records == 1_500
  assert len(rows) == num_rows and counts(reading) == dropped
  assert reading.num_kept == 1_500 - sum(dropped.values())
  assert not reading.repaired


@pytest.mark.parametrize(('name', 'shape', 'num_rows'), [
    ('gsm8k_train.jsonl.gz', Format.QUESTION, 7_473),
    ('seed_tasks.jsonl', Format.SELF_INSTRUCT, 175)])
@pytest.mark.parametrize('reader', ['demonstrations', 'prompts'])
def test_all_real_problems_and_tasks_are_rows(
    real_data, reader, name, shape, num_rows):
  rows, reading = getattr(formats, reader)(real_data / name)
  assert reading.format == shape
  assert len(rows) == reading.num_records == reading.num_kept == num_rows
  assert counts(reading) == {} and not reading.repaired


@pytest.mark.parametrize(('name', 'reader'), [
    ('hh_harmless.jsonl.gz', 'documents')] + [
        (name, reader) for name in ('gsm8k_train.jsonl.gz', 'seed_tasks.jsonl')
        for reader in ('preferences', 'unpaired', 'rankings', 'documents')])
def test_real_files_are_refused_by_the_readers_that_need_more(
    real_data, reader, name):
  message = error_of(getattr(formats, reader), real_data / name)
  assert f'{name}:1' in message and 'this run needs that' in message
