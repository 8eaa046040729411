"""LLaMA 2-Chat: SFT, then rounds of fresh preferences, rejection sampling, PPO.

  python -m experiments.llama2_chat --workdir runs/llama2 --seed 0
  python -m experiments.llama2_chat --workdir runs/llama2 --model DIR \\
    --sft-data FILE --data HELPFULNESS --safety-data SAFETY

Each round collects preferences on the responses of the policy as it is, trains
a helpfulness and a safety reward model on the pairs of all rounds, and
fine-tunes on the best of N; the last round has PPO behind that. On folders the
settings are those of Touvron et al. (2023), sections 3.1 to 3.2,
https://arxiv.org/abs/2307.09288, as docs/recipes.md lists them, and a round's
preferences are its part of the files.

Expect, on the testbed with two CPU cores and seed 0: 10 minutes, and gold 0.31
for SFT, 0.45 after five rounds, 0.50 after PPO.
"""

import dataclasses
import json
import pathlib

from alignjax import cli
from alignjax import lineage
from alignjax import runs
from experiments import llama2_round
from experiments import ppo
from experiments import preferences
from experiments import pretrain
from experiments import recipe
from experiments import rejection_sampling
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. Where two defaults are given: testbed, folder."""

  # Demonstrations; '' takes --data, whose pairs are then that too.
  sft_data: str = ''
  safety_data: str = ''          # Pairs of safety; '' trains no model of it.
  # Prompts that safety alone judges; the testbed's are those that are or look
  # harmful.
  safety_prompts: str = ''
  num_rounds: int = 5            # Of preferences and rejection sampling.
  round_prompts: int = 500       # Of the testbed, in each round.
  round_test_prompts: int = 300  # Of each topic, to measure the models on.
  round_samples: int = 6         # Responses to each, which the panel ranks.
  pretrain_steps: int | None = None  # Of the testbed's base model. 900.
  # Optimizer steps. Testbed: 105; folder, if left: two epochs.
  sft_steps: int | None = None
  # Optimizer steps of a round's helpfulness model. Testbed: 250; folder, if
  # left: one epoch.
  reward_steps: int | None = None
  # The same of the safety model. Testbed: 100; folder, if left: one epoch.
  safety_steps: int | None = None
  # Of a round's rejection sampling. Testbed: 60; folder, if left: two epochs.
  rejection_steps: int | None = None
  best_of: int | None = None  # Responses to choose from, N. 8, 10.
  ppo_iterations: int | None = None  # Behind the last round. 30, 400.
  # Rows. Testbed: 32 and PPO's 128; folder: 64, 512 pairs of the reward
  # models, PPO's 512.
  batch_size: int | None = None
  num_minibatches: int | None = None  # Of an iteration of PPO. 2, 8.
  max_length: int | None = None  # Tokens, prompt and response. 48, 4096.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 1024.
  kl_coef: float | None = None   # KL penalty's start, 1/nats. 0.3, 0.01.
  # Share of PPO's first responses that must end by themselves.
  min_ended: float = 0.01


_ADAM = dict(adam_b2=0.95, weight_decay=0.1)
_REWARD = _ADAM | dict(
    epochs=1, batch_size=512, learning_rate=1e-5, warmup=0.03, margins='small',
    max_length=4096)
_SFT = _ADAM | dict(
    epochs=2, batch_size=64, learning_rate=2e-5, max_length=4096)
STAGES = {
    'base': recipe.Stage(
        pretrain, {'num_steps': 'pretrain_steps'}, makes_data=True),
    'sft': recipe.Stage(
        sft, {'num_steps': 'sft_steps', 'data': 'sft_data'}, _SFT),
    'preferences': recipe.Stage(preferences, {}, makes_data=True),
    'reward-helpfulness': recipe.Stage(
        reward, {'num_steps': 'reward_steps'}, _REWARD, dict(num_steps=250)),
    'reward-safety': recipe.Stage(
        reward, {'num_steps': 'safety_steps'}, _REWARD, dict(num_steps=100)),
    'rejection_sampling': recipe.Stage(
        rejection_sampling,
        {'num_steps': 'rejection_steps', 'num_prompts': 'round_prompts'},
        _SFT | dict(best_of=10, max_new_tokens=1024)),
    'ppo': recipe.Stage(
        ppo, {'num_steps': 'ppo_iterations'},
        _ADAM | dict(
            num_steps=400, batch_size=512, num_minibatches=8, num_epochs=1,
            learning_rate=1e-6, value_learning_rate=1e-6, clip=0.2,
            kl_coef=0.01, kl_horizon=float('inf'), kl_gain=0.0,
            whiten_scores=True, max_length=4096, max_new_tokens=1024),
        dict(num_steps=30)),
}


def stages(cfg: Config) -> dict[str, recipe.Stage]:
  """The stages that the config has."""
  chosen = recipe.made_here(cfg, STAGES)
  return {name: stage for name, stage in chosen.items()
          if name != 'reward-safety' or 'safety' in llama2_round.topics(cfg)}


def train(cfg: Config, run: runs.Run, settle) -> dict:
  """SFT, the rounds and PPO; returns what is compared."""
  base = cfg.model
  if base == 'testbed':
    base = pretrain.stage(settle('base'))
  policy = sft.stage(settle('sft', model=base))
  state = begin(cfg, run, policy)
  folders = {'sft': policy}
  for number in range(1, cfg.num_rounds + 1):
    run.console.note(f'round {number} of {cfg.num_rounds}')
    state = llama2_round.run_round(cfg, run, settle, state)
    folders[f'round{number}'] = state.policy
  folders['ppo'] = ppo.stage(settle(
      'ppo', model=state.policy, **llama2_round.judging(state.judges)))
  lineage.record(
      run.workdir, run.workdir / 'ppo', name='ppo', figures={},
      config=llama2_round.settings_of(cfg),
      parents={'last round': state.manifests[-1]},
      artifacts={'policy': pathlib.Path(folders['ppo'])})
  show(run, state)
  return {'folders': folders, 'reward_model': state.judges['helpfulness'],
          'stages': timed(run, state)}


def begin(cfg: Config, run: runs.Run, policy: str) -> llama2_round.Round:
  """What the first round starts from, on record: an SFT model."""
  manifest = lineage.record(
      run.workdir, run.workdir / 'sft', name='sft', parents={}, figures={},
      config=llama2_round.settings_of(cfg),
      artifacts={'policy': pathlib.Path(policy)})
  return llama2_round.Round(0, policy, {}, {}, [], [manifest], {})


def timed(run: runs.Run, state: llama2_round.Round) -> dict[str, dict]:
  """The summary of each stage and round, with its seconds."""
  total = lambda folder: round(sum(
      json.loads(path.read_text())['seconds']
      for path in sorted(folder.rglob('summary.json'))), 1)
  return {'sft': run.stage_summary('sft')} | {
      name: {'seconds': total(run.workdir / name)} | figures
      for name, figures in state.measured.items()} | {
          'ppo': run.stage_summary('ppo')}


def show(run: runs.Run, state: llama2_round.Round) -> None:
  """The table of the reward models on the pairs of each round's policy."""
  names = ('first', 'stale', 'refreshed')
  rows = [[name, topic, str(each['pairs']), *(
      f'{each[n]:.3f}' if n in each else '' for n in names)]
          for name, figures in state.measured.items()
          for topic, each in figures.items()]
  run.console.table(
      'Accuracy on pairs of the policy that the round began with',
      ['round', 'reward model', 'pairs', *names], rows)


RECIPE = recipe.Recipe('llama2_chat', stages, train)
main = RECIPE.main

if __name__ == '__main__':
  cli.run(main, Config)
