"""The whole of RLHF on one command: a base model becomes an aligned one.

  python -m experiments.instructgpt --workdir runs/first
  python -m experiments.instructgpt --workdir runs/hh --model DIR --data FILE

pretrain (testbed only) → SFT → preferences → reward model → PPO, and DPO from
the same SFT model and pairs beside it. Each stage is the script of that name,
in a folder of its own, and can be run again alone from the one before.
Ouyang et al. (2022), https://arxiv.org/abs/2203.02155.
"""

import dataclasses
import pathlib

from alignjax import cli
from alignjax import outcomes
from alignjax import runs
from alignjax.types import InputError
from experiments import dpo
from experiments import ppo
from experiments import preferences
from experiments import pretrain
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. None: each stage's own default; see its --help."""

  pretrain_steps: int | None = None
  sft_steps: int | None = None
  reward_steps: int | None = None
  ppo_iterations: int | None = None
  dpo_steps: int | None = None
  batch_size: int | None = None      # Of every stage after pretraining.
  max_length: int | None = None      # Tokens, prompt and response.
  max_new_tokens: int | None = None  # Tokens of a response.
  kl_coef: float | None = None       # KL penalty's start, 1/nats; 0 is none.
  kl_target: float | None = None     # Nats per response.
  beta: float | None = None          # DPO's, 1/nats.
  compare: str = ''                  # Another run's workdir, for the report.


def main(cfg: Config) -> dict:
  """Runs what is not done yet of every stage; returns the summary."""
  if (cfg.model == 'testbed') != (cfg.data == 'testbed'):
    raise InputError(
        f'model={cfg.model} with data={cfg.data}: give both a model folder '
        'and a file, or neither')
  run = runs.start(cfg, 'instructgpt')
  if run.is_done:
    run.console.note(f'{run.workdir} is done; see summary.json')
    return run.summary()
  folders = {'base': cfg.model}
  if cfg.model == 'testbed':
    folders['base'] = pretrain.stage(_config(cfg, pretrain, 'base'))
  folders['sft'] = sft.stage(_config(
      cfg, sft, 'sft', model=folders['base'], num_steps=cfg.sft_steps))
  pairs, test_pairs = cfg.data, ''
  if cfg.data == 'testbed':
    pairs, test_pairs = preferences.stage(
        _config(cfg, preferences, 'preferences', model=folders['sft']))
  reward_folder = reward.stage(_config(
      cfg, reward, 'reward', model=folders['sft'], data=pairs,
      test_data=test_pairs, num_steps=cfg.reward_steps))
  folders['dpo'] = dpo.stage(_config(
      cfg, dpo, 'dpo', model=folders['sft'], data=pairs, beta=cfg.beta,
      num_steps=cfg.dpo_steps))
  folders['ppo'] = ppo.stage(_config(
      cfg, ppo, 'ppo', model=folders['sft'], reward_model=reward_folder,
      num_steps=cfg.ppo_iterations))
  stages = ('base', 'sft', 'preferences', 'reward', 'dpo', 'ppo')
  return outcomes.write(
      run, cfg, {n: folders[n] for n in ('base', 'sft', 'dpo', 'ppo')},
      reward_model=reward_folder, compare=cfg.compare,
      stages={n: s for n in stages if (s := run.stage_summary(n))})


def _config(cfg: Config, script, name: str, **settings):
  """The stage's Config: what this run says, and its own defaults."""
  fields = {f.name for f in dataclasses.fields(script.Config)}
  shared = {k: v for k, v in dataclasses.asdict(cfg).items()
            if k in fields and v is not None and k != 'compare'}
  if script is pretrain and cfg.pretrain_steps:
    settings['num_steps'] = cfg.pretrain_steps
  return script.Config(**shared | settings | {
      'workdir': str(pathlib.Path(cfg.workdir) / name), 'resume': True})


if __name__ == '__main__':
  cli.run(main, Config)
