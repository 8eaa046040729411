"""Weights of a Hugging Face folder to a parameter tree, and back, bit for bit.

Only safetensors are read and written: never a pickle.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile

import jax
import numpy as np

from alignjax import sharding
from alignjax.hf import assembly
from alignjax.hf import config as hf_config
from alignjax.hf import files
from alignjax.hf import layout
from alignjax.hf import opening
from alignjax.hf import shards
from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.hf import tokenizer_files
from alignjax.models import quantize as quantization
from alignjax.models.config import ModelConfig
from alignjax.models.language import CausalLM
from alignjax.models.language import ScalarModel
from alignjax.types import InputError

Params = layout.Params
stack_layers = layout.stack_layers
unstack_layers = layout.unstack_layers


def load_model(
    folder: str | os.PathLike,
    *,
    dtype: str = 'float32',
    param_dtype: str = 'float32',
    scan_layers: bool = False,
    remat: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    quantize: quantization.Kind | None = None,
) -> tuple[ModelConfig, Params]:
  """Reads the folder of a language model.

  Args:
    folder: holds `config.json` and `model.safetensors`, or shards of it with
      `model.safetensors.index.json`. Tensors are read one by one.
    dtype: of activations and matmuls; goes into the configuration.
    param_dtype: of the returned leaves.
    scan_layers: one `layers` with a leading [L] instead of `layers_0` ...
    remat: goes into the configuration.
    mesh: sends each leaf to its shards as soon as it is read, so that the host
      holds the largest tensor and a leaf beside what its devices own.
    quantize: int8 or nf4: the layers' matrices become quantized leaf by leaf,
      for a frozen base under adapters.

  Returns:
    The configuration and the parameters, in the tree that `ModelConfig`
    describes: numpy arrays, or arrays on the mesh, sharded as
    `sharding.tree_shardings` says. Saved again they give the same bits, if
    `param_dtype` holds the file's.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  config = _config(folder, dtype, param_dtype, scan_layers, remat)
  model = CausalLM(config)
  shardings = mesh and sharding.tree_shardings(
      mesh, model.axes(), jax.eval_shape(model.init, jax.random.key(0)))
  params = _read(
      pathlib.Path(folder), config, param_dtype, shardings, quantize)
  return config, params


