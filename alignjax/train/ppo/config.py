"""PPO's settings, and the state that a run threads through its iterations."""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax.numpy as jnp

from alignjax import losses
from alignjax.train.state import TrainState


class PPOState(NamedTuple):
  """All that a PPO run must remember; a tree of arrays.

  The value function steps once per minibatch, always; the policy may stand
  still (`value_warmup`, `early_stop_kl`). So the value's step tells how far
  the run is.
  """

  policy: TrainState
  value: TrainState
  kl: losses.AdaptiveKLState


@dataclasses.dataclass(frozen=True)
class PPOConfig:
  """Settings of the PPO iteration."""

  kl_coef: float = 0.1        # Where the KL penalty starts, 1/nats; 0 is none.
  kl_target: float = 6.0      # Nats per response the controller aims at.
  kl_horizon: float = 10_000.0  # Responses over which it reacts; inf: fixed.
  kl_gain: float = 0.0        # How it answers at once; see `adaptive_kl`.
  # A token's KL: its log-ratio, or the divergence over the whole vocabulary,
  # which has no noise of its own and is never negative. Either way a token
  # answers for its own log-ratio, and for the KL of the tokens after it.
  kl_estimator: Literal['k1', 'exact'] = 'k1'
  reward_clip: float | None = None  # Rewards beyond ± this count as this.
  # Scores to mean 0 and deviation 1 over the iteration's responses; LLaMA 2.
  whiten_scores: bool = False
  whiten_rewards: bool = False  # Token rewards to unit deviation, mean kept.
  gamma: float = 1.0          # Discount per token.
  lam: float = 0.95           # GAE's λ.
  clip: float = 0.2           # PPO's ε on the probability ratio.
  clip_high: float | None = None  # How far it may rise; ε if None.
  dual_clip: float | None = None  # Ratio past which a bad token costs no more.
  entropy_coef: float = 0.0   # Weight of the entropy bonus.
  # Bound of the weights that correct for a sampler that is not quite the
  # policy; None leaves them out.
  importance_cap: float | None = None
  ptx_coef: float = 0.0       # Weight of the pretraining text's loss.
  value_clip: float = 0.2     # The same for values, in units of reward.
  value_warmup: int = 0       # Iterations before the policy moves.
  # Nats per token (k3, from the policy that sampled) past which the rest of an
  # iteration's minibatches leave the policy alone.
  early_stop_kl: float | None = None
  num_epochs: int = 2         # Passes over each rollout.
  num_minibatches: int = 2    # Optimizer steps in each pass.
  num_microbatches: int = 1   # Parts of a minibatch, to save memory.
  skip_above: float = math.inf  # Gradients longer than this are not learnt.
  skip_spikes: float = math.inf  # Nor those that stand out; deviations.
  missing_eos_penalty: float = 1.0  # Off the reward of a response cut short.
  temperature: float = 1.0    # Of sampling, and of every logprob taken.
  max_new_tokens: int = 32    # Longest response, EOS included.
  num_samples: int = 1        # K, responses to each prompt, side by side.
  num_slots: int = 0          # Responses sampled at one time; 0: all.
  # What all models but the sampler read: a row for each response, a prompt once
  # with its K responses behind it, so that minibatches hold whole groups, or
  # several such prompts in a row, so that minibatches hold whole cells.
  layout: Literal['padded', 'packed', 'branched'] = 'padded'

  @property
  def steps_per_iteration(self) -> int:
    """Minibatches of all epochs: the value function's optimizer steps."""
    return self.num_epochs * self.num_minibatches


def make_kl_controller(config: PPOConfig) -> losses.AdaptiveKL:
  """The controller that the settings ask for; at 0 there is none to move."""
  if config.kl_coef == 0:
    return losses.AdaptiveKL(
        init=lambda: losses.AdaptiveKLState(coef=jnp.zeros(())),
        update=lambda state, kl, num_sequences: state)
  return losses.adaptive_kl(
      init=config.kl_coef, target=config.kl_target, horizon=config.kl_horizon,
      gain=config.kl_gain)
