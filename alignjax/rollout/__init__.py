"""Sampling responses, and scoring them with frozen models."""

from alignjax.rollout.branches import branch_rows
from alignjax.rollout.branches import fill_rows
from alignjax.rollout.branches import make_share
from alignjax.rollout.generate import has_ended
from alignjax.rollout.generate import make_generate
from alignjax.rollout.generate import reads_prompts_once
from alignjax.rollout.references import pairs_with_reference
from alignjax.rollout.safety_first import make_safety_first
from alignjax.rollout.safety_first import prompt_hash
from alignjax.rollout.safety_first import safety_first
from alignjax.rollout.sampling import sample
from alignjax.rollout.score import Annotate
from alignjax.rollout.score import make_kto_reference
from alignjax.rollout.score import make_reference
from alignjax.rollout.score import make_reward_fn

__all__ = ['Annotate', 'branch_rows', 'fill_rows', 'has_ended', 'make_generate',
           'make_kto_reference', 'make_reference', 'make_reward_fn',
           'make_safety_first', 'make_share', 'pairs_with_reference',
           'prompt_hash', 'reads_prompts_once', 'safety_first', 'sample']
