"""Bad input is one line that names it, status 2, and a workdir left alone."""

import importlib
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from alignjax import cli
from alignjax import hf
from alignjax import models

ROOT = pathlib.Path(__file__).parents[2]
SIZES = ['--batch-size', '16', '--max-length', '48']
MORE = {'ppo': ['--max-new-tokens', '8']}


@pytest.fixture
def call(monkeypatch, capfd):
  """Runs a script in this process: (status, stderr)."""

  def run(script, *args):
    monkeypatch.setattr('sys.argv', [script, *args])
    module = importlib.import_module(f'experiments.{script}')
    main = module.stage if script == 'preferences' else module.main
    try:
      cli.run(main, module.Config)
      status = 0
    except SystemExit as stop:
      status = stop.code
    return status, capfd.readouterr().err

  return run


def check_one_line(status, err, *words):
  """Status 2, and a last line that holds these words; no traceback."""
  *notes, line = err.splitlines()
  assert status == 2, err
  assert line.startswith('error: ') and 'Traceback' not in err
  assert not any('error' in note.lower() for note in notes), err
  for word in words:
    assert word in line


def jsonl(path, *lines):
  """A file of these lines, records or raw text."""
  path.write_text(''.join(
      (line if isinstance(line, str) else json.dumps(line)) + '\n'
      for line in lines))
  return str(path)


@pytest.fixture
def broken(foreign, tmp_path):
  """Makes a copy of the model folder, and lets the caller break it."""

  def make(change):
    folder = tmp_path / 'broken'
    shutil.copytree(foreign.model, folder)
    change(folder)
    return str(folder)

  return make


# --- Settings.


