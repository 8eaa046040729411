"""`alignjax score`: what is written, where, and what is refused."""

import json
import pathlib

import jax
import numpy as np
import pytest

from alignjax import hf
from alignjax.models import CausalLM
from alignjax.models import ModelConfig
from tests.commands import tiny

SCHEMAS = pathlib.Path(__file__).parents[1] / 'data' / 'schemas'


def test_scores_are_the_summed_logprobs_in_the_order_of_the_file(
    folder, call, tmp_path):
  rows = [{'prompt': 'a b', 'response': 'c'},
          {'prompt': 'a', 'response': 'd e f ' * 10},
          {'prompt': 'f', 'response': 'b b'},
          {'prompt': 'c ' * 20, 'response': 'a'}]
  path = tiny.write_rows(tmp_path / 'rows.jsonl', rows)
  status, out, _ = call('score', '--model', folder, '--data', path,
                        '--batch-size', 2)
  assert status == 0
  assert tiny.read_rows(out) == [
      tiny.expected_score(row['prompt'], row['response']) for row in rows]
  assert tiny.read_rows(out)[0]['tokens'] == 2  # c and EOS.


def test_pairs_are_scored_each_side_after_its_own_prompt(
    folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'pairs.jsonl', tiny.PAIRS)
  out = tmp_path / 'scores.jsonl'
  status, printed, _ = call('score', '--model', folder, '--data', path,
                            '--out', out)
  assert (status, printed) == (0, '')
  assert tiny.read_rows(out.read_text()) == [
      {'chosen': tiny.expected_score('a b', 'c d e'),
       'rejected': tiny.expected_score('a b', 'd')},
      {'chosen': tiny.expected_score('e', 'b b'),
       'rejected': tiny.expected_score('f f f f', 'c')},
      {'chosen': tiny.expected_score('a', 'f'),
       'rejected': tiny.expected_score('a', 'f')}]


def test_rows_may_lie_in_a_json_array(folder, call, tmp_path):
  rows = [{'prompt': 'a b', 'response': 'c'}, {'prompt': 'f', 'response': 'b'}]
  path = tmp_path / 'rows.json'
  path.write_text(json.dumps(rows))
  _, out, _ = call('score', '--model', folder, '--data', path)
  assert tiny.read_rows(out) == [
      tiny.expected_score(row['prompt'], row['response']) for row in rows]


@pytest.mark.parametrize('name', [
    'oasst_messages', 'oasst_trees', 'ultrafeedback', 'trl_stepwise',
    'trl_prompt_only', 'ranking'])
def test_shapes_without_one_response_in_a_row_are_named(
    folder, call, name):
  path = SCHEMAS / f'{name}.jsonl'
  status, _, err = call('score', '--model', folder, '--data', path)
  (line,) = err.splitlines()
  assert status == 2 and f'{path}:1: the rows are of the shape' in line
  assert 'this run needs that; give another file' in line


def test_max_length_cuts_the_end_and_counts_what_is_left(
    folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl', [
      {'prompt': 'a', 'response': 'b c d'}, {'prompt': 'a', 'response': 'b'}])
  prompt = tiny.TOKENIZER.prompt_tokens('a')
  status, out, err = call('score', '--model', folder, '--data', path,
                          '--max-length', len(prompt) + 2)
  tokens = [*prompt, *tiny.TOKENIZER.encode('b c')]
  due = tiny.next_logprobs(tokens)[len(prompt) - 1:-1]
  assert status == 0
  got = tiny.read_rows(out)
  assert got[0] == {'tokens': 2, 'logprob': pytest.approx(
      due[[0, 1], tiny.TOKENIZER.encode('b c')].sum(), abs=1e-4)}
  assert got[1] == tiny.expected_score('a', 'b')
  assert '1 of 2 responses lost their end' in err


