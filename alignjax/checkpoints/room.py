"""Room for a checkpoint, and what is said when there is none."""

from collections.abc import Iterator
import contextlib
import errno
import logging
import os
import pathlib
import shutil
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp

from alignjax.checkpoints import manifest
from alignjax.types import InputError

_MEMORY = pathlib.Path('/proc/meminfo')
_CONTAINER = pathlib.Path('/sys/fs/cgroup')


class SaveError(InputError):
  """A checkpoint could not be written; those before it are as they were."""


def num_bytes(state: Any) -> int:
  """What the arrays take before they are compressed."""
  return sum(
      (jax.random.key_data(x) if jnp.issubdtype(
          x.dtype, jax.dtypes.prng_key) else x).nbytes
      for x in jax.tree.leaves(state))


def free(root: epath.Path) -> int | None:
  """Bytes that are free where `root` is to lie; None where nobody can say."""
  if '://' in os.fspath(root):
    return None
  folder = pathlib.Path(root)
  while not folder.exists() and folder != folder.parent:
    folder = folder.parent
  return shutil.disk_usage(folder).free


def free_memory() -> int | None:
  """Bytes of the host's memory that are free; None where nobody can say."""
  found = []
  with contextlib.suppress(OSError, StopIteration):
    line = next(line for line in _MEMORY.read_text().splitlines()
                if line.startswith('MemAvailable:'))
    found.append(int(line.split()[1]) * 1024)
  with contextlib.suppress(OSError, ValueError):  # The limit may be 'max'.
    limit = int((_CONTAINER / 'memory.max').read_text())
    used = int((_CONTAINER / 'memory.current').read_text())
    stat = dict(map(str.split, (_CONTAINER / 'memory.stat').read_text(
        ).splitlines()))
    found.append(limit - used + int(stat.get('file', 0)))  # Files' cache.
  return min(found, default=None)


def check(root: epath.Path, needed: int) -> None:
  """OSError if there is clearly no room; nothing was begun then."""
  left = free(root)
  if left is not None and left < needed:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def save_errors(path: epath.Path, needed: int) -> Iterator[None]:
  """Turns what goes wrong in a save into a `SaveError`, and clears it away.

  What writes the arrays has no one type for a disk's errors, so that all are
  taken for one; the first line of its own message is kept.
  """
  logger = logging.getLogger('absl')  # Orbax logs a page for each.
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  except jax.errors.JaxRuntimeError:  # A process is gone; the watch names it.
    raise
  except Exception as error:
    left = free(path.parent)
    if jax.process_index() == 0 and not (path / manifest.NAME).exists():
      with contextlib.suppress(OSError):
        path.rmtree()
    why = getattr(error, 'strerror', None) or str(error).strip()[:200]
    rest = '' if left is None else f', {left:,} are free'
    raise SaveError(
        f'{path} was not saved: {" ".join(why.split())}; it needs about '
        f'{needed:,} bytes{rest}; checkpoints before it are intact; make room, '
        'or mend the folder\'s permissions') from error
  finally:
    logger.setLevel(level)
