"""Five rounds of fresh preferences beat one.

LLaMA 2's rounds: pairs on the responses of the policy as it is, reward models
on all pairs so far, SFT on the best of N.
"""

import functools

from alignjax import runs
from experiments import llama2_chat
from experiments import llama2_round
from experiments import sft
from experiments.claims import lab as lab_lib

_ROUNDS = 5
_SETTINGS = dict(
    round_prompts=250, round_test_prompts=60, round_samples=4, reward_steps=120,
    safety_steps=60, rejection_steps=50)


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold after five rounds less gold after one."""
  cfg = llama2_chat.Config(**lab.at('rounds'), **_SETTINGS)
  settle = functools.partial(llama2_chat.RECIPE.settle, cfg)
  folders = {'sft': lab.sft}
  with runs.start(cfg, 'rounds') as run:
    # The same SFT model again: a lineage has all its artefacts in one folder.
    state = llama2_chat.begin(cfg, run, sft.stage(sft.Config(
        **lab.at('rounds/sft'), model=lab.base)))
    for number in range(1, _ROUNDS + 1):
      run.console.note(f'round {number} of {_ROUNDS}')
      state = llama2_round.run_round(cfg, run, settle, state)
      folders[f'round{number}'] = state.policy
  scores = lab.scores(folders)
  figure, interval = lab.difference(
      scores[f'round{_ROUNDS}']['golds'], scores['round1']['golds'])
  return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                         {'models': lab_lib.brief(scores)})


CLAIM = lab_lib.Claim(
    'Five rounds of preferences and rejection sampling beat one.',
    'Gold after the fifth round is above that after the first.',
    'A difference whose interval lies below 0.', measure)
