"""The train state, the one step builder, the loop, and PPO's iteration."""

from alignjax.train.loop import fit
from alignjax.train.measure import measure
from alignjax.train.optimizer import make_optimizer
from alignjax.train.ppo import init_ppo_state
from alignjax.train.ppo import make_kl_controller
from alignjax.train.ppo import make_ppo_iteration
from alignjax.train.ppo import PPOConfig
from alignjax.train.ppo import PPOState
from alignjax.train.stage import run_stage
from alignjax.train.stage import Stage
from alignjax.train.stage import train
from alignjax.train.state import init_state
from alignjax.train.state import shaped
from alignjax.train.state import TrainState
from alignjax.train.step import make_train_step
from alignjax.train.step import make_update
from alignjax.train.step import Objective

__all__ = ['Objective', 'PPOConfig', 'PPOState', 'Stage', 'TrainState', 'fit',
           'init_ppo_state', 'init_state', 'make_kl_controller',
           'make_optimizer', 'make_ppo_iteration', 'make_train_step',
           'make_update', 'measure', 'run_stage', 'shaped', 'train']
