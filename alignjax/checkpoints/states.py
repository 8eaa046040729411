"""Checkpoints that are complete, verified, or not used at all.

Orbax writes the arrays; it does not notice a flipped bit when it reads them
back. So each checkpoint ends with a manifest, written last, that holds the
SHA-256 of every file: a directory without one was interrupted and does not
count, and one whose files do not match is set aside and never loaded.

    directory/
      step_00000100/
        arrays/        what Orbax wrote
        manifest.json  step, meta, {leaf: dtype[shape]}, {file: SHA-256}

When `save` returns, the checkpoint is complete; background.py returns before.
"""

from collections.abc import Mapping
import contextlib
import os
import re
from typing import Any, NamedTuple
import warnings

from etils import epath
import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from alignjax.checkpoints import manifest
from alignjax.checkpoints import room
from alignjax.types import InputError

_STEP = re.compile(r'step_(\d{8,})')


class Restored(NamedTuple):
  """A state as it was when it was saved."""

  state: Any
  step: int
  meta: dict[str, Any]


def save(
    directory: str | os.PathLike[str],
    step: int,
    state: Any,
    meta: Mapping[str, Any] | None = None,
    *,
    keep: int | None = 2,
    score: float | None = None,
) -> None:
  """Writes one checkpoint, then deletes all but the newest `keep` and the best.

  Nothing complete is deleted before the new manifest is written. With several
  processes every one must call; the first writes the manifest.

  Args:
    directory: the run's checkpoint folder; made if absent.
    step: steps taken so far, above every step that is already saved there.
    state: pytree of arrays, sharded or not, typed PRNG keys included.
    meta: what JSON can hold, such as a hash of the config.
    keep: checkpoints to keep, at least 1; None keeps all.
    score: how good it is. The best of those that have one is kept, too; the
      newest of several.

  Raises:
    InputError: a step that is not newer, or a leaf or meta that cannot be
      saved.
    SaveError: the disk is full or may not be written to. What was there before
      is as it was, nothing of this step is left, and a later save may succeed.
  """
  root = manifest.absolute(directory)
  if keep is not None and keep < 1:
    raise InputError(
        f'keep={keep} would delete the checkpoint just written; use 1 or more,'
        ' or None to keep all.'
    )
  newest = latest_step(root)
  if step < 0 or (newest is not None and step <= newest):
    raise InputError(
        f'step={step} cannot be saved in {root}: the newest checkpoint there is'
        f' of step {newest} and steps only grow; use another directory.'
    )
  leaves = manifest.describe(state)
  meta = manifest.as_json(dict(meta or {}))
  path, needed = root / f'step_{step:08d}', room.num_bytes(state)
  with room.save_errors(path, needed):
    room.check(root, needed)
    if _is_first_process() and path.exists():
      path.rmtree()  # An interrupted save: it has no manifest.
    _wait_for_all(f'{path} is clear')
    ocp.save(path / 'arrays', state)
    if _is_first_process():
      manifest.write(path, step, meta, leaves, score)
      _prune(root, step, keep)
    _wait_for_all(f'{path} is complete')


def latest_step(directory: str | os.PathLike[str]) -> int | None:
  """The newest step whose save was completed, or None. Reads no arrays."""
  return max(_complete(manifest.absolute(directory)), default=None)


def best_step(directory: str | os.PathLike[str]) -> int | None:
  """The step of the best score; None if no checkpoint has one."""
  found = _complete(manifest.absolute(directory))
  scores = {}
  for step, path in found.items():
    with contextlib.suppress(InputError):  # A damaged one is not the best.
      scores[step] = manifest.read(path).get('score')
  scored = [(score, step) for step, score in scores.items()
            if score is not None]
  return max(scored)[1] if scored else None


def intact_step(directory: str | os.PathLike[str]) -> int | None:
  """The step that `restore` would take, or None where nothing is saved.

  What is damaged is set aside, as `restore` would.
  """
  root = manifest.absolute(directory)
  if not _complete(root):
    return None
  return manifest.read(_newest_intact(root, None))['step']


def restore(
    directory: str | os.PathLike[str],
    like: Any,
    step: int | None = None,
) -> Restored:
  """Loads the newest checkpoint that is intact, bit for bit as saved.

  A checkpoint whose files differ from its manifest is renamed to `.bad` with a
  warning, and the one before it is used. Nothing is cast: a checkpoint of
  another dtype, shape or tree is an error.

  Args:
    directory: the folder given to `save`.
    like: pytree of `jax.ShapeDtypeStruct` with shardings, or of arrays. It need
      not be sharded as the saved state was. A leaf without a sharding goes to
      the first device.
    step: the one step to load; a damaged one is then an error.

  Returns:
    The state, on the devices that `like` names; its step; its meta.

  Raises:
    InputError: no intact checkpoint, or one that does not fit `like`.
  """
  root = manifest.absolute(directory)
  path = _newest_intact(root, step)
  body = manifest.read(path)
  _check_fits(path, body['leaves'], manifest.describe(like))
  state = ocp.load(path / 'arrays', jax.tree.map(_abstract, like))
  return Restored(state, body['step'], body['meta'])


