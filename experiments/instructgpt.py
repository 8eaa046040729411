"""The whole of RLHF on one command: a base model becomes an aligned one.

  python -m experiments.instructgpt --workdir runs/first
  python -m experiments.instructgpt --workdir runs/hh --model DIR --data FILE

pretrain (testbed only) → SFT → preferences → reward model → PPO, and DPO from
the same SFT model and pairs beside it. Each stage is the script of that name,
in a folder of its own, and can be run again alone from the one before. On
folders the settings are those of Ouyang et al. (2022), appendix C,
https://arxiv.org/abs/2203.02155, as docs/recipes.md lists them.

Expect, on the testbed with two CPU cores and seed 0: 4 minutes, and gold 0.00
for the base model, 0.26 for SFT, 0.40 for DPO, 0.60 for PPO.
"""

import dataclasses

from alignjax import cli
from alignjax import runs
from experiments import dpo
from experiments import ppo
from experiments import preferences
from experiments import pretrain
from experiments import ranking
from experiments import recipe
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. Where two defaults are given: testbed, folder."""

  # Files of what the first and the last stage need; if left, all is of --data.
  sft_data: str = ''                 # Demonstrations.
  prompt_data: str = ''              # Prompts of PPO.
  ptx_data: str = ''                 # Pretraining text, for PPO-ptx.
  ptx_coef: float | None = None      # Its weight; 27.8 if there is a file.
  pretrain_steps: int | None = None  # Of the testbed's base model. 900.
  # Optimizer steps. Testbed: 105; folder, if left: 16 epochs.
  sft_steps: int | None = None
  preference_prompts: int | None = None  # Whose answers are ranked. 2000.
  # Optimizer steps. Testbed: 250; folder, if left: one epoch.
  reward_steps: int | None = None
  # Whether the reward model learns from whole rankings, all pairs of a prompt
  # in one batch. Testbed: from pairs; folder: from rankings.
  ranked: bool | None = None
  ppo_iterations: int | None = None  # 50, 500.
  dpo_steps: int | None = None       # 190, 500.
  # Rows. Testbed: 32 and PPO's 128; folder: 32, 64 prompts of the reward
  # model, PPO's 512.
  batch_size: int | None = None
  num_minibatches: int | None = None  # Of an iteration of PPO. 2, 8.
  max_length: int | None = None      # Tokens, prompt and response. 48, 2048.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 1024.
  kl_coef: float | None = None       # KL penalty's start, 1/nats. 0.3, 0.02.
  # Nats per response; of a folder it says what the penalty is expected to hold,
  # which stays as it is. 2, 6.
  kl_target: float | None = None
  beta: float | None = None          # DPO's, 1/nats. 1.0, 0.1.
  # Share of PPO's first responses that must end by themselves.
  min_ended: float = 0.01
  compare: str = ''                  # Another run's workdir, for the report.


# Ouyang et al. (2022): C.1 is of SFT, C.2 of the reward model, C.4 of PPO. The
# policy's rate is not published.
STAGES = {
    'base': recipe.Stage(
        pretrain, {'num_steps': 'pretrain_steps'}, makes_data=True),
    'sft': recipe.Stage(
        sft, {'num_steps': 'sft_steps', 'data': 'sft_data'},
        dict(epochs=16, batch_size=32, learning_rate=9.65e-6, warmup=0.0,
             max_length=2048)),
    'preferences': recipe.Stage(
        preferences, {'num_prompts': 'preference_prompts'}, makes_data=True),
    'reward': recipe.Stage(
        ranking, {'num_steps': 'reward_steps'},
        dict(epochs=1, batch_size=64, learning_rate=9e-6, warmup=0.0,
             max_length=2048, normalize='demonstrations')),
    'dpo': recipe.Stage(
        dpo, {'num_steps': 'dpo_steps'}, dict(max_length=2048)),
    'ppo': recipe.Stage(
        ppo, {'num_steps': 'ppo_iterations', 'data': 'prompt_data'},
        dict(num_steps=500, batch_size=512, num_minibatches=8, num_epochs=1,
             kl_coef=0.02, kl_horizon=float('inf'), kl_gain=0.0, clip=0.2,
             gamma=1.0, temperature=1.0, value_learning_rate=9e-6, warmup=0.02,
             max_length=2048, max_new_tokens=1024)),
}
TEXTS_PER_EPISODE = 8  # Of pretraining, in PPO-ptx.
PTX_COEF = 27.8


def stages(cfg: Config) -> dict[str, recipe.Stage]:
  """The stages, with what of their settings depends on others."""
  is_testbed = runs.is_testbed(cfg.model)
  of_reward, of_ppo = STAGES['reward'], STAGES['ppo']
  of_reward = of_reward._replace(published=of_reward.published | {
      'demonstrations': cfg.sft_data or cfg.data})
  if not (not is_testbed if cfg.ranked is None else cfg.ranked):
    of_reward = of_reward._replace(script=reward)
  if cfg.ptx_data:
    episodes = cfg.batch_size or of_ppo.published['batch_size']
    of_ppo = of_ppo._replace(published=of_ppo.published | {
        'ptx_coef': PTX_COEF, 'ptx_batch_size': TEXTS_PER_EPISODE * episodes})
  return recipe.made_here(cfg, STAGES | {'reward': of_reward, 'ppo': of_ppo})


def train(cfg: Config, run: runs.Run, settle) -> dict:
  """Trains what is not done of every stage; returns what is compared."""
  del run  # Stages have runs of their own.
  base = cfg.model
  if base == 'testbed':
    base = pretrain.stage(settle('base'))
  policy = sft.stage(settle('sft', model=base))
  pairs, test_pairs = cfg.data, ''
  if cfg.data == 'testbed':
    pairs, test_pairs = preferences.stage(settle('preferences', model=policy))
  learner = stages(cfg)['reward'].script
  judge = learner.stage(settle(
      'reward', model=policy, data=pairs, test_data=test_pairs))
  return {'reward_model': judge, 'compare': cfg.compare, 'folders': {
      'base': base, 'sft': policy,
      'dpo': dpo.stage(settle(
          'dpo', model=policy, data=pairs, test_data=test_pairs)),
      'ppo': ppo.stage(settle('ppo', model=policy, reward_model=judge))}}


RECIPE = recipe.Recipe('instructgpt', stages, train)
main = RECIPE.main

if __name__ == '__main__':
  cli.run(main, Config)
