"""Every method's script, for two steps on the testbed."""

import importlib
import json
import math
import pathlib

import numpy as np
import pytest

from alignjax import sources
from alignjax import testbed
from experiments import preferences
from experiments import reward

SIZES = dict(batch_size=16, max_length=48, num_steps=2)
GROUPS = SIZES | dict(max_new_tokens=16)
LOG_TWO = math.log(2)

# Scripts that share all code but their objective are run once a kind; that each
# binds its paper's loss and advantages, pairs_test and online_test check.

# What the first loss is, by its paper, at the reference.
PAIRS = {
    'ipo': (dict(beta=0.5), 1 / (4 * 0.5**2)),
    'exo': (dict(label_smoothing=0.01),
            (math.log(0.5 / 0.99) + math.log(0.5 / 0.01)) / 2),
    'f_dpo': (dict(divergence='js'), LOG_TWO),
    'simpo': ({}, None),
}
ONLINE = ('grpo', 'gspo', 'reinforce', 'online_dpo')
# Pairs come of whole groups: 4 responses, 2 minibatches and 8 shards.
BATCH_SIZES = {'online_dpo': 64}
# One of each kind runs to its end and is judged, for all share that code; the
# rest are marked slow, and train.
FAST = 'ipo', 'grpo'


def each(names):
  """Parameters of which all but the fast ones are marked slow."""
  return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow)
          for name in names]


@pytest.fixture(scope='module')
def made(base, tmp_path_factory):
  """Pairs that the base model wrote, and a reward model of two steps."""
  root = tmp_path_factory.mktemp('made')
  pairs, _ = preferences.stage(preferences.Config(
      workdir=str(root / 'pairs'), model=base, num_prompts=16,
      num_test_prompts=8, batch_size=64))
  return {'pairs': pairs, 'reward': reward.stage(reward.Config(
      workdir=str(root / 'reward'), model=base, data=pairs, num_held_out=8,
      **SIZES))}


def run(name, workdir, entry='main', **settings):
  """Runs a script; returns the folder of its model."""
  script = importlib.import_module(f'experiments.{name}')
  return getattr(script, entry)(
      script.Config(workdir=str(workdir), **settings))


@pytest.mark.parametrize('name', each(PAIRS))
def test_a_method_on_pairs_trains_and_is_judged(
    name, base, made, tmp_path, left):
  settings, first_loss = PAIRS[name]
  run(name, tmp_path / name, 'main' if name in FAST else 'stage', model=base,
      data=made['pairs'], num_held_out=8, **SIZES, **settings)
  done = left(tmp_path / name)
  measured = done.summary
  if name in FAST:
    assert done.is_whole
    assert done.summary['models'].keys() == {'sft', name}
    assert 0 <= done.summary['models'][name]['gold'] <= 1
    measured = done.summary[name]
  losses = [row['loss'] for row in done.rows(name)]
  assert len(losses) == 2 and losses[0] != losses[1]
  if first_loss is not None:
    np.testing.assert_allclose(losses[0], first_loss, rtol=1e-5)
  assert measured['held_out_pairs'] == 8
  assert {'loss', 'accuracy', 'margin'} <= measured['held_out'].keys()
  assert measured['trained']['loss'] < np.mean(losses)


def test_kto_starts_at_half_of_its_weights(base, made, tmp_path, left):
  """The reference's KL to itself is 0, and so is each log-ratio."""
  run('kto', tmp_path / 'kto', model=base, data=made['pairs'],
      desirable_weight=1.2, undesirable_weight=1.2, **SIZES)
  done = left(tmp_path / 'kto')
  assert done.is_whole
  assert 0 <= done.summary['models']['kto']['gold'] <= 1
  rows = done.rows('kto')
  np.testing.assert_allclose(rows[0]['loss'], 0.6, rtol=1e-5)
  assert rows[0]['kl'] == 0 and rows[1]['loss'] != rows[0]['loss']
  counts = done.summary['kto']
  assert counts['desirable'] == counts['undesirable'] > 0


@pytest.mark.slow
def test_kto_weighs_the_smaller_class_up(base, made, tmp_path, left):
  lines = pathlib.Path(made['pairs']).read_text().splitlines()
  records = [json.loads(line) for line in lines[:8]]
  path = sources.write_jsonl(tmp_path / 'labels.jsonl', [
      {'prompt': r['prompt'], 'response': r[side], 'label': label}
      for i, r in enumerate(records)
      for side, label in (('chosen', True), ('rejected', False))
      if label or i < 4])
  run('kto', tmp_path / 'kto', 'stage', model=base, data=path, **SIZES)
  counts = left(tmp_path / 'kto').summary
  assert (counts['desirable'], counts['undesirable']) == (8, 4)
  assert counts['desirable_weight'] == 1.0
  np.testing.assert_allclose(counts['undesirable_weight'], 1.5)


