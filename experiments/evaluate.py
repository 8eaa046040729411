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
  run = runs.start(cfg, 'evaluate')
  folders = dict(map(_named_folder, cfg.models))
  return outcomes.write(
      run, cfg, folders, reference=cfg.reference,
      reward_model=cfg.reward_model, stages={})


def _named_folder(text: str) -> tuple[str, str]:
  """name=FOLDER, taken apart."""
  name, equals, folder = text.partition('=')
  if not (name and equals and folder):
    raise InputError(f'models={text!r} is not name=FOLDER; give for example '
                     'sft=runs/first/sft/model')
  return name, folder


if __name__ == '__main__':
  cli.run(main, Config)
