"""IPO bounds the margin, where DPO's grows with every epoch.

200 pairs that never contradict each other, seen over and over. IPO aims at a
log-ratio margin of 1/(2 beta) nats and stops there; DPO has no such point.
"""

import json
import pathlib

import numpy as np

from alignjax import evaluation
from experiments import dpo
from experiments import ipo
from experiments.claims import lab as lab_lib

_PAIRS, _STEPS, _BETA = 200, 300, 0.1
_WINDOW = 30  # Steps that a margin is the mean of.


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """DPO's margin over IPO's, both in nats of log-ratios."""
  path = pathlib.Path(lab.cfg.workdir) / 'bounded.jsonl'
  lines = pathlib.Path(lab.pairs[0]).read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:_PAIRS]))
  shared = dict(model=lab.sft, data=str(path), num_steps=_STEPS, beta=_BETA)
  dpo.stage(dpo.Config(**lab.at('bounded/dpo'), **shared))
  ipo.stage(ipo.Config(**lab.at('bounded/ipo'), sum=True, **shared))
  margins = {name: nats(pathlib.Path(lab.cfg.workdir) / 'bounded' / name)
             for name in ('dpo', 'ipo')}
  last = {name: values[-_WINDOW:] for name, values in margins.items()}
  target = 1 / (2 * _BETA)
  ratio = np.mean(last['dpo']) / np.mean(last['ipo'])
  low, _ = evaluation.bootstrap_interval(last['dpo'], seed=lab.cfg.seed)
  _, high = evaluation.bootstrap_interval(last['ipo'], seed=lab.cfg.seed)
  low_ipo, _ = evaluation.bootstrap_interval(last['ipo'], seed=lab.cfg.seed)
  _, high_dpo = evaluation.bootstrap_interval(last['dpo'], seed=lab.cfg.seed)
  interval = low / high, high_dpo / low_ipo
  is_bounded = np.mean(last['ipo']) <= 1.25 * target
  verdict = lab_lib.above(interval, 2.0)
  return lab_lib.Finding(
      float(ratio), interval,
      verdict if is_bounded else 'refuted',
      {'target': target, 'margins': {
          name: [round(float(np.mean(values[i:i + _WINDOW])), 2)
                 for i in range(0, len(values), _WINDOW)]
          for name, values in margins.items()}})


def nats(folder: pathlib.Path) -> list[float]:
  """The log-ratio margin of each step; metrics have beta times that."""
  rows = [json.loads(line) for line in
          (folder / 'metrics.jsonl').read_text().splitlines()]
  return [row['margin'] / _BETA for row in rows if 'margin' in row]


CLAIM = lab_lib.Claim(
    'IPO bounds the margin.',
    "IPO's margin stays within 125 % of its target 1/(2 beta); DPO's, on the "
    'same pairs, ends at more than twice that of IPO.',
    "An IPO margin above 125 % of its target, or a ratio whose interval lies "
    'below 2.', measure)