@pytest.mark.parametrize('name', each(ONLINE))
def test_an_online_method_trains_and_is_judged(
    name, base, made, tmp_path, left):
  run(name, tmp_path / name, 'main' if name in FAST else 'stage', model=base,
      reward_model=made['reward'],
      **GROUPS | {'batch_size': BATCH_SIZES.get(name, 16)})
  done = left(tmp_path / name)
  rows = done.rows(name)
  assert {'gold', 'reward', 'length', 'entropy'} <= rows[0].keys()
  assert rows[0]['kl'] == 0.0 != rows[1]['kl']
  assert max(row['decode_gap'] for row in rows) < 1e-3
  if name in FAST:
    assert done.is_whole
    models = done.summary['models']
    assert models.keys() == {'sft', name}
    assert 0 <= models[name]['gold'] <= 1 and models[name]['proxy'] != 0
    (curve,) = done.summary['curves'].values()  # As that of PPO.
    assert curve[-1].keys() == {'step', 'kl', 'proxy', 'gold'}


@pytest.mark.slow
@pytest.mark.parametrize('settings', [
    dict(sft_coef=0.5), dict(tail=0.5), dict(wpo=True),
    dict(reference_free=True)], ids=lambda s: next(iter(s)))
def test_dpos_flags_change_what_it_starts_at_as_they_say(
    settings, base, made, tmp_path, left):
  run('dpo', tmp_path / 'dpo', 'stage', model=base, data=made['pairs'],
      num_held_out=8, beta=0.5, **SIZES, **settings)
  first, second = left(tmp_path / 'dpo').rows('dpo')
  assert first['loss'] != second['loss']
  if 'reference_free' in settings:
    assert abs(first['margin']) > 1e-3 and first['loss'] != LOG_TWO
  elif 'wpo' in settings:
    assert 0 < first['loss'] < LOG_TWO
  else:
    np.testing.assert_allclose(
        first['loss'] - settings.get('sft_coef', 0.0) * first['sft_loss'],
        LOG_TWO, rtol=1e-5)


@pytest.mark.parametrize('name, layout', [
    ('kto', 'packed'), pytest.param('grpo', 'packed', marks=pytest.mark.slow),
    *(pytest.param(name, 'branched', marks=pytest.mark.slow)
      for name in ('dpo', 'grpo'))])
def test_a_layout_changes_no_number_of_a_run(
    name, layout, base, made, tmp_path, left):
  settings = dict(model=base, num_steps=2, batch_size=32, max_length=48)
  if name == 'grpo':  # One minibatch, so that it holds the same under both.
    settings |= dict(reward_model=made['reward'], max_new_tokens=16,
                     num_minibatches=1, min_ended=0.0)
  else:
    settings |= dict(data=made['pairs'])
  metrics = []
  for kind in ('padded', layout):
    run(name, tmp_path / kind, 'stage', layout=kind, **settings)
    metrics.append(left(tmp_path / kind).rows(name))
  for padded, got in zip(*metrics, strict=True):
    for key in padded.keys() - {'stage', 'accuracy'}:
      np.testing.assert_allclose(
          got[key], padded[key], rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.slow
def test_grpo_scores_a_foreign_model_by_the_answers_of_a_file(
    foreign, tmp_path, left):
  shown = testbed.demonstrations(sources.WORLD, 0, count=40)
  path = sources.write_jsonl(tmp_path / 'q.jsonl', [
      {'question': prompt.text, 'answer': f'{text}\n#### {1 + i % 5}'}
      for i, (prompt, text) in enumerate(shown)])
  run('grpo', tmp_path / 'grpo', model=foreign.model, data=path,
      reward='gsm8k', importance_cap=2.0, **GROUPS | dict(
          max_new_tokens=8, min_ended=0.0))
  done = left(tmp_path / 'grpo')
  assert done.is_whole
  models = done.summary['models']
  assert models.keys() == {'sft', 'grpo'} and 'proxy' not in models['grpo']
  assert done.summary['grpo']['prompts'] == 40
  # Sixteen responses, each worth 0 or 1.
  assert {row['reward'] * 16 for row in done.rows('grpo')} <= set(range(17))
  assert not (tmp_path / 'grpo' / 'reward').exists()


@pytest.mark.slow
def test_without_a_reward_model_one_is_trained_first(foreign, tmp_path, left):
  run('rloo', tmp_path / 'rloo', model=foreign.model, data=foreign.pairs,
      reward_steps=1, **GROUPS | dict(
          max_new_tokens=8, min_ended=0.0))
  assert left(tmp_path / 'rloo').is_whole
  assert left(tmp_path / 'rloo' / 'reward').summary['held_out_pairs'] == 10
  assert 'proxy' in left(tmp_path / 'rloo').summary['models']['rloo']
