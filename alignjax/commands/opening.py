"""Folders that hold a model, whatever wrote them, opened without reading them.

    hf        a Hugging Face model folder
    adapter   a PEFT folder: adapters, which need the base they were trained on
    orbax     what `alignjax convert` wrote: a parameter tree, and beside it
              the small files of the folder that it came from
    run       a training run's workdir, with its checkpoints
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np

from alignjax import checkpoints
from alignjax import hf
from alignjax.hf import files as hf_files
from alignjax.hf import lazy
from alignjax.models import lora
from alignjax.types import InputError

_ADAPTER = 'adapter_config.json'
# Where a run's state keeps the weights that it trains.
_TRAINED = ('params',), ('policy', 'params')


class Source(NamedTuple):
  """An opened model, and the folder whose small files belong to it."""

  model: hf.LazyModel
  beside: pathlib.Path
  tokenizer: pathlib.Path  # The folder of its tokenizer.


def kind_of(folder: pathlib.Path) -> str | None:
  """'hf', 'adapter', 'orbax' or 'run'; None for another folder."""
  if (folder / _ADAPTER).is_file():
    return 'adapter'
  if not (folder / 'config.json').is_file():
    return None
  if 'experiment' in hf_files.read_json(folder / 'config.json'):
    return 'run'
  return 'hf' if checkpoints.latest_step(folder) is None else 'orbax'


def is_reward_folder(folder: pathlib.Path) -> bool:
  """Whether config.json speaks of a reward model."""
  named = hf_files.read_json(folder / 'config.json').get('architectures') or []
  return any(str(name).endswith('ForSequenceClassification') for name in named)


@contextlib.contextmanager
def open_source(
    folder: pathlib.Path, *, base: str | None = None, merge: bool = False
) -> Iterator[Source]:
  """Opens a model of any kind.

  Args:
    folder: holds it.
    base: of adapters, the model below them; of a run without a finished model,
      the folder whose config.json describes what it trains.
    merge: adds adapters to their base, which is otherwise refused.

  Raises:
    InputError: it is no model, or lacks something.
  """
  hf_files.require_folder(folder)
  kind = kind_of(folder)
  if merge and kind != 'adapter':
    raise InputError(f'{folder} has no {_ADAPTER}, so there is nothing to '
                     'merge; give an adapter folder, or drop --merge')
  match kind:
    case 'hf':
      with hf.open_model(folder) as model:
        yield Source(model, folder, folder)
    case 'orbax':
      yield Source(_saved(folder), folder, folder)
    case 'run':
      described = _described_by(folder, base)
      yield Source(_trained(folder, described), described, described)
    case 'adapter' if not merge:
      raise InputError(f'{folder} holds adapters alone; add --merge to write '
                       'the model that they make of their base')
    case 'adapter':
      below = _base_of(folder, base)
      own = folder if (folder / 'tokenizer.json').is_file() else below
      with hf.open_model(below) as model:
        yield Source(_merged(folder, model), below, own)
    case _:
      raise InputError(
          f'{folder} holds no model (found {hf_files.listing(folder)}); give a '
          'Hugging Face folder, one that convert wrote, or a run\'s workdir')


def _saved(folder: pathlib.Path) -> hf.LazyModel:
  """What `convert` wrote."""
  saved = checkpoints.Leaves(folder)
  root = ('backbone',) if saved.shapes('backbone') else ()
  return _from_leaves(saved, root, hf.read_config(folder))


def _trained(folder: pathlib.Path, described: pathlib.Path) -> hf.LazyModel:
  """The weights in the newest checkpoint of a run."""
  saved = checkpoints.Leaves(folder / 'checkpoints')
  for root in _TRAINED:
    shapes = saved.shapes(*root)
    if any(path[-1].endswith((lora.A, lora.B)) for path in shapes):
      raise InputError(
          f'{folder} trains adapters, and its checkpoints hold no base; give '
          f'{folder / "adapter"} and --merge once the run has ended')
    if (*root, 'backbone', 'embed') in shapes:
      root = (*root, 'backbone')
    if (*root, 'embed') in shapes:
      return _from_leaves(saved, root, hf.read_config(described))
  raise InputError(f'{folder}: step {saved.step} of its checkpoints holds no '
                   "model's weights; give the folder of a model")


def _from_leaves(
    saved: checkpoints.Leaves, root: tuple[str, ...], config
) -> hf.LazyModel:
  """The model below `root` in a checkpoint."""
  shapes = saved.shapes(*root)
  is_stacked = any(path[len(root)] == 'layers' for path in shapes)
  # Stacked leaves are asked for row by row; three may share a tensor.
  read = functools.lru_cache(maxsize=3 if is_stacked else 1)(saved.read)
  to_leaf = lambda path, like: hf.Leaf(
      like.shape, np.dtype(like.dtype), lambda: read(path))
  params = {}
  for path, like in shapes.items():
    lazy.put(params, path[len(root):], to_leaf(path, like))
  head = None
  if root[-1:] == ('backbone',):
    path = (*root[:-1], 'head')
    head = to_leaf(path, saved.shapes(*root[:-1])[path])
    config = dataclasses.replace(config, tie_embeddings=True)
  return hf.LazyModel(
      dataclasses.replace(config, scan_layers=is_stacked), params, head)


def _described_by(workdir: pathlib.Path, base: str | None) -> pathlib.Path:
  """A folder whose config.json describes what a run trains."""
  started = json.loads((workdir / 'config.json').read_text()).get('model')
  found = [pathlib.Path(f) for f in (base, workdir / 'model', started) if f]
  for folder in found[:1] if base else found:
    if (folder / 'config.json').is_file():
      return folder
  raise InputError(
      f'{workdir}: no config.json says what its checkpoints hold (looked in '
      f'{", ".join(map(str, found))}); name the folder of the model that it '
      'trains, as --base')


def _base_of(folder: pathlib.Path, base: str | None) -> pathlib.Path:
  """The folder of the model below adapters."""
  named = hf_files.read_json(folder / _ADAPTER).get('base_model_name_or_path')
  below = pathlib.Path(base or named or '')
  if not (base or named) or not below.is_dir():
    raise InputError(
        f'{folder}: its base is {str(base or named)!r}, which is no folder '
        'here; give the folder of the base, as --base')
  return below


def _merged(folder: str | os.PathLike, base: hf.LazyModel) -> hf.LazyModel:
  """The base with adapters added, leaf by leaf as they are read."""
  if base.head is not None:
    raise InputError(f'{folder}: its base is a reward model; adapters of '
                     'language models are merged, with or without a head')
  config, adapters, head = hf.load_adapters(folder, base.config)

  def merge(path: tuple[str, ...], leaf: hf.Leaf) -> hf.Leaf:
    own = adapters
    for name in path[:-1]:
      own = own.get(name, {})
    name = path[-1]
    if name + lora.A not in own:
      return leaf
    parts = {name + end: own[name + end] for end in (lora.A, lora.B)}
    return dataclasses.replace(leaf, read=lambda: np.asarray(
        lora.merge({name: leaf.read(), **parts}, config.lora)[name]))

  merged = base.map(merge)
  if head is None:
    return merged
  # A reward model has no unembedding.
  params = {k: v for k, v in merged.params.items() if k != 'unembed'}
  return hf.LazyModel(
      dataclasses.replace(base.config, tie_embeddings=True), params,
      hf.Leaf(head.shape, head.dtype, lambda: head))
