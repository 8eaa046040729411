"""What the claims share: one pipeline, and how two models are compared.

Each model is trained once, in a folder below the workdir, when a claim first
asks for it; a run that is cut off goes on from what is there.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any, Literal, NamedTuple

import numpy as np

from alignjax import evaluation
from alignjax import outcomes
from alignjax import runs
from alignjax import sources
from experiments import dpo
from experiments import ppo
from experiments import preferences
from experiments import pretrain
from experiments import reward
from experiments import sft

Verdict = Literal['confirmed', 'refuted', 'undecided']


class Finding(NamedTuple):
  """What came out."""

  figure: float
  interval: tuple[float, float]
  verdict: Verdict
  details: dict[str, Any]  # Whatever else a reader wants to know.


class Claim(NamedTuple):
  """What is claimed, said before it is measured."""

  claim: str
  prediction: str  # What the figure is, and where it will lie.
  refuted_by: str
  measure: Any     # `(lab) -> Finding`.


@dataclasses.dataclass(frozen=True)
class Lab:
  """The pipeline of one seed."""

  cfg: runs.RunConfig
  run: runs.Run

  def at(self, name: str) -> dict[str, Any]:
    """The settings of a stage in a folder of its own."""
    return {'workdir': str(pathlib.Path(self.cfg.workdir) / name),
            'resume': True, 'seed': self.cfg.seed, 'mesh': self.cfg.mesh}

  @functools.cached_property
  def base(self) -> str:
    """The base model."""
    return pretrain.stage(pretrain.Config(**self.at('base')))

  @functools.cached_property
  def sft(self) -> str:
    """The SFT model."""
    return sft.stage(sft.Config(**self.at('sft'), model=self.base))

  @functools.cached_property
  def pairs(self) -> tuple[str, str]:
    """The panel's preferences on its responses: train, test."""
    return preferences.stage(preferences.Config(
        **self.at('preferences'), model=self.sft))

  @functools.cached_property
  def reward(self) -> str:
    """The reward model of these."""
    train, test = self.pairs
    return reward.stage(reward.Config(
        **self.at('reward'), model=self.sft, data=train, test_data=test))

  @functools.cached_property
  def dpo(self) -> str:
    """DPO on these, by its defaults."""
    train, test = self.pairs
    return dpo.stage(dpo.Config(
        **self.at('dpo'), model=self.sft, data=train, test_data=test))

  def ppo(self, name: str = 'ppo', **settings) -> str:
    """PPO against the reward model, by its defaults but for `settings`."""
    return ppo.stage(ppo.Config(**self.at(name), **dict(
        model=self.sft, reward_model=self.reward) | settings))

  def scores(self, folders: Mapping[str, str]) -> dict[str, dict]:
    """Everything that is measured of models of one shape, by name."""
    first = next(iter(folders))
    with self.run.console.working(f'comparing {", ".join(folders)}'):
      found, _ = outcomes.compare_models(
          self.run, self.cfg, folders, reference=first)
    return found

  @functools.cached_property
  def dishes(self) -> list[str]:
    """What each held-out prompt is about: they stand and fall by these."""
    prompts, _ = sources.testbed_prompts(
        'test', outcomes.NUM_PROMPTS, self.cfg.seed,
        sources.testbed_tokenizer())
    return [prompt.dish for prompt in prompts]

  def difference(self, a: Sequence[float], b: Sequence[float],
                 ) -> tuple[float, tuple[float, float]]:
    """Mean of a − b over held-out prompts, with its interval over dishes."""
    values = np.subtract(a, b)
    return float(np.mean(values)), evaluation.bootstrap_interval(
        values, self.dishes, seed=self.cfg.seed)


def above(interval: tuple[float, float], bound: float) -> Verdict:
  """Whether a figure is above a bound, by its interval."""
  low, high = interval
  return ('confirmed' if low > bound else 'refuted' if high < bound
          else 'undecided')


def brief(scores: Mapping[str, dict],
          names: Sequence[str] = ('gold', 'kl', 'length')) -> dict:
  """A few numbers of each model."""
  return {model: {name: round(score[name], 4) for name in names
                  if name in score} for model, score in scores.items()}
