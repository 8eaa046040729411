"""`alignjax convert`: Hugging Face folders, Orbax checkpoints, adapters.

The result is written beside its place under another name, read back, compared
with the source bit for bit, and only then put in place.
"""

from collections.abc import Iterator
import dataclasses
import os
import pathlib
import shutil
import tempfile
from typing import Annotated, Literal

import numpy as np
import tyro

from alignjax import checkpoints
from alignjax import hf
from alignjax import metrics
from alignjax.commands import opening
from alignjax.hf import files as hf_files
from alignjax.hf import lazy
from alignjax.hf import tokenizer_files
from alignjax.types import InputError

# What goes along with weights: never weights, never code.
_SUFFIXES = '.json', '.jinja', '.txt', '.model'
_NAMES = 'LICENSE', 'NOTICE', 'README'

_CHUNK = 1 << 22  # Bytes compared at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
  """Copies a model into another format, bit for bit unless --dtype is given.

  The source is a Hugging Face folder, which becomes an Orbax checkpoint of the
  parameter tree with the small files beside it; or such a folder, which becomes
  what it was; or the workdir of a training run, whose newest checkpoint becomes
  a Hugging Face folder; or, with --merge, an adapter folder in PEFT's format.

  The host holds a layer at a time, or a tensor, and not the model; of a run
  that stacks its layers (more than eight), three stacked leaves. What was
  written is read back and compared before it takes its place.
  """

  # Folder of the model to copy.
  source: Annotated[
      tyro.conf.Positional[str], tyro.conf.arg(metavar='SOURCE')]
  out: str  # Folder to write.
  to: Literal['auto', 'hf', 'orbax'] = 'auto'  # Format; auto: the other one.
  # Of the written weights; without it every tensor keeps its own.
  dtype: Literal['float32', 'bfloat16', 'float16'] | None = None
  merge: bool = False  # Add an adapter folder to its base.
  # Base of the adapters, where theirs is not a folder here; or the folder whose
  # config.json describes what an unfinished run trains.
  base: str | None = None
  max_shard_gb: float = 5.0  # Larger weights are split into several files.
  overwrite: bool = False  # Replace the model in --out.


def convert(cfg: Convert) -> None:
  """Copies a model; see `Convert`."""
  if not 0 < cfg.max_shard_gb < float('inf'):
    raise InputError(f'max_shard_gb={cfg.max_shard_gb}: it must be above 0; '
                     'change --max-shard-gb')
  source, out = pathlib.Path(cfg.source), pathlib.Path(cfg.out).resolve()
  hf_files.require_folder(source)
  _check_out(cfg, source, out)
  to = cfg.to
  if to == 'auto':
    to = 'orbax' if opening.kind_of(source) == 'hf' else 'hf'
  with opening.open_source(source, base=cfg.base, merge=cfg.merge) as opened:
    model = opened.model
    if cfg.dtype:
      opened = opened._replace(model=lazy.cast(model, cfg.dtype))
    _check_room(opened.model, out)
    scratch = pathlib.Path(tempfile.mkdtemp(
        dir=out.parent, prefix=f'.{out.name}-'))
    try:
      write = _write_hf if to == 'hf' else _write_orbax
      write(scratch, opened, cfg)
      with opening.open_source(scratch) as written:
        _compare(opened.model, written.model)
      scratch.chmod(0o755)
      _put_in_place(scratch, out)
    finally:
      shutil.rmtree(scratch, ignore_errors=True)
  metrics.Console().note(f'wrote {cfg.out}: {_summary(opened.model)}; read '
                         'back and compared')


def _check_out(
    cfg: Convert, source: pathlib.Path, out: pathlib.Path
) -> None:
  """What can be known to fail before anything is written."""
  inside = source.resolve()
  if out == inside or out in inside.parents or inside in out.parents:
    raise InputError(f'out={cfg.out}: it and {source} lie in one another; give '
                     'a folder elsewhere')
  if out.exists() and not out.is_dir():
    raise InputError(f'out={cfg.out} is not a folder; give a name for one')
  if out.exists() and any(out.iterdir()):
    if not cfg.overwrite:
      raise InputError(f'out={cfg.out} holds files; add --overwrite to replace '
                       'them, or give another name')
    if opening.kind_of(out) not in ('hf', 'orbax'):
      raise InputError(f'out={cfg.out} holds something other than a model '
                       f'(found {hf_files.listing(out)}); --overwrite replaces '
                       'models only: give another name')
  if not (out.parent.is_dir() and os.access(out.parent, os.W_OK)):
    raise InputError(f'out={cfg.out}: {out.parent} is not a folder that can be '
                     'written to; make it, or give another name')


def _check_room(model: hf.LazyModel, out: pathlib.Path) -> None:
  """Refuses to begin what the disk cannot hold."""
  due, free = _num_bytes(model), shutil.disk_usage(out.parent).free
  if due > free:
    raise InputError(
        f'out={out}: the weights need {due / 1e9:.1f} GB and the disk has '
        f'{free / 1e9:.1f} GB; make room, or write to another disk')


