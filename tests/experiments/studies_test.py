"""Rankings, classes, and the studies that train several models."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from alignjax import evaluation
from alignjax import hf
from alignjax import runs
from alignjax import sources
from alignjax.types import InputError
from experiments import c_rlft
from experiments import compare
from experiments import evaluate
from experiments import margins
from experiments import preferences
from experiments import ranking
from experiments import reward
from experiments import sweep

pytestmark = pytest.mark.slow  # Each compiles several programs.

SIZES = dict(batch_size=16, max_length=48, num_steps=2)


@pytest.fixture(scope='module')
def pairs(base, tmp_path_factory):
  """(train, test) files of pairs that the base model wrote."""
  root = tmp_path_factory.mktemp('pairs')
  return preferences.stage(preferences.Config(
      workdir=str(root / 'pairs'), model=base, num_prompts=24,
      num_test_prompts=8, batch_size=64))


def lines(path):
  return [json.loads(line) for line in pathlib.Path(path).open()]


# --- Rankings.


def test_preferences_leave_the_rankings_that_the_pairs_come_from(pairs):
  ranked = lines(preferences.rankings_file(pairs[0]))
  by_prompt = {row['prompt']: row for row in ranked}
  for row in ranked:
    assert len(row['responses']) == len(row['ranks']) >= 2
    assert min(row['ranks']) == 0
  for pair in lines(pairs[0]):
    responses = by_prompt[pair['prompt']]['responses']
    assert {pair['chosen'], pair['rejected']} <= set(responses)
    assert pair['strength'] in (0, 1, 2, 3)


@pytest.mark.parametrize('plackett_luce', [False, True])
def test_a_reward_model_learns_from_rankings(
    base, pairs, tmp_path, left, plackett_luce):
  ranking.stage(ranking.Config(
      workdir=str(tmp_path / 'r'), model=base, test_data=pairs[1],
      data=str(preferences.rankings_file(pairs[0])),
      plackett_luce=plackett_luce, **SIZES))
  summary = left(tmp_path / 'r').summary
  assert summary['rankings'] > 8 and 0 <= summary['accuracy'] <= 1
  hf.load_reward_model(tmp_path / 'r' / 'model')


def test_pairs_are_rankings_of_two_and_held_out_without_a_test_file(
    base, pairs, tmp_path, left):
  ranking.main(ranking.Config(
      workdir=str(tmp_path / 'r'), model=base, data=pairs[0], num_held_out=8,
      **SIZES))
  summary = left(tmp_path / 'r').summary['ranking']
  assert summary['held_out_pairs'] == 8
  assert summary['rankings'] == len(lines(pairs[0])) - 8


def test_a_normalised_reward_model_scores_the_chosen_about_0_and_1(
    base, pairs, tmp_path, left):
  """InstructGPT's zero mean, and N(0, 1), where it was measured."""
  margin = {}
  for normalize in ('none', 'mean', 'standard'):
    workdir = tmp_path / normalize
    folder = reward.stage(reward.Config(
        workdir=str(workdir), model=base, data=pairs[0], test_data=pairs[1],
        normalize=normalize, margins='small', **SIZES))
    margin[normalize] = left(workdir).summary['mean_margin']
    assert (runs.read_reward_mean(folder) == 0) == (normalize == 'none')
  assert margin['mean'] == margin['none'] != margin['standard']


# --- Classes.


def test_c_rlft_saves_a_model_that_is_asked_for_its_first_class(
    base, tmp_path, left):
  folder = c_rlft.main(c_rlft.Config(
      workdir=str(tmp_path / 'c'), model=base, **SIZES))
  summary = left(tmp_path / 'c').summary
  classes = summary['c_rlft']['classes']
  assert classes['experts'] + classes['some'] == 480
  assert 0.2 < classes['experts'] / 480 < 0.4  # The testbed's good ones.
  asked = hf.load_tokenizer(folder).prompt_tokens('where is it from ?')
  plain = sources.testbed_tokenizer()
  assert asked == plain.prompt_tokens('experts where is it from ?')


def test_each_model_is_asked_by_its_own_template(
    base, tmp_path, monkeypatch):
  other = tmp_path / 'other'
  shutil.copytree(base, other)
  hf.condition(hf.load_tokenizer(base), 'experts ').save(other)
  lengths = []

  def sample(generate, params, prompts, **settings):
    lengths.append([len(row.tokens) for row in prompts])
    return sample_responses(generate, params, prompts, **settings)

  sample_responses = evaluation.sample_responses
  monkeypatch.setattr(evaluation, 'sample_responses', sample)
  evaluate.main(evaluate.Config(
      workdir=str(tmp_path / 'e'), models=(f'sft={base}', f'other={other}')))
  plain, conditioned = lengths
  assert conditioned == [length + 1 for length in plain]


