"""LLaMA 2's rounds: what each makes, and that a killed one goes on."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from alignjax import lineage
from alignjax import sources
from alignjax.types import InputError
from experiments import llama2_chat
from experiments import rejection_sampling
from experiments import sft

ROOT = pathlib.Path(__file__).parents[2]
FEW = dict(
    sft_steps=2, reward_steps=2, safety_steps=1, rejection_steps=2,
    ppo_iterations=1, best_of=2, batch_size=16, max_length=48,
    min_ended=0.0, round_test_prompts=16)


def manifests(workdir):
  """The bytes of every manifest, by its folder."""
  return {path.parent.name: path.read_bytes()
          for path in sorted(pathlib.Path(workdir).rglob(lineage.NAME))}


def command(base, workdir, *more):
  """Three rounds of a handful of prompts, as a process."""
  flags = FEW | dict(num_rounds=3, round_prompts=20)
  return [sys.executable, '-m', 'experiments.llama2_chat',
          '--workdir', str(workdir), '--model', base, *more, *(
              text for name, value in flags.items()
              for text in (f'--{name.replace("_", "-")}', str(value)))]


@pytest.fixture(scope='module')
def taught(base, tmp_path_factory):
  """A policy that ends its responses now and then, so that some are best."""
  return sft.stage(sft.Config(
      workdir=str(tmp_path_factory.mktemp('taught') / 'sft'), model=base,
      num_steps=60, batch_size=32, max_length=48, learning_rate=1e-2))


@pytest.mark.slow
def test_a_run_that_was_killed_in_round_3_ends_in_the_same_bits(
    taught, tmp_path):
  env = os.environ | {'XLA_FLAGS': os.environ['XLA_FLAGS'].replace(
      'device_count=8', 'device_count=1')}
  run = lambda name, *more: subprocess.run(
      command(taught, tmp_path / name, *more), cwd=ROOT, env=env,
      capture_output=True, text=True)
  assert (done := run('whole')).returncode == 0, done.stderr[-2000:]
  process = subprocess.Popen(
      command(taught, tmp_path / 'cut'), cwd=ROOT, env=env,
      stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
  judge = tmp_path / 'cut' / 'round3' / 'reward-helpfulness' / 'config.json'
  while not judge.exists():
    assert process.poll() is None
    time.sleep(0.02)
  process.kill()
  process.wait()
  assert run('cut').returncode == 2  # Without --resume.
  assert (done := run('cut', '--resume')).returncode == 0, done.stderr[-2000:]
  whole, cut = manifests(tmp_path / 'whole'), manifests(tmp_path / 'cut')
  assert list(whole) == ['ppo', 'round1', 'round2', 'round3', 'sft']
  assert cut == whole
  weights = lambda name: (
      tmp_path / name / 'ppo' / 'model' / 'model.safetensors').read_bytes()
  assert weights('cut') == weights('whole')
  check_lineage(tmp_path / 'whole')


def check_lineage(root):
  """Every file is what its manifest says, and every parent is there."""
  known = {lineage.digest(path): path.parent.name
           for path in root.rglob(lineage.NAME)}
  parents = {}
  for path in root.rglob(lineage.NAME):
    manifest = lineage.verify(root, path)
    parents[path.parent.name] = [
        known[digest] for digest in manifest['parents'].values()]
  assert parents == {'sft': [], 'round1': ['sft'], 'round2': ['round1'],
                     'round3': ['round2'], 'ppo': ['round3']}
  figures = json.loads((root / 'round2' / lineage.NAME).read_text())['figures']
  assert figures['helpfulness'].keys() == {
      'pairs', 'first', 'stale', 'refreshed'}
  summary = json.loads((root / 'summary.json').read_text())
  assert list(summary['models']) == [
      'sft', 'round1', 'round2', 'round3', 'ppo']
  assert summary['round2']['helpfulness'] == figures['helpfulness']


@pytest.mark.slow
def test_rounds_on_a_folder_read_their_part_of_the_pairs(
    foreign, tmp_path, left):
  workdir = tmp_path / 'run'
  policy = sft.stage(sft.Config(
      workdir=str(tmp_path / 'sft'), model=foreign.model,
      data=foreign.demonstrations, num_steps=100, batch_size=16, max_length=48,
      learning_rate=1e-2))
  summary = llama2_chat.main(llama2_chat.Config(
      workdir=str(workdir), model=policy, data=foreign.pairs,
      safety_data=foreign.pairs, num_rounds=2, **FEW | dict(
          max_new_tokens=24, num_minibatches=1)))
  assert left(workdir).is_whole
  # 40 of its own, and of the other as many at most, or a ninth.
  assert summary['round2']['helpfulness']['pairs'] == 80
  assert summary['round2']['safety']['pairs'] == 44
  parts = [(workdir / f'round{r}' / 'safety' / 'preferences.jsonl').read_text()
           for r in (1, 2)]
  assert len(''.join(parts).splitlines()) == 40 and parts[0] != parts[1]


@pytest.mark.slow
def test_the_best_of_n_are_what_is_learnt(taught, tmp_path, left):
  workdir = tmp_path / 'rs'
  rejection_sampling.stage(rejection_sampling.Config(
      workdir=str(workdir), model=taught, num_steps=2, reward_steps=1,
      num_prompts=20, best_of=3, batch_size=16, max_length=48))
  rows = [json.loads(line)
          for line in (workdir / 'best.jsonl').read_text().splitlines()]
  assert left(workdir).summary['chosen'] == len(rows) <= 20
  assert all(row['response'] for row in rows)
  more = tmp_path / 'more'
  rejection_sampling.stage(rejection_sampling.Config(
      workdir=str(more), model=taught, num_steps=2, num_prompts=20,
      skip_prompts=20, best_of=3, batch_size=16, max_length=48,
      reward_model=str(workdir / 'reward' / 'model'),
      earlier=(str(workdir / 'best.jsonl'),)))
  summary = left(more).summary
  assert summary['demonstrations'] == summary['chosen'] + len(rows)
  fresh = {json.loads(line)['prompt']
           for line in (more / 'best.jsonl').read_text().splitlines()}
  assert not fresh & {row['prompt'] for row in rows}


def test_prompts_of_a_topic_are_fresh_after_those_that_were_skipped():
  tokenizer = sources.testbed_tokenizer()
  draw = lambda **settings: [p.text for p in sources.testbed_prompts(
      'train', 50, 0, tokenizer, **settings)[0]]
  assert not set(draw(topic='safety')) & set(draw(topic='safety', skip=50))
  assert not set(draw(topic='safety')) & set(draw(topic='helpfulness'))
  with pytest.raises(InputError, match='50 safety prompts of train after 750'):
    draw(topic='safety', skip=750)


def test_one_sample_leaves_nothing_to_choose():
  with pytest.raises(InputError, match='best_of=1 leaves nothing'):
    rejection_sampling.resolve(
        rejection_sampling.Config(workdir='w', best_of=1))
