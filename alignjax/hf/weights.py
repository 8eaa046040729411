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

from alignjax.hf import config as hf_config
from alignjax.hf import files
from alignjax.hf import layout
from alignjax.hf import shards
from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.models.config import ModelConfig
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
) -> tuple[ModelConfig, Params]:
  """Reads a LlamaForCausalLM folder.

  Args:
    folder: holds `config.json` and `model.safetensors`, or shards of it with
      `model.safetensors.index.json`. Tensors are read one by one, so host
      memory holds the parameters once.
    dtype: of activations and matmuls; goes into the configuration.
    param_dtype: of the returned leaves.
    scan_layers: one `layers` with a leading [L] instead of `layers_0` ...
    remat: goes into the configuration.

  Returns:
    The configuration and the parameters, numpy arrays in the tree that
    `ModelConfig` describes. Saved again they give the same bits, if
    `param_dtype` holds the file's.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  config = _config(folder, dtype, param_dtype, scan_layers, remat)
  params = _read(pathlib.Path(folder), layout.slots(config), config,
                 param_dtype)
  return config, params


def load_reward_model(
    folder: str | os.PathLike,
    *,
    dtype: str = 'float32',
    param_dtype: str = 'float32',
    scan_layers: bool = False,
    remat: bool = False,
) -> tuple[ModelConfig, Params]:
  """Reads a LlamaForSequenceClassification folder that has one label.

  Args:
    folder: as for `load_model`.
    dtype: of activations and matmuls; goes into the configuration.
    param_dtype: of the returned leaves.
    scan_layers: one `layers` with a leading [L] instead of `layers_0` ...
    remat: goes into the configuration.

  Returns:
    The configuration and `{'backbone': ..., 'head': [D]}`. A reward model has
    no unembedding, so its configuration always says `tie_embeddings`.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  config = _config(folder, dtype, param_dtype, scan_layers, remat)
  config = dataclasses.replace(config, tie_embeddings=True)
  backbone = _read(pathlib.Path(folder),
                   layout.slots(config, is_reward_model=True), config,
                   param_dtype)
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
    head: [D] makes it a reward model (LlamaForSequenceClassification with one
      label, without bias).
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
    slots: list[layout.Slot],
    config: ModelConfig,
    param_dtype: str,
) -> Params:
  """The tree, filled tensor by tensor."""
  params = {}
  with contextlib.ExitStack() as stack:
    opened = shards.open_all(folder, stack)
    _check_names(folder, set(opened), {slot.name for slot in slots})
    for slot in slots:
      tensor = slot.to_tree(shards.read_tensor(slot, *opened[slot.name]))
      *parents, leaf = slot.path
      node = params
      for parent in parents:
        node = node.setdefault(parent, {})
      if slot.layer is None:
        node[leaf] = np.array(tensor, param_dtype, order='C')
      else:
        shape = (config.num_layers, *slot.shape)
        node.setdefault(leaf, np.empty(shape, param_dtype))
        node[leaf][slot.layer] = tensor
    if layout.UNEMBED in opened and 'unembed' not in params:
      _check_tied(params['embed'], *opened[layout.UNEMBED])
  return params


def _check_names(folder: pathlib.Path, got: set[str], due: set[str]) -> None:
  """Raises InputError unless the file holds what the model has, no more."""
  missing = sorted(due - got)
  extra = sorted(name for name in got - due if not _is_redundant(name, due))
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


def _is_redundant(name: str, due: set[str]) -> bool:
  """Whether a tensor says nothing new: RoPE's table, a tied unembedding."""
  return name.endswith('.rotary_emb.inv_freq') or (
      name == layout.UNEMBED and layout.HEAD not in due)


def _check_tied(embed: np.ndarray, file, path: pathlib.Path) -> None:
  """Refuses a file whose unembedding config.json would throw away."""
  unembed = file.get_tensor(layout.UNEMBED)
  if unembed.shape != embed.shape or not np.array_equal(
      unembed.astype(embed.dtype), embed):
    raise InputError(
        f'{path}: {layout.UNEMBED} differs from the embedding although '
        'config.json says tie_word_embeddings=true; set it to false')


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
  unknown = set(given) - {slot.path for slot in slots}
  if unknown:
    raise InputError(
        f'params has {"/".join(min(unknown))}, which its configuration does '
        f'not (scan_layers={config.scan_layers}, tie_embeddings='
        f'{config.tie_embeddings}); stack_layers and unstack_layers convert')
  leaves = []
  for slot in slots:
    name, leaf = '/'.join(slot.path), given.get(slot.path)
    lead = () if slot.layer is None else (config.num_layers,)
    shape = getattr(leaf, 'shape', None)
    if shape != (*lead, *slot.shape):
      raise InputError(
          f'params[{name}] has shape {shape}, its configuration says '
          f'{(*lead, *slot.shape)}; save with the configuration that the '
          'model was made with')
    written = dtype or str(leaf.dtype)
    shards.check_dtype('dtype' if dtype else f'params[{name}].dtype', written)
    leaves.append((slot, leaf, written))
  return leaves


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
    managed += hf_tokenizer.FILES
  for name in set(managed) - set(names):
    (folder / name).unlink(missing_ok=True)
