"""Losses on arrays: unreduced, float32, ignorant of models and batches."""

from alignjax.losses.kl import adaptive_kl
from alignjax.losses.kl import AdaptiveKL
from alignjax.losses.kl import AdaptiveKLState
from alignjax.losses.kl import kl_k1
from alignjax.losses.kl import kl_k2
from alignjax.losses.kl import kl_k3
from alignjax.losses.kl import token_kl
from alignjax.losses.policy import policy_entropy
from alignjax.losses.policy import ppo_clip_loss
from alignjax.losses.policy import value_clip_loss
from alignjax.losses.preference import dpo_loss
from alignjax.losses.preference import hinge_loss
from alignjax.losses.preference import ipo_loss
from alignjax.losses.reward import bradley_terry_loss
from alignjax.losses.reward import ranking_loss
from alignjax.losses.reward import reward_centering_loss
from alignjax.losses.supervised import sft_loss
from alignjax.losses.supervised import z_loss

__all__ = [
    'AdaptiveKL',
    'AdaptiveKLState',
    'adaptive_kl',
    'bradley_terry_loss',
    'dpo_loss',
    'hinge_loss',
    'ipo_loss',
    'kl_k1',
    'kl_k2',
    'kl_k3',
    'policy_entropy',
    'ppo_clip_loss',
    'ranking_loss',
    'reward_centering_loss',
    'sft_loss',
    'token_kl',
    'value_clip_loss',
    'z_loss',
]
