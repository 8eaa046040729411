"""DPO reaches PPO's gold at a third of the cost or less.

Costs are counted in forward passes of one row, a backward pass being two, as
experiments.compare does; PPO's has its reward model's training in it. DPO is
the best of a sweep over beta, chosen on the dishes that are reported, which
favours it.
"""

from alignjax import runs
from experiments import compare
from experiments import dpo
from experiments import ppo
from experiments import reward
from experiments.claims import lab as lab_lib

_BETAS = (0.1, 0.3)  # Besides the default, 1.
_MARGIN = 0.02  # Of PPO's gold that DPO may lack.


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold of DPO less 98 % of PPO's."""
  train, test = lab.pairs
  folders = {'sft': lab.sft, 'ppo': lab.ppo(), 'dpo beta=1': lab.dpo}
  for beta in _BETAS:
    folders[f'dpo beta={beta:g}'] = dpo.stage(dpo.Config(
        **lab.at(f'direct/beta{beta:g}'), model=lab.sft, data=train,
        test_data=test, beta=beta))
  scores = lab.scores(folders)
  best = max((n for n in scores if n.startswith('dpo')),
             key=lambda name: scores[name]['gold'])
  short = [(1 - _MARGIN) * g for g in scores['ppo']['golds']]
  figure, interval = lab.difference(scores[best]['golds'], short)
  ratio = cost_of_dpo(lab) / cost_of_ppo(lab)
  verdict = lab_lib.above(interval, 0.0)
  if verdict == 'confirmed' and ratio > 1 / 3:
    verdict = 'refuted'
  return lab_lib.Finding(figure, interval, verdict, {
      'best': best, 'cost_ratio': round(ratio, 3),
      'models': lab_lib.brief(scores)})


def cost_of_dpo(lab: lab_lib.Lab) -> float:
  """Row passes of a run of DPO."""
  cfg = dpo.resolve(dpo.Config(**lab.at('dpo'), model=lab.sft))
  return cfg.num_steps * compare.METHODS['dpo'].cost(cfg)


def cost_of_ppo(lab: lab_lib.Lab) -> float:
  """Row passes of a run of PPO, and of training its reward model."""
  cfg = ppo.resolve(ppo.Config(**lab.at('ppo'), model=lab.sft))
  judge = reward.resolve(reward.Config(**lab.at('reward'), model=lab.sft))
  assert runs.is_testbed(lab.sft)
  return (cfg.num_steps * compare.METHODS['ppo'].cost(cfg)
          + judge.num_steps * 2 * judge.batch_size * 3)


CLAIM = lab_lib.Claim(
    "DPO reaches PPO's gold at a third of the cost or less.",
    'Gold of the best DPO is at least 98 % of that of PPO, for a third of its '
    'row passes.',
    'Gold less 98 % of PPO\'s whose interval lies below 0, or a cost above a '
    'third.', measure)
