"""A small aligned model is preferred to an unaligned one 30 times its size.

Ouyang et al. (2022): people prefer InstructGPT of 1.3B to GPT-3 of 175B. Here
the small model has SFT and PPO, the large one is a base model; gold prefers.
"""

import jax
import numpy as np

from alignjax import evaluation
from alignjax import runs
from experiments import pretrain
from experiments import sft
from experiments.claims import lab as lab_lib

_SMALL = dict(num_layers=2, hidden_size=24, intermediate_size=64, num_heads=2)
_LARGE = dict(num_layers=4, hidden_size=128, intermediate_size=344,
              num_heads=4, num_steps=600)


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """The win rate of the small model; a tie counts half."""
  small_base = pretrain.stage(pretrain.Config(**lab.at('size/base'), **_SMALL))
  large = pretrain.stage(pretrain.Config(**lab.at('size/large'), **_LARGE))
  tuned = sft.stage(sft.Config(**lab.at('size/sft'), model=small_base))
  small = lab.ppo('size/ppo', model=tuned, num_steps=30)
  ours = lab.scores({'sft': tuned, 'small': small})
  theirs = lab.scores({'large': large})
  wins = evaluation.win_scores(ours['small']['golds'],
                               theirs['large']['golds'])
  interval = evaluation.bootstrap_interval(
      wins, lab.dishes, seed=lab.cfg.seed)
  counts = {name: int(sum(x.size for x in jax.tree.leaves(
      runs.load_policy(folder)[1])))
            for name, folder in (('small', small), ('large', large))}
  return lab_lib.Finding(
      float(np.mean(wins)), interval, lab_lib.above(interval, 0.5),
      {'parameters': counts, 'ratio': counts['large'] / counts['small'],
       'models': lab_lib.brief(ours | theirs)})


CLAIM = lab_lib.Claim(
    'A small aligned model is preferred to an unaligned one of at least 30 '
    'times its parameters.',
    'By gold the small one wins more than half of the prompts.',
    'A win rate whose interval lies below 0.5.', measure)
