"""KTO learns from thumbs, which come in no pairs.

Users of the SFT model press good or bad, by a liking that is mostly gold
(experiments.thumbs); the log becomes rows by `feedback.digest`.
"""

import pathlib

from alignjax import feedback
from alignjax import sources
from experiments import kto
from experiments import thumbs
from experiments.claims import lab as lab_lib

_PROMPTS = 1_000


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold after KTO less gold before."""
  log, rows = (pathlib.Path(lab.cfg.workdir) / f'{name}.jsonl'
               for name in ('thumbs', 'labels'))
  if not rows.exists():
    sources.write_jsonl(log, thumbs.press(
        lab.run, lab.sft, _PROMPTS, lab.cfg.seed))
    found = feedback.digest(feedback.read_thumbs(log))
    lab.run.console.note(str(found))
    sources.write_jsonl(rows, [row.record() for row in found.rows])
  folders = {'sft': lab.sft, 'kto': kto.stage(kto.Config(
      **lab.at('thumbs'), model=lab.sft, data=str(rows)))}
  scores = lab.scores(folders)
  figure, interval = lab.difference(
      scores['kto']['golds'], scores['sft']['golds'])
  return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                         {'models': lab_lib.brief(scores)})


CLAIM = lab_lib.Claim(
    'KTO learns from thumbs alone.',
    'KTO on a log of thumbs has more gold than the SFT model that was rated.',
    'A difference whose interval lies below 0.', measure)
