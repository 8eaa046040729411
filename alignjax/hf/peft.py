"""Adapters in PEFT's format, in and out: `adapter_config.json` and one file.

PEFT adapts the modules of a torch model. Where a family keeps query, key and
value in one module, PEFT's adapter has one A for the three; here each has its
own. An adapter that was read gives the same bytes when it is saved; one that
was trained has three A's, which are saved as the blocks of one three times as
wide, and computes the same.
"""

from collections.abc import Mapping
import dataclasses
import math
import os
import pathlib

import jax
import numpy as np
import safetensors
import safetensors.numpy

from alignjax.hf import files
from alignjax.hf import layout
from alignjax.hf.fields import Fields
from alignjax.models.config import ModelConfig
from alignjax.models.lora import A
from alignjax.models.lora import B
from alignjax.models.lora import Lora
from alignjax.models.lora import TARGETS
from alignjax.types import InputError

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'

_PREFIX = 'base_model.model.'
_PARTS = ('.lora_A.weight', '.lora_B.weight')

# Fields that change what an adapter computes, and the only value known here.
_FIXED = {'peft_type': 'LORA', 'bias': 'none', 'use_dora': False,
          'lora_bias': False}


def save_adapters(
    folder: str | os.PathLike, config: ModelConfig, adapters: layout.Params, *,
    base: str = '', head: jax.Array | np.ndarray | None = None,
) -> None:
  """Writes a folder that `peft.PeftModel.from_pretrained` reads.

  Args:
    folder: made if missing.
    config: of the adapted model; its `lora` describes `adapters`.
    adapters: the second tree of `lora.split`.
    base: the folder or name of the model that they were trained on.
    head: [D] of a reward model, which is saved whole.
  """
  folder, lora = pathlib.Path(folder), config.lora
  tensors, modules, ranks = {}, [], {}
  for slot in _adapted(config):
    a, b = _to_file(slot, adapters, lora)
    name = slot.name.removesuffix('.weight')
    tensors[_PREFIX + name + _PARTS[0]] = a
    tensors[_PREFIX + name + _PARTS[1]] = b
    module = _module(name, config)
    if module not in modules:
      modules.append(module)
    if len(a) != lora.rank:
      ranks[module] = len(a)
  if head is not None:
    tensors[_PREFIX + layout.HEAD] = np.asarray(head)[None]
  root = math.sqrt if lora.rank_stabilised else float
  fields = {
      'alpha_pattern': {m: lora.scale * root(r) for m, r in ranks.items()},
      'base_model_name_or_path': base,
      'bias': 'none',
      'fan_in_fan_out': config.family == 'gpt2',
      'inference_mode': True,
      'lora_alpha': lora.alpha,
      'lora_dropout': 0.0,
      'modules_to_save': None if head is None else ['score'],
      'peft_type': 'LORA',
      'r': lora.rank,
      'rank_pattern': ranks,
      'target_modules': modules,
      'task_type': 'CAUSAL_LM' if head is None else 'SEQ_CLS',
      'use_dora': False,
      'use_rslora': lora.rank_stabilised,
  }
  folder.mkdir(parents=True, exist_ok=True)
  files.write_bytes(folder / WEIGHTS, safetensors.numpy.save(
      {name: np.ascontiguousarray(x) for name, x in tensors.items()},
      metadata={'format': 'pt'}))
  files.write_bytes(folder / CONFIG, files.to_json(fields).encode())


def load_adapters(
    folder: str | os.PathLike, config: ModelConfig
) -> tuple[ModelConfig, layout.Params, np.ndarray | None]:
  """Reads a PEFT folder for a model of `config`.

  Ranks that differ between modules are filled up with zeros to the largest.

  Args:
    folder: holds `adapter_config.json` and `adapter_model.safetensors`.
    config: of the base, without adapters.

  Returns:
    The configuration with adapters, their tree, and the head [D] of a reward
    model (None for a language model).

  Raises:
    InputError: another kind of adapter, or tensors that do not fit the base.
  """
  folder = pathlib.Path(folder)
  fields = check_adapters(folder)
  tensors = _read_tensors(folder / WEIGHTS)
  head = tensors.pop(_PREFIX + layout.HEAD, None)
  slots = [slot for slot in _adapted(dataclasses.replace(
      config, lora=Lora(targets=TARGETS))) if _in(slot, tensors)]
  targets = tuple(t for t in TARGETS if any(
      path[-1] == t for slot in slots for path in slot.paths))
  rank = max((len(tensors[_name(slot, 0)]) for slot in slots), default=0)
  known = {_name(slot, part) for slot in slots for part in (0, 1)}
  unknown = sorted(set(tensors) - known)
  if unknown or not slots:
    raise InputError(
        f'{folder / WEIGHTS}: {unknown[0] if unknown else "nothing"} is no '
        f'adapter of a {config.family} layer with {config.num_layers} layers; '
        f'adapters of {", ".join(TARGETS)} are read')
  lora = _lora(fields, rank, targets)
  adapters = {}
  for slot in _adapted(dataclasses.replace(config, lora=lora)):
    _fill(adapters, slot, tensors, fields, lora, config, folder / WEIGHTS)
  return (dataclasses.replace(config, lora=lora), adapters,
          None if head is None else head[0])


def check_adapters(folder: str | os.PathLike) -> Fields:
  """The fields of adapter_config.json; InputError if another kind of adapter.
  """
  path = pathlib.Path(folder) / CONFIG
  fields = Fields(files.read_json(path), path)
  for name, due in _FIXED.items():
    if fields.get(name) not in (due, None):
      raise fields.bad(name, f'is not supported; it must be {due!r}')
  return fields


