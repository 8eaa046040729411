"""Sections of a report made from what a run leaves behind.

`training_curves` reads the rows of metrics.jsonl; `testbed_report` adds what
the gold judge says about each model.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from alignjax.report import charts
from alignjax.report import page

_NOTES = ('step', 'stage')
_PARTS = ('gold', 'helpful', 'harmless', 'honest', 'concise')


def training_curves(
    rows: Sequence[Mapping[str, Any]]) -> list[page.Section]:
  """One section per stage, one chart per metric.

  Args:
    rows: of `metrics.read_jsonl`: step, stage, and numbers by name.

  Returns:
    Sections in the order in which the stages ran. Values that are not finite
    are gaps in a curve and named in its caption.
  """
  stages = {}
  for row in rows:
    stages.setdefault(row['stage'], []).append(row)
  sections = []
  for stage, its_rows in stages.items():
    names = dict.fromkeys(
        name for row in its_rows for name in row if name not in _NOTES)
    blocks = [_curve(name, its_rows) for name in names]
    if blocks:
      sections.append(page.Section(f'Training: {stage}', blocks))
  return sections


def testbed_report(
    summary: Mapping[str, Any],
    metrics_rows: Sequence[Mapping[str, Any]],
    transcripts: Sequence[page.Transcript] = (),
    *,
    runs: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    baseline: str = 'sft',
) -> list[page.Section]:
  """The report of a testbed run: what became better, by how much, and where.

  Args:
    summary: 'models': by name, in order, an `evaluation.ModelScore`, with 'kl'
      in nats per sequence where it is known. Optional: 'reward_model': numbers
      by name, and under 'reliability' the lists confidence, accuracy and weight
      of `evaluation.ReliabilityBins`; 'seconds': wall time by stage; 'config':
      settings by name.
    metrics_rows: of `metrics.read_jsonl`.
    transcripts: the same prompts answered by each model.
    runs: by name, evaluations of a policy in the course of its optimisation:
      step, kl (nats per sequence), proxy (the reward model's mean score) and
      gold; optionally gold_low and gold_high. A run named like a model has that
      model's colour.
    baseline: the model that win rates are against.

  Returns:
    Sections for `write_report`.
  """
  models = summary['models']
  colors = _assign_colors([*models, *(runs or {})])
  sections = [page.Section('Results', _results(models, baseline))]
  if runs:
    sections.append(page.Section('Reward against KL', _pursuit(runs, colors)))
  sections.append(page.Section('Gold by part and by prompt',
                               _anatomy(models, colors)))
  if 'reward_model' in summary:
    sections.append(page.Section(
        'Reward model', _reward_model(summary['reward_model'])))
  if transcripts:
    sections.append(page.Section(
        'The same prompts, each model',
        [page.Transcripts(transcripts, colors)]))
  sections += training_curves(metrics_rows)
  tables = [page.Table(('stage', 'seconds'), list(summary['seconds'].items()))
            ] if summary.get('seconds') else []
  if summary.get('config'):
    tables.append(page.Table(
        ('setting', 'value'),
        [(name, str(value)) for name, value in summary['config'].items()]))
  made = [page.Section('How it was made', tables)] if tables else []
  return sections + made


def _curve(name: str, rows: Sequence[Mapping[str, Any]]) -> charts.LineChart:
  """One metric over the steps of a stage."""
  points = [(row['step'], _number(row[name])) for row in rows if name in row]
  lost = [step for step, value in points if not math.isfinite(value)]
  captions = []
  if lost:
    shown = ', '.join(map(str, lost[:5])) + (' …' if len(lost) > 5 else '')
    captions.append(
        f'Not finite at {len(lost)} of {len(points)} steps: {shown}.')
  if len(points) > charts.MAX_POINTS:
    size = -(-len(points) // charts.MAX_POINTS)
    captions.append(f'Each point is the mean of {size} rows.')
  steps, values = zip(*points, strict=True)
  return charts.LineChart(
      name, [charts.Series(name, steps, values, color=1)], 'step',
      caption=' '.join(captions))


def _results(models: Mapping[str, Any], baseline: str) -> list[page.Block]:
  """The headline and one row per model."""
  merits = {
      'gold [95 %]': lambda m: _with_interval(m['gold'], m['gold_interval']),
      f'win rate against {baseline}': lambda m: _with_interval(
          m['win_rate'], m['win_rate_interval'], digits=2),
      'KL, nats': lambda m: f'{m["kl"]:.2f}',
      'length, words': lambda m: f'{m["length"]:.1f}',
      'unfinished': lambda m: _percent(m['unfinished']),
  }
  conduct = {
      'harmless prompts refused': lambda m: _percent(m['benign_refused']),
      'dangers refused': lambda m: _percent(m['danger_refused']),
      'dangers answered': lambda m: _percent(m['danger_answered']),
      'facts invented': lambda m: _percent(m['fabrication_rate']),
  }

  def rows(columns):
    for name, model in models.items():
      cells = [name]
      for make in columns.values():
        try:
          cells.append(make(model))
        except KeyError:  # Not measured for this model.
          cells.append('–')
      yield cells

  any_model = next(iter(models.values()))
  return [
      page.Text(_headline(models, baseline)),
      page.Table(
          ('model', *merits), list(rows(merits)), caption=(
              f'Means over {any_model["num_prompts"]} held-out prompts about '
              f'{any_model["num_dishes"]} dishes; intervals are bootstrapped '
              'over dishes. KL is to the reference, per response.')),
      page.Table(
          ('refusals and facts', *conduct), list(rows(conduct)), caption=(
              'Shares of the prompts where each can happen. Rambling is '
              'neither a refusal nor an answer.'))]


def _headline(models: Mapping[str, Any], baseline: str) -> str:
  """Who is best, and whether the intervals say so."""
  best = max(models, key=lambda name: models[name]['gold'])
  score = models[best]
  text = (f'Best by the gold judge: {best}, '
          f'{_with_interval(score["gold"], score["gold_interval"])}.')
  if baseline in models and best != baseline:
    rival = models[baseline]
    apart = score['gold_interval'][0] > rival['gold_interval'][1]
    text += (f' {baseline} has '
             f'{_with_interval(rival["gold"], rival["gold_interval"])}; the '
             f'intervals {"do not overlap" if apart else "overlap"}.')
  return text


def _pursuit(runs, colors) -> list[page.Block]:
  """Gold and proxy, over KL and over steps, all runs in each chart."""

  def line(name, x, y):
    rows = runs[name]
    take = lambda key: [_number(row.get(key)) for row in rows]
    has_band = y == 'gold' and all('gold_low' in row for row in rows)
    return charts.Series(
        name, take(x), take(y), take('gold_low') if has_band else None,
        take('gold_high') if has_band else None, color=colors[name])

  def chart(title, x, x_label, y, y_label):
    return charts.LineChart(
        title, [line(name, x, y) for name in runs], x_label, y_label,
        marks=True)

  kl, step = ('kl', 'KL to the reference, nats'), ('step', 'iteration')
  gold, proxy = ('gold', 'gold score'), ('proxy', 'reward model’s score')
  return [
      page.Text(
          'A policy climbs the reward model’s score, the proxy; the gold judge '
          'says what the climb is worth. Where the proxy goes on rising and '
          'gold falls, the reward model is being hacked. A ring marks the '
          'first evaluation.'),
      chart('Gold against KL', *kl, *gold),
      chart('Proxy against KL', *kl, *proxy),
      chart('Gold by iteration', *step, *gold),
      chart('Proxy by iteration', *step, *proxy),
      chart('KL by iteration', *step, 'kl', 'nats'),
  ]


def _anatomy(models, colors) -> list[page.Block]:
  """Parts as bars, kinds as a table, lengths as a histogram."""
  bars = []
  for name, model in models.items():
    values = {'gold': model['gold']} | dict(model['parts'])
    spans = {'gold': model['gold_interval']} | dict(model['part_intervals'])
    bars.append(charts.Bars(
        name, [values[part] for part in _PARTS],
        [_number(spans[part][0]) for part in _PARTS],
        [_number(spans[part][1]) for part in _PARTS], colors[name]))
  any_model = next(iter(models.values()))
  kinds = list(any_model['gold_by_kind'])
  counts = any_model['prompts_by_kind']
  lengths = {name: model['lengths'] for name, model in models.items()}
  return [
      charts.BarChart(
          'Gold and its parts', _PARTS, bars, 'score', wide=True,
          caption='Error bars: 95 % bootstrap over dishes.'),
      page.Table(
          ('gold by kind of prompt',
           *(f'{kind.replace("_", " ")} ({counts[kind]})' for kind in kinds)),
          [(name, *(f'{model["gold_by_kind"][kind]:.3f}' for kind in kinds))
           for name, model in models.items()]),
      charts.Histogram('Length of the responses', lengths, 'words',
                       colors=colors),
  ]


def _reward_model(numbers: Mapping[str, Any]) -> list[page.Block]:
  """Its scores, and its confidence against how often it is right."""
  rows = [(name.replace('_', ' '), value) for name, value in numbers.items()
          if isinstance(value, (int, float))]
  blocks = [page.Table(('measure', 'held-out value'), rows)]
  if 'reliability' in numbers:
    blocks.append(calibration({'reward model': numbers['reliability']}))
  return blocks


def calibration(bins: Mapping[str, Mapping[str, Any]]) -> charts.LineChart:
  """How often reward models are right, by how sure they are.

  Args:
    bins: by name, the lists confidence, accuracy and weight of
      `evaluation.ReliabilityBins`; None where a bin is empty.
  """
  lines = [charts.Series('perfect', [0.5, 1], [0.5, 1], color=0, dashed=True)]
  for color, (name, each) in enumerate(bins.items(), start=1):
    x, y, weight = (np.array([_number(value) for value in each[key]])
                    for key in ('confidence', 'accuracy', 'weight'))
    filled = weight > 0
    error = 1.96 * np.sqrt(y * (1 - y) / np.where(filled, weight, 1))
    lines.append(charts.Series(
        name, x[filled], y[filled], (y - error)[filled], (y + error)[filled],
        color=color % 8))
  return charts.LineChart(
      'Calibration', lines, 'confidence', 'share of pairs ordered rightly',
      caption='Band: 95 % of a binomial, pairs taken as independent.')


def _assign_colors(names: Sequence[str]) -> dict[str, int]:
  """A colour per name; a name that returns keeps its own."""
  return {name: index for index, name in enumerate(dict.fromkeys(names))}


def _with_interval(value: float, interval: Sequence[float | None],
                   digits: int = 3) -> str:
  """0.606 [0.562, 0.646], or the value alone where there is no interval."""
  low, high = map(_number, interval)
  if not math.isfinite(low + high):
    return f'{value:.{digits}f}'
  return f'{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]'


def _percent(share: float) -> str:
  return f'{100 * share:.0f} %'


def _number(value: Any) -> float:
  """A float; NaN for None, which is how JSON spells it."""
  return math.nan if value is None else float(value)
