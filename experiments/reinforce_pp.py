"""REINFORCE++: PPO without a critic, advantages whitened over the batch.

  python -m experiments.reinforce_pp --workdir runs/reinforce_pp
  python -m experiments.reinforce_pp --workdir runs/r --model DIR --data FILE

Hu (2025), https://arxiv.org/abs/2501.03262.

Expect, with seed 0 of experiments.compare (75 iterations, dev split):
gold 0.488 at 6.9 nats, where SFT has 0.240.
"""

import dataclasses

from alignjax import cli
from alignjax import objectives
from alignjax import train
from experiments import online


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(online.PolicyGradientConfig):
  """Settings of the method. Where two defaults are given: testbed, folder."""

  num_samples: int = 1               # Responses to each prompt, K.
  clip: float = 0.2                  # Of the probability ratio.
  kl_coef: float | None = None       # Of the KL in the reward. 0.2, 0.05.


def objective(model, cfg: Config, prompt_length: int):
  """What a minibatch is trained on."""
  surrogate = objectives.clip_surrogate(clip=cfg.clip)
  return objectives.policy_gradient(
      model, surrogate, prompt_length=prompt_length,
      aggregate=objectives.token_mean,
      temperature=cfg.temperature, chunk_size=cfg.chunk_size,
      importance_cap=cfg.importance_cap)


def estimate(cfg: Config):
  """How rewards become advantages."""
  return train.to_go(kl_coef=cfg.kl_coef, scale=True)


SCRIPT = online.script(
    'reinforce_pp', objective, estimate, min_samples=1,
    testbed=dict(kl_coef=0.2),
    folder=dict(kl_coef=0.05))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