def test_bfloat16_scores_are_near(folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a b', 'response': 'c d e'}])
  _, out, _ = call('score', '--model', folder, '--data', path,
                   '--dtype', 'bfloat16')
  due = tiny.expected_score('a b', 'c d e')['logprob'].expected
  got = tiny.read_rows(out)[0]['logprob']
  assert got != pytest.approx(due, abs=1e-4)  # It is not float32's.
  assert got == pytest.approx(due, rel=0.05)


def test_rows_longer_than_the_model_was_trained_for_are_noted(
    folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a', 'response': 'b ' * 70}])
  status, _, err = call('score', '--model', folder, '--data', path)
  assert status == 0 and 'the model was trained for 64' in err


# --- What is refused


@pytest.mark.parametrize('row, words', [
    ({'prompt': 'a', 'response': ' '}, ['rows.jsonl:2', 'empty response']),
    ({'prompt': 'a'}, ['rows.jsonl:2', "'response' is missing"]),
    ({'prompt': ' ', 'response': 'b'}, ['rows.jsonl:2', 'empty prompt']),
    ({'prompt': 'a', 'response': None}, ['rows.jsonl:2', 'null']),
])
def test_bad_row_stops_the_command_and_leaves_the_old_file(
    folder, call, tmp_path, row, words):
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a', 'response': 'b'}, row])
  out = tmp_path / 'out.jsonl'
  out.write_text('old')
  tiny.check_refused(
      call('score', '--model', folder, '--data', path, '--out', out,
           '--overwrite'), *words)
  assert out.read_text() == 'old'


def test_file_that_exists_is_kept_unless_overwrite_is_given(
    folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                         [{'prompt': 'a', 'response': 'b'}])
  out = tmp_path / 'out.jsonl'
  out.write_text('old')
  args = ('score', '--model', folder, '--data', path, '--out', out)
  tiny.check_refused(call(*args), 'out.jsonl exists', '--overwrite')
  assert out.read_text() == 'old'
  assert call(*args, '--overwrite')[0] == 0
  assert tiny.read_rows(out.read_text()) == [tiny.expected_score('a', 'b')]


def test_places_that_cannot_be_written_are_refused_first(
    folder, call, tmp_path):
  args = ('score', '--model', folder, '--data', 'missing.jsonl', '--overwrite')
  tiny.check_refused(call(*args, '--out', tmp_path), 'is not a file')
  tiny.check_refused(call(*args, '--out', '/dev/null'), 'is not a file')
  tiny.check_refused(call(*args, '--out', tmp_path / 'no' / 'out'),
                'is not a folder that can be written to')


def test_prompt_without_room_for_a_response_is_refused(folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a b c d', 'response': 'b'}])
  length = len(tiny.TOKENIZER.prompt_tokens('a b c d'))
  tiny.check_refused(
      call('score', '--model', folder, '--data', path, '--max-length', length),
      'rows.jsonl:1', f'max_length={length}', f'{length + 1} or more')


def test_prompts_without_a_response_cannot_be_scored(folder, call, tmp_path):
  path = tiny.write_rows(tmp_path / 'rows.jsonl', [{'prompt': 'a'}])
  tiny.check_refused(call('score', '--model', folder, '--data', path),
                'rows.jsonl:1', 'response')


def test_tokenizer_of_another_model_is_refused(call, tmp_path):
  config = ModelConfig(
      vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1,
      num_heads=2, num_kv_heads=2, head_dim=4)
  hf.save_model(tmp_path / 'model', config,
                CausalLM(config).init(jax.random.key(0)))
  tiny.TOKENIZER.save(tmp_path / 'model')
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                         [{'prompt': 'a', 'response': 'e'}])
  args = ('--model', tmp_path / 'model')
  tiny.check_refused(call('score', *args, '--data', path),
                'rows.jsonl:1', 'gives id 10', 'vocab_size=8')
  tiny.check_refused(call('generate', *args, '--prompt', 'e'),
                '--prompt 1', 'gives id 10', 'vocab_size=8')


def test_weights_that_are_not_finite_are_no_score(call, tmp_path):
  params = tiny.PARAMS | {'final_norm': tiny.PARAMS['final_norm'] * np.inf}
  hf.save_model(tmp_path / 'model', tiny.CONFIG, params,
                tokenizer=tiny.TOKENIZER)
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                         [{'prompt': 'a', 'response': 'b'}])
  status, out, err = call('score', '--model', tmp_path / 'model',
                          '--data', path)
  assert (status, out) == (2, '') and 'log-probability is nan' in err
