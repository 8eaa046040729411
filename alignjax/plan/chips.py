"""Chips, and the ways in which they are wired together."""

from collections.abc import Iterator
import contextlib
import difflib
import math
import os
import tempfile
from typing import NamedTuple

import jax

from alignjax.types import InputError


class Chip(NamedTuple):
  """One chip, as its maker states it."""

  hbm_gib: float    # Usable by programs; of v5e the compiler says 15.75.
  bf16_tflops: float
  gb_per_s: float   # Of its memory.


CHIPS = {
    'v4': Chip(31.75, 275.0, 1_228.0), 'v5e': Chip(15.75, 197.0, 819.0),
    'v5p': Chip(94.75, 459.0, 2_765.0), 'v6e': Chip(31.25, 918.0, 1_640.0),
    'h100': Chip(79.0, 989.0, 3_350.0), 'h200': Chip(140.0, 989.0, 4_800.0),
    'a100': Chip(79.0, 312.0, 2_039.0), 'cpu': Chip(24.0, 0.1, 30.0),
}
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8',
          '8x8x8', '8x8x16', '8x16x16', '16x16x16')
SHAPES = {'v5e': _FLAT, 'v6e': _FLAT, 'v4': _CUBES, 'v5p': _CUBES}


class Topology(NamedTuple):
  """What is to be rented."""

  name: str     # 'v5e:4x8'
  kind: str     # A key of CHIPS.
  num_chips: int

  @property
  def chip(self) -> Chip:
    """Each of the chips."""
    return CHIPS[self.kind]

  @property
  def is_tpu(self) -> bool:
    """Whether programs can be compiled for it without it."""
    return self.kind in SHAPES


def parse_topology(text: str) -> Topology:
  """A topology from text such as 'v5e:4x8', 'v5p:2x2x4', 'h100:8', 'cpu:2'.

  Raises:
    InputError: no such chip or shape; the nearest that exist are named.
  """
  kind, _, shape = text.partition(':')
  if kind not in CHIPS:
    near = difflib.get_close_matches(kind, CHIPS, n=2) or list(CHIPS)
    raise InputError(f'topology={text}: the chip {kind!r} is not known; use '
                     f'{" or ".join(near)}, as in v5e:4x8 or h100:8')
  sizes = shape.split('x')
  if not all(size.isdigit() and int(size) for size in sizes):
    raise InputError(f'topology={text}: {shape!r} is no shape; write '
                     f'{kind}:{SHAPES.get(kind, ("8",))[-3:][0]}')
  count = math.prod(map(int, sizes))
  if kind not in SHAPES:
    if len(sizes) > 1:
      raise InputError(f'topology={text}: {kind} is counted, not wired in a '
                       f'grid; write {kind}:{count}')
    return Topology(text, kind, count)
  if shape not in SHAPES[kind]:
    near = sorted(SHAPES[kind], key=lambda s: abs(math.log(
        math.prod(map(int, s.split('x'))) / count)))[:3]
    raise InputError(f'topology={text} does not exist; the nearest of {kind} '
                     f'are {", ".join(f"{kind}:{s}" for s in near)}')
  return Topology(text, kind, count)


def devices_of(topology: Topology) -> list | None:
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
  from jax.experimental import topologies
  with quiet():
    try:
      return list(topologies.get_topology_desc(
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
