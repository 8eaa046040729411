"""Compares models on held-out prompts: gold, win rate, KL, transcripts.

  python -m experiments.evaluate --workdir runs/eval \\
    --models sft=runs/first/sft/model ppo=runs/first/ppo/model

On the testbed the gold judge scores; on `--data FILE` with real models,
`--reward-model` does.
"""

import dataclasses

from alignjax import cli
from alignjax import outcomes
from alignjax import runs
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the comparison."""

  models: tuple[str, ...]    # name=FOLDER, one or more.
  reference: str = 'sft'     # Whom KL and win rate are taken against.
  reward_model: str = ''     # Its folder, to report the proxy reward too.
  max_length: int = 256      # Tokens, prompt and response, of a file's.
  max_new_tokens: int = 32   # Tokens of a response.


def main(cfg: Config) -> dict:
  """Evaluates, writes summary.json and report.html."""
  folders = named_folders(cfg.models)
  if cfg.reference not in folders:
    raise InputError(f'reference={cfg.reference} is none of the models '
                     f'({", ".join(folders)}); name one of them')
  cfg = dataclasses.replace(cfg, model=folders[cfg.reference])
  with runs.start(cfg, 'evaluate') as run:
    return outcomes.write(
        run, cfg, folders, reference=cfg.reference,
        reward_model=cfg.reward_model, stages={})


def named_folders(models: tuple[str, ...]) -> dict[str, str]:
  """Each name=FOLDER, taken apart."""
  folders = {}
  for text in models:
    name, _, folder = text.partition('=')
    if not (name and folder):
      raise InputError(f'models={text!r} is not name=FOLDER; give for example '
                       'sft=runs/first/sft/model')
    if name in folders:
      raise InputError(f'models={text!r}: the name {name} is taken by '
                       f'{folders[name]}; give each model its own')
    folders[name] = folder
  return folders


if __name__ == '__main__':
  cli.run(main, Config)
