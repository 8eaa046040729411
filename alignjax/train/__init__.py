"""The train state, the one step builder, the loop, and PPO's iteration."""

from alignjax.train.loop import fit
from alignjax.train.loop import LogMetrics
from alignjax.train.loop import SaveCheckpoints
from alignjax.train.ppo import make_kl_controller
from alignjax.train.ppo import make_ppo_iteration
from alignjax.train.ppo import PPOConfig
from alignjax.train.ppo import PPOState
from alignjax.train.state import init_state
from alignjax.train.state import shaped
from alignjax.train.state import TrainState
from alignjax.train.step import make_train_step
from alignjax.train.step import make_update

__all__ = ['LogMetrics', 'PPOConfig', 'PPOState', 'SaveCheckpoints',
           'TrainState', 'fit', 'init_state', 'make_kl_controller',
           'make_ppo_iteration', 'make_train_step', 'make_update', 'shaped']