@pytest.mark.parametrize('script, flags, words', [
    ('sft', ['--num-steps', '0'], ['num_steps=0', 'at least 1']),
    ('sft', ['--learning-rate', '-1e-3'], ['learning_rate=-0.001', 'above 0']),
    ('sft', ['--learning-rate', 'nan'], ['learning_rate=nan']),
    ('sft', ['--batch-size', '6'], [
        'batch_size=6', '8 data shards', 'a multiple of 8']),
    ('sft', ['--num-microbatches', '3'], ['num_microbatches=3', 'of 24']),
    ('sft', ['--mesh', 'data:3'], ["mesh='data:3'", '8 devices']),
    ('sft', ['--mesh', 'rows:8'], ["'rows'", 'data, fsdp, sequence, tensor']),
    ('sft', ['--mesh', 'data:many'], ["'many'", 'a whole number']),
    ('sft', ['--seed', '-1'], ['seed=-1']),
    ('sft', ['--num-steps', 'ten'], ['--num-steps', "'ten'"]),
    ('sft', ['--num-stpes', '3'], ['--num-stpes', 'did you mean --num-steps']),
    ('sft', ['--long-prompts', 'cut'], ['--long-prompts', 'left']),
    ('dpo', ['--beta', '0'], ['beta=0', 'above 0']),
    ('dpo', ['--beta', '-0.1'], ['beta=-0.1']),
    ('dpo', ['--label-smoothing', '0.5'], ['label_smoothing=0.5', 'below 0.5']),
    ('dpo', ['--normalized', '--tail', '0.5'], [
        'normalized=True', 'tail=0.5']),
    ('grpo', ['--reward', 'gsm8k', '--reward-model', '.'], [
        'reward=gsm8k', 'reward_model=.']),
    ('ranking', ['--margins', 'large'], ['margins=large', 'rankings']),
    ('ranking', ['--centering', '0.1'], ['centering=0.1']),
    ('simpo', ['--reference-free'], ['reference_free=True', 'simpo']),
    ('f_dpo', ['--reference-free'], ['reference_free=True', 'f-DPO']),
    ('kto', ['--batch-size', '1', '--mesh', 'data:-1'], ['batch_size=1']),
    ('reinforce', ['--num-epochs', '2'], ['num_epochs=2', 'reinforce_pp']),
    ('grpo', ['--clip', '1.5'], ['clip=1.5', 'below 1']),
    ('grpo', ['--importance-cap', '0.5'], ['importance_cap=0.5']),
    ('ppo', ['--dual-clip', '1'], ['dual_clip=1.0', 'above 1']),
    ('c_rlft', ['--plain'], ['plain=True']),
    ('c_rlft', ['--classes', 'a=0', 'b=0'], ['a=0 b=0', 'above 0']),
    ('c_rlft', ['--classes', 'a=1'], ["'a=1'", 'two or more']),
    ('c_rlft', ['--classes', 'a=x', 'b=1'], ["'a=x'", 'name=weight']),
    ('compare', ['--methods', 'dop'], ['methods=dop', 'dpo']),
    ('compare', ['--budget', '0'], ['budget=0']),
    ('sweep', ['--betas', '0'], ['betas=(0.0,)']),
    ('dpo', ['--tail', '2'], ['tail=2.0', 'at most 1']),
    ('dpo', ['--sft-coef', '-1'], ['sft_coef=-1']),
    ('ipo', ['--reference-free'], ['reference_free=True', 'IPO', 'simpo']),
    ('exo', ['--label-smoothing', '0'], ['label_smoothing=0', '0.001']),
    ('f_dpo', ['--divergence', 'kl'], ['--divergence', 'forward_kl']),
    ('f_dpo', ['--alpha', '0'], ['alpha=0', 'above 0']),
    ('simpo', ['--simpo-gamma', '-1'], ['simpo_gamma=-1', 'at least 0']),
    ('kto', ['--beta', '0'], ['beta=0', 'above 0']),
    ('kto', ['--desirable-weight', '-1'], ['desirable_weight=-1']),
    ('kto', ['--batch-size', '12'], ['batch_size=12', 'a multiple of 8']),
    ('grpo', ['--num-samples', '1'], ['num_samples=1', 'at least 2']),
    ('grpo', ['--batch-size', '6'], ['batch_size=6', 'a multiple of 16']),
    ('grpo', ['--num-samples', '3'], [
        'batch_size=128', 'whole groups of num_samples=3']),
    ('grpo', ['--reward', 'gsm8k'], ['reward=gsm8k', '--data']),
    ('grpo', ['--reward', 'judge'], ['--reward', 'gsm8k']),
    ('grpo', ['--importance-cap', '0'], ['importance_cap=0']),
    ('grpo', ['--reward-model', 'no/where'], ['reward_model=no/where']),
    ('dapo', ['--clip-high', '0'], ['clip_high=0', 'above 0']),
    ('grpo', ['--batch-size', '32', '--layout', 'branched'], [
        'batch_size=32', 'whole groups', 'a multiple of 64']),
    ('ppo', ['--batch-size', '32', '--layout', 'packed', '--num-samples', '4'],
     ['batch_size=32', 'whole groups', 'a multiple of 64']),
    ('grpo', ['--layout', 'ragged'], ['--layout', 'packed']),
    ('online_dpo', ['--batch-size', '32'], [
        'batch_size=32', 'whole pairs', 'a multiple of 64']),
    ('reward', ['--centering', '-1'], ['centering=-1']),
    ('reward', ['--num-held-out', '0'], ['num_held_out=0']),
    ('ppo', ['--kl-coef', '-0.1'], ['kl_coef=-0.1', 'at least 0']),
    ('ppo', ['--gamma', '1.5'], ['gamma=1.5', 'at most 1']),
    ('ppo', ['--temperature', '0'], ['temperature=0']),
    ('ppo', ['--value-learning-rate', '0'], ['value_learning_rate=0']),
    ('ppo', ['--batch-size', '8'], ['batch_size=8', 'num_minibatches=2']),
    ('ppo', ['--max-new-tokens', '48'], [
        'max_new_tokens=48', 'max_length=48', 'no room']),
    ('ppo', ['--reward-model', 'no/where'], ['reward_model=no/where']),
    ('ppo', ['--compare', 'no/where'], ['compare=no/where']),
    ('pretrain', ['--model', '.'], ['model=.', 'testbed']),
    ('pretrain', ['--num-heads', '5'], ['hidden_size=96', 'num_heads=5']),
    ('preferences', ['--num-samples', '1'], ['num_samples=1', 'at least 2']),
    ('instructgpt', ['--sft-steps', '0'], ['sft_steps=0']),
    ('instructgpt', ['--batch-size', '8'], ['batch_size=8', 'multiple of 16']),
    ('instructgpt', ['--max-new-tokens', '99'], ['max_new_tokens=99']),
    ('instructgpt', ['--data', __file__], ['--model']),
    ('evaluate', ['--models', 'sft'], ["'sft'", 'name=FOLDER']),
    ('evaluate', ['--models', 'a=b'], ['reference=sft', '(a)']),
    ('evaluate', ['--models', 'sft=no/where'], ['no/where']),
    ('sft', ['--model', 'no/where'], ['model=no/where', 'not a folder']),
    ('sft', ['--model', '.'], ['model=.', '--data']),
    ('sft', ['--data', 'no.jsonl'], ['data=no.jsonl']),
])
def test_a_bad_setting_is_one_line_and_makes_no_folder(
    call, tmp_path, script, flags, words):
  status, err = call(script, '--workdir', str(tmp_path / 'new' / 'run'), *flags)
  check_one_line(status, err, *words)
  assert err.count('\n') == 1
  assert not any(tmp_path.iterdir())


