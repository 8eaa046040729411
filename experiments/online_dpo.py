"""Online DPO: the best and the worst of K fresh responses make the pair.

  python -m experiments.online_dpo --workdir runs/online_dpo
  python -m experiments.online_dpo --workdir runs/r --model DIR --data FILE

The reward model is the judge. Guo et al. (2024),
https://arxiv.org/abs/2402.04792.

Expect, with seed 0 of experiments.compare (107 iterations):
gold 0.508 at 7.1 nats, where SFT has 0.284.
"""

import dataclasses

from alignjax import cli
from alignjax import objectives
from alignjax import train
from experiments import online


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(online.Config):
  """Settings of the method. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # Pull to the reference, 1/nats. 2.0, 0.1.


def objective(model, cfg: Config, prompt_length: int):
  """What a minibatch is trained on."""
  del prompt_length  # A pair holds whole rows.
  return objectives.dpo(
      model, beta=cfg.beta, chunk_size=cfg.chunk_size,
      temperature=cfg.temperature)


def make_rows(cfg: Config):
  """From an iteration's responses to its pairs."""
  return train.best_and_worst(cfg.num_samples)


SCRIPT = online.script(
    'online_dpo', objective, None, make_rows=make_rows,
    testbed=dict(beta=2.0),
    folder=dict(beta=0.1))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
