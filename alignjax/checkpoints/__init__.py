"""Checkpoints that are complete, verified, or not used at all."""

from alignjax.checkpoints.background import BackgroundSaver
from alignjax.checkpoints.leaves import describe_saved
from alignjax.checkpoints.leaves import Leaves
from alignjax.checkpoints.leaves import save_parts
from alignjax.checkpoints.room import SaveError
from alignjax.checkpoints.states import best_step
from alignjax.checkpoints.states import intact_step
from alignjax.checkpoints.states import latest_step
from alignjax.checkpoints.states import restore
from alignjax.checkpoints.states import Restored
from alignjax.checkpoints.states import save

__all__ = ['BackgroundSaver', 'Leaves', 'Restored', 'SaveError', 'best_step',
           'describe_saved', 'intact_step', 'latest_step', 'restore', 'save',
           'save_parts']
