"""Files of benchmarks, their numbers, and the formats of other tools."""

import json

import pytest

from alignjax import evaluation
from alignjax.types import InputError


def write(tmp_path, *records):
  path = tmp_path / 'b.jsonl'
  path.write_text(''.join(json.dumps(r) + '\n' for r in records))
  return path


def test_the_likeliest_choice_is_counted_by_sum_and_by_token(tmp_path):
  path = write(
      tmp_path, {'input': 'q', 'target_scores': {'short': 0, 'long one': 1}},
      {'prompt': 'r', 'choices': ['a', 'b', 'c'], 'answer': 0, 'subset': 'x'})
  questions = evaluation.read_choices(path)
  found = evaluation.choice_accuracy(
      questions, [[-1.0, -2.0], [-1.0, -2.0, -3.0]], [[1, 4], [1, 1, 1]])
  assert found['accuracy'] == 0.5 and found['accuracy_by_token'] == 1
  assert found['by_group'] == {'x': 1.0} and found['count'] == 2
  assert found['accuracy_interval'] == pytest.approx([0.0126, 0.9874], abs=1e-4)


def test_word_problems_are_matched_by_their_last_number(tmp_path):
  path = write(tmp_path, {'question': 'q', 'answer': 'so\n#### 1,200'},
               {'question': 'r', 'answer': '#### 7'})
  problems = evaluation.read_problems(path)
  assert problems == [('q', 1200.0), ('r', 7.0)]
  found = evaluation.exact_match(problems, ['It is $1200.', 'none'])
  assert found['exact_match'] == 0.5


def test_subsets_of_pairs_weigh_alike_in_their_mean(tmp_path):
  path = write(tmp_path, *[
      {'prompt': 'p', 'chosen': 'a', 'rejected': 'b', 'subset': subset}
      for subset in 'xxxy'])
  found = evaluation.subset_accuracy(
      evaluation.read_pairs(path), [1, 1, 1, 0], [0, 0, 0, 0])
  assert found['accuracy'] == 0.875  # The tie counts half.
  assert found['mean_of_subsets'] == 0.75
  assert found['subsets'] == {'x': 1.0, 'y': 0.5}


@pytest.mark.parametrize('read, record, says', [
    (evaluation.read_choices, {'prompt': 'p', 'choices': ['a']}, 'answer'),
    (evaluation.read_choices, {'prompt': 'p', 'choices': ['a', 'b'],
                               'answer': 2}, 'right'),
    (evaluation.read_choices, {'input': 'p', 'target_scores': {
        'a': 0, 'b': 0}}, 'right'),
    (evaluation.read_problems, {'question': 'q', 'answer': 'none'}, 'number'),
    (evaluation.read_pairs, {'prompt': 'p', 'chosen': 'c'}, 'rejected'),
    (evaluation.read_instructions, {'prompt': 'p', 'kwargs': [{}],
                                    'instruction_id_list': ['x:y']}, 'x:y')])
def test_a_bad_row_is_named_with_its_line(read, record, says, tmp_path):
  path = write(tmp_path, record)
  with pytest.raises(InputError, match=says) as caught:
    read(path)
  assert f'{path}:1' in str(caught.value)


def test_alpaca_eval_reads_preferences_of_one_to_two():
  rows = evaluation.alpaca_annotations(
      ['p'] * 3, ('base', ['x'] * 3), ('mine', ['y'] * 3), [1, 0.5, 0], 'gold')
  assert [row['preference'] for row in rows] == [2, 1.5, 1]
  assert (rows[0]['generator_1'], rows[0]['output_2']) == ('base', 'y')
  assert evaluation.alpaca_outputs(['p'], ['y'], 'mine') == [
      {'instruction': 'p', 'output': 'y', 'generator': 'mine'}]


def test_lm_eval_reads_metrics_with_their_errors():
  found = evaluation.lm_eval_results('m', {'gsm8k': {
      'exact_match': 0.5, 'exact_match_interval': [0.402, 0.598], 'count': 100}
      })
  row = found['results']['gsm8k']
  assert row['exact_match,none'] == 0.5
  assert row['exact_match_stderr,none'] == pytest.approx(0.05)
  assert found['n-samples']['gsm8k']['effective'] == 100
