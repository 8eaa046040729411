"""CPO: DPO without a reference, held by SFT on the chosen response.

  python -m experiments.cpo --workdir runs/cpo
  python -m experiments.cpo --workdir runs/cpo --model DIR --data FILE.jsonl

Xu et al. (2024), https://arxiv.org/abs/2401.08417.

Expect, with seed 0 of experiments.compare (500 steps, dev split):
gold 0.298 at 1.8 nats, where SFT has 0.240.
"""

import dataclasses
import functools

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of CPO. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # Scale of the margin, 1/nats. 0.5, 0.1.
  label_smoothing: float = 0.0       # Chance that a label is flipped.
  sft_coef: float = 1.0              # Weight of the chosen response's SFT loss.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  loss = functools.partial(
      losses.cpo_loss, beta=cfg.beta, label_smoothing=cfg.label_smoothing)
  return objectives.preference(
      model, loss, beta=cfg.beta, has_reference=False, sft_coef=cfg.sft_coef,
      chunk_size=cfg.chunk_size)


SCRIPT = pairs.script(
    'cpo', objective, testbed=dict(beta=0.5), folder=dict(beta=0.1),
    has_reference=False)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
