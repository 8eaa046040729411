"""PPO's script: one base or four models, pretraining text, and bad input."""

import dataclasses
import json
import pathlib
import shutil
import types

import numpy as np
import pytest

from alignjax import hf
from alignjax import models
from alignjax import runs
from alignjax.types import InputError
from experiments import grpo
from experiments import ppo
from experiments import reward
from experiments import rollouts

pytestmark = pytest.mark.slow  # A dozen programs compile.

SIZES = dict(batch_size=16, max_length=48)
PPO = dict(max_new_tokens=16, num_steps=2, min_ended=0.0, **SIZES)
LORA = dict(lora_rank=2, lora_targets=('query', 'down'))


@pytest.fixture(scope='module')
def judge(foreign, tmp_path_factory) -> pathlib.Path:
  """Workdir of a reward model of adapters, which demonstrations score 0."""
  workdir = tmp_path_factory.mktemp('judge') / 'reward'
  reward.stage(reward.Config(
      workdir=str(workdir), model=foreign.model, data=foreign.pairs,
      num_steps=2, normalize='demonstrations',
      demonstrations=foreign.demonstrations, **SIZES, **LORA))
  return workdir


@pytest.fixture(scope='module')
def one_base(foreign, judge, tmp_path_factory) -> ppo.Config:
  """A run of four roles over one base."""
  cfg = ppo.Config(
      workdir=str(tmp_path_factory.mktemp('one') / 'ppo'), model=foreign.model,
      reward_model=str(judge / 'adapter'), data=foreign.demonstrations,
      save_every=1, **PPO, **LORA)
  ppo.main(cfg)
  return cfg


def test_four_roles_over_one_base_leave_a_model_and_its_adapters(
    one_base, judge, left):
  assert left(one_base.workdir).is_whole
  summary = left(one_base.workdir).summary
  rows = left(one_base.workdir).rows('ppo')
  assert rows[0]['kl'] == 0.0 != rows[1]['kl']
  held = summary['ppo']['parameter_bytes']
  roles = ('reference', 'policy', 'reward_model', 'value')
  assert held['total'] == sum(held[role] for role in roles)
  assert max(held['policy'], held['value'], held['reward_model']) < (
      held['reference'] / 4)
  assert 'proxy' in summary['models']['ppo']  # Of base and adapters merged.
  hf.load_model(pathlib.Path(one_base.workdir) / 'model')


def test_one_base_goes_on_in_the_same_bits(one_base, left):
  workdir = pathlib.Path(one_base.workdir)
  weights = left(workdir).weights
  rows = (workdir / 'metrics.jsonl').read_bytes()
  (workdir / 'summary.json').unlink()
  for name in ('model', 'adapter', 'checkpoints/step_00000002'):
    shutil.rmtree(workdir / name)
  ppo.stage(dataclasses.replace(one_base, resume=True))
  assert left(workdir).weights == weights
  assert (workdir / 'metrics.jsonl').read_bytes() == rows


@pytest.mark.parametrize('settings', [
    dict(num_slots=8), dict(offload_optimizer=True)],
    ids=['in eight slots', 'moments on the host'])
def test_what_saves_memory_changes_no_iteration(
    settings, one_base, foreign, judge, left, tmp_path):
  run = dataclasses.replace(one_base, workdir=str(tmp_path / 'ppo'), **settings)
  ppo.stage(run)
  for got, want in zip(left(run.workdir).rows('ppo'),
                       left(one_base.workdir).rows('ppo'), strict=True):
    for name in ('reward', 'kl', 'length', 'loss', 'value_loss'):
      assert got[name] == pytest.approx(want[name], abs=1e-4), name


def test_slots_are_of_our_own_sampler(foreign):
  with pytest.raises(InputError, match=r'num_slots=8 .* engine'):
    ppo.main(ppo.Config(workdir='unused', model=foreign.model,
                        engine='http://127.0.0.1:9', num_slots=8, **PPO))


def test_rewards_are_normalised_on_demonstrations(judge, foreign, left):
  """InstructGPT's: what the policy was taught scores 0 on average."""
  mean = runs.read_reward_mean(judge / 'adapter')
  assert mean == runs.read_reward_mean(judge / 'model') != 0.0
  with pytest.raises(InputError, match='normalize=demonstrations needs some'):
    reward.resolve(reward.Config(
        workdir='w', model=foreign.model, data=foreign.pairs,
        normalize='demonstrations'))


def test_pretraining_text_of_a_file_is_mixed_in(
    foreign, judge, tmp_path, left):
  texts = tmp_path / 'texts.jsonl'
  texts.write_text('{"text": "chop the onion . heat the pan ."}\n' * 20)
  workdir = tmp_path / 'ppo'
  ppo.stage(ppo.Config(
      workdir=str(workdir), model=foreign.model, ptx_coef=27.8,
      reward_model=str(judge / 'model'), data=foreign.demonstrations,
      ptx_data=str(texts), ptx_batch_size=32, kl_estimator='exact',
      value_warmup=1, **PPO))
  first, second = left(workdir).rows('ppo')
  assert first['ptx_loss'] == 0 < second['ptx_loss']  # The policy waits once.
  assert first['policy_moved'] == 0 and second['policy_moved'] == 1


