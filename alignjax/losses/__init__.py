"""Losses on arrays: unreduced, float32, ignorant of models and batches."""

from alignjax.losses.anchored import apo_down_loss
from alignjax.losses.anchored import apo_zero_loss
from alignjax.losses.anchored import bco_loss
from alignjax.losses.anchored import nca_loss
from alignjax.losses.anchored import sppo_loss
from alignjax.losses.divergence import alpha_dpo_loss
from alignjax.losses.divergence import forward_kl_dpo_loss
from alignjax.losses.divergence import js_dpo_loss
from alignjax.losses.kl import adaptive_kl
from alignjax.losses.kl import AdaptiveKL
from alignjax.losses.kl import AdaptiveKLState
from alignjax.losses.kl import kl_k1
from alignjax.losses.kl import kl_k2
from alignjax.losses.kl import kl_k3
from alignjax.losses.kl import token_kl
from alignjax.losses.policy import cispo_loss
from alignjax.losses.policy import gspo_loss
from alignjax.losses.policy import importance_weights
from alignjax.losses.policy import policy_entropy
from alignjax.losses.policy import ppo_clip_loss
from alignjax.losses.policy import reinforce_loss
from alignjax.losses.policy import value_clip_loss
from alignjax.losses.preference import discopop_loss
from alignjax.losses.preference import dpo_loss
from alignjax.losses.preference import exo_loss
from alignjax.losses.preference import hinge_loss
from alignjax.losses.preference import ipo_loss
from alignjax.losses.preference import robust_dpo_loss
from alignjax.losses.reference_free import cpo_loss
from alignjax.losses.reference_free import orpo_loss
from alignjax.losses.reference_free import simpo_loss
from alignjax.losses.reward import bradley_terry_loss
from alignjax.losses.reward import plackett_luce_loss
from alignjax.losses.reward import preference_margin
from alignjax.losses.reward import ranking_loss
from alignjax.losses.reward import reward_centering_loss
from alignjax.losses.supervised import sft_loss
from alignjax.losses.supervised import z_loss
from alignjax.losses.transport import aot_loss
from alignjax.losses.transport import aot_unpaired_loss
from alignjax.losses.unpaired import kto_kl
from alignjax.losses.unpaired import kto_loss
from alignjax.losses.unpaired import kto_weights
from alignjax.losses.weights import length_desensitized_logprobs
from alignjax.losses.weights import wpo_weights

__all__ = [
    'AdaptiveKL',
    'AdaptiveKLState',
    'adaptive_kl',
    'alpha_dpo_loss',
    'aot_loss',
    'aot_unpaired_loss',
    'apo_down_loss',
    'apo_zero_loss',
    'bco_loss',
    'bradley_terry_loss',
    'cispo_loss',
    'cpo_loss',
    'discopop_loss',
    'dpo_loss',
    'exo_loss',
    'forward_kl_dpo_loss',
    'gspo_loss',
    'hinge_loss',
    'importance_weights',
    'ipo_loss',
    'js_dpo_loss',
    'kl_k1',
    'kl_k2',
    'kl_k3',
    'kto_kl',
    'kto_loss',
    'kto_weights',
    'length_desensitized_logprobs',
    'nca_loss',
    'orpo_loss',
    'plackett_luce_loss',
    'policy_entropy',
    'ppo_clip_loss',
    'preference_margin',
    'ranking_loss',
    'reinforce_loss',
    'reward_centering_loss',
    'robust_dpo_loss',
    'sft_loss',
    'simpo_loss',
    'sppo_loss',
    'token_kl',
    'value_clip_loss',
    'wpo_weights',
    'z_loss',
]
