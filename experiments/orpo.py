"""ORPO: SFT on the chosen response, and its odds against the rejected one's.

  python -m experiments.orpo --workdir runs/orpo
  python -m experiments.orpo --workdir runs/orpo --model DIR --data FILE.jsonl

No reference: it may start from a base model. The loss is that of SFT, per
token of a pair's chosen response, plus `--odds-coef` times the odds ratio's.
Hong et al. (2024), https://arxiv.org/abs/2403.07691.

Expect, with seed 0 of experiments.compare (500 steps, dev split):
gold 0.361 at 0.8 nats, where SFT has 0.240.
"""

import dataclasses

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from alignjax import scoring
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of ORPO. Where two defaults are given: testbed, folder."""

  learning_rate: float | None = None  # 5e-4, 1e-5.
  odds_coef: float = 0.1             # Lambda, the weight of the odds ratio.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  loss = lambda *sides: cfg.odds_coef * losses.orpo_loss(*sides)
  return objectives.preference(
      model, loss, reduce=scoring.mean_tokens, has_reference=False,
      sft_coef=1.0, chunk_size=cfg.chunk_size)


SCRIPT = pairs.script(
    'orpo', objective, testbed=dict(learning_rate=5e-4), folder=dict(),
    has_reference=False)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
