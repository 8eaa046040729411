"""The reward model: Bradley-Terry on preference pairs.

  python -m experiments.reward --workdir runs/reward
  python -m experiments.reward --workdir runs/reward --model DIR --data FILE

`--model` is the SFT model that it starts from. The result is a sequence
classification folder with one label, the reward of a conversation's last token.

Expect, on the testbed with two CPU cores and seed 0: 26 seconds after the SFT
model and its preferences, 0.77 of held-out pairs without gold ties.
"""

from collections.abc import Callable
import dataclasses
from typing import Literal

import jax
import numpy as np

from alignjax import cli
from alignjax import data
from alignjax import evaluation
from alignjax import hf
from alignjax import objectives
from alignjax import rollout
from alignjax import runs
from alignjax import scripts
from alignjax import sharding
from alignjax import sources
from alignjax import train
from alignjax.types import InputError
from experiments import pairs
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.BatchConfig):
  """Settings of the reward model. Two defaults: testbed, folder."""

  test_data: str = ''                # Held-out pairs; '' holds out of --data.
  num_steps: runs.Steps = None       # Optimizer steps. 250, 500.
  batch_size: int | None = None      # Pairs. 32, 16.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  # Of weights; of adapters (3e-3 or 1e-4). 1e-3, 1e-5.
  learning_rate: float | None = None
  centering: float = 0.0             # Weight of the squared reward sum.
  # LLaMA 2's margins, by the field 'strength' of each pair, 0 to 3.
  margins: Literal['none', 'small', 'large'] = 'none'
  # What scores 0 on average in the model that is saved: nothing in particular,
  # held-out chosen responses (mean), these with a deviation of 1 too
  # (standard), or demonstrations, as in InstructGPT.
  normalize: Literal['none', 'mean', 'standard', 'demonstrations'] = 'none'
  demonstrations: str = ''  # Their file; '' are the testbed's.
  # Pairs kept back when there is no --test-data, at most a quarter of them.
  num_held_out: int = 64


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on pairs, measures on held-out ones and saves the model."""
  policy = sft.policy_folder(cfg)
  tokenizer = hf.load_tokenizer(policy)
  rows, held_out = pairs.split_rows(cfg, run, tokenizer, policy)
  if cfg.margins != 'none' and not any(row.strength for row in rows):
    raise InputError(f"margins={cfg.margins} needs a field 'strength' above 0 "
                     'in some pairs of --data, and there is none; add it')
  fit_and_measure(
      cfg, run, policy, held_out,
      lambda model: objectives.reward(
          model, centering=cfg.centering, margins=cfg.margins),
      data.preference_batches, rows, {'pairs': len(rows)})


def fit_and_measure(
    cfg, run: runs.Run, policy: str, held_out, make_objective: Callable,
    make_batches: Callable, rows, counts: dict) -> None:
  """Trains a reward model from a policy, and measures it on held-out pairs."""
  trainee, tokenizer = runs.load_trainee(cfg, policy, run.mesh)
  cfg = cfg.count_steps(len(rows))
  trainee = trainee.with_head(jax.random.key(cfg.seed))
  params = train.train(
      run.stage(cfg, num_microbatches=cfg.num_microbatches),
      make_objective(trainee.model), trainee.params, trainee.axes,
      cfg.make_optimizer(cfg.learning_rate, cfg.num_steps),
      sources.batches(run, cfg, trainee.model.config, make_batches, rows),
      base=trainee.base)
  chosen, rejected = held_out_rewards(
      trainee.model, trainee.whole(params), held_out, cfg, run.mesh)
  normal = chosen if cfg.normalize != 'demonstrations' else (
      demonstration_rewards(
          cfg, run, trainee.model, trainee.whole(params), tokenizer))
  mean = 0.0 if cfg.normalize == 'none' else float(np.mean(normal))
  scale = float(np.std(chosen)) or 1.0 if cfg.normalize == 'standard' else 1.0
  run.save_trained(
      trainee, params | {'head': params['head'] / scale}, tokenizer)
  runs.write_reward_mean(run.model_dir, mean / scale)
  if trainee.base is not None:
    runs.write_reward_mean(run.workdir / 'adapter', mean / scale)
  measured = measure(chosen / scale, rejected / scale)
  shown = {k: v for k, v in measured.items() if k != 'reliability'}
  run.console.note(f'reward model on held-out pairs: {shown}')
  run.finish(counts | measured)


def demonstration_rewards(
    cfg, run: runs.Run, model, params, tokenizer) -> np.ndarray:
  """Rewards [N] of the demonstrations."""
  rows = sources.demonstration_rows(
      run, dataclasses.replace(cfg, data=cfg.demonstrations or 'testbed'),
      tokenizer)
  reward_fn = _reward_fn(model, params, run.mesh)
  rewards = []
  for batch in data.demonstration_batches(
      rows, batch_size=cfg.batch_size, max_length=cfg.max_length, num_epochs=1,
      shuffle=False):
    batch = sharding.put(batch, sharding.batch_sharding(run.mesh))
    scores = reward_fn(batch.tokens, batch.attention_mask)
    scores, weight = sharding.to_host((scores, batch.weight))
    rewards.append(scores[weight > 0])
  return np.concatenate(rewards)


def _reward_fn(model, params, mesh):
  """The rewards of rows, by parameters that are on the mesh."""
  return rollout.make_reward_fn(
      model, params, mesh=mesh, param_shardings=jax.tree.map(
          lambda x: x.sharding, params))


def accuracy(folder: str, path: str, cfg, run: runs.Run) -> float:
  """Share of a file's pairs that a saved reward model orders as they are."""
  model, params = runs.load_reward_model(folder)
  rows = sources.preference_rows(
      run, cfg, hf.load_tokenizer(folder), path)
  params = sharding.put(params, sharding.replicated(run.mesh))
  return float(evaluation.pair_accuracy(
      *held_out_rewards(model, params, rows, cfg, run.mesh)))


