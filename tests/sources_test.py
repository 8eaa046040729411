"""Rows come from files; the testbed's are written to one and read back."""

import dataclasses
import io
import json
import re

import jax
import numpy as np
import pytest

from alignjax import data
from alignjax import metrics
from alignjax import runs
from alignjax import sources
from alignjax import testbed
from alignjax import types
from alignjax.models import config
from alignjax.models import rope
from alignjax.types import InputError

TOKENIZER = sources.testbed_tokenizer()
PLAIN = config.ModelConfig(
    vocab_size=8, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=2, head_dim=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of a run that reads."""

  max_length: int = 48


@pytest.fixture
def run(tmp_path):
  """An open run."""
  with runs.start(Config(workdir=str(tmp_path / 'run')), 'sft') as run:
    yield run


def test_the_testbeds_demonstrations_lie_in_the_workdir_and_fit(run):
  said = io.StringIO()
  run = dataclasses.replace(run, console=metrics.Console(stream=said))
  rows = sources.demonstration_rows(run, Config(workdir='w'), TOKENIZER)
  lines = (run.workdir / 'demonstrations.jsonl').read_text().splitlines()
  assert len(rows) == len(lines) == 480
  first = json.loads(lines[0])
  tokens = rows[0].tokens.tolist()
  assert TOKENIZER.decode(tokens[rows[0].prompt_length:]).strip() == (
      first['response'])
  lengths = [len(r.tokens) - r.prompt_length for r in rows]
  assert max(lengths) <= sources.RESPONSE_TOKENS
  assert '480 demonstrations from demonstrations.jsonl' in said.getvalue()


def talk(run):
  """A file of one conversation, whose rows both readers of SFT can take."""
  says = lambda role, content: {'role': role, 'content': content}
  return sources.write_jsonl(run.workdir / 'talk.jsonl', [{'source': 'a', (
      'messages'): [says('user', 'what'), says('assistant', 'china .'),
                    says('user', 'where'), says('assistant', 'how .')]}])


def test_all_turns_of_a_conversation_bear_loss_where_a_template_ends_them(run):
  cfg = Config(workdir='w', data=talk(run))
  words = lambda row: TOKENIZER.decode(row.tokens[row.loss_mask])
  (row,) = sources.demonstration_rows(run, cfg, TOKENIZER, turns='all')
  assert words(row).split() == ['china', '.', 'how', '.']
  assert np.sum(row.tokens[row.loss_mask] == TOKENIZER.eos_id) == 2
  ((_, named),) = sources.classified_rows(
      run, cfg, TOKENIZER, ['a'], turns='all')
  assert words(named) == words(row)
  bare = dataclasses.replace(TOKENIZER, chat_template=None)
  for settings in (dict(tokenizer=bare, turns='all'),
                   dict(tokenizer=TOKENIZER, turns='last')):
    (row,) = sources.demonstration_rows(run, cfg, **settings)
    assert row.loss_mask is None


@pytest.mark.parametrize('split', ['train', 'test'])
def test_every_prompt_of_a_split_fits_its_width(split):
  prompts, rows = sources.testbed_prompts(split, None, 0, TOKENIZER)
  assert len(prompts) == len(rows) > 400
  assert max(len(row.tokens) for row in rows) <= sources.PROMPT_TOKENS


def test_prompts_keep_the_place_of_their_record(run, tmp_path):
  path = tmp_path / 'p.jsonl'
  prompts = ['how', 'how do i ' * 9, 'what']
  sources.write_jsonl(path, [{'prompt': p} for p in prompts])
  cfg = Config(workdir='w', long_prompts='drop')
  records, rows = sources.prompt_rows(
      run, cfg, TOKENIZER, str(path), max_length=8)
  assert [records[row.prompt_id].prompt for row in rows] == ['how', 'what']


def make_trajectory(rows, texts):
  """Responses to the prompts of these rows; what is over is filler."""
  batch = next(data.prompt_batches(
      rows, batch_size=len(texts), max_length=16, shuffle=False))
  responses = [TOKENIZER.response_tokens(text) for text in texts]
  shape = len(texts), max(map(len, responses))
  tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
  for i, response in enumerate(responses):
    tokens[i, :len(response)], mask[i, :len(response)] = response, True
  mask[len(rows):] = False
  none = np.zeros_like(batch.attention_mask)
  return types.Trajectory(
      tokens=np.concatenate([batch.tokens, tokens], 1),
      attention_mask=np.concatenate([batch.attention_mask, mask], 1),
      response_mask=np.concatenate([none, mask], 1), weight=batch.weight,
      sampler_logprobs=None)


def test_the_gold_judge_watches_the_real_rows(run):
  """A good answer, a bad one, and a filler row."""
  rows, observe = sources.ppo_prompts(
      run, Config(workdir='w'), TOKENIZER, sources.PROMPT_TOKENS)
  prompts, _ = sources.testbed_prompts('train', len(rows), 0, TOKENIZER)
  texts = [testbed.perfect_response(sources.WORLD, prompts[0]), 'hello', '']
  trajectory = make_trajectory(rows[:2], texts)
  gold = observe(trajectory)['gold']
  expected = sum(
      testbed.judge(sources.WORLD, p, t, complete=True).gold
      for p, t in zip(prompts, texts[:2], strict=False))
  assert gold.weight == 2 and expected > 0.5
  np.testing.assert_allclose(jax.device_get(gold.total), expected)


def test_a_file_of_prompts_has_no_judge(run, tmp_path):
  path = sources.write_jsonl(tmp_path / 'p.jsonl', [{'prompt': 'how'}])
  cfg = dataclasses.replace(Config(workdir='w'), data=path)
  rows, observe = sources.ppo_prompts(run, cfg, TOKENIZER, 16)
  assert len(rows) == 1 and observe is None


# --- What is read of the rows.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig(runs.BatchConfig):
  """Settings of a run that trains on rows."""

  max_length: int = 48
  batch_size: int = 16


def test_a_run_says_how_full_the_rows_are_and_goes_on_at_any_step(run):
  said = io.StringIO()
  run = dataclasses.replace(run, console=metrics.Console(stream=said))
  rows = sources.demonstration_rows(run, Config(workdir='w'), TOKENIZER)
  streams = [sources.batches(
      run, BatchConfig(workdir='w', layout=layout), PLAIN,
      data.demonstration_batches, rows) for layout in ('padded', 'packed')]
  padded, packed = (next(stream(3)) for stream in streams)
  assert packed.tokens.shape == (8, 2, 48)  # A cell for each of the devices.
  np.testing.assert_array_equal(packed.tokens.reshape(16, 48), padded.tokens)
  full = r'rows of 48 tokens, \d\d% real'
  assert re.search(f'padded: 16 {full}\n', said.getvalue())
  assert re.search(rf'packed: \d+ {full}, instead of 16 of 48, \d\d% real\n',
                   said.getvalue())


def test_rows_that_a_model_would_read_as_a_whole_are_not_shared():
  long_rope = rope.LongRope(
      short=(1.0,) * 4, long=(2.0,) * 4, original_length=32,
      attention_factor=1.0)
  for model in (
      dataclasses.replace(PLAIN, attention=(
          config.Attention(rope=rope.Rope(scaling=long_rope)),)),
      dataclasses.replace(PLAIN, learned_positions=True, max_positions=32)):
    sources.check_layout(BatchConfig(workdir='w'), model)
    sources.check_layout(
        BatchConfig(workdir='w', layout='packed', max_length=32), model)
    with pytest.raises(InputError, match=(
        r'layout=packed with max_length=48: this model reads rows past 32 '
        r'tokens .* max_length=32 or less, or layout=padded')):
      sources.check_layout(BatchConfig(workdir='w', layout='packed'), model)


# --- Rewards by rule.


def verified(run, tmp_path, answers, **settings):
  """(rows, reward) of a file of questions, by question."""
  path = sources.write_jsonl(tmp_path / 'q.jsonl', [
      {'question': question, 'answer': answer} for question, answer in answers])
  cfg = dataclasses.replace(Config(workdir='w'), data=path, **settings)
  return sources.verified_prompts(run, cfg, TOKENIZER, 16)


def test_a_response_that_ends_on_the_answers_number_is_worth_one(
    run, tmp_path):
  rows, reward = verified(run, tmp_path, [
      ('how', '2 and 1 make\n#### 3'), ('what', '#### 5'), ('what is', '4')])
  assert [row.prompt_id for row in rows] == [0, 1, 2]
  for texts, due in ((['1 2 3', 'it is 3', '4'], [1, 0, 1]),
                     (['it is 5', '5', 'it is 5 4 3'], [0, 1, 0]),
                     (['3 2', 'how', ''], [0, 0, 0])):
    got = reward(make_trajectory(rows, texts))
    np.testing.assert_array_equal(got, due)
    assert got.dtype == np.float32


def test_filler_is_worth_nothing_and_the_order_of_rows_does_not_matter(
    run, tmp_path):
  rows, reward = verified(run, tmp_path, [('how', '3'), ('what', '5')])
  texts = ['5', '3', '3', '3']  # For "what", for "how", and for nobody.
  np.testing.assert_array_equal(
      reward(make_trajectory(rows[::-1], texts)), [1, 1, 0, 0])


def test_a_question_that_is_asked_twice_is_judged_each_time(run, tmp_path):
  rows, reward = verified(
      run, tmp_path, [('how', '#### 3'), ('what', '5'), ('how', 'so: 3')])
  assert [row.prompt_id for row in rows] == [0, 1, 2]
  np.testing.assert_array_equal(
      reward(make_trajectory(rows, ['3', '3', '3'])), [1, 0, 1])


def test_a_question_without_an_answer_is_not_asked(run, tmp_path):
  rows, reward = verified(
      run, tmp_path, [('how', ' '), ('what', '5')], max_dropped=0.5)
  assert [row.prompt_id for row in rows] == [1]
  np.testing.assert_array_equal(reward(make_trajectory(rows, ['5'])), [1])


# --- What was read, in the run's summary.


PAIRS = [
    {'prompt': 'how', 'chosen': '1 2', 'rejected': '3'},
    {'prompt': 'how', 'chosen': '1 2', 'rejected': '3'},    # Again.
    {'prompt': 'what', 'chosen': '1', 'rejected': '3'},
    {'prompt': 'what', 'chosen': '3', 'rejected': '1'},     # The contrary.
    {'prompt': 'is', 'chosen': '1', 'rejected': ' '},
    {'prompt': 'is', 'chosen': '1', 'rejected': None},
    {'prompt': 'is ' * 20, 'chosen': '1', 'rejected': '2'},
]


def read_pairs(run, tmp_path, **settings):
  """(rows, what the summary says of the file, what was printed)."""
  said = io.StringIO()
  run = dataclasses.replace(run, console=metrics.Console(stream=said))
  path = sources.write_jsonl(tmp_path / 'p.jsonl', PAIRS)
  cfg = dataclasses.replace(
      Config(workdir='w'), max_dropped=0.5, on_bad_record='skip', **settings)
  rows = sources.preference_rows(run, cfg, TOKENIZER, path)
  (told,) = run.finish({})['data']
  return rows, told, said.getvalue()


def test_the_summary_has_every_record_of_a_file(run, tmp_path):
  rows, told, said = read_pairs(run, tmp_path)
  assert (told['records'], told['kept'], told['pairs']) == (7, 5, 5)
  path = f"{tmp_path / 'p.jsonl'}"
  assert told['dropped'] == {
      'empty response': {'count': 1, 'first': [f'{path}:5']},
      'wrong type': {'count': 1, 'first': [f'{path}:6']}}
  assert told['shape'] == 'prompt/chosen/rejected' and told['path'] == path
  assert told['kept_repetitions'] == {'duplicate': 1, 'reversed pair': 2}
  assert told['fitted'] == {
      'max_length': 48, 'rows': 5, 'cut_responses': 0, 'cut_prompts': 0,
      'dropped': {}}
  assert len(rows) == 5
  assert 'kept 1 duplicate; kept 2 reversed pair' in said


def test_repetitions_are_dropped_when_asked_and_said(run, tmp_path):
  rows, told, said = read_pairs(run, tmp_path, duplicates='drop')
  assert len(rows) == told['pairs'] == 2
  dropped = {name: each['count'] for name, each in told['dropped'].items()}
  assert dropped == {'empty response': 1, 'wrong type': 1}
  assert told['records'] == told['kept'] + sum(dropped.values()) == 7
  assert told['dropped_repetitions'] == {'duplicate': 1, 'reversed pair': 2}
  assert told['kept_repetitions'] == {}
  assert '1 duplicate (line 2)' in said and '2 reversed pair' in said


def test_rows_that_repeat_leave_the_account_of_records_whole(run, tmp_path):
  pair = {'prompt': 'how', 'chosen': '1 2', 'rejected': '3'}
  path = sources.write_jsonl(tmp_path / 'p.jsonl', [
      pair, pair | {'rejected': '4'}])
  cfg = dataclasses.replace(Config(workdir='w'), duplicates='drop')
  rows = sources.unpaired_rows(run, cfg, TOKENIZER, path)
  (told,) = run.finish({})['data']
  assert len(rows) == told['labeled responses'] == 3
  assert (told['records'], told['kept'], told['dropped']) == (2, 2, {})
  assert told['dropped_repetitions'] == {'duplicate': 1}


@pytest.mark.parametrize('duplicates, kept', [('keep', 2), ('drop', 1)])
def test_prompts_that_are_in_the_test_file_too_are_counted_or_dropped(
    run, tmp_path, duplicates, kept):
  rows = [PAIRS[0], PAIRS[2]]
  path = sources.write_jsonl(tmp_path / 'train.jsonl', rows)
  test_path = sources.write_jsonl(tmp_path / 'test.jsonl', [
      {'prompt': 'How ', 'chosen': '2', 'rejected': '1'}])
  cfg = Config(workdir='w', duplicates=duplicates)
  got = sources.preference_rows(
      run, cfg, TOKENIZER, path, test_path=test_path)
  assert len(got) == kept
  (told,) = run.finish({})['data']
  found = {'also in test': 1}
  assert told['kept_repetitions'] == (found if duplicates == 'keep' else {})
  assert told['dropped_repetitions'] == (found if duplicates == 'drop' else {})
  assert (told['records'], told['kept'], told['dropped']) == (2, 2, {})


def test_long_rows_are_in_the_summary_too(run, tmp_path):
  rows, told, _ = read_pairs(
      run, tmp_path, max_length=16, long_prompts='drop')
  assert told['pairs'] == 5 and len(rows) == 4
  assert told['fitted'] == {
      'max_length': 16, 'rows': 4, 'cut_responses': 0, 'cut_prompts': 0,
      'dropped': {'long prompt': 1}}


@pytest.mark.parametrize('label', [True, False])
def test_labels_of_one_class_are_refused(run, tmp_path, label):
  path = sources.write_jsonl(tmp_path / 'p.jsonl', [
      {'prompt': 'how', 'response': r, 'label': label} for r in '12'])
  with pytest.raises(InputError, match=(
      f"'label' is {str(label).lower()} in all 2 rows.*of both; add some")):
    sources.unpaired_rows(run, Config(workdir='w'), TOKENIZER, path)


def test_the_split_of_a_folder_is_the_one_that_is_asked_for(run, tmp_path):
  for split, prompt in (('train', 'how'), ('test', 'what')):
    sources.write_jsonl(tmp_path / f'{split}.jsonl', [{'prompt': prompt}])
  for split, prompt in (('train', 'how'), ('test', 'what')):
    cfg = Config(workdir='w', split=split)
    records, _ = sources.prompt_rows(
        run, cfg, TOKENIZER, str(tmp_path), max_length=8)
    assert [record.prompt for record in records] == [prompt]


def test_labels_and_rankings_come_from_a_file_of_pairs(run, tmp_path):
  said = io.StringIO()
  run = dataclasses.replace(run, console=metrics.Console(stream=said))
  path = sources.write_jsonl(tmp_path / 'p.jsonl', [
      {'prompt': 'how', 'chosen': '1 2', 'rejected': '3'}])
  cfg = Config(workdir='w')
  labels = sources.unpaired_rows(run, cfg, TOKENIZER, path)
  (ranking,) = sources.ranking_rows(run, cfg, TOKENIZER, path)
  assert [label.desirable for label in labels] == [True, False]
  assert ranking.ranks == (0, 1)
  for row, label in zip(ranking.rows, labels, strict=True):
    np.testing.assert_array_equal(row.tokens, label.row.tokens)
  assert '2 labeled responses from p.jsonl' in said.getvalue()
  assert '1 rankings from p.jsonl' in said.getvalue()
