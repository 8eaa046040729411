"""Devices to compile for that are not there."""

from collections.abc import Iterator
import contextlib
import os
import tempfile

import jax

from alignjax import topologies
from alignjax.errors import InputError


def devices_of(topology: topologies.Topology) -> list | None:
  """Devices to compile for; None where there is no compiler for them.

  TPUs come from libtpu, which needs none: `pip install libtpu`. CPUs are those
  of this process.
  """
  if topology.kind == 'cpu':
    devices = jax.devices('cpu')
    if len(devices) < topology.num_chips:
      raise InputError(
          f'topology={topology.name}: this process has {len(devices)} CPU '
          f'devices; set JAX_NUM_CPU_DEVICES={topology.num_chips}')
    return devices[:topology.num_chips]
  if not topology.is_tpu:
    return None
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  from jax.experimental import topologies as described
  with quiet():
    try:
      return list(described.get_topology_desc(
          platform='tpu', topology_name=topology.name).devices)
    except Exception:  # What libtpu raises where it is absent has no type.
      return None


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
  """Keeps what native libraries print on stderr; in the list, afterwards."""
  kept, said = os.dup(2), []
  with tempfile.TemporaryFile() as file:
    os.dup2(file.fileno(), 2)
    try:
      yield said
    finally:
      os.dup2(kept, 2)
      os.close(kept)
      file.seek(0)
      said += file.read().decode(errors='replace').splitlines()
