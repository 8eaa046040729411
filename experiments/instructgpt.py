"""The whole of RLHF on one command: a base model becomes an aligned one.

  python -m experiments.instructgpt --workdir runs/first
  python -m experiments.instructgpt --workdir runs/hh --model DIR --data FILE

pretrain (testbed only) → SFT → preferences → reward model → PPO, and DPO from
the same SFT model and pairs beside it. Each stage is the script of that name,
in a folder of its own, and can be run again alone from the one before.
Ouyang et al. (2022), https://arxiv.org/abs/2203.02155.

Expect, on the testbed with two CPU cores and seed 0: 3.5 minutes, and gold 0.00
for the base model, 0.28 for SFT, 0.41 for DPO, 0.61 for PPO.
"""

import dataclasses
import pathlib

from alignjax import cli
from alignjax import outcomes
from alignjax import runs
from experiments import dpo
from experiments import ppo
from experiments import preferences
from experiments import pretrain
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. Where two defaults are given: testbed, folder."""

  pretrain_steps: int | None = None  # Of the testbed's base model. 900.
  sft_steps: int | None = None       # 105, 500.
  preference_prompts: int | None = None  # Whose answers are ranked. 2000.
  reward_steps: int | None = None    # 250, 500.
  ppo_iterations: int | None = None  # 50, 100.
  dpo_steps: int | None = None       # 190, 500.
  batch_size: int | None = None      # 32 and PPO's 128, 16 and PPO's 32.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 128.
  kl_coef: float | None = None       # KL penalty's start, 1/nats. 0.3, 0.05.
  kl_target: float | None = None     # Nats per response. 2, 6.
  beta: float | None = None          # DPO's, 1/nats. 1.0, 0.1.
  # Share of PPO's first responses that must end by themselves.
  min_ended: float = 0.01
  compare: str = ''                  # Another run's workdir, for the report.


# Each stage's script, and the flag that is its length.
STAGES = {
    'base': (pretrain, 'pretrain_steps'),
    'sft': (sft, 'sft_steps'),
    'preferences': (preferences, 'preference_prompts'),
    'reward': (reward, 'reward_steps'),
    'dpo': (dpo, 'dpo_steps'),
    'ppo': (ppo, 'ppo_iterations'),
}
# What the stages share, but these two have of their own.
_SIZES = {'batch_size', 'max_length'}


def main(cfg: Config) -> dict:
  """Runs what is not done yet of every stage; returns the summary."""
  runs.check(cfg)
  names = [name for name in STAGES if not (
      (name == 'base' and cfg.model != 'testbed')
      or (name == 'preferences' and cfg.data != 'testbed'))]
  for name in names:  # All, before the first takes its time.
    runs.check(_config(cfg, name))
  with runs.start(cfg, 'instructgpt') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    folders, reward_folder = train_all(cfg)
    return outcomes.write(
        run, cfg, folders, reward_model=reward_folder, compare=cfg.compare,
        stages={n: run.stage_summary(n) for n in names})


def train_all(cfg: Config) -> tuple[dict[str, str], str]:
  """(policies by name, reward model): the folders, each stage trained."""
  base = cfg.model
  if base == 'testbed':
    base = pretrain.stage(_config(cfg, 'base'))
  policy = sft.stage(_config(cfg, 'sft', model=base))
  pairs, test_pairs = cfg.data, ''
  if cfg.data == 'testbed':
    pairs, test_pairs = preferences.stage(
        _config(cfg, 'preferences', model=policy))
  reward_folder = reward.stage(_config(
      cfg, 'reward', model=policy, data=pairs, test_data=test_pairs))
  folders = {
      'base': base, 'sft': policy,
      'dpo': dpo.stage(_config(
          cfg, 'dpo', model=policy, data=pairs, test_data=test_pairs)),
      'ppo': ppo.stage(_config(
          cfg, 'ppo', model=policy, reward_model=reward_folder))}
  return folders, reward_folder


def _config(cfg: Config, name: str, **settings):
  """The stage's Config: what this run says, and its own defaults."""
  script, flag = STAGES[name]
  fields = {f.name for f in dataclasses.fields(script.Config)} - {'compare'}
  ours = dataclasses.asdict(cfg)
  if name in ('base', 'preferences'):
    fields -= _SIZES
  length = 'num_prompts' if name == 'preferences' else 'num_steps'
  shared = {k: v for k, v in (ours | {length: ours[flag]}).items()
            if k in fields and v is not None}
  return script.resolve(script.Config(**shared | settings | {
      'workdir': str(pathlib.Path(cfg.workdir) / name), 'resume': True}))


if __name__ == '__main__':
  cli.run(main, Config)
