"""RLOO: REINFORCE whose baseline is the other responses to the prompt.

  python -m experiments.rloo --workdir runs/rloo
  python -m experiments.rloo --workdir runs/rloo --model DIR --data FILE

The KL to the reference is a part of each response's reward (k1). PPO's clip, of
the whole response's ratio, lets a rollout serve several steps. Ahmadian et al.
(2024), https://arxiv.org/abs/2402.14740.

Expect, with seed 0 of experiments.compare (75 iterations):
gold 0.606 at 1.8 nats, where SFT has 0.284.
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

  clip: float = 0.2                  # Of the probability ratio.
  kl_coef: float | None = None       # Of the KL in the reward. 0.5, 0.05.


def objective(model, cfg: Config, prompt_length: int):
  """What a minibatch is trained on."""
  surrogate = objectives.response_surrogate(clip=cfg.clip)
  return objectives.policy_gradient(
      model, surrogate, prompt_length=prompt_length,
      aggregate=objectives.sequence_mean,
      temperature=cfg.temperature, chunk_size=cfg.chunk_size,
      importance_cap=cfg.importance_cap)


def estimate(cfg: Config):
  """How rewards become advantages."""
  return train.grouped(
      advantages.leave_one_out_advantages, cfg.num_samples,
      kl_coef=cfg.kl_coef)


SCRIPT = online.script(
    'rloo', objective, estimate, testbed=dict(kl_coef=0.5),
    folder=dict(kl_coef=0.05))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