def test_a_workdir_is_asked_for(call):
  check_one_line(*call('sft'), '--workdir')


# --- Files.


@pytest.mark.parametrize('script, line, words', [
    ('sft', '{"prompt": "how", ', ['is not JSON']),
    ('sft', '[1, 2]', ['is not a JSON object']),
    ('sft', {'prompt': 'how'}, ["field 'response' is missing"]),
    ('sft', {'prompt': 'how', 'response': None}, ["'response' is null"]),
    ('sft', {'prompt': 'how', 'response': ' '}, ['empty response']),
    ('dpo', {'prompt': 'how', 'chosen': 'a'}, ["field 'rejected' is missing"]),
    ('dpo', {'prompt': 'how', 'chosen': 'a', 'rejected': ''}, [
        "field 'rejected'", 'empty response']),
    ('reward', {'prompt': 'how', 'chosen': 'a', 'rejected': 'a'}, [
        "the same as 'chosen'"]),
    ('ppo', {'prompt': 7, 'chosen': 'a', 'rejected': 'b'}, [
        "field 'prompt' is 7"]),
    ('ipo', {'prompt': 'how', 'chosen': 'a'}, ["field 'rejected' is missing"]),
    ('kto', {'prompt': 'how', 'chosen': 'a', 'rejected': ' '}, [
        'empty response']),
])
def test_a_bad_row_is_one_line_with_its_place(
    call, foreign, tmp_path, script, line, words):
  good = pathlib.Path(
      foreign.demonstrations if script == 'sft' else foreign.pairs)
  path = jsonl(tmp_path / 'f.jsonl', good.read_text().splitlines()[0], line)
  status, err = call(
      script, '--workdir', str(tmp_path / 'run'), '--model', foreign.model,
      '--data', path, '--num-steps', '1', *SIZES, *MORE.get(script, []))
  check_one_line(status, err, f'{path}:2', *words)
  assert not (tmp_path / 'run').exists()


def test_a_conversation_without_an_answer_is_one_line(call, foreign, tmp_path):
  asked = {'messages': [{'role': 'user', 'content': 'how'}]}
  path = jsonl(tmp_path / 'f.jsonl', asked)
  status, err = call(
      'sft', '--workdir', str(tmp_path / 'run'), '--model', foreign.model,
      '--data', path)
  check_one_line(status, err, f'{path}:1', "field 'messages'",
                 'no assistant turn')


@pytest.mark.parametrize('script, length', [('sft', 60), ('ppo', 45)])
def test_a_prompt_that_is_too_long_is_one_line(
    call, foreign, tmp_path, script, length):
  """For PPO, one that leaves no room for the response that it is to have."""
  path = jsonl(tmp_path / 'f.jsonl', {
      'prompt': 'how ' * length, 'chosen': 'yes', 'rejected': 'no'})
  status, err = call(
      script, '--workdir', str(tmp_path / 'run'), '--model', foreign.model,
      '--data', path, *SIZES, *MORE.get(script, []))
  check_one_line(status, err, f'{path}:1', 'tokens', '--long-prompts')
  assert not (tmp_path / 'run').exists()


def test_a_file_of_another_kind_says_what_the_run_needs(
    call, foreign, tmp_path):
  status, err = call(
      'dpo', '--workdir', str(tmp_path / 'run'), '--model', foreign.model,
      '--data', foreign.demonstrations)
  check_one_line(status, err, f'{foreign.demonstrations}:1', 'chosen')


def cut(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])


def rename_type(folder):
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(
      json.dumps(config | {'model_type': 'mamba'}))


@pytest.mark.parametrize('change, words', [
    (cut, ['model.safetensors', 'cut or corrupt']),
    (rename_type, ['config.json', "model_type='mamba'", 'llama, ']),
    (lambda folder: (folder / 'config.json').unlink(), ['config.json is miss']),
    (lambda folder: (folder / 'tokenizer.json').unlink(), ['tokenizer.json']),
    (lambda folder: (folder / 'model.safetensors').unlink(), [
        'neither model.safetensors nor']),
])
def test_a_broken_model_folder_is_one_line_with_its_file(
    call, broken, foreign, tmp_path, change, words):
  status, err = call(
      'sft', '--workdir', str(tmp_path / 'run'), '--model', broken(change),
      '--data', foreign.demonstrations, *SIZES)
  check_one_line(status, err, str(tmp_path / 'broken'), *words)
  assert not (tmp_path / 'run').exists()


