"""OpenChat: C-RLFT on responses of two classes, an expert's and the rest.

  python -m experiments.openchat --workdir runs/openchat
  python -m experiments.openchat --workdir runs/openchat --model DIR --data FILE

`--data` holds `{prompt, response, source}` or `{messages, source}` rows. No
preferences and no reward model: the class is the reward. On folders the
settings are those of Wang et al. (2023), https://arxiv.org/abs/2309.11235, and
of their code. Plain SFT on the same rows, which knows no classes, is trained
beside it.

Expect, on the testbed with two CPU cores and seed 0: half a minute after the
base model, and gold 0.00 for it, 0.26 for SFT, 0.52 for C-RLFT.
"""

import dataclasses

from alignjax import cli
from alignjax import runs
from experiments import c_rlft
from experiments import pretrain
from experiments import recipe
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run. Where two defaults are given: testbed, folder."""

  # name=weight of each class, the one to ask for first; of a file, if left:
  # GPT4=1 GPT3.5=0.1.
  classes: tuple[str, ...] | None = None
  baseline: bool = True  # Train plain SFT too, to compare with.
  pretrain_steps: int | None = None  # Of the testbed's base model. 900.
  # Optimizer steps. Testbed: 105; folder, if left: 5 epochs.
  num_steps: runs.Steps = None
  batch_size: int | None = None      # Conversations. 32, 64.
  max_length: int | None = None      # Tokens, prompt and response. 48, 4096.
  lora_rank: int = 0  # Rank of LoRA adapters; 0 trains all weights.


# A batch of theirs has 200k tokens: about so many conversations, packed.
_PUBLISHED = dict(
    epochs=5, batch_size=64, learning_rate=6.7e-5, weight_decay=0.1,
    adam_b2=0.95, decay='cosine', final_rate=0.1, max_length=4096,
    layout='packed')
STAGES = {
    'base': recipe.Stage(
        pretrain, {'num_steps': 'pretrain_steps'}, makes_data=True),
    'sft': recipe.Stage(sft, {}, _PUBLISHED),
    'c_rlft': recipe.Stage(
        c_rlft, {}, _PUBLISHED | dict(classes=('GPT4=1', 'GPT3.5=0.1'))),
}


def stages(cfg: Config) -> dict[str, recipe.Stage]:
  """The stages, with plain SFT or without."""
  chosen = recipe.made_here(cfg, STAGES)
  return {name: stage for name, stage in chosen.items()
          if name != 'sft' or cfg.baseline}


def train(cfg: Config, run: runs.Run, settle) -> dict:
  """Trains what is not done of every stage; returns what is compared."""
  del run  # Stages have runs of their own.
  base = cfg.model
  if base == 'testbed':
    base = pretrain.stage(settle('base'))
  folders = {'base': base}
  if cfg.baseline:
    folders['sft'] = sft.stage(settle('sft', model=base))
  folders['c_rlft'] = c_rlft.stage(settle('c_rlft', model=base))
  return {'folders': folders,
          'reference': 'sft' if cfg.baseline else 'base'}


RECIPE = recipe.Recipe('openchat', stages, train)
main = RECIPE.main

if __name__ == '__main__':
  cli.run(main, Config)
