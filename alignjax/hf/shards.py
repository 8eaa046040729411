"""Safetensors files of a model folder: one, or shards with an index."""

import contextlib
import json
import math
import os
import pathlib

import jax
import numpy as np
import safetensors

from alignjax.hf import files
from alignjax.hf import layout
from alignjax.types import InputError

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
SHARDS = 'model-*-of-*.safetensors'

_DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}

# A tensor to be written: its place, its arrays, the dtype it is written in.
Leaf = tuple[layout.Slot, list[jax.Array | np.ndarray], str]


def check_dtype(argument: str, dtype: str) -> None:
  """Raises InputError unless weights can be kept in `dtype`."""
  if dtype not in _DTYPES.values():
    raise InputError(f'{argument}={dtype!r} is not supported; use one of '
                     f'{", ".join(_DTYPES.values())}')


def open_all(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict:
  """Every tensor of the folder: its name to its open file and that file's path.

  Raises:
    InputError: if a file is missing, cut, or does not hold what the index says.
  """
  if (folder / SINGLE).is_file():
    file = _open(folder / SINGLE, stack)
    return dict.fromkeys(file.keys(), (file, folder / SINGLE))
  if not (folder / INDEX).is_file():
    raise InputError(
        f'{folder} has neither {SINGLE} nor {INDEX} (found '
        f'{files.listing(folder)}); alignjax reads safetensors only: save the '
        'model with transformers save_pretrained(safe_serialization=True)')
  weight_map = files.read_json(folder / INDEX).get('weight_map')
  if not isinstance(weight_map, dict):
    raise InputError(f'{folder / INDEX} has no weight_map object; copy it '
                     'from the model it belongs to')
  for shard in weight_map.values():
    files.check_name(shard, str(folder / INDEX))
  shards = {name: _open(folder / name, stack)
            for name in sorted(set(weight_map.values()))}
  held = {name: set(file.keys()) for name, file in shards.items()}
  for name, shard in weight_map.items():
    if name not in held[shard]:
      raise InputError(
          f'{folder / shard} does not hold {name!r:.120}, which {INDEX} says '
          'is there; copy both from one version of the model')
  return {name: (shards[shard], folder / shard)
          for name, shard in weight_map.items()}


def peek(path: pathlib.Path) -> dict[str, tuple[str, tuple[int, ...]]]:
  """{tensor: (dtype as the file spells it, shape)}, by the header alone."""
  with contextlib.ExitStack() as stack:
    file = _open(path, stack)
    slices = {name: file.get_slice(name) for name in file.keys()}
    return {name: (part.get_dtype(), tuple(part.get_shape()))
            for name, part in slices.items()}


def _open(path: pathlib.Path, stack: contextlib.ExitStack):
  """A lazily read safetensors file; closed by the stack."""
  if not path.is_file():
    raise InputError(f'{path} is missing (found {files.listing(path.parent)}); '
                     'copy it from the model it belongs to')
  try:
    return stack.enter_context(safetensors.safe_open(path, 'numpy'))
  except safetensors.SafetensorError as error:
    raise InputError(
        f'{path} of {path.stat().st_size} bytes is cut or corrupt '
        f'({error!s:.200}); copy it again') from error


def read_tensor(slot: layout.Slot, file, path: pathlib.Path) -> np.ndarray:
  """One tensor, once its dtype and shape are what they must be."""
  check_header(slot, file, path)
  return file.get_tensor(slot.name)


def check_header(slot: layout.Slot, file, path: pathlib.Path) -> str:
  """The dtype of a tensor that is what it must be; its values are not read."""
  header = file.get_slice(slot.name)
  shape, dtype = tuple(header.get_shape()), header.get_dtype()
  if shape != slot.file_shape:
    raise InputError(
        f'{path}: {slot.name} has shape {list(shape)} where config.json '
        f'implies {list(slot.file_shape)}; the two are of different models')
  if dtype not in _DTYPES:
    raise InputError(f'{path}: {slot.name} has dtype {dtype}; save the model '
                     f'in one of {", ".join(_DTYPES)}')
  return _DTYPES[dtype]


def write(
    folder: pathlib.Path, leaves: list[Leaf], max_shard_bytes: int
) -> list[str]:
  """Writes one file, or shards and their index; returns the names."""
  size = lambda slot, _, dtype: _num_bytes(slot, dtype)
  shards, room = [[]], max_shard_bytes
  for leaf in leaves:
    if shards[-1] and size(*leaf) > room:
      shards.append([])
      room = max_shard_bytes
    shards[-1].append(leaf)
    room -= size(*leaf)
  names = [SINGLE] if len(shards) == 1 else [
      f'model-{i + 1:05}-of-{len(shards):05}.safetensors'
      for i in range(len(shards))]
  for name, shard in zip(names, shards):
    _write_shard(folder / name, shard)
  if len(shards) == 1:
    return names
  index = {'metadata': {'total_size': sum(size(*leaf) for leaf in leaves)},
           'weight_map': {slot.name: name for name, shard in zip(names, shards)
                          for slot, *_ in shard}}
  files.write_bytes(folder / INDEX, files.to_json(index).encode())
  return names + [INDEX]


def _write_shard(path: pathlib.Path, shard: list[Leaf]) -> None:
  """Writes tensor after tensor; the host holds one at a time.

  The format is a length of eight bytes, a JSON header, and the tensors.
  """
  # The widest first, so that each starts at a multiple of its own width.
  shard = sorted(shard, key=lambda leaf: -np.dtype(leaf[2]).itemsize)
  # Transformers reads only files that say whose convention they follow.
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  names = {dtype: name for name, dtype in _DTYPES.items()}
  for slot, _, dtype in shard:
    start, end = end, end + _num_bytes(slot, dtype)
    header[slot.name] = {'dtype': names[dtype], 'shape': slot.file_shape,
                         'data_offsets': [start, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  with open(path, 'wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for slot, leaves, dtype in shard:
      rows = [np.asarray(leaf if slot.layer is None else leaf[slot.layer])
              for leaf in leaves]
      tensor = np.ascontiguousarray(slot.to_file(rows), dtype)
      file.write(tensor.reshape(-1).view(np.uint8))
    file.flush()
    os.fsync(file.fileno())
  path.chmod(0o644)


def _num_bytes(slot: layout.Slot, dtype: str) -> int:
  return math.prod(slot.file_shape) * np.dtype(dtype).itemsize