def test_a_policy_is_no_reward_model(call, foreign, tmp_path):
  status, err = call(
      'ppo', '--workdir', str(tmp_path / 'run'), '--model', foreign.model,
      '--data', foreign.pairs, '--reward-model', foreign.model,
      '--max-new-tokens', '8', *SIZES)
  check_one_line(status, err, foreign.model, 'no reward model')


def test_a_reward_model_of_another_vocabulary_is_one_line(
    call, foreign, tmp_path):
  config = models.ModelConfig(
      vocab_size=17, hidden_size=16, intermediate_size=32, num_layers=1,
      num_heads=2, num_kv_heads=2, head_dim=8)
  scalar = models.ScalarModel(config)
  params = jax.jit(scalar.init)(jax.random.key(0))
  hf.save_model(tmp_path / 'judge', config, params['backbone'],
                head=params['head'], generation={'pad_token_id': 0})
  status, err = call(
      'ppo', '--workdir', str(tmp_path / 'run'), '--model', foreign.model,
      '--data', foreign.pairs, '--reward-model', str(tmp_path / 'judge'),
      '--max-new-tokens', '8', *SIZES)
  check_one_line(status, err, 'vocab_size=17', foreign.model)
  assert not (tmp_path / 'run').exists()


def test_models_of_two_shapes_are_not_compared(call, base, foreign, tmp_path):
  status, err = call(
      'evaluate', '--workdir', str(tmp_path / 'run'), '--models',
      f'sft={base}', f'other={foreign.model}')
  check_one_line(status, err, f'other={foreign.model}', f'sft={base}')


# --- Workdirs.


def test_the_corrected_command_takes_the_same_workdir(call, foreign, tmp_path):
  workdir = str(tmp_path / 'run')
  args = ['--workdir', workdir, '--num-steps', '1', *SIZES]
  bad = jsonl(tmp_path / 'bad.jsonl', 'no JSON')
  assert call('sft', *args, '--model', foreign.model, '--data', bad)[0] == 2
  assert call('sft', *args, '--model', foreign.model, '--data',
              foreign.demonstrations)[0] == 0


def test_a_workdir_that_is_taken_is_left_as_it_was(call, foreign, tmp_path):
  workdir = tmp_path / 'run'
  args = ['--workdir', str(workdir), '--model', foreign.model, '--data',
          foreign.demonstrations, '--num-steps', '1', *SIZES]
  assert call('sft', *args)[0] == 0
  listing = lambda: {path: path.stat().st_mtime_ns
                     for path in workdir.rglob('*')}
  before = listing()
  check_one_line(*call('sft', *args), str(workdir), '--resume')
  check_one_line(*call('sft', *args, '--resume', '--seed', '1'),
                 str(workdir), 'seed=0, not 1')
  check_one_line(*call('reward', *args, '--resume'), "experiment='sft'")
  check_one_line(
      *call('sft', *args, '--resume', '--learning-rate', '-1'),
      'learning_rate=-1')
  assert listing() == before


# --- Real processes.


@pytest.mark.parametrize('args, words', [
    (['--model=no/where', '--data={}/f.jsonl'], ['model=no/where']),
    (['--learning-rte', '1'], ['did you mean --learning-rate?']),
    (['--model={}/cut', '--data={}/f.jsonl'], ['model.safetensors', 'corrupt']),
    (['--model={}/whole', '--data={}/f.jsonl'], ['f.jsonl:1', 'not JSON']),
])
def test_a_process_ends_with_status_2_and_one_line(
    foreign, tmp_path, args, words):
  for name in ('whole', 'cut'):
    shutil.copytree(foreign.model, tmp_path / name)
  cut(tmp_path / 'cut')
  jsonl(tmp_path / 'f.jsonl', '{"prompt"')
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.sft', '--workdir', tmp_path / 'run',
       *(arg.format(tmp_path) for arg in args)],
      cwd=ROOT, capture_output=True, text=True, check=False)
  check_one_line(done.returncode, done.stderr, *words)
  assert (done.stdout, done.stderr.count('\n')) == ('', 1)
  assert not (tmp_path / 'run').exists()
