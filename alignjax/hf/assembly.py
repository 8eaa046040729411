"""A leaf of the parameter tree, put together from tensors read one by one."""

from collections.abc import Sequence
import math

import jax
import numpy as np

_ALIGNMENT = 64  # Bytes; what a CPU device wants of a buffer of its own.


class Assembly:
  """A leaf that is filled row by row, whole or straight to its shards.

  With a sharding, the host holds only what its own devices will hold of the
  leaf, and no longer than until the leaf is complete.
  """

  def __init__(
      self, shape: tuple[int, ...], dtype: str,
      sharding: jax.sharding.Sharding | None = None,
  ):
    self._shape = shape
    self._sharding = sharding
    whole = {None: tuple(slice(None) for _ in shape)}
    indices = whole if sharding is None else (
        sharding.addressable_devices_indices_map(shape))
    self._places = {device: _bounds(index, shape)
                    for device, index in indices.items()}
    self._pieces = {
        bounds: aligned_empty([stop - start for start, stop in bounds], dtype)
        for bounds in self._places.values()}
    self._num_missing = 0

  def expect(self, num_rows: int) -> None:
    """Says how many times `write` will be called."""
    self._num_missing = num_rows

  def write(self, part: np.ndarray, layer: int | None) -> bool:
    """Fills row `layer`, or the whole leaf; true once the leaf is complete."""
    for bounds, piece in self._pieces.items():
      if layer is None:
        piece[...] = part[tuple(slice(*b) for b in bounds)]
      elif bounds[0][0] <= layer < bounds[0][1]:
        piece[layer - bounds[0][0]] = part[
            tuple(slice(*b) for b in bounds[1:])]
    self._num_missing -= 1
    return self._num_missing == 0

  def finish(self) -> np.ndarray | jax.Array:
    """The complete leaf: a numpy array, or a sharded one."""
    if self._sharding is None:
      return self._pieces[self._places[None]]
    arrays = [jax.device_put(self._pieces[bounds], device)
              for device, bounds in self._places.items()]
    return jax.make_array_from_single_device_arrays(
        self._shape, self._sharding, arrays)


def aligned_empty(shape: Sequence[int], dtype: str) -> np.ndarray:
  """`np.empty` that a CPU device takes as it is, where it would copy another.

  So a model that was read and lies on a CPU is there once; it is not to be
  written to after that.
  """
  size = math.prod(shape) * np.dtype(dtype).itemsize
  room = np.empty(size + _ALIGNMENT, np.uint8)
  start = -room.ctypes.data % _ALIGNMENT
  return room[start:start + size].view(dtype).reshape(shape)


def _bounds(index, shape) -> tuple[tuple[int, int], ...]:
  """Start and stop of each dimension; slices do not hash on every Python."""
  return tuple(s.indices(size)[:2]
               for s, size in zip(index, shape, strict=True))
