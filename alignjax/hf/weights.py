"""Weights of a Hugging Face folder to a parameter tree, and back, bit for bit.

Only safetensors are read and written. A torch Linear stores [out, in]; the tree
stores [in, out] with heads unfolded, so every matrix is a transpose and a
reshape away. RoPE is the rotate-half form on both sides: no permutation.
"""

import contextlib
import json
import math
import os
import pathlib
import tempfile
from typing import NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from alignjax.hf import config as hf_config
from alignjax.hf import files
from alignjax.hf.tokenizer import Tokenizer
from alignjax.models.config import ModelConfig
from alignjax.types import InputError

Params = dict  # Nested dictionaries of arrays, see ModelConfig.

_DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
_SINGLE = 'model.safetensors'
_INDEX = 'model.safetensors.index.json'
_HEAD = 'score.weight'
_UNEMBED = 'lm_head.weight'

# Leaf of a layer: its name in the file, how many leading axes are inputs.
_LAYER = {
    'attention_norm': ('input_layernorm', 0),
    'query': ('self_attn.q_proj', 1),
    'key': ('self_attn.k_proj', 1),
    'value': ('self_attn.v_proj', 1),
    'out': ('self_attn.o_proj', 2),
    'mlp_norm': ('post_attention_layernorm', 0),
    'gate': ('mlp.gate_proj', 1),
    'up': ('mlp.up_proj', 1),
    'down': ('mlp.down_proj', 1),
}


class _Slot(NamedTuple):
  """One tensor of the file and its place in the tree."""

  name: str                # In the file.
  path: tuple[str, ...]    # In the tree.
  layer: int | None        # Row of a stacked leaf; None if it is not stacked.
  shape: tuple[int, ...]   # In the tree, one layer's.
  inputs: int              # Leading axes that are inputs; 0: stored as it is.

  @property
  def file_shape(self) -> tuple[int, ...]:
    """Shape in the file."""
    if not self.inputs:
      return self.shape
    return (math.prod(self.shape[self.inputs:]),
            math.prod(self.shape[:self.inputs]))


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
      `model.safetensors.index.json`. Tensors are read one by one, so that
      memory holds the parameters once.
    dtype: of activations and matmuls, goes into the configuration.
    param_dtype: of the returned leaves.
    scan_layers: one `layers` with a leading [L] instead of `layers_0` ...
    remat: goes into the configuration.

  Returns:
    The configuration and the parameters as numpy arrays in host memory. Saved
    again, in the dtype of the file, they give the same bits.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  config = hf_config.read_config(folder)
  config = _with_numerics(config, dtype, scan_layers, remat)
  slots = _slots(config)
  return config, _read(pathlib.Path(folder), slots, config, param_dtype)


def load_reward_model(
    folder: str | os.PathLike,
    *,
    dtype: str = 'float32',
    param_dtype: str = 'float32',
    scan_layers: bool = False,
    remat: bool = False,
) -> tuple[ModelConfig, Params]:
  """Reads a LlamaForSequenceClassification folder with one label.

  Args:
    folder: as for `load_model`.
    dtype: of activations and matmuls, goes into the configuration.
    param_dtype: of the returned leaves.
    scan_layers: one `layers` with a leading [L] instead of `layers_0` ...
    remat: goes into the configuration.

  Returns:
    The configuration and `{'backbone': ..., 'head': [D]}`. A reward model has
    no unembedding, so its configuration always says `tie_embeddings`.

  Raises:
    InputError: if a file or tensor is missing, extra, cut or misshapen.
  """
  config = hf_config.read_config(folder)
  config = _with_numerics(config, dtype, scan_layers, remat)._replace_tie()
  raise NotImplementedError
