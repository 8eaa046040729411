"""Robust DPO: unbiased under labels that are flipped at a known rate.

  python -m experiments.robust_dpo --workdir runs/robust_dpo
  python -m experiments.robust_dpo --workdir runs/robust --model DIR --data FILE

Chowdhury et al. (2024), https://arxiv.org/abs/2403.00409.

Expect, with seed 0 of experiments.compare (375 steps, dev split):
gold 0.469 at 1.8 nats, where SFT has 0.240.
"""

import dataclasses
import functools

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of robust DPO. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # Pull to the reference, 1/nats. 1.0, 0.1.
  label_smoothing: float = 0.1       # Chance that a label is flipped.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  loss = functools.partial(
      losses.robust_dpo_loss, beta=cfg.beta,
      label_smoothing=cfg.label_smoothing)
  return objectives.preference(
      model, loss, beta=cfg.beta, of_ratios=True,
      chunk_size=cfg.chunk_size)


SCRIPT = pairs.script(
    'robust_dpo', objective, testbed=dict(beta=1.0), folder=dict(beta=0.1))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
