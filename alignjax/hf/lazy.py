"""A model whose leaves are read when they are asked for, one at a time."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import os
import pathlib

import numpy as np

from alignjax.hf import config as hf_config
from alignjax.hf import files
from alignjax.hf import layout
from alignjax.hf import opening
from alignjax.hf import shards
from alignjax.models.config import ModelConfig
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True)
class Leaf:
  """What an array would say of itself, and how to get it."""

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """The leaf, read now."""
    return np.asarray(self.read(), dtype)

  def __getitem__(self, index) -> np.ndarray:
    return self.read()[index]


@dataclasses.dataclass(frozen=True)
class LazyModel:
  """A model on disk."""

  config: ModelConfig
  params: layout.Params  # The tree of `config`, of a reward model's backbone.
  head: Leaf | None      # [D] of a reward model.

  def leaves(self) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    """(path, leaf) of every leaf, the head last."""
    yield from _walk(self.params, ())
    if self.head is not None:
      yield ('head',), self.head

  def map(self, change: Callable[[tuple[str, ...], Leaf], Leaf]) -> 'LazyModel':
    """The model whose leaves are `change(path, leaf)`."""
    params = {}
    for path, leaf in _walk(self.params, ()):
      put(params, path, change(path, leaf))
    head = self.head and change(('head',), self.head)
    return dataclasses.replace(self, params=params, head=head)


@contextlib.contextmanager
def open_model(
    folder: str | os.PathLike, *, check_values: bool = True
) -> Iterator[LazyModel]:
  """Opens a language or reward model; layers are not stacked.

  Args:
    folder: as for `load_model` and `load_reward_model`.
    check_values: False reads headers only, and does not compare an unembedding
      that is stored although it is tied.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  folder = pathlib.Path(folder)
  files.require_folder(folder)
  config = hf_config.read_config(folder)
  with contextlib.ExitStack() as stack:
    is_reward_model = layout.HEAD in shards.open_all(folder, stack)
    if is_reward_model:  # It has no unembedding.
      config = dataclasses.replace(config, tie_embeddings=True)
    slots, opened = opening.open_slots(
        folder, config, stack, is_reward_model=is_reward_model)
    if check_values:
      opening.check_tied(slots, opened, config)
    params = {}
    for slot in slots:
      place = opened[slot.name]
      dtype = np.dtype(shards.check_header(slot, *place))
      for i, (path, shape) in enumerate(
          zip(slot.paths, slot.shapes, strict=True)):
        put(params, path, Leaf(shape, dtype, lambda slot=slot, i=i, place=place:
            slot.to_tree(shards.read_tensor(slot, *place))[i]))
    head = params.pop('head', None)
    yield LazyModel(config, params, head)


def cast(model: LazyModel, dtype: str) -> LazyModel:
  """The model in another dtype.

  Raises:
    InputError: when a leaf is read that holds numbers too large for it.
  """
  shards.check_dtype('dtype', dtype)

  def read(path, leaf):
    values = leaf.read()
    with np.errstate(over='ignore'):
      changed = values.astype(dtype)
    if not np.array_equal(np.isfinite(values.astype(np.float32)),
                          np.isfinite(changed.astype(np.float32))):
      raise InputError(
          f'{"/".join(path)} holds numbers that {dtype} cannot (the largest is '
          f'{np.nanmax(np.abs(values.astype(np.float32))):.3g}); use '
          '--dtype bfloat16')
    return changed

  return model.map(lambda path, leaf: Leaf(
      leaf.shape, np.dtype(dtype), lambda: read(path, leaf)))


def put(tree: dict, path: tuple[str, ...], leaf) -> None:
  """Puts a leaf where its path says."""
  *parents, name = path
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[name] = leaf


def _walk(tree: dict, above: tuple[str, ...]):
  for name, value in tree.items():
    if isinstance(value, dict):
      yield from _walk(value, (*above, name))
    else:
      yield (*above, name), value
