"""EXO: the reverse KL between the policy's preference and the smoothed label.

  python -m experiments.exo --workdir runs/exo
  python -m experiments.exo --workdir runs/exo --model DIR --data FILE.jsonl

Ji et al. (2024), https://arxiv.org/abs/2402.00856.

Expect, with seed 0 of experiments.compare (375 steps, dev split):
gold 0.454 at 2.1 nats, where SFT has 0.240.
"""

import dataclasses
import functools

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from alignjax.types import InputError
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of EXO. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # Pull to the reference, 1/nats. 1.0, 0.1.
  label_smoothing: float = 0.001     # Chance that a label is flipped, above 0.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  loss = functools.partial(
      losses.exo_loss, beta=cfg.beta, label_smoothing=cfg.label_smoothing)
  return objectives.preference(
      model, loss, beta=cfg.beta, of_ratios=True,
      chunk_size=cfg.chunk_size)


def check(cfg: Config) -> None:
  """A KL to a label that is certain would be infinite."""
  if cfg.label_smoothing == 0:
    raise InputError(
        'label_smoothing=0.0 makes EXO infinite: it is a KL to the smoothed '
        'label; use a small number such as 0.001, or experiments.dpo')


SCRIPT = pairs.script(
    'exo', objective, testbed=dict(beta=1.0), folder=dict(beta=0.1),
    check=check)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
