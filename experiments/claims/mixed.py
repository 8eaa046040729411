"""C-RLFT makes use of data of mixed quality, where plain SFT imitates it all.

The same demonstrations, three of ten of which are perfect; C-RLFT is told which
class each is of.
"""

from experiments import c_rlft
from experiments.claims import lab as lab_lib


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold of C-RLFT less gold of SFT."""
  tuned = c_rlft.stage(c_rlft.Config(**lab.at('mixed'), model=lab.base))
  scores = lab.scores({'sft': lab.sft, 'c_rlft': tuned})
  figure, interval = lab.difference(
      scores['c_rlft']['golds'], scores['sft']['golds'])
  return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                         {'models': lab_lib.brief(scores)})


CLAIM = lab_lib.Claim(
    'C-RLFT makes use of data of mixed quality.',
    'On the same demonstrations it has more gold than SFT.',
    'A difference whose interval lies below 0.', measure)
