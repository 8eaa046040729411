"""`alignjax inspect FILE`: counts, lengths, what is dropped, and one row."""

import json

import pytest
import tensorflow_datasets

from alignjax import data
from alignjax.data import shapes
from tests.commands import tiny

PAIRS = [
    {'prompt': 'a b', 'chosen': 'c d e', 'rejected': 'd', 'strength': 3},
    {'prompt': 'a  b', 'chosen': 'f', 'rejected': 'b c', 'strength': 0},
    {'prompt': 'c', 'chosen': 'a', 'rejected': ' ', 'strength': 1},
    {'prompt': 'd', 'chosen': 'e e', 'rejected': 'f f', 'strength': 1},
]


def inspect(call, path, *flags):
  """(facts, text) of a file."""
  status, text, err = call('inspect', path, *flags)
  assert (status, err) == (0, ''), err
  return json.loads(call('inspect', path, *flags, '--json')[1]), text


@pytest.fixture
def pairs(tmp_path):
  return tiny.write_rows(tmp_path / 'pairs.jsonl', PAIRS)


def test_pairs_are_counted_and_what_is_dropped_has_its_line(call, pairs):
  facts, text = inspect(call, pairs)
  assert facts['schema'] == shapes.Format.PREFERENCE.value
  assert (facts['kind'], facts['rows'], facts['items']) == (
      'preference pairs', 4, 3)
  assert facts['dropped'] == [
      {'reason': 'empty response', 'count': 1, 'lines': ['3']}]
  assert '1 empty response (line 3)' in text
  assert facts['duplicate_prompts'] == 1 and '1 prompts (33.3%)' in text
  assert (facts['chosen_longer'], facts['equally_long']) == (1, 1)
  assert facts['numbers'] == {'strength': {
      'rows': 3, 'min': 0, 'median': 1.0, 'max': 3, 'zero': 1}}


def test_share_of_dropped_rows_that_stops_a_run_is_pointed_out(call, pairs):
  assert '1 of 4 rows are dropped, more than max_dropped=0.01' in inspect(
      call, pairs)[1]
  assert 'refused' not in inspect(call, pairs, '--max-dropped', 0.25)[1]


def test_percentiles_are_lengths_of_the_file(call, tmp_path):
  rows = [{'prompt': 'a ' * (3 * n), 'response': 'b c'} for n in range(1, 101)]
  path = tiny.write_rows(tmp_path / 'rows.jsonl', rows)
  facts, _ = inspect(call, path)
  assert facts['lengths']['words'] == {
      'prompt': {'p5': 15, 'p50': 150, 'p95': 285, 'p99': 297, 'max': 300},
      'response': dict.fromkeys(('p5', 'p50', 'p95', 'p99', 'max'), 2),
      'total': {'p5': 17, 'p50': 152, 'p95': 287, 'p99': 299, 'max': 302}}
  assert facts['lengths']['characters']['response']['max'] == 3


def test_tokens_are_those_of_training(call, folder, pairs):
  facts, _ = inspect(call, pairs, '--model', folder)
  assert list(facts['lengths']) == ['tokens']
  found = facts['lengths']['tokens']
  rows, _ = data.tokenize_preferences(
      data.preferences(pairs, max_dropped=1.0)[0], tiny.TOKENIZER,
      max_length=99)
  start = [row.chosen.prompt_length for row in rows]
  assert found['prompt']['max'] == max(start) == 5  # <s> <user> a b <assistant>
  assert found['chosen']['max'] == 4  # c d e and EOS.
  assert found['rejected']['max'] == 3
  assert found['total']['max'] == 9


def test_what_does_not_fit_is_counted_as_training_counts_it(
    call, folder, pairs):
  facts, text = inspect(call, pairs, '--model', folder, '--max-length', 6)
  _, fitted = data.tokenize_preferences(
      data.preferences(pairs, max_dropped=1.0)[0], tiny.TOKENIZER,
      max_length=6, long_prompts='drop')
  assert facts['fit']['kept'] == fitted.num_rows == 3
  assert facts['fit']['cut'] == [
      {'reason': 'response loses its end', 'count': 3, 'lines':
       ['1', '2', '4']}]
  assert facts['fit']['dropped'] == []
  facts, text = inspect(call, pairs, '--model', folder, '--max-length', 5)
  assert facts['fit']['dropped'] == [
      {'reason': 'long prompt', 'count': 2, 'lines': ['1', '2']}]
  assert 'a run refuses this' in text and 'pairs.jsonl:1' in text
  facts, text = inspect(call, pairs, '--model', folder, '--max-length', 2)
  assert facts['fit']['kept'] == 0 and 'no row is left' in text


def test_both_sides_are_shown_with_what_bears_loss(call, folder, pairs):
  _, text = inspect(call, pairs, '--model', folder, '--row', 4)
  assert f'{pairs}:4; what bears loss is in [[...]]' in text
  assert '  chosen        <s><user>d<assistant>[[ e e</s>]]' in text
  assert '  rejected      <s><user>d<assistant>[[ f f</s>]]' in text
  assert '\x1b' not in text
  plain = inspect(call, pairs, '--model', folder, '--row', 4, '--plain')[1]
  assert '  chosen        d[[ e e</s>]]' in plain


def test_row_is_cut_as_training_cuts_it_or_shown_whole(call, folder, pairs):
  args = '--model', folder, '--row', 1, '--max-length'
  assert '[[ c]]' in inspect(call, pairs, *args, 6)[1]
  text = inspect(call, pairs, *args, 5)[1]
  assert 'dropped by training, shown whole' in text
  assert '[[ c d e</s>]]' in text


