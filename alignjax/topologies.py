"""Chips, the ways they are wired together, and meshes over them, as text.

Nothing here imports jax, so that what cannot be is refused at once.
"""

import difflib
import math
from typing import NamedTuple

from alignjax.errors import InputError

AXES = ('data', 'fsdp', 'sequence', 'tensor')
PAIRED = ('reward', 'dpo')     # Methods whose batches are of pairs.
SAMPLED = ('ppo', 'grpo')      # Those that train on rollouts.
GROUP = {'grpo': 4}            # Responses to a prompt that are compared.
# Key heads of what `alignjax.models.presets` names.
KEY_HEADS = {
    'smollm2-135m': 3, 'llama-3.2-1b': 8, 'llama-2-7b': 32, 'mistral-7b': 8,
    'llama-3.1-8b': 8, 'llama-2-13b': 40, 'llama-2-70b': 8}
# What people say.
ALIASES = {'135m': 'smollm2-135m', '1b': 'llama-3.2-1b', '7b': 'llama-2-7b',
           '8b': 'llama-3.1-8b', '13b': 'llama-2-13b', '70b': 'llama-2-70b'}


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


def mesh_sizes(spec: str, num_devices: int) -> dict[str, int]:
  """Sizes by axis, all of `AXES`, from text such as 'data:2,fsdp:-1'.

  Args:
    spec: `axis:size` pairs; one size may be -1 and takes what remains. An axis
      left out has size 1.
    num_devices: that the sizes must multiply to.

  Raises:
    InputError: an axis is unknown or repeated, or the sizes do not multiply to
      the number of devices.
  """
  sizes = {}
  for part in filter(None, spec.split(',')):
    name, _, size = part.strip().partition(':')
    if name not in AXES or name in sizes:
      raise InputError(
          f'mesh={spec!r}: {name!r} is repeated or not an axis; use each of '
          f'{", ".join(AXES)} at most once, as in "data:2,fsdp:-1"')
    try:
      sizes[name] = int(size)
    except ValueError:
      raise InputError(f'mesh={spec!r}: the size of {name!r} is {size!r}; '
                       'use a whole number, or -1 for the rest') from None
  known = math.prod(s for s in sizes.values() if s != -1)
  if list(sizes.values()).count(-1) == 1 and known > 0:
    sizes = {n: num_devices // known if s == -1 else s
             for n, s in sizes.items()}
  if math.prod(sizes.values()) != num_devices or min(1, *sizes.values()) < 1:
    raise InputError(
        f'mesh={spec!r} does not cover {num_devices} devices; make the sizes '
        f'multiply to {num_devices}, as in {_nearest(sizes, num_devices)}, or '
        'give one axis -1')
  return {name: sizes.get(name, 1) for name in AXES}


def _nearest(sizes: dict[str, int], num_devices: int) -> str:
  """A mesh that covers the devices, its sizes near to those asked for."""
  divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
  left, chosen = num_devices, []
  for name, size in sizes.items():
    near = min((n for n in divisors if left % n == 0),
               key=lambda n: abs(n - max(size, 1)))
    left //= near
    chosen.append(f'{name}:{near}')
  if left > 1 and 'data' not in sizes:
    chosen.append(f'data:{left}')
  elif left > 1:
    chosen = [each for each in chosen if not each.startswith('data:')]
    rest = math.prod(int(each.partition(':')[2]) for each in chosen)
    chosen.append(f'data:{num_devices // rest}')
  return ','.join(chosen)


def smallest_batch(
    method: str, num_shards: int, *, num_microbatches: int = 1,
    num_minibatches: int = 1,
) -> int:
  """What the rows of a method's batch must be a multiple of; a pair is two."""
  return math.lcm(
      num_shards * num_microbatches * (1 + (method in PAIRED))
      * (num_minibatches if method in SAMPLED else 1), GROUP.get(method, 1))


def check_heads(num_kv_heads: int, tensor: int) -> None:
  """Refuses key heads that do not split over the tensor axis.

  Raises:
    InputError: the largest axis that splits them is named.
  """
  if num_kv_heads % tensor:
    fits = max(n for n in range(1, tensor + 1) if num_kv_heads % n == 0)
    raise InputError(f'mesh: tensor:{tensor} does not divide {num_kv_heads} '
                     f'key heads; use tensor:{fits}')


def check_length(length: int, num_parts: int, name: str = 'length') -> None:
  """Refuses rows that do not split evenly over the sequence axis.

  Raises:
    InputError: the nearest lengths that do are named.
  """
  if length % num_parts == 0:
    return
  below = length // num_parts * num_parts
  near = ' or '.join(str(n) for n in (below, below + num_parts) if n)
  raise InputError(
      f'{name}={length} does not split over sequence:{num_parts}; use {near}')


def check_slots(num_slots: int, num_shards: int) -> None:
  """Refuses slots of a rollout that do not spread over the batch's axes.

  Raises:
    InputError: what they must be a multiple of is named.
  """
  if num_slots % num_shards:
    raise InputError(
        f'num_slots={num_slots} does not split over {num_shards} data shards; '
        f'use a multiple of {num_shards}, or 0 to sample all at once')


def check_batch(rows: int, unit: int, num_shards: int) -> None:
  """Refuses rows that do not split, with the nearest that do.

  Raises:
    InputError: `rows` is no multiple of `unit`.
  """
  if rows and rows % unit == 0:
    return
  below = rows // unit * unit
  near = ' or '.join(str(n) for n in (below, below + unit) if n)
  raise InputError(
      f'batch={rows} rows do not split over {num_shards} shards of data x '
      f'fsdp into equal parts of whole pairs, groups and microbatches; use '
      f'{near}')