@pytest.mark.parametrize('settings, words', [
    (dict(ptx_coef=1.0), r'there is none; give a file of \{text\} rows'),
    (dict(ptx_data='x.jsonl'), 'would not be read with ptx_coef=0'),
])
def test_pretraining_text_and_its_weight_belong_together(
    settings, words, foreign):
  with pytest.raises(InputError, match=words):
    ppo.resolve(ppo.Config(
        workdir='w', model=foreign.model, data=foreign.pairs, **settings))


# --- Bad input: named, and nothing saved over.


def spoil(folder, target):
  """A reward model with a head of NaN."""
  shutil.copytree(folder, target)
  config, params = hf.load_reward_model(folder)
  hf.save_model(target, config, params['backbone'],
                tokenizer=hf.load_tokenizer(folder),
                head=np.full_like(params['head'], np.nan))
  return str(target)


@pytest.mark.parametrize('script', [ppo, grpo])
def test_a_reward_model_of_nan_is_named_and_nothing_is_saved(
    script, foreign, judge, tmp_path):
  bad = spoil(judge / 'model', tmp_path / 'bad')
  workdir = tmp_path / 'run'
  with pytest.raises(InputError, match=r'iteration 1: \d+ rewards of '
                     f'reward_model={bad} are NaN or infinite'):
    script.stage(script.Config(
        workdir=str(workdir), model=foreign.model, reward_model=bad,
        data=foreign.demonstrations, save_every=1, **PPO))
  assert not list(workdir.rglob('step_*')) and not list(
      workdir.rglob('*.safetensors'))


def test_a_reward_model_of_another_tokenizer_is_refused(
    foreign, judge, tmp_path):
  """Of the same size, with two words exchanged."""
  other = tmp_path / 'other'
  shutil.copytree(judge / 'model', other)
  path = other / 'tokenizer.json'
  config = json.loads(path.read_text())
  words = config['model']['vocab']
  first, second = sorted(words, key=words.get)[-2:]
  words[first], words[second] = words[second], words[first]
  path.write_text(json.dumps(config))
  with pytest.raises(InputError, match=f'has another tokenizer than the policy '
                     f'.*token .{first}. is'):
    ppo.stage(ppo.Config(
        workdir=str(tmp_path / 'run'), model=foreign.model,
        reward_model=str(other), data=foreign.demonstrations, **PPO))


def test_adapters_need_the_base_that_they_were_trained_on(
    foreign, judge, tmp_path):
  moved = tmp_path / 'moved'
  shutil.copytree(foreign.model, moved)
  cfg = ppo.Config(
      workdir=str(tmp_path / 'run'), model=str(moved),
      reward_model=str(judge / 'adapter'), data=foreign.demonstrations, **PPO)
  with pytest.raises(InputError, match='and all of the policy is trained'):
    ppo.stage(cfg)
  with pytest.raises(InputError, match='not the policy'):
    ppo.stage(dataclasses.replace(cfg, lora_rank=2))


def test_a_policy_that_never_ends_is_named(foreign, judge, tmp_path):
  """Its unembedding is tied: an embedding of EOS far from all hidden states."""
  endless = tmp_path / 'endless'
  shutil.copytree(foreign.model, endless)
  config, params = hf.load_model(endless)
  tokenizer = hf.load_tokenizer(endless)
  name = 'embed' if config.tie_embeddings else 'unembed'
  table = np.array(params[name])
  table[tokenizer.eos_id] = -100 * np.sign(table.mean(axis=0))
  ended = table.copy()
  ended[tokenizer.eos_id] = 0
  hf.save_model(endless, config, params | {name: ended}, tokenizer=tokenizer)
  with pytest.raises(InputError, match='of the responses end by themselves'):
    ppo.stage(ppo.Config(**dict(
        PPO, workdir=str(tmp_path / 'run'), model=str(endless),
        max_new_tokens=1, reward_model=str(judge / 'model'),
        data=foreign.demonstrations, min_ended=0.9)))
  assert not list((tmp_path / 'run').rglob('*.safetensors'))


def test_a_prompt_that_leaves_no_room_to_answer_is_refused(foreign):
  with pytest.raises(InputError, match='max_new_tokens=48 leaves no room'):
    runs.check(ppo.resolve(ppo.Config(**dict(
        PPO, workdir='w', model=foreign.model, data=foreign.demonstrations,
        max_new_tokens=48))))


def test_a_group_of_one_is_refused(foreign):
  with pytest.raises(InputError, match='num_samples=1 leaves grpo nothing to'):
    grpo.resolve(grpo.Config(
        workdir='w', model=foreign.model, data=foreign.pairs, num_samples=1))


@pytest.mark.parametrize('model, settings, layout', [
    ('testbed', {}, 'padded'), ('DIR', {}, 'packed'),
    ('DIR', {'batch_size': 12, 'num_samples': 4}, 'padded'),
    ('DIR', {'layout': 'branched'}, 'branched'),
    ('DIR', {'max_length': 65}, 'padded')])
def test_a_folder_s_samples_share_rows_where_they_can(model, settings, layout):
  """Of two minibatches on two devices; positions are learnt up to 64."""
  cfg = ppo.Config(**dict(
      workdir='w', model=model, batch_size=16, max_length=48,
      num_minibatches=2) | settings)
  learned = models.ModelConfig(
      vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1,
      num_heads=1, num_kv_heads=1, head_dim=8, max_positions=64,
      learned_positions=True)
  run = types.SimpleNamespace(num_shards=2)
  assert rollouts.with_layout(cfg, run, learned).layout == layout
