"""Constitutional AI: revisions, SFT on them, AI feedback, DPO or PPO.

  python -m experiments.constitutional --workdir runs/cai
  python -m experiments.constitutional --workdir runs/cai --model DIR \\
    --data PROMPTS --constitution FILE --method ppo

  model ─► revisions ─► sl_cai (SFT) ─► ai_feedback ─► rl_cai (DPO, or PPO by a
  reward model of the feedback)

No person's preferences are in it: the model criticises itself by the principles
of a text file, and judges itself by them. Bai et al. (2022),
https://arxiv.org/abs/2212.08073. Every transcript is kept, in
`revisions/transcripts.jsonl` and `ai_feedback/preferences.jsonl`, and the first
of them stand in the report.

Expect, on the testbed with two CPU cores and seed 0: 5 minutes after the base
model.
"""

import dataclasses
import json
import pathlib
from typing import Literal

from alignjax import cli
from alignjax import report
from alignjax import runs
from experiments import ai_feedback
from experiments import dpo
from experiments import ppo
from experiments import pretrain
from experiments import recipe
from experiments import revisions
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. Where two defaults are given: testbed, folder."""

  constitution: str = ''    # A text file of principles; '': the usual one.
  num_rounds: int = 2       # Critiques and revisions of each response.
  thoughts: bool = False    # Let the judge think aloud before it decides.
  # Whose responses are judged: the model's before its revisions, which differ
  # more in what principles are about, or, as in the paper, after. sft, sl_cai.
  feedback_from: Literal['sft', 'sl_cai'] | None = None
  # What learns from the feedback: dpo, ppo (with a reward model), or none.
  method: Literal['dpo', 'ppo', 'none'] = 'dpo'
  pretrain_steps: int | None = None  # Of the testbed's base model. 900.
  critic_steps: int | None = None    # Of SFT on the testbed's critiques. 300.
  num_prompts: int | None = None     # Of the testbed, to revise. 800.
  feedback_prompts: int | None = None  # Of the testbed, to judge. 1600.
  sft_steps: int | None = None       # On revisions. 105, 500.
  reward_steps: int | None = None    # 250, 500.
  ppo_iterations: int | None = None  # 50, 100.
  dpo_steps: int | None = None       # 30, 500.
  lora_rank: int = 0  # Rank of LoRA adapters; 0 trains all weights.


STAGES = {
    'base': recipe.Stage(
        pretrain, {'num_steps': 'pretrain_steps'}, makes_data=True),
    'sft': recipe.Stage(sft, {'num_steps': 'critic_steps'},
                        testbed=revisions.CRITIC),
    'revisions': recipe.Stage(revisions, {}, makes_data=True),
    'sl_cai': recipe.Stage(
        sft, {'num_steps': 'sft_steps'}, testbed=dict(learning_rate=1e-3)),
    'ai_feedback': recipe.Stage(
        ai_feedback, {'num_prompts': 'feedback_prompts'}, makes_data=True),
    'reward': recipe.Stage(reward, {'num_steps': 'reward_steps'}),
    'dpo': recipe.Stage(
        dpo, {'num_steps': 'dpo_steps'}, testbed=dict(num_steps=30)),
    'ppo': recipe.Stage(ppo, {'num_steps': 'ppo_iterations'}),
}
_SHOWN = 12  # Transcripts in the report.
_LEFT_OUT = {'dpo': ('reward', 'ppo'), 'ppo': ('dpo',),
             'none': ('ai_feedback', 'reward', 'dpo', 'ppo')}


def stages(cfg: Config) -> dict[str, recipe.Stage]:
  """The stages of the method."""
  left_out = {*_LEFT_OUT[cfg.method]}
  if cfg.model != 'testbed':
    left_out.add('sft')  # It is given.
  return {name: stage for name, stage in recipe.made_here(cfg, STAGES).items()
          if name not in left_out}


def train(cfg: Config, run: runs.Run, settle) -> dict:
  """Trains what is not done of every stage; returns what is compared."""
  policy = cfg.model
  folders = {}
  if policy == 'testbed':
    folders['base'] = pretrain.stage(settle('base'))
    policy = sft.stage(settle(
        'sft', model=folders['base'],
        data=revisions.critic_demonstrations(cfg, run.workdir)))
  folders['sft'] = policy
  transcripts = revisions.stage(settle('revisions', model=policy))
  supervised = folders['sl_cai'] = sft.stage(settle(
      'sl_cai', model=policy, data=transcripts))
  judge = ''
  if cfg.method != 'none':
    source = cfg.feedback_from or (
        'sft' if runs.is_testbed(cfg.model) else 'sl_cai')
    pairs = ai_feedback.stage(settle(
        'ai_feedback', model=folders[source], judge=policy))
    if cfg.method == 'dpo':
      folders['rl_cai'] = dpo.stage(settle(
          'dpo', model=supervised, data=pairs))
    else:
      judge = reward.stage(settle('reward', model=supervised, data=pairs))
      folders['rl_cai'] = ppo.stage(settle(
          'ppo', model=supervised, reward_model=judge))
  return {'folders': folders, 'reward_model': judge,
          'last': [shown(transcripts)]}


def shown(path: str) -> report.Section:
  """The first transcripts: every critique and what it led to."""
  blocks = []
  for line in pathlib.Path(path).read_text().splitlines()[:_SHOWN]:
    record = json.loads(line)
    rows = [('first response', '', record['first'])]
    for step in record['steps']:
      rows += [('critique', step['principle'], step['critique']),
               ('revision', step['principle'], step['revision'])]
    prompt = record['prompt']
    blocks.append(report.Table(
        ('', 'principle', prompt if isinstance(prompt, str)
         else prompt[-1]['content']), rows))
  return report.Section('Critiques and revisions', blocks)


RECIPE = recipe.Recipe('constitutional', stages, train)
main = RECIPE.main

if __name__ == '__main__':
  cli.run(main, Config)
