"""Objectives: a pure loss bound to a model, `(params, batch, key) -> loss`."""

from alignjax.objectives.dpo import dpo
from alignjax.objectives.kto import kto
from alignjax.objectives.policy_gradient import budget_mean
from alignjax.objectives.policy_gradient import clip_surrogate
from alignjax.objectives.policy_gradient import gspo_surrogate
from alignjax.objectives.policy_gradient import policy_gradient
from alignjax.objectives.policy_gradient import response_surrogate
from alignjax.objectives.policy_gradient import sequence_mean
from alignjax.objectives.policy_gradient import token_mean
from alignjax.objectives.ppo import ppo_policy
from alignjax.objectives.ppo import ppo_value
from alignjax.objectives.ppo import with_pretraining
from alignjax.objectives.preference import length_desensitized
from alignjax.objectives.preference import pair_metrics
from alignjax.objectives.preference import preference
from alignjax.objectives.reward import reward
from alignjax.objectives.reward import reward_ranking
from alignjax.objectives.sft import sft

__all__ = ['budget_mean', 'clip_surrogate', 'dpo', 'gspo_surrogate', 'kto',
           'length_desensitized', 'pair_metrics', 'policy_gradient',
           'ppo_policy', 'ppo_value', 'preference', 'response_surrogate',
           'reward', 'reward_ranking', 'sequence_mean', 'sft', 'token_mean',
           'with_pretraining']
