"""Checkpoints written part by part and read leaf by leaf, on one host.

For trees that memory does not hold twice, or not at all. On disk they are like
those of `save`: Orbax, `restore` and these functions read both kinds.
"""

from collections.abc import Iterable, Mapping
import os
from typing import Any

from etils import epath
import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from alignjax.checkpoints import manifest
from alignjax.checkpoints import states
from alignjax.types import InputError

Path = tuple[str, ...]  # Of a leaf: names from the root down.


def save_parts(
    directory: str | os.PathLike[str],
    parts: Iterable[Mapping[str, Any]],
    meta: Mapping[str, Any] | None = None,
) -> None:
  """Writes one tree as the checkpoint of step 0, holding one part at a time.

  Args:
    directory: the folder for it, without a checkpoint of that step.
    parts: nested dictionaries of arrays, which share no leaf.
    meta: what JSON can hold.

  Raises:
    InputError: there is a checkpoint, or meta cannot be saved.
  """
  root, meta = manifest.absolute(directory), manifest.as_json(dict(meta or {}))
  path = root / 'step_00000000'
  if path.exists():
    raise InputError(f'{path} exists; write to another folder')
  leaves = {}
  for part in parts:
    leaves |= manifest.describe(part)
    ocp.partial.save(path / 'arrays', part)
  ocp.partial.finalize(path / 'arrays')
  manifest.write(path, 0, meta, leaves)


class Leaves:
  """An intact checkpoint whose leaves are read when they are asked for."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens the newest checkpoint, once its files are what was written.

    Args:
      directory: the folder given to `save` or `save_parts`.

    Raises:
      InputError: there is no checkpoint, or the newest is damaged.
    """
    newest = states.latest_step(directory)
    if newest is None:
      raise InputError(
          f'{os.fspath(directory)} holds no complete checkpoint; give the '
          'folder that holds its step_... folders')
    path = states.intact(directory, newest)
    self.step = newest
    self.meta: dict[str, Any] = manifest.read(path)['meta']
    self._arrays: epath.Path = path / 'arrays'
    self._tree = ocp.metadata(self._arrays).metadata

  def shapes(self, *root: str) -> dict[Path, jax.ShapeDtypeStruct]:
    """{path: shape and dtype} of the leaves below `root`; empty if none."""
    node = self._tree
    for name in root:
      node = node.get(name, {}) if isinstance(node, Mapping) else {}
    return {(*root, *(str(key.key) for key in path)):
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(node)
            if all(hasattr(key, 'key') for key in path)}

  def read(self, path: Path) -> np.ndarray:
    """One leaf; the others stay where they are."""
    like = jax.tree.map(lambda _: ..., self._tree)
    *parents, name = path
    node, known = like, self._tree
    for parent in parents:
      node, known = node[parent], known[parent]
    node[name] = np.empty(known[name].shape, known[name].dtype)
    loaded = ocp.load(self._arrays, like)
    for step in path:
      loaded = loaded[step]
    return np.asarray(loaded)


def describe_saved(
    directory: str | os.PathLike[str]
) -> tuple[int, dict[str, str]] | None:
  """(step, {leaf: 'float32[2, 3]'}) of the newest checkpoint, by its manifest.

  None if there is none. Reads no arrays and hashes no files.
  """
  newest = states.latest_step(directory)
  if newest is None:
    return None
  path = manifest.absolute(directory) / f'step_{newest:08d}'
  return newest, manifest.read(path)['leaves']
