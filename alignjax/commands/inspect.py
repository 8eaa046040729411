"""`alignjax inspect`: what a model folder, a file of rows or a run holds."""

from collections.abc import Iterator
import dataclasses
import json
import os
import pathlib
import sys
from typing import Annotated, Any

import rich.console
import tyro

from alignjax import checkpoints
from alignjax import data
from alignjax import hf
from alignjax import metrics
from alignjax.commands import datasets
from alignjax.commands import models
from alignjax.commands import opening
from alignjax.commands import text
from alignjax.data import files as data_files
from alignjax.hf import files as hf_files
from alignjax.types import InputError

Facts = dict[str, Any]  # What JSON can hold.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
  """Says what a model folder or a file of rows holds.

  A model folder: its architecture, parameters, dtypes, tokenizer, special
  tokens and chat template; weights are not read. A file or a folder of rows:
  the schema that was seen, counts, lengths, what would be dropped or cut and
  why, and one row as training sees it, with the tokens that bear loss in
  colour, or in [[...]]. A run's workdir: how it ended.
  """

  # Folder or file.
  target: Annotated[
      tyro.conf.Positional[str], tyro.conf.arg(metavar='TARGET')]
  model: str | None = None  # Folder whose tokenizer counts a file's tokens.
  max_length: int | None = None  # Longest row in tokens; needs --model.
  # What bears loss in demonstrations: all of the assistant's turns, as in SFT,
  # or the last one.
  turns: data.Turns = 'all'
  row: int | None = None  # Line of the row to show; without it, the first kept.
  split: str = 'train'  # Of a folder of rows.
  max_dropped: float = 0.01  # Share of rows that a run lets go; above, a note.
  plain: bool = False  # Leave the folder's chat template out.
  color: bool = True  # Colours, where the output is a terminal.
  json: bool = False  # One JSON object for machines.


def inspect(cfg: Inspect) -> None:
  """Prints what is there; see `Inspect`."""
  target = pathlib.Path(cfg.target)
  facts = _describe(cfg, target)
  if cfg.json:
    print(json.dumps(facts, ensure_ascii=False, indent=2))
    return
  is_colored = cfg.color and sys.stdout.isatty()
  console = rich.console.Console(highlight=False) if is_colored else None
  print('\n'.join(text.lines(facts, console)))


def _describe(cfg: Inspect, target: pathlib.Path) -> Facts:
  """Facts of whatever the target is."""
  if not target.exists():
    raise InputError(f'{cfg.target} is not there; give a model folder, a '
                     'workdir, or a file or a folder of rows')
  kind = opening.kind_of(target) if target.is_dir() else None
  if kind is None:
    try:
      return _describe_data(cfg, target)
    except data_files.NoDataError:
      raise _nothing(cfg, target) from None
  for flag in ('model', 'max_length', 'row'):
    if getattr(cfg, flag) is not None:
      raise InputError(f'--{flag.replace("_", "-")} is for files of rows, and '
                       f'{cfg.target} is none; leave it out')
  match kind:
    case 'adapter':
      return models.describe_adapter(target)
    case 'run':
      return _describe_run(target)
    case _:
      return models.describe_model(target)


def _nothing(cfg: Inspect, target: pathlib.Path) -> InputError:
  """The error for a folder of no known kind, with those below it that are."""
  inside = [str(path.parent) for name in (
      'config.json', 'adapter_config.json', 'dataset_info.json')
            for depth in ('*', '*/*', '*/*/*')
            for path in sorted(target.glob(f'{depth}/{name}'))[:3]]
  near = f'did you mean {", ".join(inside[:3])}? ' if inside else ''
  return InputError(
      f'{cfg.target} holds no model and no rows (found '
      f'{hf_files.listing(target)}); {near}give a folder with a config.json, '
      'or a file of rows')


def _describe_data(cfg: Inspect, target: pathlib.Path) -> Facts:
  """Facts of rows."""
  if target.suffix in ('.safetensors', '.bin', '.pt', '.gguf'):
    raise InputError(f'{cfg.target} holds weights; give its folder, '
                     f'{os.fspath(target.parent)}')
  if cfg.max_length is not None:
    if cfg.model is None:
      raise InputError(f'max_length={cfg.max_length} counts tokens; name the '
                       'folder of a tokenizer too, as --model')
    if cfg.max_length < 2:
      raise InputError(f'max_length={cfg.max_length}: it must be at least 2; '
                       'change --max-length')
  tokenizer = None if cfg.model is None else hf.load_tokenizer(cfg.model)
  facts = datasets.describe_data(
      cfg.target, split=cfg.split, tokenizer=tokenizer,
      max_length=cfg.max_length, plain=cfg.plain, turns=cfg.turns,
      row=cfg.row)
  num_dropped = sum(reason['count'] for reason in facts['dropped'])
  if num_dropped > cfg.max_dropped * facts['rows']:
    facts['refused'] = (
        f'{num_dropped:,} of {facts["rows"]:,} rows are dropped, more than '
        f'max_dropped={cfg.max_dropped:g} of them: a run refuses the file '
        'unless it is given a larger --max-dropped')
  return facts


def _describe_run(folder: pathlib.Path) -> Facts:
  """Facts of a workdir: what was run, how far it came, what it left."""
  config = hf_files.read_json(folder / 'config.json')
  log, summary = folder / 'metrics.jsonl', folder / 'summary.json'
  last = list(metrics.read_jsonl(log))[-1:] if log.is_file() else []
  results = hf_files.read_json(summary) if summary.is_file() else {}
  folders = [path.parent for pattern in (
      'model/config.json', 'adapter/adapter_config.json', '*/config.json')
             for path in sorted(folder.glob(pattern))]
  return {
      'kind': 'run', 'folder': str(folder),
      'experiment': config['experiment'], 'model': config.get('model'),
      'data': config.get('data'), 'is_done': summary.is_file(),
      'last_checkpoint': checkpoints.latest_step(folder / 'checkpoints'),
      'last_metrics': last[0] if last else None,
      'summary': dict(_flat(results)),
      'folders': [str(path) for path in dict.fromkeys(folders)]}


def _flat(values: dict, above: str = '') -> Iterator[tuple[str, Any]]:
  """('models/sft/gold', 0.26) of nested results; lists are left out."""
  for name, value in values.items():
    if isinstance(value, dict):
      yield from _flat(value, f'{above}{name}/')
    elif isinstance(value, (str, int, float)):
      yield above + name, value
