"""What `alignjax generate` and `alignjax score` share.

Both read a Hugging Face folder and a file of rows, and answer one line per row,
in its order: no row is dropped, a bad one stops the command. Rows are
sorted by length inside, longest first, so that few shapes compile and a batch
that does not fit in memory says so at once.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Literal

import jax
import numpy as np

from alignjax import adapters
from alignjax import data
from alignjax import hf
from alignjax import metrics
from alignjax import sharding
from alignjax.data import rows as data_rows
from alignjax.hf import files as hf_files
from alignjax.models import CausalLM
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
  """The flags that both commands have."""

  model: str  # Hugging Face model folder.
  out: str | None = None  # File to write; without it, stdout.
  overwrite: bool = False  # Replace --out if it exists.
  plain: bool = False  # Leave the folder's chat template out.
  batch_size: int = 8  # Rows computed at one time.
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # Of weights and matmuls.
  mesh: str = 'data:-1'  # By axis: data, fsdp, sequence, tensor; -1: the rest.


def read_rows(path: str, read: Callable) -> list:
  """`read(record, shape, where)` of every row; none is dropped."""
  items, shape = [], None
  for line, record in data.read_records(path):
    where = f'{path}:{line}'
    shape = shape or data.sniff(record, where)
    try:
      items.append(read(record, shape, where))
    except data_rows.Unusable as row:
      raise InputError(f'{where}: {row.detail}; write it, or take the row out '
                       '(no row is skipped)') from None
  return items


def check_starts(num_tokens: int, where: str) -> None:
  """A model says nothing of the first token of all."""
  if not num_tokens:
    raise InputError(f'{where}: the prompt has no tokens, and a response needs '
                     'one before it; write some text')


def check_ids(tokens: np.ndarray, model: CausalLM, where: str) -> None:
  """The embedding must have a row for each id."""
  if tokens.max() >= model.config.vocab_size:
    raise InputError(
        f'{where}: the tokenizer gives id {tokens.max()} and the model has '
        f'vocab_size={model.config.vocab_size}; put the tokenizer that belongs '
        'to the model into its folder')


def note_long(console: metrics.Console, length: int, model: CausalLM) -> None:
  """Says so where rows are longer than the model was trained for."""
  if length > model.config.max_positions:
    console.note(f'note: rows of up to {length} tokens, and the model was '
                 f'trained for {model.config.max_positions}')


def load(cfg: Common, mesh: jax.sharding.Mesh, *, scan_layers: bool):
  """(model, params on the mesh, their shardings).

  Accelerators multiply float32 in fewer bits unless they are asked not to, so
  callers trace under the highest matmul precision: what is called float32 here
  agrees with other libraries' to rounding.
  """
  config, params = hf.load_model(
      cfg.model, dtype=cfg.dtype, param_dtype=cfg.dtype,
      scan_layers=scan_layers, mesh=mesh)
  return CausalLM(config), params, adapters.shardings_of(params)


def batches(
    lengths: Sequence[int], cfg: Common, mesh: jax.sharding.Mesh,
    console: metrics.Console,
) -> Iterator[tuple[np.ndarray, int, int]]:
  """(which rows, width, rows with filler) of each batch, longest first."""
  shards = sharding.num_batch_shards(mesh)
  size = min(cfg.batch_size, len(lengths))
  num_rows = -(-size // shards) * shards  # Filler for devices without a row.
  order = np.argsort(-np.asarray(lengths), kind='stable')
  starts = range(0, len(order), num_rows)
  name = type(cfg).__name__.lower()
  with console.progress(name, len(starts)) as progress:
    for step, start in enumerate(starts, start=1):
      indices = order[start:start + num_rows]
      yield indices, bucket(lengths[indices[0]]), num_rows
      if len(starts) > 1:
        progress.update(step, {}, sum(lengths[i] for i in indices))


def bucket(length: int) -> int:
  """The width of a row's batch: the next of 24, 32, 48, 64, 96, 128, ..."""
  power = 1 << max(5, (length - 1).bit_length())
  return power * 3 // 4 if length <= power * 3 // 4 else power


def write(cfg: Common, records: Sequence[dict]) -> None:
  """Writes JSONL to --out, whole or not at all, or prints it."""
  text = ''.join(json.dumps(record, ensure_ascii=False) + '\n'
                 for record in records)
  if cfg.out is None:
    print(text, end='')
  else:
    hf_files.write_bytes(pathlib.Path(cfg.out).resolve(), text.encode())


def check(cfg, name: str, is_good: bool, rule: str) -> None:
  """InputError that names the flag and its value."""
  if not is_good:
    raise InputError(f'{name}={getattr(cfg, name)}: it must be {rule}; change '
                     f'--{name.replace("_", "-")}')


def check_common(cfg: Common) -> None:
  """What can be known to fail before anything slow begins."""
  check(cfg, 'batch_size', cfg.batch_size >= 1, 'at least 1')
  hf_files.require_folder(pathlib.Path(cfg.model))
  if cfg.out is None:
    return
  path = pathlib.Path(cfg.out)
  if path.exists() and not path.is_file():
    raise InputError(f'out={cfg.out} is not a file; give a name for one')
  if path.exists() and not cfg.overwrite:
    raise InputError(f'out={cfg.out} exists; add --overwrite to replace it, '
                     'or give another name')
  folder = path.resolve().parent
  if not (folder.is_dir() and os.access(folder, os.W_OK)):
    raise InputError(f'out={cfg.out}: {folder} is not a folder that can be '
                     'written to; make it, or give another name')