def test_one_long_prompt_does_not_cost_a_class(base, tmp_path, left):
  rows = [{'prompt': 'how do i make rice ?', 'response': 'boil the rice .',
           'source': name} for name in ('good', 'poor') * 8]
  rows.append({'prompt': 'rice ' * 60, 'response': 'no .', 'source': 'good'})
  c_rlft.main(c_rlft.Config(
      workdir=str(tmp_path / 'c'), model=base, classes=('good=1', 'poor=0.5'),
      data=sources.write_jsonl(tmp_path / 'f.jsonl', rows), **SIZES))
  assert left(tmp_path / 'c').summary['c_rlft']['classes'] == {
      'good': 8, 'poor': 8}


# --- Studies.


def test_compare_gives_every_method_the_same_budget(
    base, pairs, tmp_path, monkeypatch):
  """The stages before the methods are the fixtures'."""
  judge = reward.stage(reward.Config(
      workdir=str(tmp_path / 'judge'), model=base, data=pairs[0],
      num_held_out=8, **SIZES))
  monkeypatch.setattr(compare.pretrain, 'stage', lambda cfg: base)
  monkeypatch.setattr(compare.sft, 'stage', lambda cfg: base)
  monkeypatch.setattr(compare.preferences, 'stage', lambda cfg: pairs)
  monkeypatch.setattr(compare.reward, 'stage', lambda cfg: judge)
  cfg = compare.Config(
      workdir=str(tmp_path / 'c'), methods=('dpo', 'kto', 'rloo'), budget=14,
      seeds=(0, 1), resume=True)
  summary = compare.main(cfg)
  assert list(summary['models']) == ['seed0', 'seed1']
  scores = summary['models']['seed1']
  assert list(scores) == ['base', 'sft', 'dpo', 'kto', 'rloo']
  for name in ('dpo', 'kto', 'rloo'):
    assert scores[name]['steps'] >= 1
    assert abs(scores[name]['cost'] - 14) <= 7  # To the nearest step.
  table = (tmp_path / 'c' / 'table.md').read_text().splitlines()
  assert len(table) == 2 + len(scores)
  assert '<svg' in (tmp_path / 'c' / 'report.html').read_text()
  assert compare.main(cfg) == json.loads(json.dumps(summary))


def test_a_sweep_scores_every_beta_and_seed(base, pairs, tmp_path):
  summary = sweep.main(sweep.Config(
      workdir=str(tmp_path / 's'), model=base, data=pairs[0], seeds=(0, 1),
      betas=(0.1, 1.0, 3.0), num_steps=2, batch_size=16))
  assert np.shape(summary['gold']) == (3, 2)
  assert len(summary['kl']) == 6 and min(summary['kl']) >= 0
  assert (tmp_path / 's' / 'members' / 'beta0.1_seed1').is_dir()


def certain(pairs, path):
  """The pairs, as if gold had an opinion on each; every other one is wrong."""
  return sources.write_jsonl(path, [
      pair | {'gold_margin': (-1) ** i} for i, pair in enumerate(lines(pairs))])


def test_margins_grow_and_gold_has_the_last_word(base, pairs, tmp_path):
  data = certain(pairs[0], tmp_path / 'certain.jsonl')
  summary = margins.main(margins.Config(
      workdir=str(tmp_path / 'm'), model=base, data=data, num_pairs=8,
      num_steps=8, learning_rate=1e-3))
  grown = list(summary['dpo'].values())
  assert grown == sorted(grown) and grown[0] > 0
  assert summary['ipo']['8'] > 0
  assert summary['target'] == 5.0
  given = {row['chosen'] for row in lines(data) if row['gold_margin'] > 0}
  turned = {row['rejected'] for row in lines(data) if row['gold_margin'] < 0}
  used = {row['chosen'] for row in lines(tmp_path / 'm' / 'certain.jsonl')}
  assert used <= given | turned and used & turned


def test_pairs_that_gold_ties_are_no_certain_preferences(
    base, pairs, tmp_path):
  tied = sources.write_jsonl(tmp_path / 'tied.jsonl', [
      pair | {'gold_margin': 0.0} for pair in lines(pairs[0])])
  with pytest.raises(InputError, match='gold_margin'):
    margins.main(margins.Config(
        workdir=str(tmp_path / 'm'), model=base, data=tied))
