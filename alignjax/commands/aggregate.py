"""`alignjax aggregate`: a panel's answers become preferences."""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
from typing import Literal

from alignjax import feedback
from alignjax import metrics
from alignjax.hf import files as hf_files
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aggregate:
  """Makes preferences or thumbs of answers, and tells how far people agree.

  --out gets {prompt, chosen, rejected, agreement, strength} rows of rankings
  and pairs, or {prompt, response, label} rows of thumbs; beside it OUT.report
  .json has each annotator's answers, skips, ties, agreement with the others
  and with the control items, Cohen's kappas, Fleiss' kappa and Krippendorff's
  alpha with intervals. See docs/annotation.md.
  """

  items: str = ''  # JSONL of what was shown; not needed with --tool.
  answers: tuple[str, ...]  # JSONL files of answers, or exports of a tool.
  out: str  # File to write.
  overwrite: bool = False  # Replace --out if it exists.
  # Whose export the answers are; '' reads our own.
  tool: Literal['', 'label_studio', 'argilla'] = ''
  method: feedback.Method = 'majority'  # How votes are counted.
  # Share of the control items' pairs that an annotator must order rightly for
  # their answers to count; 0 screens nobody.
  min_agreement: float = 0.0
  seed: int = 0  # Of the intervals.


def aggregate(cfg: Aggregate) -> None:
  """Aggregates; see `Aggregate`."""
  out = pathlib.Path(cfg.out)
  if out.exists() and not cfg.overwrite:
    raise InputError(f'out={cfg.out} exists; add --overwrite to replace it, or '
                     'give another name')
  if not (cfg.min_agreement == 0 or 0.5 < cfg.min_agreement <= 1):
    raise InputError(f'min_agreement={cfg.min_agreement} is neither 0 nor in '
                     '(0.5, 1]; guesses reach 0.5: ask for more')
  console = metrics.Console()
  items, answers = _read(cfg)
  screened = feedback.screen_panel(
      items, answers, min_agreement=cfg.min_agreement or 0.75)
  if cfg.min_agreement:
    failed = [name for name, (_, passed) in screened.items() if not passed]
    for name in failed:
      console.note(f'{name} ordered {screened[name][0]:.0%} of the known pairs '
                   'rightly: their answers are left out')
    answers = [a for a in answers if a.annotator not in failed]
  controls = {item.id for item in items if item.known is not None}
  panel = feedback.make_panel(items, answers)
  report = feedback.agreement_table(panel, seed=cfg.seed)
  for name, row in report['annotators'].items():
    share = screened[name][0]
    row['on_controls'] = None if share != share else share
    if row['items'] == 1:
      console.note(f'{name} has answered one item: too few to say how reliable')
  pairs = [p for p in feedback.aggregate(panel, cfg.method)
           if p.item.id not in controls]
  thumbs = _thumbs(items, answers)
  records = [pair.record() for pair in pairs] + thumbs
  if not records:
    raise InputError(
        f'{len(answers)} answers amount to no preference and no label: all are '
        'skips, ties, or split; collect more')
  report |= {'items': len(items), 'answers': len(answers),
             'pairs': len(pairs), 'labels': len(thumbs), 'method': cfg.method}
  hf_files.write_bytes(out.resolve(), ''.join(
      json.dumps(r, ensure_ascii=False) + '\n' for r in records).encode())
  hf_files.write_bytes(
      out.with_name(out.name + '.report.json').resolve(),
      (json.dumps(report, indent=2) + '\n').encode())
  _show(console, report)


def _read(cfg: Aggregate):
  """(items, answers) of our files, or of a tool's."""
  if not cfg.tool:
    if not cfg.items:
      raise InputError('items is missing; give the file that was shown, or '
                       '--tool with a tool\'s export')
    items = feedback.read_items(cfg.items)
    return items, feedback.read_answers(cfg.answers, items)
  items, answers = {}, []
  for path in cfg.answers:
    some, said = feedback.import_answers(path, cfg.tool)
    items |= {item.id: item for item in some}
    answers += said
  return list(items.values()), answers


def _thumbs(items, answers: Sequence[feedback.Answer]) -> list[dict]:
  """Rows for KTO of the thumbs among the answers."""
  by_id = {item.id: item for item in items}
  found = feedback.digest([
      feedback.Thumb(by_id[a.item].prompt, by_id[a.item].responses[0], a.good,
                     a.annotator)
      for a in answers if a.good is not None], max_per_prompt=10**9)
  return [row.record() for row in found.rows]


def _show(console: metrics.Console, report: dict) -> None:
  """The report as tables."""
  text = lambda x: '' if x is None else f'{x:.2f}'
  console.table(
      'Annotators',
      ['name', 'items', 'skips', 'ties', 'with the others', 'on controls'],
      [[name, str(row['items']), str(row['skips']), text(row['ties']),
        text(row['with_majority']), text(row['on_controls'])]
       for name, row in report['annotators'].items()])
  for key, name in (('alpha', 'Krippendorff alpha'),
                    ('fleiss', 'Fleiss kappa')):
    value, low, high = report[key] or (None,) * 3
    if value is not None:
      console.note(f'{name} {value:.3f} [{text(low)}, {text(high)}]')
  console.note(f'{report["pairs"]} pairs and {report["labels"]} labels of '
               f'{report["answers"]} answers to {report["items"]} items')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportItems:
  """Writes items, and answers if there are any, for Label Studio or Argilla.

  What the tool exports later, `alignjax aggregate --tool` reads.
  """

  items: str  # JSONL of {"prompt", "responses": [...]} or of pairs.
  tool: Literal['label_studio', 'argilla']  # Who is to read it.
  out: str  # JSON file to write.
  answers: tuple[str, ...] = ()  # JSONL files of answers that go along.
  overwrite: bool = False  # Replace --out if it exists.


def export_items(cfg: ExportItems) -> None:
  """Writes the file; see `ExportItems`."""
  if os.path.exists(cfg.out) and not cfg.overwrite:
    raise InputError(f'out={cfg.out} exists; add --overwrite to replace it, or '
                     'give another name')
  items = feedback.read_items(cfg.items)
  answers = feedback.read_answers(cfg.answers, items)
  records = feedback.export_items(items, cfg.tool, answers)
  hf_files.write_bytes(
      pathlib.Path(cfg.out).resolve(),
      (json.dumps(records, ensure_ascii=False, indent=1) + '\n').encode())
  metrics.Console().note(f'wrote {len(records)} records for {cfg.tool}')
