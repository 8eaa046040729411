"""f-DPO: DPO under a divergence other than the reverse KL.

  python -m experiments.f_dpo --workdir runs/f_dpo
  python -m experiments.f_dpo --workdir runs/f_dpo --model DIR --data FILE.jsonl

The divergence decides how a response that the reference finds unlikely is
paid: forward KL and alpha drop such gains, Jensen-Shannon bounds them.
Wang et al. (2023), https://arxiv.org/abs/2309.16240.

Expect, with seed 0 of experiments.compare (375 steps, dev split):
gold 0.436 at 1.2 nats, where SFT has 0.240.
"""

import dataclasses
import functools
from typing import Literal

from alignjax import cli
from alignjax import losses
from alignjax import objectives
from alignjax.types import InputError
from experiments import pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(pairs.Config):
  """Settings of f-DPO. Where two defaults are given: testbed, folder."""

  divergence: Literal['forward_kl', 'js', 'alpha'] = 'js'
  alpha: float = 0.5                 # Of the alpha divergence, above 0.
  beta: float | None = None          # Pull to the reference, 1/nats. 1.0, 0.1.


def objective(model, cfg: Config):
  """The objective with the config's settings."""
  loss = {
      'forward_kl': losses.forward_kl_dpo_loss, 'js': losses.js_dpo_loss,
      'alpha': functools.partial(losses.alpha_dpo_loss, alpha=cfg.alpha),
  }[cfg.divergence]
  return objectives.preference(
      model, functools.partial(loss, beta=cfg.beta), beta=cfg.beta,
      of_ratios=True, chunk_size=cfg.chunk_size)


def check(cfg: Config) -> None:
  """A divergence is of the policy from something."""
  if cfg.reference_free:
    raise InputError('reference_free=True is not defined for f-DPO, which '
                     'chooses the divergence from the reference; leave it out')


SCRIPT = pairs.script(
    'f_dpo', objective, testbed=dict(beta=1.0), folder=dict(beta=0.1),
    check=check)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
