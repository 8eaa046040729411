"""Objectives: a pure loss bound to a model, `(params, batch, key) -> loss`."""

from alignjax.objectives.dpo import dpo
from alignjax.objectives.ppo import ppo_policy
from alignjax.objectives.ppo import ppo_value
from alignjax.objectives.reward import reward
from alignjax.objectives.sft import sft

__all__ = ['dpo', 'ppo_policy', 'ppo_value', 'reward', 'sft']
