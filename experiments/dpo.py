"""Direct preference optimisation from an SFT model.

  python -m experiments.dpo --workdir runs/dpo
  python -m experiments.dpo --workdir runs/dpo --model DIR --data FILE.jsonl

The first loss is log 2, whatever beta: policy and reference are the same.

Expect, on the testbed with two CPU cores and seed 0: 28 seconds after the SFT
model and its preferences, gold 0.41 at 0.7 nats.

Its relatives by a flag: `--label-smoothing` (cDPO), `--sft-coef` (RPO),
`--normalized` (per-token margins), `--tail` (LD-DPO), `--wpo`.
"""

import dataclasses

from alignjax import cli
from alignjax import objectives
from alignjax import scoring
from alignjax.types import InputError
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of DPO. Where two defaults are given: testbed, folder."""

  beta: float | None = None          # Pull to the reference, 1/nats. 1.0, 0.1.
  label_smoothing: float = 0.0       # Chance that a label is flipped.
  sft_coef: float = 0.0              # Weight of the chosen response's SFT loss.
  normalized: bool = False           # Margins per token, not per response.
  tail: float = 1.0  # How much what one response has beyond the other counts.
  wpo: bool = False  # Weigh pairs by how likely the policy is to write them.


def objective(model, cfg: Config):
  """DPO's objective with the config's settings."""
  reduce = scoring.sum_tokens
  if cfg.normalized:
    reduce = scoring.mean_tokens
  elif cfg.tail < 1.0:
    reduce = objectives.length_desensitized(cfg.tail)
  return objectives.dpo(
      model, beta=cfg.beta, label_smoothing=cfg.label_smoothing,
      reduce=reduce, sft_coef=cfg.sft_coef, wpo=cfg.wpo,
      chunk_size=cfg.chunk_size)


def check(cfg: Config) -> None:
  """Refuses two ways to weigh tokens at once."""
  if cfg.normalized and cfg.tail < 1.0:
    raise InputError(
        f'normalized=True takes a mean over tokens, and tail={cfg.tail} weighs '
        'those of a sum; leave one of them out')


SCRIPT = pairs.script(
    'dpo', objective, testbed=dict(beta=1.0), folder=dict(beta=0.1),
    check=check)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