def test_without_a_tokenizer_texts_are_shown(call, pairs):
  _, text = inspect(call, pairs)
  assert ('  chosen        user: a b\n'
          '                [[c d e]]') in text


@pytest.mark.parametrize('row, kind, words', [
    ({'prompt': 'a', 'response': 'b', 'label': True}, 'labelled responses',
     ['1 desirable (50.0%), 1 undesirable (50.0%)', '[[b]]']),
    ({'prompt': 'a', 'completion': 'b', 'label': 1}, 'labelled responses',
     ['1 desirable (50.0%)']),
    ({'prompt': 'a', 'responses': ['b', 'c', 'd'], 'ranks': [0, 1, 1]},
     'rankings', ['2 of 3; 2 rankings have ties', 'response 3', '[[d]]']),
    ({'messages': [{'role': 'system', 'content': 'e'},
                   {'role': 'user', 'content': 'a'},
                   {'role': 'assistant', 'content': 'b'}]}, 'demonstrations',
     ['system: e', 'user: a', '[[b]]']),
    ({'question': 'a', 'answer': 'b'}, 'demonstrations', ['[[b]]']),
    ({'instruction': 'a', 'input': 'c', 'output': 'b'}, 'demonstrations',
     ['[[b]]']),
    ({'prompt': 'a'}, 'prompts', ['user: a']),
    (tiny.PAIRS[0], 'preference pairs', ['HH-RLHF', '[[c d e]]']),
])
def test_rows_of_every_kind_are_read_as_what_they_are(
    row, kind, words, call, folder, tmp_path):
  second = dict(row)
  if 'label' in row:
    second['label'] = False
  path = tiny.write_rows(tmp_path / 'rows.jsonl', [row, second])
  facts, text = inspect(call, path)
  assert facts['kind'] == kind and facts['rows'] == 2
  for word in words:
    assert word in text
  counted, text = inspect(call, path, '--model', folder, '--max-length', 40)
  assert counted['fit']['kept'] == facts['items']
  assert ('[[' in text.split('example')[1].split('\n', 1)[1]) == (
      kind != 'prompts')


def test_folder_of_tfds_is_read_like_a_file(call, tmp_path, capsys):
  from alignjax.data.builders.gsm8k import gsm8k_dataset_builder as gsm8k

  tiny.write_rows(tmp_path / 'train.jsonl',
                  [{'question': 'a', 'answer': 'b'},
                   {'question': 'c', 'answer': 'd'}])
  builder = gsm8k.Builder(
      config='main', data_dir=str(tmp_path / 'data'),
      file_format='array_record')
  builder.download_and_prepare(
      download_config=tensorflow_datasets.download.DownloadConfig(
          manual_dir=tmp_path))
  capsys.readouterr()  # Its progress.
  facts, text = inspect(call, builder.data_dir, '--row', 2)
  assert facts['schema'] == 'question/answer' and facts['rows'] == 2
  assert f'{builder.data_dir}:2' in text and '[[d]]' in text


CHAT = {'messages': [
    {'role': role, 'content': content} for role, content in (
        ('user', 'a'), ('assistant', 'b'), ('user', 'c'), ('assistant', 'd'))]}


def test_turns_that_bear_loss_are_those_of_the_flag(call, folder, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl', [CHAT])
  args = path, '--model', folder
  marked = '<s><user>a<assistant>[[ b</s>]]<user> c<assistant>[[ d</s>]]'
  assert marked in inspect(call, *args)[1]
  assert marked in inspect(call, *args, '--max-length', 40)[1]
  last = '<s><user>a<assistant> b</s><user> c<assistant>[[ d</s>]]'
  assert last in inspect(call, *args, '--turns', 'last')[1]
  assert '[[ d</s>]]' in inspect(call, *args, '--plain')[1]


def test_array_and_folder_by_split_are_read(call, tmp_path):
  (tmp_path / 'test.json').write_text(json.dumps(PAIRS))
  facts, _ = inspect(call, tmp_path / 'test.json')
  assert facts['rows'] == 4
  assert inspect(call, tmp_path, '--split', 'test')[0]['rows'] == 4
  tiny.check_refused(call('inspect', tmp_path), "no split 'train'", 'test')


# --- What is refused


@pytest.mark.parametrize('flags, words', [
    (['--max-length', '9'], ['max_length=9', '--model']),
    (['--row', '3'], ['pairs.jsonl:3', 'dropped (empty response)']),
    (['--row', '9'], ['row=9', 'no row on that line']),
    (['--model', 'no/where'], ['no/where is not a folder']),
])
def test_flags_that_make_no_sense_are_refused(call, pairs, flags, words):
  tiny.check_refused(call('inspect', pairs, *flags), *words)


@pytest.mark.parametrize('content, words', [
    ('{"prompt": "a"}\n{"prompt": \n', ['rows.jsonl:2', 'is not JSON']),
    ('', ['rows.jsonl', 'is empty']),
    ('{"speaker": "a"}\n', ['rows.jsonl:1', 'fit no known shape']),
    ('{"prompt": "a", "chosen": "b", "rejected": null}\n',
     ['rows.jsonl:1', "'rejected' is null"]),
    ('{"prompt": "a", "response": " "}\n', ['all 1 rows were dropped']),
])
def test_files_that_cannot_be_read_are_one_line(
    content, words, call, tmp_path):
  (tmp_path / 'rows.jsonl').write_text(content)
  tiny.check_refused(call('inspect', tmp_path / 'rows.jsonl'), *words)


def test_real_preferences_are_described(call, real_data):
  facts, _ = inspect(call, real_data / 'hh_harmless.jsonl.gz')
  assert facts['schema'] == 'HH-RLHF transcripts'
  assert facts['rows'] == facts['items'] + sum(
      reason['count'] for reason in facts['dropped'])
