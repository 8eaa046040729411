"""The majority of a panel gives a better reward model than any member alone.

Seven annotators, each with a rubric, tastes and noise; reward models of the
vote and of each, on one set of held-out pairs that gold decides. The best
member is chosen on these same pairs, which favours the members.
"""

from experiments import panel
from experiments.claims import lab as lab_lib


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Accuracy of the vote's reward model less that of the best member's."""
  summary = panel.main(panel.Config(
      **lab.at('vote'), model=lab.sft, methods=('majority',)))
  interval = tuple(summary['gain_interval'])
  return lab_lib.Finding(
      summary['gain'], interval, lab_lib.above(interval, 0.0),
      {'best_member': summary['best_member'],
       'accuracy': {name: round(m['accuracy'], 4)
                    for name, m in summary['models'].items()}})


CLAIM = lab_lib.Claim(
    'A majority vote improves the reward model.',
    "Trained on a vote of seven it is more accurate than on any annotator's "
    'own rankings.',
    'A gain in accuracy whose interval lies below 0.', measure)
