"""What a setting may be: one table for every experiment, since names are one.

A setting is checked before a run touches its folder, so that a typing error
costs a second and not the hour before it is first used.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

from alignjax import topologies
from alignjax.types import InputError


class Range(NamedTuple):
  """Where a number may lie, and what to write instead."""

  low: float
  high: float = math.inf
  has_low: bool = True    # Whether `low` itself is allowed.
  has_high: bool = False  # Whether `high` itself is.

  def __contains__(self, value: float) -> bool:
    return (self.low < value or (self.has_low and value == self.low)) and (
        value < self.high or (self.has_high and value == self.high))

  def __str__(self) -> str:
    low = f'{"at least" if self.has_low else "above"} {self.low:g}'
    if math.isinf(self.high):
      return low + ('' if self.has_high else ' and finite')
    return f'{low} and {"at most" if self.has_high else "below"} {self.high:g}'


_COUNT = Range(1, math.inf, has_high=True)
_POSITIVE = Range(0, has_low=False)
_NOT_NEGATIVE = Range(0)
_SHARE = Range(0, 1, has_high=True)

RANGES: dict[str, Range] = dict.fromkeys((
    'num_steps', 'pretrain_steps', 'sft_steps', 'reward_steps',
    'ppo_iterations', 'dpo_steps', 'batch_size', 'max_new_tokens', 'num_epochs',
    'num_minibatches', 'num_microbatches', 'chunk_size', 'attention_block',
    'num_documents',
    'num_layers', 'hidden_size', 'intermediate_size', 'num_heads',
    'num_samples', 'num_prompts', 'num_test_prompts', 'num_held_out',
    'preference_prompts', 'num_pairs', 'budget', 'ptx_batch_size',
    'sft_batch_size', 'engine_sync_every', 'sample_batch', 'best_of',
    'num_rounds', 'round_prompts', 'round_test_prompts', 'round_samples',
    'safety_steps', 'rejection_steps', 'feedback_prompts', 'panel_size',
    'max_per_prompt', 'critic_steps',
), _COUNT) | dict.fromkeys((
    'learning_rate', 'value_learning_rate', 'beta', 'kl_target', 'clip_high',
    'value_clip', 'temperature', 'alpha', 'judge_per_minute', 'lora_alpha',
    'reward_clip',
    'early_stop_kl', 'max_decode_gap', 'epochs',
), _POSITIVE) | dict.fromkeys((
    'seed', 'save_every', 'kl_coef', 'centering', 'missing_eos_penalty',
    'noise', 'entropy_coef', 'sft_coef', 'odds_coef', 'simpo_gamma',
    'desirable_weight', 'undesirable_weight', 'lora_rank', 'ptx_coef',
    'value_warmup', 'kl_gain', 'weight_decay', 'skip_prompts', 'min_margin',
    'revision_temperature', 'num_slots', 'profile', 'replay',
), _NOT_NEGATIVE) | dict.fromkeys(
    ('gamma', 'lam', 'max_dropped', 'tail', 'min_ended', 'warmup',
     'final_rate', 'safety_threshold'), _SHARE) | {
    'adam_b2': Range(0, 1),
    'max_skipped': Range(2, math.inf, has_high=True),
    'skip_above': Range(0, math.inf, has_low=False, has_high=True),
    'skip_spikes': Range(0, math.inf, has_low=False, has_high=True),
    'max_length': Range(2, math.inf, has_high=True),
    'sft_max_length': Range(2, math.inf, has_high=True),
    'label_smoothing': Range(0, 0.5),
    'clip': Range(0, 1, has_low=False),
    'dual_clip': Range(1, has_low=False),
    'importance_cap': Range(1),
    'kl_horizon': Range(0, math.inf, has_low=False, has_high=True),
}


def check(settings: Mapping[str, Any], num_shards: int, num_parts: int = 1
          ) -> None:
  """Refuses the first setting that is out of range or does not fit another.

  Args:
    settings: name to value; None is a setting left open, and passes.
    num_shards: parts that the mesh splits a batch into.
    num_parts: parts that it splits a row into.

  Raises:
    InputError: naming the setting, its value, the rule and the repair.
  """
  settings = {k: v for k, v in settings.items() if v is not None}
  for name, value in settings.items():
    if name in RANGES and value not in RANGES[name]:
      raise InputError(
          f'{name}={value} is out of range; it must be {RANGES[name]}')
  if 'batch_size' in settings:
    _check_batch(settings, num_shards)
  if settings.get('quantize', 'none') != 'none' and not settings['lora_rank']:
    raise InputError(
        f'quantize={settings["quantize"]} without adapters leaves nothing to '
        'train: few bits hold no small steps; add --lora-rank 16, or drop it')
  if 'max_length' in settings:
    topologies.check_length(settings['max_length'], num_parts, 'max_length')
  new, longest = (settings.get(k) for k in ('max_new_tokens', 'max_length'))
  if new and longest and new >= longest:
    raise InputError(
        f'max_new_tokens={new} leaves no room for a prompt in '
        f'max_length={longest}; use less, or a longer max_length')


def _check_batch(settings: Mapping[str, Any], num_shards: int) -> None:
  """Refuses a batch that does not split into equal parts on every device."""
  size = settings['batch_size']
  parts = {name: settings[name] for name in (
      'num_minibatches', 'num_microbatches') if settings.get(name, 1) > 1}
  whole = num_shards * math.prod(parts.values())
  if size % whole:
    into = ' and '.join(f'{name}={n}' for name, n in parts.items())
    raise InputError(
        f'batch_size={size} does not split over {num_shards} data shards'
        f'{" with " + into if into else ""}; use a multiple of {whole}')
  if settings.get('kl_horizon', math.inf) <= size / 5:
    raise InputError(
        f'kl_horizon={settings["kl_horizon"]} is not above a fifth of '
        f'batch_size={size}, and one iteration could turn the penalty into a '
        'bonus; use a longer horizon')
  topologies.check_slots(settings.get('num_slots', 0), num_shards)
  samples = settings.get('num_samples', 1)
  if size % samples:
    raise InputError(
        f'batch_size={size} does not hold whole groups of num_samples='
        f'{samples}; use a multiple of {math.lcm(samples, num_shards)}')