def _write_hf(
    folder: pathlib.Path, source: opening.Source, cfg: Convert
) -> None:
  """Writes a Hugging Face folder; its small files are the source's own."""
  model, shard = source.model, int(cfg.max_shard_gb * 1e9)
  is_reward_model = model.head is not None
  if is_reward_model == opening.is_reward_folder(source.beside):
    hf.save_weights(folder, model.config, model.params, head=model.head,
                    max_shard_bytes=max(shard, 1))
    _copy_small_files(folder, source, cfg)
  else:
    hf.save_model(
        folder, model.config, model.params, head=model.head,
        tokenizer=hf.load_tokenizer(source.tokenizer),
        max_shard_bytes=max(shard, 1))


def _write_orbax(
    folder: pathlib.Path, source: opening.Source, cfg: Convert
) -> None:
  """Writes a checkpoint of the parameter tree, and the small files beside."""
  if (source.model.head is not None) != opening.is_reward_folder(
      source.beside):
    raise InputError(
        f'{cfg.source}: {source.beside / "config.json"} is of another kind of '
        'model; write a Hugging Face folder first, with --to hf')
  checkpoints.save_parts(folder, _parts(source.model))
  _copy_small_files(folder, source, cfg)


def _parts(model: hf.LazyModel) -> Iterator[dict]:
  """The tree in parts of a layer, or of a leaf outside of layers."""
  wrap = lambda part: part if model.head is None else {'backbone': part}
  for name, value in model.params.items():
    if not isinstance(value, dict):
      yield wrap({name: np.asarray(value)})
    elif model.config.scan_layers:
      for inner, leaf in value.items():
        yield wrap({name: {inner: np.asarray(leaf)}})
    else:
      yield wrap({name: {k: np.asarray(leaf) for k, leaf in value.items()}})
  if model.head is not None:
    yield {'head': np.asarray(model.head)}


def _copy_small_files(
    folder: pathlib.Path, source: opening.Source, cfg: Convert
) -> None:
  """Copies what is no weight; config.json last, with the dtype written."""
  goes = lambda path: path.is_file() and not path.name.startswith('.') and (
      path.suffix in _SUFFIXES or path.name.startswith(_NAMES)) and (
          not path.name.endswith('.index.json'))
  small = {path.name: path for path in source.beside.iterdir() if goes(path)}
  if source.tokenizer != source.beside:
    small |= {name: source.tokenizer / name for name in tokenizer_files.FILES
              if (source.tokenizer / name).is_file()}
  config_path = small.pop('config.json')
  for name, path in small.items():
    hf_files.write_bytes(folder / name, path.read_bytes())
  text = config_path.read_bytes()
  config = hf_files.read_json(config_path)
  dtypes = {str(leaf.dtype) for _, leaf in source.model.leaves()}
  is_copy = cfg.dtype is None and source.beside == pathlib.Path(cfg.source)
  if not is_copy and len(dtypes) == 1:
    # Transformers 5 says dtype, older ones torch_dtype.
    named = [n for n in ('dtype', 'torch_dtype') if n in config] or ['dtype']
    text = hf_files.to_json(
        config | dict.fromkeys(named, dtypes.pop())).encode()
  hf_files.write_bytes(folder / 'config.json', text)


def _compare(due: hf.LazyModel, got: hf.LazyModel) -> None:
  """Raises unless what was read back has the bits that were to be written."""
  count, wanted = 0, dict(due.leaves())
  # By name over all layers: a stacked leaf is then read once.
  for path, leaf in sorted(got.leaves(), key=lambda item: item[0][::-1]):
    if path in wanted:
      a = np.asarray(wanted[path])
    else:
      row = int(path[0].removeprefix('layers_'))
      a = wanted['layers', *path[1:]][row]
    b = np.asarray(leaf)
    if a.dtype != b.dtype or not _is_same(a, b):
      raise InputError(
          f'{"/".join(path)} came back from the disk with other bits; nothing '
          'was put in place: check the disk, and convert again')
    count += a.size
  if count != _num_values(due):
    raise InputError('some leaves did not come back from the disk; nothing was '
                     'put in place: check the disk, and convert again')


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
  """Whether two arrays have the same bytes; compared piece by piece."""
  if a.shape != b.shape:
    return False
  a, b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
  return all(np.array_equal(a[i:i + _CHUNK], b[i:i + _CHUNK])
             for i in range(0, a.size, _CHUNK))


def _put_in_place(scratch: pathlib.Path, out: pathlib.Path) -> None:
  """Renames; what was there is removed after the new one is there."""
  if not out.exists():
    os.rename(scratch, out)
    return
  old = pathlib.Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}-'))
  os.rename(out, old)  # An empty folder gives way.
  os.rename(scratch, out)
  shutil.rmtree(old)


def _num_values(model: hf.LazyModel) -> int:
  return sum(int(np.prod(leaf.shape)) for _, leaf in model.leaves())


def _num_bytes(model: hf.LazyModel) -> int:
  return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize
             for _, leaf in model.leaves())


def _summary(model: hf.LazyModel) -> str:
  """'llama, 134,515,008 parameters, 269.0 MB, bfloat16'."""
  dtypes = sorted({str(leaf.dtype) for _, leaf in model.leaves()})
  kind = ' reward model' if model.head is not None else ''
  return (f'{model.config.family}{kind}, {_num_values(model):,} parameters, '
          f'{_num_bytes(model) / 1e6:,.1f} MB, {" and ".join(dtypes)}')
