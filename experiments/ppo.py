"""PPO with a KL budget, from an SFT model and a reward model.

  python -m experiments.ppo --workdir runs/ppo
  python -m experiments.ppo --workdir runs/hack --kl-coef 0
  python -m experiments.ppo --workdir runs/ppo --model DIR --reward-model DIR
    --data FILE.jsonl

`--kl-coef 0` takes the penalty away: the proxy reward climbs, and on the
testbed, where gold is known, one sees it fall.

Expect, on the testbed with two CPU cores and seed 0: 52 seconds after the SFT
and the reward model, gold 0.61 at 2.0 nats; with `--kl-coef 0`, 0.16 at 28.
"""

import dataclasses
import pathlib
from typing import Literal

from alignjax import cli
from alignjax import data
from alignjax import models
from alignjax import rollout
from alignjax import runs
from alignjax import scripts
from alignjax import sharding
from alignjax import sources
from alignjax import train
from alignjax.types import InputError
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of PPO. Where two defaults are given: testbed, folder."""

  reward_model: str = ''             # Its folder; '' trains one here first.
  reward_steps: int | None = None    # Steps of that. 250, 100.
  num_steps: runs.Iterations = None  # Iterations. 50, 100.
  batch_size: int | None = None      # Responses in an iteration. 128, 32.
  num_samples: int = 1               # Responses to each prompt, K.
  # What the models read of them: a row for each response, or each prompt once
  # with its K responses behind it, which saves (K - 1) / K of the prompts'
  # tokens. The samples are the same; minibatches hold whole groups then.
  layout: Literal['padded', 'branched'] = 'padded'
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 128.
  learning_rate: float | None = None  # Of the policy. 3e-4, 1e-6.
  value_learning_rate: float | None = None  # 1e-3, 1e-5.
  kl_coef: float | None = None       # KL penalty's start, 1/nats. 0.3, 0.05.
  kl_target: float | None = None     # Nats per response. 2, 6.
  kl_horizon: float | None = None    # Responses it reacts in. 1000, 10000.
  gamma: float = 1.0                 # Discount per token.
  lam: float = 0.95                  # GAE's lambda.
  clip: float = 0.2                  # Of the probability ratio.
  clip_high: float | None = None     # How far it may rise, if not --clip.
  dual_clip: float | None = None  # Ratio past which a bad token costs no more.
  entropy_coef: float = 0.0          # Weight of the entropy bonus.
  value_clip: float = 0.2            # Of the values.
  num_epochs: int = 2                # Passes over each rollout.
  num_minibatches: int = 2           # Optimizer steps in each pass.
  num_microbatches: int = 1          # Parts of a minibatch, to save memory.
  missing_eos_penalty: float = 1.0   # Off the reward of a cut response.
  temperature: float = 1.0           # Of sampling.
  chunk_size: int | None = None      # Columns unembedded at one time.
  compare: str = ''                  # Another PPO workdir, for the report.

  @property
  def num_optimizer_steps(self) -> int:
    """Optimizer steps over all iterations."""
    return self.num_steps * self.num_epochs * self.num_minibatches


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on sampled responses and saves the policy."""
  check_groups(cfg, run)
  policy = sft.policy_folder(cfg)
  model, params, tokenizer = runs.load_policy(policy)
  sources.check_layout(cfg, model.config)
  width = cfg.max_length - cfg.max_new_tokens
  rows, observe = sources.ppo_prompts(run, cfg, tokenizer, width)
  judge = reward_folder(cfg, policy)
  scalar, reward_params = load_reward(judge, model, policy)

  names = [field.name for field in dataclasses.fields(train.PPOConfig)]
  settings = train.PPOConfig(**{name: getattr(cfg, name) for name in names})
  optimizers = [
      train.make_optimizer(rate, cfg.num_optimizer_steps, decay='constant')
      for rate in (cfg.learning_rate, cfg.value_learning_rate)]
  state, shardings = train.init_ppo_state(
      model, scalar, params, reward_params, *optimizers, settings,
      mesh=run.mesh, seed=cfg.seed)
  of_policy, of_value = shardings.policy.params, shardings.value.params
  iterate = train.make_ppo_iteration(
      model, scalar, sharding.put(params, of_policy),
      rollout.make_reward_fn(
          scalar, sharding.put(reward_params, of_value), mesh=run.mesh,
          param_shardings=of_value, mean=runs.read_reward_mean(judge)),
      *optimizers, settings, shardings=shardings, mesh=run.mesh,
      prompt_length=width, eos_id=tokenizer.eos_id, observe=observe,
      chunk_size=cfg.chunk_size)
  state = train.run_stage(
      run.stage(cfg), iterate, state, shardings,
      lambda start: data.prompt_batches(
          rows, batch_size=cfg.batch_size, max_length=width,
          num_samples=cfg.num_samples, seed=cfg.seed, start=start))
  run.save_model(model, state.policy.params, tokenizer)
  run.finish({'prompts': len(rows), 'kl_target': cfg.kl_target,
              'kl_band': [0.75 * cfg.kl_target, 1.25 * cfg.kl_target]})


