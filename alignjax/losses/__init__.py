"""Losses on arrays: unreduced, float32, ignorant of models and batches."""

from alignjax.losses.kl import (
    AdaptiveKL,
    AdaptiveKLState,
    adaptive_kl,
    kl_k1,
    kl_k2,
    kl_k3,
    token_kl,
)
from alignjax.losses.policy import (
    policy_entropy,
    ppo_clip_loss,
    value_clip_loss,
)
from alignjax.losses.preference import dpo_loss, hinge_loss, ipo_loss
from alignjax.losses.reward import (
    bradley_terry_loss,
    ranking_loss,
    reward_centering_loss,
)
from alignjax.losses.supervised import sft_loss, z_loss

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
