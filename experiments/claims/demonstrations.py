"""Few good demonstrations beat ten times as many poor ones.

Ouyang et al. had 13,000 written by screened people; scraped data is ten times
that. Here 48 perfect responses stand against 480 flawed ones.
"""

import pathlib

from alignjax import sources
from alignjax import testbed
from experiments import sft
from experiments.claims import lab as lab_lib

_SIZES = {'few_good': (48, 1.0), 'many_poor': (480, 0.0)}
_STEPS = 60  # The same for both: the few are seen ten times as often.


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold of the few less gold of the many."""
  folders = {}
  for name, (count, good) in _SIZES.items():
    path = pathlib.Path(lab.cfg.workdir) / f'demonstrations-{name}.jsonl'
    sources.write_jsonl(path, [
        {'prompt': prompt.text, 'response': response} for prompt, response
        in testbed.demonstrations(
            sources.WORLD, lab.cfg.seed, count=count, good=good)])
    folders[name] = sft.stage(sft.Config(
        **lab.at(f'demonstrations/{name}'), model=lab.base, data=str(path),
        num_steps=_STEPS))
  scores = lab.scores(folders)
  figure, interval = lab.difference(
      scores['few_good']['golds'], scores['many_poor']['golds'])
  return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                         {'models': lab_lib.brief(scores)})


CLAIM = lab_lib.Claim(
    'Few good demonstrations beat ten times as many poor ones.',
    'SFT on 48 perfect responses has more gold than on 480 flawed ones, in as '
    'many steps.',
    'A difference whose interval lies below 0.', measure)
