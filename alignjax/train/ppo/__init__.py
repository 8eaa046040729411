"""PPO: what it remembers, what it measures, and one iteration of it."""

from alignjax.train.ppo.annotate import make_annotate
from alignjax.train.ppo.config import make_kl_controller
from alignjax.train.ppo.config import PPOConfig
from alignjax.train.ppo.config import PPOState
from alignjax.train.ppo.iteration import abstract_ppo_state
from alignjax.train.ppo.iteration import init_ppo_state
from alignjax.train.ppo.iteration import make_ppo_iteration
from alignjax.train.ppo.update import make_ppo_update

__all__ = ['PPOConfig', 'PPOState', 'abstract_ppo_state', 'init_ppo_state',
           'make_annotate',
           'make_kl_controller', 'make_ppo_iteration', 'make_ppo_update']
