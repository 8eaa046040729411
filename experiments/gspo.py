"""GSPO: GRPO whose ratio and clip are the whole response's.

  python -m experiments.gspo --workdir runs/gspo
  python -m experiments.gspo --workdir runs/gspo --model DIR --data FILE

Zheng et al. (2025), https://arxiv.org/abs/2507.18071.

Expect, with seed 0 of experiments.compare (75 iterations, dev split):
gold 0.420 at 2.0 nats, where SFT has 0.240.
"""

import dataclasses

from alignjax import advantages
from alignjax import cli
from alignjax import objectives
from alignjax import train
from experiments import online


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(online.PolicyGradientConfig):
  """Settings of the method. Where two defaults are given: testbed, folder."""

  clip: float | None = None          # How far the ratio may fall. 3e-2, 3e-4.
  clip_high: float | None = None     # How far it may rise. 4e-2, 4e-4.
  kl_coef: float | None = None       # Of the KL as loss, 1/nats. 0.4, 0.


def objective(model, cfg: Config, prompt_length: int):
  """What a minibatch is trained on."""
  surrogate = objectives.gspo_surrogate(
      clip=cfg.clip, clip_high=cfg.clip_high)
  return objectives.policy_gradient(
      model, surrogate, prompt_length=prompt_length,
      aggregate=objectives.sequence_mean, kl_coef=cfg.kl_coef,
      temperature=cfg.temperature, chunk_size=cfg.chunk_size,
      importance_cap=cfg.importance_cap)


def estimate(cfg: Config):
  """How rewards become advantages."""
  return train.grouped(advantages.group_advantages, cfg.num_samples)


SCRIPT = online.script(
    'gspo', objective, estimate,
    testbed=dict(kl_coef=0.4, clip=3e-2, clip_high=4e-2),
    folder=dict(kl_coef=0.0, clip=3e-4, clip_high=4e-4))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