def _adapted(config: ModelConfig) -> list[layout.Slot]:
  """The tensors of the base that have an adapter."""
  return [slot for slot in layout.slots(config)
          if slot.inputs and any(
              path[-1] in config.lora.targets for path in slot.paths)]


def _module(name: str, config: ModelConfig) -> str:
  """The end of a module's name that tells it from the others of a layer."""
  short = name.rpartition('.')[2]
  return '.'.join(name.split('.')[-2:]) if (
      config.family == 'gpt2' and short == 'c_proj') else short


def _name(slot: layout.Slot, part: int) -> str:
  """The tensor of a slot's A (part 0) or B (part 1)."""
  return _PREFIX + slot.name.removesuffix('.weight') + _PARTS[part]


def _in(slot: layout.Slot, tensors: Mapping) -> bool:
  return _name(slot, 0) in tensors and _name(slot, 1) in tensors


def _read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise InputError(f'{path} is missing (found {files.listing(path.parent)}); '
                     'save the adapter with safe_serialization=True')
  try:
    return dict(safetensors.numpy.load_file(path))
  except safetensors.SafetensorError as error:
    raise InputError(f'{path} is cut or corrupt ({error!s:.200}); copy it again'
                     ) from error


def _lora(fields: Fields, rank: int, targets: tuple[str, ...]) -> Lora:
  """Rank and scale of the tree, from those that most modules have."""
  stabilised = fields.flag('use_rslora')
  own = Lora(fields.count('r'), fields.number('lora_alpha'), targets,
             stabilised)
  root = math.sqrt(rank) if stabilised else rank
  return own if rank == own.rank else dataclasses.replace(
      own, rank=rank, alpha=own.scale * root)


def _of_module(fields: Fields, pattern: str, slot: layout.Slot, usual: str):
  """A module's own rank or alpha, or the one that all others have."""
  name = slot.name.removesuffix('.weight')
  own = fields.inside(pattern)
  for end in own.values:
    if name == end or name.endswith(f'.{end}'):
      return own.number(end)
  return fields.number(usual)


def _to_file(
    slot: layout.Slot, adapters: layout.Params, lora: Lora
) -> tuple[np.ndarray, np.ndarray]:
  """A [rank, in] and B [out, rank] of a tensor, fused as the tensor is."""
  row = lambda x: np.asarray(x if slot.layer is None else x[slot.layer])
  parts = []
  for path in slot.paths:
    node = adapters
    for name in path[:-1]:
      node = node[name]
    adapted = path[-1] in lora.targets
    parts.append(adapted and (
        row(node[path[-1] + A]).reshape(-1, lora.rank),
        row(node[path[-1] + B])))
  real = [part for part in parts if part]
  outs = [(lora.rank, *shape[slot.inputs:]) for shape in slot.shapes]
  if all(np.array_equal(a, real[0][0]) for a, _ in real):
    a = real[0][0]
    bs = [part[1] if part else np.zeros(out, a.dtype)
          for part, out in zip(parts, outs, strict=True)]
  else:
    a = np.concatenate([part[0] for part in real], axis=1)
    bs, first = [], 0
    for part, out in zip(parts, outs, strict=True):
      wide = np.zeros((a.shape[1], *out[1:]), a.dtype)
      if part:
        wide[first:first + lora.rank] = part[1]
        first += lora.rank
      bs.append(wide)
  return a.T, _outputs(slot, a.shape[1]).to_file(bs)


def _outputs(slot: layout.Slot, rank: int) -> layout.Slot:
  """How a B is stored: [out, rank], whatever the family's own matrices are."""
  shapes = tuple((rank, *shape[slot.inputs:]) for shape in slot.shapes)
  return slot._replace(shapes=shapes, inputs=1, is_linear=True)


def _fill(
    adapters: layout.Params, slot: layout.Slot, tensors: Mapping,
    fields: Fields, lora: Lora, config: ModelConfig, path: pathlib.Path,
) -> None:
  """Puts the A and B of a tensor of the base, or zeros, into the tree."""
  inputs = math.prod(slot.shapes[0][:slot.inputs])
  outputs = sum(math.prod(shape[slot.inputs:]) for shape in slot.shapes)
  a = tensors.get(_name(slot, 0), np.zeros((0, inputs), np.float32))
  b = tensors.get(_name(slot, 1), np.zeros((outputs, 0), np.float32))
  if a.shape[1:] != (inputs,) or b.shape != (outputs, len(a)):
    raise InputError(
        f'{path}: the adapter of {slot.name} is {list(b.shape)} by '
        f'{list(a.shape)} where the base has {outputs} outputs and {inputs} '
        'inputs; it is of another model')
  short = lora.rank - len(a)
  scale = Lora(len(a), float(_of_module(
      fields, 'alpha_pattern', slot, 'lora_alpha')), (),
      lora.rank_stabilised).scale if len(a) else lora.scale
  a = np.pad(a, ((0, short), (0, 0)))
  b = np.pad(b, ((0, 0), (0, short)))
  if not math.isclose(scale, lora.scale):
    b = b * np.asarray(scale / lora.scale, b.dtype)
  own = _outputs(slot, lora.rank)
  for (*parents, leaf), shape, part in zip(
      slot.paths, slot.shapes, own.to_tree(b), strict=True):
    node = adapters
    for name in parents:
      node = node.setdefault(name, {})
    for suffix, value in (
        (A, a.T.reshape(*shape[:slot.inputs], lora.rank)), (B, part)):
      if slot.layer is None:
        node[leaf + suffix] = np.array(value, order='C')
      else:
        stacked = (config.num_layers, *value.shape)
        node.setdefault(leaf + suffix, np.empty(stacked, value.dtype))
        node[leaf + suffix][slot.layer] = value
