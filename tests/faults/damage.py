"""Checkpoints that lose a bit, a part or a file."""

import pathlib
import random
import shutil
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import checkpoints

HOWS = ('flip', 'truncate', 'zero', 'delete', 'swap')


def state_of(step: int) -> dict:
  draw = np.random.default_rng(step)
  return {'step': jnp.int32(step), 'params': {
      f'layer_{i}': jnp.asarray(draw.normal(size=(64, 33)), jnp.float32)
      for i in range(4)}, 'key': jax.random.key(step)}


def is_state(state, step: int) -> bool:
  raw = lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(
      x.dtype, jax.dtypes.prng_key) else x)
  return all((raw(a) == raw(b)).all() for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(state_of(step)), strict=True))


def corrupt(root: pathlib.Path, count: int, draw: random.Random) -> dict:
  """Damages one file of the newer of two checkpoints, and restores."""
  detected = recovered = 0
  if count:
    for step in (1, 2):
      checkpoints.save(root / 'whole', step, state_of(step))
  for i in range(count):
    folder = root / 'damaged'
    shutil.copytree(root / 'whole', folder)
    newest = folder / 'step_00000002'
    how = HOWS[i % len(HOWS)]
    names = damage(newest, how, draw)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      found = checkpoints.restore(folder, state_of(0))
    said = ' '.join(str(warning.message) for warning in caught)
    is_named = any(name in said for name in names)
    detected += is_named and found.step == 1
    recovered += found.step == 1 and is_state(found.state, 1)
    if not is_named:
      print(f'NOT NAMED: {how} {names}: {said}', file=sys.stderr)
    shutil.rmtree(folder)
  return {'tried': count, 'detected': detected, 'recovered': recovered}


def damage(folder: pathlib.Path, how: str, draw: random.Random) -> list[str]:
  """Damages a file that is drawn, or two; their paths within the folder."""
  files = sorted(p for p in folder.rglob('*')
                 if p.is_file() and p.stat().st_size)
  file = draw.choice(files)
  data = bytearray(file.read_bytes())
  at, names = draw.randrange(len(data)), [file]
  if how == 'flip':
    data[at] ^= 1 << draw.randrange(8)
  elif how == 'truncate':
    del data[at:]
  elif how == 'zero':
    first = next(i for i, byte in enumerate(data[at:] + data[:at]) if byte)
    at = (at + first) % len(data)  # Zeros that were there damage nothing.
    data[at:at + 512] = bytes(len(data[at:at + 512]))
  elif how == 'swap':
    other = draw.choice([p for p in files if p.read_bytes() != bytes(data)])
    names.append(other)
    content = other.read_bytes()
    other.write_bytes(bytes(data))
    data = content
  file.write_bytes(bytes(data))
  if how == 'delete':
    file.unlink()
  return [p.relative_to(folder).as_posix() for p in names]
