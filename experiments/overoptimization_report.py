"""The table, and report.html of experiments.overoptimization."""

import numpy as np

from alignjax import evaluation
from alignjax import report
from alignjax import runs


def write(run: runs.Run, cfg, summary: dict) -> None:
  """Shows where gold was best and where it ended, and draws all curves."""
  rows = []
  for name, curve in summary['curves'].items():
    gold, kl = curve['gold'], curve['kl']
    best = int(np.argmax(gold))
    alarms = [f'{a["name"]} at {a["step"]}'
              for a in summary['said'].get(name, [])]
    rows.append([
        name, f'{gold[best]:.3f} at {kl[best]:.1f} nats',
        f'{gold[-1]:.3f} at {kl[-1]:.1f}',
        f'{curve["proxy"][0]:.2f} → {curve["proxy"][-1]:.2f}',
        ', '.join(alarms) or ('none' if name in summary['alarms'] else '')])
  head = ['run', 'gold, best', 'gold, last', 'proxy', 'alarms']
  run.console.table('Gold and proxy', head, rows)
  said = [[name, str(alarm['step']), alarm['name'], alarm['text']]
          for name, alarms in summary['said'].items() for alarm in alarms]
  sections = [
      report.Section('Gold and proxy', [
          report.Table(head, rows), *_charts(summary)]),
      report.Section('What telemetry said', [report.Table(
          ['run', 'iteration', 'alarm', 'what'], said)] if said else []),
      report.Section('How it was made', [report.Table(
          ['setting', 'value'], [[k, str(v)] for k, v in vars(cfg).items()])])]
  report.write_report(
      run.workdir / 'report.html', title='alignjax overoptimization',
      sections=sections)
  run.console.note(f'wrote {run.workdir / "report.html"}')


def _charts(summary: dict) -> list[report.LineChart]:
  """Gold and its fits, and the proxy, over √KL; few curves in each."""
  curves = summary['curves']
  panels = {
      'PPO by KL coefficient, best of n and DPO': [
          n for n in curves if ',' not in n and 'bias' not in n],
      'PPO without a penalty, by reward-model data': [
          n for n in curves if n == 'kl_coef=0' or ',' in n],
      'PPO without a penalty, by planted bias': [
          n for n in curves if 'bias' in n]}
  charts = []
  for title, names in panels.items():
    if not names:
      continue
    for key in ('gold', 'proxy'):
      charts.append(report.LineChart(
          f'{title}: {key}', [report.Series(
              n, np.sqrt(curves[n]['kl']), curves[n][key]) for n in names],
          '√KL, √nats', key, marks=True))
    if fitted := [n for n in names if n in summary['fits']]:
      charts.append(report.LineChart(
          f'{title}: gold as fitted (Gao et al., 2022)',
          [_fitted(n, curves[n], summary['fits'][n]) for n in fitted],
          '√KL, √nats', 'gold', caption='; '.join(
              f'{n}: α {summary["fits"][n]["alpha"]:.3f}, '
              f'β {summary["fits"][n]["beta"]:.3f}' for n in fitted)))
  return charts


def _fitted(name: str, curve: dict, fit: dict) -> report.Series:
  """A fitted curve over the range that was measured."""
  kl, gold = curve['kl'], curve['gold']
  d = np.linspace(0.0, np.sqrt(max(kl)), 60)
  shape = evaluation.Fit(fit['form'], fit['alpha'], fit['beta'],
                         fit['residual'])
  return report.Series(name, d, gold[int(np.argmin(kl))] + shape.gain(d))
