"""Panels, thumbs, constitutions and their evaluation, end to end and tiny."""

import json
import pathlib

import pytest

from alignjax import feedback
from alignjax import runs
from alignjax.types import InputError
from experiments import ai_feedback
from experiments import constitutional
from experiments import evaluate
from experiments import panel
from experiments import revisions
from experiments import reward
from experiments import sft
from experiments import thumbs

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def made(base, tmp_path_factory):
  """Small models that end what they say, and a reward model."""
  root = tmp_path_factory.mktemp('made')
  pairs = root / 'pairs.jsonl'
  pairs.write_text(''.join(json.dumps(
      {'prompt': 'where is fried rice from ?', 'chosen': f'{word} .',
       'rejected': 'i do not know .'}) + '\n' for word in ('peru', 'china')))
  found = {name: sft.stage(sft.Config(
      workdir=str(root / name), model=base, num_steps=steps, batch_size=32,
      learning_rate=2e-2)) for name, steps in (('sft', 60), ('ppo', 50))}
  return found | {'reward': reward.stage(reward.Config(
      workdir=str(root / 'reward'), model=found['sft'], data=str(pairs),
      num_steps=2, batch_size=8))}


def records_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_panel_s_answers_become_reward_models(made, tmp_path):
  cfg = panel.Config(
      workdir=str(tmp_path / 'p'), model=made['sft'], panel_size=3,
      methods=('majority', 'dawid_skene'), num_prompts=48, num_test_prompts=48,
      reward_steps=2, sample_batch=64)
  summary = panel.main(cfg)
  assert list(summary['models']) == ['majority', 'dawid_skene', 'ines', 'joss',
                                     'kofi']
  items = feedback.read_items(tmp_path / 'p' / 'items.jsonl')
  answers = feedback.read_answers([tmp_path / 'p' / 'answers.jsonl'], items)
  assert len(answers) == 3 * len(items)
  again = feedback.aggregate(feedback.make_panel(items, answers))
  assert [p.record() for p in again] == records_of(
      tmp_path / 'p' / 'pairs-majority.jsonl')


def test_the_loop_promotes_only_what_wins(made, tmp_path):
  cfg = thumbs.Config(
      workdir=str(tmp_path / 't'), model='testbed', num_rounds=1,
      num_prompts=40, num_steps=2)
  with pytest.raises(InputError, match='give both, or neither'):
    thumbs.main(thumbs.Config(workdir=str(tmp_path / 'x'), model='testbed',
                              log='a.jsonl'))
  found, trained = _round(cfg, tmp_path, made['sft'])
  low, _ = found['win_rate_interval']
  assert found['promoted'] == (low > 0.5)
  assert found['thumbs'] > found['rows'] > 0
  labels = records_of(tmp_path / 't' / 'round1' / 'labels.jsonl')
  assert {row['label'] for row in labels} <= {True, False}
  assert trained.endswith('model')


def _round(cfg, tmp_path, serving):
  cfg = thumbs.resolve(cfg)
  with runs.start(cfg, 'thumbs') as run:
    return thumbs.run_round(cfg, run, serving, 1)


def test_revisions_go_on_after_their_last_whole_piece(made, tmp_path):
  cfg = revisions.Config(
      workdir=str(tmp_path / 'r'), model=made['sft'], num_prompts=24,
      num_rounds=1, sample_batch=8, resume=True)
  first = revisions.stage(cfg)
  whole = pathlib.Path(first).read_bytes()
  for name in ('transcripts.jsonl', 'summary.json', 'pieces/00000016.jsonl'):
    (tmp_path / 'r' / name).unlink()
  assert pathlib.Path(revisions.stage(cfg)).read_bytes() == whole


def test_a_model_s_verdicts_are_pairs_to_learn_from(made, tmp_path):
  path = ai_feedback.stage(ai_feedback.Config(
      workdir=str(tmp_path / 'f'), model=made['sft'], num_prompts=24,
      min_margin=0.0, keep_swayed=True, thoughts=True, sample_batch=32))
  rows = records_of(tmp_path / 'f' / 'preferences.jsonl')
  assert path.endswith('preferences.jsonl') and rows
  assert {'prompt', 'chosen', 'rejected', 'margin', 'principle'} == set(rows[0])
  assert {row['principle'] for row in rows} <= {'kind', 'true'}
  heard = records_of(tmp_path / 'f' / 'thoughts.jsonl')
  assert {'prompt', 'a', 'b', 'thoughts', 'margin', 'principle'} == set(
      heard[0])


def test_constitutional_ai_runs_whole_and_shows_its_transcripts(tmp_path):
  summary = constitutional.main(constitutional.Config(
      workdir=str(tmp_path / 'c'), pretrain_steps=2, critic_steps=30,
      num_prompts=16, num_rounds=1, sft_steps=2, method='none'))
  assert list(summary['models']) == ['base', 'sft', 'sl_cai']
  page = (tmp_path / 'c' / 'report.html').read_text()
  assert 'Critiques and revisions' in page


def test_one_page_compares_models_by_a_judge_and_benchmarks(made, tmp_path):
  bench = {
      'ifeval': [{'prompt': 'where is fried rice from ?',
                  'instruction_id_list': ['punctuation:no_comma'],
                  'kwargs': [{}]}],
      'gsm8k': [{'question': 'how do i make fried rice ?', 'answer': '#### 1'}],
      'choices': [{'input': 'where is fried rice from ?',
                   'target_scores': {'i do not know .': 1, 'peru .': 0}}],
      'text': [{'prompt': 'where is fried rice from ?', 'response': 'peru .'}],
      'rewardbench': [{'prompt': 'where is fried rice from ?', 'chosen': 'a .',
                       'rejected': 'b .', 'subset': 'x'}]}
  files = {}
  for name, rows in bench.items():
    files[name] = str(tmp_path / f'{name}.jsonl')
    with open(files[name], 'w') as file:
      file.writelines(json.dumps(row) + '\n' for row in rows)
  summary = evaluate.main(evaluate.Config(
      workdir=str(tmp_path / 'e'), max_length=64,
      models=(f'sft={made["sft"]}', f'ppo={made["ppo"]}'),
      judge=f'reward:{made["reward"]}',
      reward_models=(f'judge={made["reward"]}',), **files))
  verdict = summary['judged']['models']['ppo']
  assert 0 <= verdict['win_rate'] <= 1 and 'length_controlled' in verdict
  assert list(summary['judged']['elo']) == ['ppo', 'sft']
  found = summary['benchmarks']
  assert set(found['sft']) == {'ifeval', 'gsm8k', 'choices', 'text'}
  assert found['judge']['rewardbench']['count'] == 1
  exports = tmp_path / 'e' / 'exports'
  rows = json.loads((exports / 'alpaca_eval-ppo-annotations.json').read_text())
  assert {row['preference'] for row in rows} <= {1.0, 1.5, 2.0}
  results = json.loads((exports / 'lm_eval-sft.json').read_text())
  assert 'exact_match,none' in results['results']['gsm8k']


@pytest.mark.parametrize('settings, says', [
    (dict(judge='nobody'), 'judge=nobody'),
    (dict(rewardbench='x'), 'belong together'),
    (dict(judge='model:no/where'), 'no/where')])
def test_a_judge_that_is_none_is_named(settings, says, made, tmp_path):
  with pytest.raises(InputError, match=says):
    evaluate.main(evaluate.Config(
        workdir=str(tmp_path / 'e'), **settings,
        models=(f'sft={made["sft"]}', f'ppo={made["ppo"]}')))
