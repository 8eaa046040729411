"""Rejection sampling: best of N by a reward model, then SFT on the best.

  python -m experiments.rejection_sampling --workdir runs/rs
  python -m experiments.rejection_sampling --workdir runs/rs --model DIR \\
    --data PROMPTS --reward-model DIR

The policy answers each prompt N times, the reward model chooses, and the policy
is fine-tuned on what was chosen: `best.jsonl`, {prompt, response, reward} rows.
With `--safety-reward-model` the choice is LLaMA 2's, safety first. Touvron et
al. (2023), section 3.2.3, https://arxiv.org/abs/2307.09288, which also keeps
the best of earlier rounds (`--earlier`), lest the policy forget.
"""

import dataclasses
import json
import math
import os

import numpy as np

from alignjax import cli
from alignjax import evaluation
from alignjax import rollout
from alignjax import runs
from alignjax import scripts
from alignjax import sharding
from alignjax import sources
from alignjax.types import InputError
from experiments import judges
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(sft.Config):
  """Settings of rejection sampling. Two defaults: testbed, folder."""

  reward_model: str = ''    # Folder of what chooses; '' trains one here first.
  reward_steps: int | None = None    # Steps of that. 250, 100.
  # Of LLaMA 2's second model; see experiments.ppo.
  safety_reward_model: str = ''
  safety_prompts: str = ''
  safety_threshold: float = 0.15
  earlier: tuple[str, ...] = ()      # Files of the best of earlier rounds.
  best_of: int = 8               # Responses to choose from, N.
  num_prompts: int | None = None     # Of the testbed. 500.
  skip_prompts: int = 0              # Of the testbed, that are left out first.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 128.
  temperature: float = 1.0           # Of sampling.
  # Responses that are sampled at one time, 0: all of a batch. Where one ends,
  # the next prompt moves in; the cache is this many rows. Samples stay as are.
  num_slots: int = 0
  sample_batch: int = 256            # Responses sampled at one time.


def fit(cfg: Config, run: runs.Run) -> None:
  """Samples, chooses, trains on the best and saves the policy."""
  folder = sft.policy_folder(cfg)
  trainee, tokenizer = runs.load_trainee(cfg, folder, run.mesh)
  path = run.workdir / 'best.jsonl'
  if not path.exists():
    draft = path.with_name(path.name + '.tmp')
    sources.write_jsonl(draft, best(cfg, run, trainee, tokenizer))
    os.replace(draft, path)
  lines = path.read_text().splitlines()
  everything = run.workdir / 'demonstrations.jsonl'
  with everything.open('w') as file:
    for each in (*cfg.earlier, path):
      with open(each) as source:
        file.write(source.read())
  rows = sources.demonstration_rows(
      run, dataclasses.replace(cfg, data=str(everything)), tokenizer,
      turns=cfg.turns)
  sft.learn(cfg, run, trainee, tokenizer, rows)
  run.finish({
      'chosen': len(lines), 'demonstrations': len(rows),
      'reward': float(np.mean([json.loads(x)['reward'] for x in lines]))})


def best(cfg: Config, run: runs.Run, policy, tokenizer) -> list[dict]:
  """The rows of best.jsonl; prompts of which no response ended are left out."""
  width = cfg.max_length - cfg.max_new_tokens
  prompts, rows = ask(cfg, run, tokenizer, width)
  params = policy.whole(sharding.put(
      policy.params, sharding.tree_shardings(
          run.mesh, policy.axes, policy.params)))
  generate = rollout.make_generate(
      policy.model, max_new_tokens=cfg.max_new_tokens, mesh=run.mesh,
      eos_id=tokenizer.eos_id, temperature=cfg.temperature,
      num_samples=cfg.best_of, num_slots=cfg.num_slots)
  whole = math.lcm(cfg.best_of, run.num_shards)
  size = max(1, cfg.sample_batch // whole) * whole
  with run.console.working(
      f'{cfg.best_of} responses to {len(rows)} prompts'):
    groups, trajectories = evaluation.sample_responses(
        generate, params, rows, width=width, eos_id=tokenizer.eos_id,
        batch_size=size, mesh=run.mesh, seed=cfg.seed,
        num_samples=cfg.best_of)
  folder = judges.reward_folder(cfg, policy.folder)
  judge = judges.with_safety(cfg, run, policy, judges.Judge(
      judges.frozen(folder, run, policy), None, folder))
  rewards = np.concatenate([
      np.asarray(judge.reward_fn(t.tokens, t.attention_mask))[
          np.asarray(t.weight) > 0] for t in trajectories])
  rewards = rewards.reshape(len(rows), cfg.best_of)
  chosen = []
  for row, group, scores in zip(rows, groups, rewards, strict=True):
    ended = [i for i, r in enumerate(group)
             if r.is_complete and tokenizer.decode(r.tokens).strip()]
    if ended:
      top = max(ended, key=lambda i: scores[i])
      chosen.append({'prompt': prompts[row.prompt_id],
                     'response': tokenizer.decode(group[top].tokens),
                     'reward': round(float(scores[top]), 6)})
  if not chosen:
    raise InputError(
        f'none of {rewards.size} responses ended by itself in max_new_tokens='
        f'{cfg.max_new_tokens}, and nothing is left to learn from; start from '
        'an SFT model, or allow longer responses')
  return chosen


def ask(cfg: Config, run: runs.Run, tokenizer, width: int):
  """(prompts as records have them, their tokens)."""
  if cfg.data == 'testbed':
    prompts, rows = sources.testbed_prompts(
        'train', cfg.num_prompts, cfg.seed, tokenizer, skip=cfg.skip_prompts)
    return [prompt.text for prompt in prompts], rows
  records, rows = sources.prompt_rows(
      run, cfg, tokenizer, cfg.data, max_length=width)
  return [record.prompt for record in records], rows


def check(cfg: Config) -> None:
  """Refuses a choice that is none."""
  if cfg.best_of < 2:
    raise InputError(f'best_of={cfg.best_of} leaves nothing to choose '
                     'from; use 2 or more')


SCRIPT = scripts.Script(
    'rejection_sampling', fit, check=check,
    testbed=sft.SCRIPT.testbed | dict(
        num_steps=60, learning_rate=5e-4, max_new_tokens=32, num_prompts=500,
        reward_steps=250),
    folder=sft.SCRIPT.folder | dict(
        max_new_tokens=128, num_prompts=500, reward_steps=100),
    outcome=lambda cfg, folder: {
        'folders': {'sft': sft.policy_folder(cfg),
                    'rejection_sampling': folder},
        'reward_model': judges.reward_folder(cfg, sft.policy_folder(cfg))})
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