def held_out_rewards(model, params, held_out, cfg, mesh):
  """Rewards [N] of the chosen and of the rejected responses."""
  reward_fn = _reward_fn(model, params, mesh)
  rewards = []
  for batch in pairs.held_out_batches(held_out, cfg):
    batch = sharding.put(batch, sharding.batch_sharding(mesh))
    flat = lambda x: x.reshape(-1, x.shape[-1])
    both = reward_fn(flat(batch.tokens), flat(batch.attention_mask))
    both, weight = sharding.to_host((both, batch.weight))
    rewards.append(both.reshape(-1, 2)[weight > 0])
  return np.concatenate(rewards).T


def measure(chosen: np.ndarray, rejected: np.ndarray) -> dict:
  """Accuracy and calibration on held-out pairs."""
  return {
      'accuracy': float(evaluation.pair_accuracy(chosen, rejected)),
      'held_out_pairs': len(chosen),
      'calibration_error': float(
          evaluation.expected_calibration_error(chosen - rejected)),
      'mean_margin': float(np.mean(chosen - rejected)),
      'reliability': evaluation.reliability_bins(chosen - rejected).lists(),
  }


def with_rate(cfg: Config) -> Config:
  """Adapters take larger steps than weights."""
  return cfg if not cfg.lora_rank else runs.with_defaults(
      cfg, testbed=dict(learning_rate=3e-3), folder=dict(learning_rate=1e-4))


def check(cfg: Config) -> None:
  """Refuses demonstrations that are not there, or that nobody reads."""
  by_shown = cfg.normalize == 'demonstrations'
  if by_shown and not cfg.demonstrations and not runs.is_testbed(cfg.model):
    raise InputError(
        'normalize=demonstrations needs some; give the file that the policy '
        'was taught with, as --demonstrations')
  if cfg.demonstrations and not by_shown:
    raise InputError(
        f'demonstrations={cfg.demonstrations} would not be read with normalize='
        f'{cfg.normalize}; use --normalize demonstrations, or leave it out')


SCRIPT = scripts.Script(
    'reward', fit, check=check, prepare=with_rate,
    testbed=dict(num_steps=250, batch_size=32, max_length=48,
                 learning_rate=1e-3),
    folder=dict(num_steps=500, batch_size=16, max_length=512,
                learning_rate=1e-5),
    outcome=lambda cfg, folder: {'folders': {}})
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