def _complete(root: epath.Path) -> dict[int, epath.Path]:
  """{step: folder} of the checkpoints that have a manifest."""
  if not root.exists():
    return {}
  found = {
      int(match[1]): path
      for path in root.iterdir()
      if (match := _STEP.fullmatch(path.name))
  }
  return {s: p for s, p in found.items() if (p / manifest.NAME).exists()}


def intact(directory: str | os.PathLike[str], step: int) -> epath.Path:
  """The folder of a step; InputError if it is not there or is damaged."""
  return _newest_intact(manifest.absolute(directory), step)


def _newest_intact(root: epath.Path, step: int | None) -> epath.Path:
  """The folder to load, the same on every process; sets bad ones aside."""
  chosen, error = -1, ''
  if _is_first_process():  # One process decides: the others might race it.
    try:
      chosen = _choose(root, step)
    except InputError as e:
      error = str(e)
  if jax.process_count() > 1:
    chosen = int(multihost_utils.broadcast_one_to_all(chosen))
  if chosen < 0:
    raise InputError(error or f'{root}: the first process found no checkpoint.')
  return root / f'step_{chosen:08d}'


def _choose(root: epath.Path, step: int | None) -> int:
  """The newest intact step, or `step` itself; renames what is damaged."""
  found = _complete(root)
  if step is not None:
    if step not in found:
      raise InputError(
          f'{root} has no checkpoint of step {step}; it has {sorted(found)}.'
      )
    if problem := manifest.find_damage(found[step]):
      raise InputError(
          f'{found[step]}: {problem}; it cannot be trusted. Restore another'
          f' step of {sorted(found)}.'
      )
    return step
  _warn_of_interrupted(root, found)
  for candidate in sorted(found, reverse=True):
    problem = manifest.find_damage(found[candidate])
    if problem is None:
      return candidate
    aside = _set_aside(found[candidate])
    warnings.warn(
        f'{found[candidate]}: {problem}; set aside as {aside.name}, using the'
        ' checkpoint before it.',
        stacklevel=4,
    )
  raise InputError(
      f'{root} holds no intact checkpoint; start without restoring, or name'
      ' another directory.'
  )


def _warn_of_interrupted(root: epath.Path, found: Mapping[int, Any]) -> None:
  """Names what is newer than any complete checkpoint and has no manifest."""
  newest = max(found, default=-1)
  for path in sorted(root.iterdir()) if root.exists() else ():
    match = _STEP.fullmatch(path.name)
    if match and int(match[1]) > newest and (path / 'arrays').exists():
      warnings.warn(
          f'{path} has no {manifest.NAME}: its save was cut short, or the file '
          'was lost; using the checkpoint before it.', stacklevel=5)


def _set_aside(path: epath.Path) -> epath.Path:
  """Renames to a free `.bad` name, so that no later run meets it again."""
  aside = path.parent / f'{path.name}.bad'
  count = 1
  while aside.exists():
    count += 1
    aside = path.parent / f'{path.name}.bad{count}'
  return path.rename(aside)


def _prune(root: epath.Path, step: int, keep: int | None) -> None:
  """Deletes interrupted saves, and all but the newest `keep` and the best."""
  complete = _complete(root)
  for path in root.iterdir():
    match = _STEP.fullmatch(path.name)
    if match and int(match[1]) not in complete and int(match[1]) < step:
      path.rmtree()
  best = best_step(root)
  for old in sorted(complete)[: -keep if keep else 0]:
    if old == best:
      continue
    # Without its manifest it stops counting, even if this is interrupted.
    (complete[old] / manifest.NAME).unlink()
    complete[old].rmtree()


def _check_fits(
    path: epath.Path, saved: dict[str, str], wanted: dict[str, str]
) -> None:
  """Raises if a leaf differs, or if one side has a leaf too many."""
  differing = [
      name
      for name in sorted(saved.keys() | wanted.keys())
      if saved.get(name) != wanted.get(name)
  ]
  if differing:
    name = differing[0]
    more = f' (and {len(differing) - 1} more)' if len(differing) > 1 else ''
    raise InputError(
        f'{path}: leaf {name}{more} is {saved.get(name, "absent")} in the'
        f' checkpoint and {wanted.get(name, "absent")} in the state to restore;'
        ' build the state with the config that was saved.'
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  """What Orbax needs to know of a leaf; the first device where none is said."""
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _is_first_process() -> bool:
  """Whether this process is the one that renames, deletes and decides."""
  return jax.process_index() == 0


def _wait_for_all(what: str) -> None:
  """Returns when every process has called this with the same words."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
