"""Identity preference optimisation: a margin with a target, 1/(2 beta).

  python -m experiments.ipo --workdir runs/ipo
  python -m experiments.ipo --workdir runs/ipo --model DIR --data FILE.jsonl

The margin is per token unless `--sum`: its authors' later advice, which keeps
one beta right for short and long responses. Where preferences never
contradict each other DPO's margin grows without bound; this one stops.
Azar et al. (2023), https://arxiv.org/abs/2310.12036.

Expect, with seed 0 of experiments.compare (375 steps):
gold 0.445 at 0.7 nats, where SFT has 0.284.
"""

import dataclasses
import functools

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from alignjax import scoring
from alignjax.types import InputError
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of IPO. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # The target is 1/(2 beta) nats. 2.0, 0.1.
  sum: bool = False                  # Margins of sums, as in the paper.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  return objectives.preference(
      model, functools.partial(losses.ipo_loss, beta=cfg.beta), beta=cfg.beta,
      reduce=scoring.sum_tokens if cfg.sum else scoring.mean_tokens,
      of_ratios=True, chunk_size=cfg.chunk_size)


def check(cfg: Config) -> None:
  """IPO's target is a log-ratio to a reference."""
  if cfg.reference_free:
    raise InputError(
        'reference_free=True is not defined for IPO, whose target 1/(2 beta) '
        'is a log-ratio to a reference; leave it out, or use experiments.simpo')


SCRIPT = pairs.script(
    'ipo', objective, testbed=dict(beta=2.0), folder=dict(beta=0.1),
    check=check)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