def load_reward_model(
    folder: str | os.PathLike,
    *,
    dtype: str = 'float32',
    param_dtype: str = 'float32',
    scan_layers: bool = False,
    remat: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[ModelConfig, Params]:
  """Reads the folder of a reward model: sequence classification, one label.

  Args:
    folder: as for `load_model`.
    dtype: of activations and matmuls; goes into the configuration.
    param_dtype: of the returned leaves.
    scan_layers: one `layers` with a leading [L] instead of `layers_0` ...
    remat: goes into the configuration.
    mesh: as for `load_model`.

  Returns:
    The configuration and `{'backbone': ..., 'head': [D]}`. A reward model has
    no unembedding, so its configuration always says `tie_embeddings`.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  config = _config(folder, dtype, param_dtype, scan_layers, remat)
  config = dataclasses.replace(config, tie_embeddings=True)
  model = ScalarModel(config)
  shardings = mesh and sharding.tree_shardings(
      mesh, model.axes(), jax.eval_shape(model.init, jax.random.key(0)))
  if shardings:
    shardings = shardings['backbone'] | {'head': shardings['head']}
  backbone = _read(pathlib.Path(folder), config, param_dtype, shardings,
                   is_reward_model=True)
  head = backbone.pop('head')
  return config, {'backbone': backbone, 'head': head}


def save_model(
    folder: str | os.PathLike,
    config: ModelConfig,
    params: Params,
    *,
    tokenizer: hf_tokenizer.Tokenizer | None = None,
    head: jax.Array | np.ndarray | None = None,
    generation: dict | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
  """Writes a folder that transformers, vLLM and `load_model` read.

  Every file is finished under a temporary name and then put in place, the
  weights first and `config.json` last. What an earlier save left and this one
  does not write is removed.

  Args:
    folder: made if missing.
    config: describes `params`.
    params: the tree of `config`, or of a reward model's backbone.
    tokenizer: its files are written too. A reward model's gets a padding token
      other than EOS, because transformers scores the last token that is not
      padding, which shall be EOS.
    head: [D] makes it a reward model (sequence classification with one label,
      without bias).
    generation: more for `generation_config.json`, such as `temperature`, or
      token ids where no tokenizer is given.
    dtype: of the written weights; by default each leaf keeps its own.
    max_shard_bytes: weights above this size are split into several files.

  Raises:
    InputError: if `params` is not the tree of `config`, or a reward model has
      no padding id.
  """
  folder = pathlib.Path(folder)
  leaves = _leaves(config, params, head, dtype)
  if head is not None and tokenizer is not None:
    tokenizer = tokenizer.with_distinct_pad()
  texts = _texts(config, tokenizer, head is not None, generation,
                 weights_dtype=leaves[0][2])
  folder.mkdir(parents=True, exist_ok=True)
  scratch = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix='.tmp-'))
  try:
    names = shards.write(scratch, leaves, max_shard_bytes)
    if tokenizer is not None:
      tokenizer.save(scratch)
      names += [name for name, _ in tokenizer.files]
    for name, text in texts.items():
      files.write_bytes(scratch / name, text.encode())
    for name in names:
      os.replace(scratch / name, folder / name)
    _remove_stale(folder, names, has_tokenizer=tokenizer is not None)
    for name in texts:
      os.replace(scratch / name, folder / name)
  finally:
    shutil.rmtree(scratch)


def save_weights(
    folder: str | os.PathLike,
    config: ModelConfig,
    params: Params,
    *,
    head: jax.Array | np.ndarray | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
  """Writes the safetensors of `save_model` alone, into a folder that is there.

  Leaves may be `lazy.Leaf`s: the host holds one tensor at a time.
  """
  shards.write(pathlib.Path(folder), _leaves(config, params, head, None),
               max_shard_bytes)


def _config(
    folder: str | os.PathLike,
    dtype: str,
    param_dtype: str,
    scan_layers: bool,
    remat: bool,
) -> ModelConfig:
  """The folder's configuration with the caller's numerics."""
  shards.check_dtype('dtype', dtype)
  shards.check_dtype('param_dtype', param_dtype)
  files.require_folder(pathlib.Path(folder))
  return dataclasses.replace(hf_config.read_config(folder), dtype=dtype,
                             scan_layers=scan_layers, remat=remat)


def _read(
    folder: pathlib.Path,
    config: ModelConfig,
    param_dtype: str,
    shardings: Params | None,
    quantize: quantization.Kind | None = None,
    is_reward_model: bool = False,
) -> Params:
  """The tree, filled tensor by tensor."""
  begun, params = {}, {}
  with contextlib.ExitStack() as stack:
    slots, opened = opening.open_slots(
        folder, config, stack, is_reward_model=is_reward_model)
    for slot in slots:
      parts = slot.to_tree(shards.read_tensor(slot, *opened[slot.name]))
      for path, shape, part in zip(slot.paths, slot.shapes, parts, strict=True):
        if path not in begun:
          rows = () if slot.layer is None else (config.num_layers,)
          begun[path] = assembly.Assembly(
              (*rows, *shape), param_dtype, _at(shardings, path))
          begun[path].expect(*rows or (1,))
        if begun[path].write(part, slot.layer):
          *parents, leaf = path
          node = params
          for parent in parents:
            node = node.setdefault(parent, {})
          node[leaf] = begun.pop(path).finish()
          if quantize:
            node |= quantization.quantize(
                {leaf: node[leaf]}, quantize,
                num_stacked=slot.layer is not None)
    opening.check_tied(slots, opened, config)
  return params


def _at(tree: Params | None, path: tuple[str, ...]):
  """What a tree holds at a path; None where there is no tree."""
  for name in path if tree is not None else ():
    tree = tree[name]
  return tree


def _leaves(
    config: ModelConfig,
    params: Params,
    head: jax.Array | np.ndarray | None,
    dtype: str | None,
) -> list[shards.Leaf]:
  """All that is to be written, once the tree is what it must be."""
  is_reward_model = head is not None
  slots = layout.slots(config, is_reward_model=is_reward_model)
  given = {tuple(key.key for key in path): leaf for path, leaf
           in jax.tree_util.tree_flatten_with_path(params)[0]}
  if is_reward_model:
    given.pop(('unembed',), None)  # A score needs none.
    given['head',] = head
  unknown = set(given) - {path for slot in slots for path in slot.paths}
  if unknown:
    raise InputError(
        f'params has {"/".join(min(unknown))}, which its configuration does '
        f'not (scan_layers={config.scan_layers}, tie_embeddings='
        f'{config.tie_embeddings}); stack_layers and unstack_layers convert')
  return [_written(slot, given, config, dtype) for slot in slots]


def _written(
    slot: layout.Slot, given: dict, config: ModelConfig, dtype: str | None
) -> shards.Leaf:
  """The leaves of one tensor, once they are what they must be."""
  lead = () if slot.layer is None else (config.num_layers,)
  for path, own in zip(slot.paths, slot.shapes, strict=True):
    name, shape = '/'.join(path), getattr(given.get(path), 'shape', None)
    if shape != (*lead, *own):
      raise InputError(
          f'params[{name}] has shape {shape}, its configuration says '
          f'{(*lead, *own)}; save with the configuration that the '
          'model was made with')
    written = dtype or str(given[path].dtype)
    shards.check_dtype('dtype' if dtype else f'params[{name}].dtype', written)
  return slot, [given[path] for path in slot.paths], written


def _texts(
    config: ModelConfig,
    tokenizer: hf_tokenizer.Tokenizer | None,
    is_reward_model: bool,
    generation: dict | None,
    *,
    weights_dtype: str,
) -> dict[str, str]:
  """The JSON files of the model itself, config.json last."""
  ids = {}
  if tokenizer is not None:
    if tokenizer.vocab_size > config.vocab_size:
      raise InputError(
          f'tokenizer has {tokenizer.vocab_size} ids, the model vocab_size='
          f'{config.vocab_size}; save it with the tokenizer it was trained on')
    ids = {'bos_token_id': tokenizer.bos_id, 'eos_token_id': tokenizer.eos_id,
           'pad_token_id': tokenizer.pad_id}
  ids |= generation or {}
  if is_reward_model and ids.get('pad_token_id') is None:
    raise InputError(
        'a reward model needs a pad_token_id, or transformers cannot score a '
        "batch; pass tokenizer=... or generation={'pad_token_id': ...}")
  model = hf_config.config_to_hf(
      config, is_reward_model=is_reward_model, weights_dtype=weights_dtype,
      bos_id=ids.get('bos_token_id'), eos_id=ids.get('eos_token_id'),
      pad_id=ids.get('pad_token_id'))
  texts = {}
  if ids and not is_reward_model:
    texts['generation_config.json'] = files.to_json(ids)
  return texts | {'config.json': files.to_json(model)}


def _remove_stale(
    folder: pathlib.Path, names: list[str], *, has_tokenizer: bool
) -> None:
  """Removes what an earlier save left and this one did not write."""
  managed = [path.name for path in folder.glob(shards.SHARDS)]
  managed += [shards.SINGLE, shards.INDEX, 'generation_config.json']
  if has_tokenizer:
    managed += tokenizer_files.FILES
  for name in set(managed) - set(names):
    (folder / name).unlink(missing_ok=True)
