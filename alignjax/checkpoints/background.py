"""Checkpoints that are written while the run goes on."""

import concurrent.futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignjax.checkpoints import room
from alignjax.checkpoints import states


class BackgroundSaver:
  """`save`, which returns once the state has been copied to the host.

  One checkpoint is written at a time: a save waits for the one before. What
  went wrong with one is raised by the next call of any method, once it is
  known. Every save is waited for where the host has no memory for the copy, and
  with several processes, which must all save at the same time.
  """

  def __init__(self):
    """Has nothing to write."""
    self._pool = concurrent.futures.ThreadPoolExecutor(
        1, thread_name_prefix='save')
    self._writing: concurrent.futures.Future | None = None

  def save(self, directory, step: int, state: Any, **settings) -> None:
    """Copies the state and begins to write it; see `checkpoints.save`.

    The state may be donated afterwards. The copy takes as much of the host's
    memory as the state has bytes, until it is written.
    """
    self.wait()
    left = room.free_memory()
    if jax.process_count() > 1 or (
        left is not None and left < 1.2 * room.num_bytes(state)):
      states.save(directory, step, state, **settings)
      return
    self._writing = self._pool.submit(
        states.save, directory, step, _copy(state), **settings)

  def check(self) -> None:
    """Raises what a save that has ended ran into; waits for none."""
    if self._writing is not None and self._writing.done():
      self.wait()

  def wait(self) -> None:
    """Returns when nothing is being written; SaveError if that failed."""
    writing, self._writing = self._writing, None
    if writing is not None:
      writing.result()

  def close(self) -> room.SaveError | None:
    """Waits, and returns what the last save ran into rather than raise it."""
    try:
      self.wait()
    except room.SaveError as error:
      return error
    finally:
      self._pool.shutdown()
    return None


def _copy(state):
  """The state on the host, in memory of its own; keys stay typed."""
  for leaf in jax.tree.leaves(state):  # All at once, where there is a bus.
    leaf.copy_to_host_async()
  return jax.tree.map(_copy_leaf, state)


def _copy_leaf(leaf):
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.clone(leaf)
  return np.array(leaf)
