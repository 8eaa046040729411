"""The train state, the one step builder, the loop, and the iterations."""

from alignjax.train.guard import make_check
from alignjax.train.loop import fit
from alignjax.train.loop import Stop
from alignjax.train.measure import measure
from alignjax.train.online import best_and_worst
from alignjax.train.online import grouped
from alignjax.train.online import make_online_iteration
from alignjax.train.online import OnlineConfig
from alignjax.train.online import to_go
from alignjax.train.optimizer import make_optimizer
from alignjax.train.ppo import abstract_ppo_state
from alignjax.train.ppo import init_ppo_state
from alignjax.train.ppo import make_kl_controller
from alignjax.train.ppo import make_ppo_iteration
from alignjax.train.ppo import PPOConfig
from alignjax.train.ppo import PPOState
from alignjax.train.stage import run_stage
from alignjax.train.stage import Stage
from alignjax.train.stage import train
from alignjax.train.state import abstract_state
from alignjax.train.state import init_state
from alignjax.train.state import shaped
from alignjax.train.state import TrainState
from alignjax.train.step import make_train_step
from alignjax.train.step import make_update
from alignjax.train.step import Objective
from alignjax.train.sweep import make_sweep

__all__ = [
           'Objective',
           'OnlineConfig',
           'PPOConfig',
           'PPOState',
           'Stage',
           'Stop',
           'TrainState',
           'abstract_ppo_state',
           'abstract_state',
           'best_and_worst',
           'fit',
           'grouped',
           'init_ppo_state',
           'init_state',
           'make_check',
           'make_kl_controller',
           'make_online_iteration',
           'make_optimizer',
           'make_ppo_iteration',
           'make_sweep',
           'make_train_step',
           'make_update',
           'measure',
           'run_stage',
           'shaped',
           'to_go',
           'train',
]
