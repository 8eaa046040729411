"""A KL penalty prevents reward hacking.

PPO for as many iterations with the penalty and without. Without it the proxy
goes on climbing while gold falls.
"""

from experiments.claims import lab as lab_lib


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold with the penalty less gold without."""
  folders = {'sft': lab.sft, 'with': lab.ppo(),
             'without': lab.ppo('penalty', kl_coef=0.0, kl_gain=0.0,
                                num_steps=60)}
  scores = lab.scores(folders)
  figure, interval = lab.difference(
      scores['with']['golds'], scores['without']['golds'])
  return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                         {'models': lab_lib.brief(scores)})


CLAIM = lab_lib.Claim(
    'A KL penalty prevents reward hacking.',
    'PPO ends with more gold under a penalty than without one.',
    'A difference whose interval lies below 0.', measure)