def check_groups(cfg, run: runs.Run, *, in_pairs: bool = False) -> None:
  """Refuses a batch that does not hold whole groups in every minibatch."""
  parts = cfg.num_minibatches * cfg.num_microbatches * run.num_shards
  in_groups = in_pairs or cfg.layout == 'branched'
  whole = parts * cfg.num_samples if in_groups else parts
  if cfg.batch_size % whole:
    raise InputError(
        f'batch_size={cfg.batch_size} does not split into num_minibatches='
        f'{cfg.num_minibatches} of whole {"pairs" if in_pairs else "groups"} '
        f'over {run.num_shards} data shards; use a multiple of {whole}')


def reward_function(cfg, run: runs.Run, model: models.CausalLM, policy: str):
  """`(tokens, attention_mask) -> [B]`: the reward model, on the mesh."""
  judge = reward_folder(cfg, policy)
  scalar, params = load_reward(judge, model, policy)
  shardings = sharding.tree_shardings(run.mesh, scalar.axes(), params)
  return rollout.make_reward_fn(
      scalar, sharding.put(params, shardings), mesh=run.mesh,
      param_shardings=shardings, mean=runs.read_reward_mean(judge))


def load_reward(folder: str, model: models.CausalLM, policy: str):
  """The reward model, which must read the policy's tokens."""
  scalar, params = runs.load_reward_model(folder)
  ours, theirs = model.config.vocab_size, scalar.config.vocab_size
  if ours != theirs:
    raise InputError(
        f'reward_model={folder} has vocab_size={theirs} and the policy '
        f'{policy} {ours}; give a reward model trained from this policy')
  return scalar, params


def reward_folder(cfg: Config, policy: str) -> str:
  """The reward model's folder; without one, it is trained here first."""
  if cfg.reward_model:
    return cfg.reward_model
  return reward.stage(reward.Config(
      workdir=str(pathlib.Path(cfg.workdir) / 'reward'), model=policy,
      data=cfg.data, num_steps=cfg.reward_steps, max_length=cfg.max_length,
      batch_size=None if runs.is_testbed(policy) else cfg.batch_size,
      resume=True, seed=cfg.seed, mesh=cfg.mesh, plain=cfg.plain,
      long_prompts=cfg.long_prompts, max_dropped=cfg.max_dropped,
      split=cfg.split, on_bad_record=cfg.on_bad_record,
      duplicates=cfg.duplicates))


def outcome(cfg: Config, folder: str) -> dict:
  """What is compared at the end."""
  policy = sft.policy_folder(cfg)
  return {'folders': {'sft': policy, 'ppo': folder}, 'compare': cfg.compare,
          'reward_model': reward_folder(cfg, policy)}


SCRIPT = scripts.Script(
    'ppo', fit, outcome,
    testbed=dict(num_steps=50, batch_size=128, max_length=48,
                 max_new_tokens=32, learning_rate=3e-4, reward_steps=250,
                 value_learning_rate=1e-3, kl_coef=0.3, kl_target=2.0,
                 kl_horizon=1_000.0),
    folder=dict(num_steps=100, batch_size=32, max_length=512,
                max_new_tokens=128, learning_rate=1e-6, reward_steps=100,
                value_learning_rate=1e-5, kl_coef=0.05, kl_target=6.0,
                kl_horizon=10_000.0))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
