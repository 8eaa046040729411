"""One mesh, and the shardings that the rules of `partitioning` imply on it."""

from collections.abc import Sequence
import contextlib
import ctypes
import math
import os
import pathlib

import chex
import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from alignjax import partitioning
from alignjax import topologies
from alignjax.partitioning import RULES
from alignjax.topologies import AXES

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_LARGE_BYTES = 1 << 28


def use_cpu(num_devices: int = 2) -> None:
  """Prepares CPUs, when they are all there is to run on.

  Two cores become two devices: XLA leaves a second core mostly idle on small
  models; as data-parallel devices they share the batch. Not more than two, so
  that a batch that splits here splits on every machine. A large model's matmuls
  use all cores from one device, which holds its weights once. And memory that
  is freed is kept by the process, to be used by the next step, where glibc can:
  not what threads ask for in pieces of more than 64 MiB. All threads share two
  heaps: with glibc's eight for each core, what a save's threads freed in one is
  asked for anew in another, and a run grows with its saves.

  Call before any array is made. `cpu_devices` says how many devices a run is
  to have; a count in XLA_FLAGS or in JAX_NUM_CPU_DEVICES wins.
  """
  with contextlib.suppress(OSError, AttributeError):  # Not glibc: no loss.
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_M_ARENA_MAX, 2)
  flags = os.environ.get('XLA_FLAGS', '')
  if ('xla_force_host_platform_device_count' in flags
      or 'JAX_NUM_CPU_DEVICES' in os.environ):
    return
  try:
    cores = len(os.sched_getaffinity(0))
  except AttributeError:  # Linux has it.
    cores = os.cpu_count() or 1
  jax.config.update('jax_num_cpu_devices', min(cores, num_devices))


def cpu_devices(model: str, mesh: str = 'data:-1') -> int:
  """How many CPU devices a run is fastest on: one for large weights, else two.

  Args:
    model: the run's model; a folder's safetensors of 256 MiB or more are large.
    mesh: as text; whoever names another than the default wants two.
  """
  size = sum(path.stat().st_size
             for path in pathlib.Path(model).glob('*.safetensors'))
  return 1 if size >= _LARGE_BYTES and mesh == 'data:-1' else 2


def make_mesh(
    spec: str = 'data:-1', devices: Sequence | None = None) -> Mesh:
  """A mesh over all devices, from text such as `data:2,fsdp:-1,tensor:2`.

  Args:
    spec: `axis:size` pairs over the axes data, fsdp, sequence and tensor; one
      size may be -1 and takes the devices that remain. An axis left out has
      size 1.
    devices: to lay it over; all of this process's if None.

  Returns:
    A mesh with all four axes, of Auto type (explicit types refuse what
    logical constraints need).

  Raises:
    InputError: an axis is unknown or repeated, or the sizes do not multiply to
      the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = tuple(topologies.mesh_sizes(spec, len(devices)).values())
  return Mesh(np.asarray(devices).reshape(shape), AXES,
              axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over data and fsdp: the sharding of every leaf of a batch."""
  return NamedSharding(mesh, PartitionSpec(RULES['batch']))


def num_batch_shards(mesh: Mesh) -> int:
  """Into how many parts a batch's rows are split."""
  return math.prod(mesh.shape[axis] for axis in RULES['batch'])


def tree_shardings(
    mesh: Mesh, axes: chex.ArrayTree, shapes: chex.ArrayTree
) -> chex.ArrayTree:
  """Shardings of a parameter tree from its logical axes.

  Args:
    mesh: `make_mesh`'s.
    axes: the tree with a PartitionSpec of logical names at each leaf, as
      `CausalLM.axes()` gives it.
    shapes: the same tree of arrays or ShapeDtypeStructs.

  Returns:
    The tree of NamedShardings. A dimension that its mesh axes do not divide
    is not split; no mesh axis is used twice in one array.
  """
  return jax.tree.map(
      lambda names, x: NamedSharding(
          mesh, partitioning.spec(names, x.shape, mesh)),
      axes, shapes, is_leaf=lambda x: isinstance(x, PartitionSpec))


def put(tree: chex.ArrayTree, shardings) -> chex.ArrayTree:
  """Host arrays onto devices; `shardings` is one sharding or a tree prefix.

  With several processes each has the same arrays, or the same device arrays of
  the run, and puts what its own devices are to hold.
  """
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  whole = jax.tree.broadcast(shardings, tree, is_leaf=lambda x: isinstance(
      x, jax.sharding.Sharding))
  return jax.tree.map(_put_own, tree, whole)


def _put_own(x, sharding: jax.sharding.Sharding) -> jax.Array:
  """One array, of which this process holds its devices' parts."""
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    if x.sharding.is_equivalent_to(sharding, x.ndim):
      return x
    return jax.jit(lambda x: x, out_shardings=sharding)(x)
  if jax.dtypes.issubdtype(getattr(x, 'dtype', None), jax.dtypes.prng_key):
    impl = jax.random.key_impl(x)
    return jax.random.wrap_key_data(
        _put_own(jax.random.key_data(x), sharding), impl=impl)
  host = np.asarray(x)
  return jax.make_array_from_callback(
      host.shape, sharding, lambda index: host[index])


def to_host(tree: chex.ArrayTree) -> chex.ArrayTree:
  """All of every array, as numpy, on every process; all of them must call."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(
      lambda x: multihost_utils.process_allgather(x, tiled=True)
      if isinstance(x, jax.Array) and not x.is_fully_addressable
      and not x.is_fully_replicated else np.asarray(x), tree)

