"""The claims of the field, each as an experiment: one table for all.

  python -m experiments.claims --workdir runs/claims --seed 0
  python -m experiments.claims --workdir runs/claims --only penalty direct

Each says beforehand what is predicted and what would refute it. `claims.json`
is a list of {claim, prediction, figure, interval, verdict}; a verdict is
confirmed or refuted where the 95 % interval, over the dishes of the held-out
prompts, lies on one side of the predicted bound, else undecided. It is written
anew after every claim, and a run that is cut off goes on with --resume.

Expect, with two CPU cores: 18 minutes.
"""

import dataclasses
import importlib
import json
import time

from alignjax import cli
from alignjax import report
from alignjax import runs
from alignjax.types import InputError
from experiments.claims import lab as lab_lib

NAMES = ('size', 'demonstrations', 'vote', 'penalty', 'direct', 'bounded',
         'thumbs', 'constitution', 'mixed', 'rounds')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the run."""

  only: tuple[str, ...] = NAMES  # Which claims; the others are left out.


def main(cfg: Config) -> list[dict]:
  """Measures every claim that was not measured yet; returns claims.json."""
  unknown = [name for name in cfg.only if name not in NAMES]
  if unknown or not cfg.only:
    raise InputError(f'only={" ".join(unknown) or "()"}: use some of '
                     f'{", ".join(NAMES)}')
  if (cfg.model, cfg.data) != ('testbed', 'testbed'):
    raise InputError(f'model={cfg.model}, data={cfg.data}: claims are measured '
                     'where gold is known; leave both out')
  with runs.start(cfg, 'claims') as run:
    lab, findings = lab_lib.Lab(cfg, run), []
    for name in cfg.only:
      findings.append(measured(lab, name))
      draft = run.workdir / 'claims.json.tmp'
      draft.write_text(json.dumps(findings, indent=2) + '\n')
      draft.replace(run.workdir / 'claims.json')
    if not run.is_done:
      finish(run, findings)
  return findings


def measured(lab: lab_lib.Lab, name: str) -> dict:
  """The finding on a claim, which is kept."""
  path = lab.run.workdir / 'findings' / f'{name}.json'
  if path.exists():
    return json.loads(path.read_text())
  claim = importlib.import_module(f'experiments.claims.{name}').CLAIM
  lab.run.console.note(f'{name}: {claim.claim}')
  started = time.monotonic()
  found = claim.measure(lab)
  row = {
      'name': name, 'claim': claim.claim, 'prediction': claim.prediction,
      'refuted_by': claim.refuted_by, 'figure': found.figure,
      'interval': list(found.interval), 'verdict': found.verdict,
      'seconds': round(time.monotonic() - started, 1),
      'details': found.details}
  lab.run.console.note(
      f'{name}: {found.verdict}, {found.figure:.3f} '
      '[{:.3f}, {:.3f}]'.format(*found.interval))
  path.parent.mkdir(exist_ok=True)
  runs.write_json(path, row)
  return row


def finish(run: runs.Run, findings: list[dict]) -> None:
  """The table, in markdown and in the report."""
  head = ['', 'verdict', 'figure', '95 %', 'claim', 'predicted']
  rows = [[f['name'], f['verdict'], f'{f["figure"]:.3f}',
           '{:.3f} to {:.3f}'.format(*f['interval']), f['claim'],
           f['prediction']] for f in findings]
  (run.workdir / 'table.md').write_text(''.join(
      f'| {" | ".join(row)} |\n' for row in [head, ['---'] * 6, *rows]))
  run.console.table('Claims', head[:4], [row[:4] for row in rows])
  details = report.Table(
      ['', 'seconds', 'what would refute it', 'details'],
      [[f['name'], str(f['seconds']), f['refuted_by'],
        json.dumps(f['details'])] for f in findings])
  report.write_report(
      run.workdir / 'report.html', title='alignjax claims', sections=[
          report.Section('Claims', [report.Table(head, rows)]),
          report.Section('How each was measured', [details])])
  run.finish({'claims': {f['name']: f['verdict'] for f in findings}})


if __name__ == '__main__':
  cli.run(main, Config)
