"""SLiC's hinge on DPO's margin: once it is past 1/beta, a pair is left alone.

  python -m experiments.hinge --workdir runs/hinge
  python -m experiments.hinge --workdir runs/hinge --model DIR --data FILE.jsonl

Zhao et al. (2023), https://arxiv.org/abs/2305.10425; Liu et al. (2023),
https://arxiv.org/abs/2309.06657.

Expect, with seed 0 of experiments.compare (375 steps, dev split):
gold 0.419 at 0.8 nats, where SFT has 0.240.
"""

import dataclasses
import functools

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of the hinge. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # Enough is 1/beta nats. 1.0, 0.1.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  return objectives.preference(
      model, functools.partial(losses.hinge_loss, beta=cfg.beta),
      beta=cfg.beta, of_ratios=True, chunk_size=cfg.chunk_size)


SCRIPT = pairs.script(
    'hinge', objective, testbed=dict(beta=1.0), folder=dict(beta=0.1))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
