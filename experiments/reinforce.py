"""REINFORCE: the reward still to come, less the batch's mean.

  python -m experiments.reinforce --workdir runs/reinforce
  python -m experiments.reinforce --workdir runs/r --model DIR --data FILE

One optimizer step per rollout, so that no ratio and no clip is needed. The KL
to the reference is a part of each token's reward (k1). Williams (1992),
https://doi.org/10.1007/BF00992696.

Expect, with seed 0 of experiments.compare (107 iterations, dev split):
gold 0.506 at 8.9 nats, where SFT has 0.240.
"""

import dataclasses

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from alignjax import train
from alignjax.types import InputError
from experiments import online


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(online.PolicyGradientConfig):
  """Settings of the method. Where two defaults are given: testbed, folder."""

  learning_rate: float | None = None  # 1e-3, 1e-6.
  num_samples: int = 1               # Responses to each prompt, K.
  num_epochs: int = 1                # Passes over each rollout.
  num_minibatches: int = 1           # Optimizer steps in each pass.
  kl_coef: float | None = None       # Of the KL in the reward. 0.2, 0.05.


def objective(model, cfg: Config, prompt_length: int):
  """What a minibatch is trained on."""
  surrogate = lambda new, old, advantages, mask: losses.reinforce_loss(
      new, advantages)
  return objectives.policy_gradient(
      model, surrogate, prompt_length=prompt_length,
      aggregate=objectives.token_mean,
      temperature=cfg.temperature, chunk_size=cfg.chunk_size,
      importance_cap=cfg.importance_cap)


def estimate(cfg: Config):
  """How rewards become advantages."""
  return train.to_go(kl_coef=cfg.kl_coef, scale=False)


def check(cfg: Config) -> None:
  """Nothing here corrects for a policy that has moved."""
  if cfg.num_epochs * cfg.num_minibatches > 1:
    raise InputError(
        f'num_epochs={cfg.num_epochs}, num_minibatches={cfg.num_minibatches}: '
        'REINFORCE takes one step per rollout; use experiments.reinforce_pp, '
        'which has a ratio and a clip, for more')


SCRIPT = online.script(
    'reinforce', objective, estimate, min_samples=1, check=check,
    testbed=dict(kl_coef=0.2, learning_rate=1e-3),
    folder=dict(kl_coef=0.05))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
