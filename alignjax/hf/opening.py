"""A model folder opened: every tensor in its place, none read yet."""

import contextlib
import pathlib
from typing import Any

import numpy as np

from alignjax.hf import layout
from alignjax.hf import shards
from alignjax.models.config import ModelConfig
from alignjax.types import InputError

# Ends of names of what old files hold beside the weights: masks, RoPE's table.
_TABLES = ('.rotary_emb.inv_freq', '.attn.bias', '.attn.masked_bias',
           '.attention.bias', '.attention.masked_bias')

Opened = dict[str, tuple[Any, pathlib.Path]]  # Tensor to its file and its path.


def open_slots(
    folder: pathlib.Path, config: ModelConfig, stack: contextlib.ExitStack, *,
    is_reward_model: bool = False,
) -> tuple[list[layout.Slot], Opened]:
  """The tensors that the model has, and the files that hold just these.

  Raises:
    InputError: a file is missing or cut; a tensor is missing or unknown.
  """
  slots = layout.slots(config, is_reward_model=is_reward_model)
  opened = shards.open_all(folder, stack)
  slots = _as_named(slots, opened, config)
  _check_names(folder, set(opened), slots, config)
  return slots, opened


def check_tied(
    slots: list[layout.Slot], opened: Opened, config: ModelConfig
) -> None:
  """Refuses a file whose unembedding config.json would throw away."""
  name = layout.unembed_name(config)
  if name not in opened or not config.tie_embeddings:
    return
  file, path = opened[name]
  embed = next(slot.name for slot in slots if slot.paths == (('embed',),))
  if not np.array_equal(
      file.get_tensor(name), opened[embed][0].get_tensor(embed)):
    raise InputError(
        f'{path}: {name} differs from the embedding although '
        'config.json says tie_word_embeddings=true; set it to false')


def _as_named(
    slots: list[layout.Slot], opened: dict, config: ModelConfig
) -> list[layout.Slot]:
  """The slots, by the names of files that leave the first part out."""
  prefix = layout.prefix(config)
  if any(name.startswith(prefix) for name in opened):
    return slots
  bare = [slot._replace(name=slot.name.removeprefix(prefix)) for slot in slots]
  return bare if any(slot.name in opened for slot in bare) else slots


def _check_names(
    folder: pathlib.Path, got: set[str], slots: list[layout.Slot],
    config: ModelConfig,
) -> None:
  """Raises InputError unless the file holds what the model has, no more."""
  due = {slot.name for slot in slots}
  redundant = lambda name: name.endswith(_TABLES) or (
      name == layout.unembed_name(config) and layout.HEAD not in due)
  missing = sorted(due - got)
  extra = sorted(name for name in got - due if not redundant(name))
  if layout.HEAD in missing:
    raise InputError(f'{folder}: {layout.HEAD} is missing: this is no reward '
                     'model; use load_model')
  if layout.HEAD in extra:
    raise InputError(f'{folder} has {layout.HEAD}: this is a reward model; use '
                     'load_reward_model')
  for kind, names in (('missing', missing), ('unknown', extra)):
    if names:
      more = f' and {len(names) - 1} more' if len(names) > 1 else ''
      raise InputError(
          f'{folder}: tensor {names[0]}{more} is {kind}; config.json describes '
          'another model than the weights: copy both from one source')
