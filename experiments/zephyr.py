"""Zephyr: SFT on conversations, then DPO on an AI's preferences.

  python -m experiments.zephyr --workdir runs/zephyr
  python -m experiments.zephyr --workdir runs/zephyr --model DIR \\
    --sft-data ultrachat_200k --data ultrafeedback_binarized

No reward model and no sampling. On folders the settings are those of Tunstall
et al. (2023), section 4.3, https://arxiv.org/abs/2310.16944, for 7B: SFT on
UltraChat, DPO on UltraFeedback. On the testbed a panel ranks the SFT model's
own responses.

Expect, on the testbed with seed 0, what experiments.instructgpt has of the same
stages: gold 0.00 for the base model, 0.26 for SFT, 0.40 for DPO.
"""

import dataclasses

from alignjax import cli
from alignjax import runs
from experiments import dpo
from experiments import preferences
from experiments import pretrain
from experiments import recipe
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. Where two defaults are given: testbed, folder."""

  # Conversations of SFT, as UltraChat's; '' takes --data, whose pairs are then
  # the demonstrations too.
  sft_data: str = ''
  # Which of its splits; as --split, which is train_prefs in UltraFeedback.
  sft_split: str = 'train_sft'
  split: str = 'train_prefs'
  pretrain_steps: int | None = None  # Of the testbed's base model. 900.
  # Optimizer steps. Testbed: 105; folder, if left: one epoch.
  sft_steps: int | None = None
  preference_prompts: int | None = None  # Whose answers are ranked. 2000.
  # Optimizer steps. Testbed: 190; folder, if left: three epochs.
  dpo_steps: int | None = None
  sft_batch_size: int | None = None  # Conversations. 32, 512.
  batch_size: int | None = None      # Pairs of DPO. 32, 32.
  sft_max_length: int | None = None  # Tokens of a conversation. 48, 2048.
  max_length: int | None = None      # Tokens of a response's pair. 48, 1024.
  beta: float | None = None          # DPO's, 1/nats. 1.0, 0.1.
  lora_rank: int = 0  # Rank of LoRA adapters; 0 trains all weights.


# Rates end at 0, as the authors' code has it.
_SHARED = dict(warmup=0.1, final_rate=0.0, adam_b2=0.999)
STAGES = {
    'base': recipe.Stage(
        pretrain, {'num_steps': 'pretrain_steps'}, makes_data=True),
    'sft': recipe.Stage(
        sft, {'num_steps': 'sft_steps', 'data': 'sft_data',
              'batch_size': 'sft_batch_size', 'max_length': 'sft_max_length'},
        _SHARED | dict(epochs=1, batch_size=512, learning_rate=2e-5,
                       max_length=2048, layout='packed')),
    'preferences': recipe.Stage(
        preferences, {'num_prompts': 'preference_prompts'}, makes_data=True),
    'dpo': recipe.Stage(
        dpo, {'num_steps': 'dpo_steps'},
        _SHARED | dict(epochs=3, batch_size=32, learning_rate=5e-7,
                       decay='linear', beta=0.1, max_length=1024)),
}


def stages(cfg: Config) -> dict[str, recipe.Stage]:
  """The stages; SFT reads a split of its own if it has a file of its own."""
  of_sft = STAGES['sft']
  if cfg.sft_data:
    of_sft = of_sft._replace(fields=of_sft.fields | {'split': 'sft_split'})
  return recipe.made_here(cfg, STAGES | {'sft': of_sft})


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
  aligned = dpo.stage(settle(
      'dpo', model=policy, data=pairs, test_data=test_pairs))
  return {'folders': {'base': base, 'sft': policy, 'dpo': aligned}}


RECIPE = recipe.Recipe('zephyr', stages, train)
main = RECIPE.main

if __name__ == '__main__':
  cli.run(main, Config)
