"""SimPO: no reference, and a margin of mean log-probabilities.

  python -m experiments.simpo --workdir runs/simpo
  python -m experiments.simpo --workdir runs/simpo --model DIR --data FILE.jsonl

Meng et al. (2024), https://arxiv.org/abs/2405.14734.

Expect, with seed 0 of experiments.compare (500 steps, dev split):
gold 0.404 at 4.2 nats, where SFT has 0.240.
"""

import dataclasses
import functools

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from alignjax import scoring
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of SimPO. Where two defaults are given: testbed, folder."""

  learning_rate: float | None = None  # 1e-4, 2e-6.
  beta: float = 2.0                  # Scale of the margin, 1/nats per token.
  simpo_gamma: float = 1.0           # Margin aimed at, times beta.
  sft_coef: float = 0.0              # Weight of the chosen response's SFT loss.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  loss = functools.partial(
      losses.simpo_loss, beta=cfg.beta, gamma=cfg.simpo_gamma)
  return objectives.preference(
      model, loss, beta=cfg.beta, reduce=scoring.mean_tokens,
      has_reference=False, sft_coef=cfg.sft_coef, chunk_size=cfg.chunk_size)


SCRIPT = pairs.script(
    'simpo', objective, testbed=dict(learning_rate=1e-4),
    folder=dict(learning_rate=2e-6), has_reference=False)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
