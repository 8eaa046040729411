"""The optimizer that the experiments share: AdamW, clipped and scheduled."""

import optax

from alignjax.train import spikes
from alignjax.train.offload import offloaded
from alignjax.types import InputError


def make_optimizer(
    learning_rate: float, num_steps: int, *, warmup: float = 0.05,
    decay: str = 'cosine', final_rate: float = 0.1, weight_decay: float = 0.0,
    max_grad_norm: float = 1.0, b2: float = 0.95, offload: bool = False,
    remembers: bool = False,
) -> optax.GradientTransformation:
  """AdamW behind a global-norm clip, with warmup and decay.

  Args:
    learning_rate: the peak.
    num_steps: optimizer steps in all.
    warmup: share of the steps over which the rate rises from 0.
    decay: `cosine` or `linear`, to `final_rate`; or `constant`.
    final_rate: where the decay ends, as a share of the peak.
    weight_decay: decoupled, per step times the rate.
    max_grad_norm: gradients longer than this are scaled to it.
    b2: AdamW's decay of the second moment.
    offload: whether the moments lie in the host's memory; see
      `train.offload`.
    remembers: whether the state has the last losses and norms too, which
      `skip_spikes` asks for.

  Raises:
    InputError: the decay is unknown, or the rate is not positive.
  """
  if learning_rate <= 0:
    raise InputError(f'learning_rate={learning_rate} is not positive; '
                     'use a rate such as 1e-5')
  rise = max(1, round(warmup * num_steps))
  rest = max(1, num_steps - rise)
  falls = {
      'cosine': optax.cosine_decay_schedule(
          learning_rate, rest, alpha=final_rate),
      'linear': optax.linear_schedule(
          learning_rate, final_rate * learning_rate, rest),
      'constant': optax.constant_schedule(learning_rate),
  }
  if decay not in falls:
    raise InputError(f'decay={decay!r} is unknown; use one of '
                     f'{", ".join(falls)}')
  schedule = optax.join_schedules(
      [optax.linear_schedule(learning_rate / rise, learning_rate, rise),
       falls[decay]], [rise])
  clip = optax.clip_by_global_norm(max_grad_norm)
  if remembers:
    clip = optax.chain(spikes.remember(), clip)
  adam = optax.adamw(schedule, b2=b2, weight_decay=weight_decay)
  return offloaded(clip, adam) if offload else optax.chain(clip, adam)
