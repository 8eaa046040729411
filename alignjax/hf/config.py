"""config.json of a Llama-family folder to `ModelConfig`, and back."""

import os
import pathlib

from alignjax.hf import files
from alignjax.models.config import ModelConfig
from alignjax.types import InputError

ARCHITECTURES = ('LlamaForCausalLM', 'LlamaForSequenceClassification')

_REQUIRED = ('vocab_size', 'hidden_size', 'intermediate_size',
             'num_hidden_layers', 'num_attention_heads')


def read_config(folder: str | os.PathLike) -> ModelConfig:
  """The `ModelConfig` of a Hugging Face model folder.

  Fields that transformers lets out take its defaults for Llama. What this
  model does not compute (scaled RoPE, biases, quantized weights) is refused
  rather than ignored.

  Args:
    folder: holds `config.json`.

  Returns:
    The configuration with float32 activations, unrolled layers and no remat.

  Raises:
    InputError: naming the file, the field, its value and what is supported.
  """
  path = pathlib.Path(folder) / 'config.json'
  hf = files.read_json(path)
  _check_supported(hf, path)
  missing = [field for field in _REQUIRED if hf.get(field) is None]
  if missing:
    raise InputError(
        f'{path} lacks {", ".join(missing)}; a Llama configuration needs '
        f'{", ".join(_REQUIRED)}')
  hidden = _count(hf, 'hidden_size', path)
  heads = _count(hf, 'num_attention_heads', path)
  kv_heads = _count(hf, 'num_key_value_heads', path, default=heads)
  if heads % kv_heads:
    raise InputError(
        f'{path}: num_key_value_heads={kv_heads} does not divide '
        f'num_attention_heads={heads}; correct one of them')
  if hf.get('head_dim') is None and hidden % heads:
    raise InputError(
        f'{path}: hidden_size={hidden} is no multiple of '
        f'num_attention_heads={heads}; add head_dim')
  head_dim = _count(hf, 'head_dim', path, default=hidden // heads)
  if head_dim % 2:
    raise InputError(f'{path}: head_dim={head_dim} is odd; RoPE turns pairs of '
                     'dimensions, so it must be even')
  return ModelConfig(
      vocab_size=_count(hf, 'vocab_size', path),
      hidden_size=hidden,
      intermediate_size=_count(hf, 'intermediate_size', path),
      num_layers=_count(hf, 'num_hidden_layers', path),
      num_heads=heads,
      num_kv_heads=kv_heads,
      head_dim=head_dim,
      rope_theta=_rope_theta(hf, path),
      norm_eps=_positive(hf, 'rms_norm_eps', path, default=1e-6),
      tie_embeddings=bool(hf.get('tie_word_embeddings', False)),
      max_positions=_count(hf, 'max_position_embeddings', path, default=2_048))


def config_to_hf(
    config: ModelConfig,
    *,
    is_reward_model: bool = False,
    weights_dtype: str = 'float32',
    bos_id: int | None = None,
    eos_id: int | list[int] | None = None,
    pad_id: int | None = None,
) -> dict:
  """What `config.json` says of a model.

  Args:
    config: the model.
    is_reward_model: one label on the last token instead of next-token logits.
    weights_dtype: the dtype of the weights beside it.
    bos_id: id of the token that begins a text.
    eos_id: id, or ids, of the token that ends a response.
    pad_id: id of the padding token. Transformers finds the token to score as
      the last that is not padding, so a reward model needs one unlike EOS.

  Returns:
    A JSON-able dictionary; `read_config` gives `config` back, numerics aside.
  """
  rope = {'rope_theta': config.rope_theta, 'rope_type': 'default'}
  labels = {'id2label': {'0': 'LABEL_0'}, 'label2id': {'LABEL_0': 0}}
  return {
      'architectures': [ARCHITECTURES[is_reward_model]],
      'attention_bias': False,
      'attention_dropout': 0.0,
      'bos_token_id': bos_id,
      'eos_token_id': eos_id,
      'head_dim': config.head_dim,
      'hidden_act': 'silu',
      'hidden_size': config.hidden_size,
      'intermediate_size': config.intermediate_size,
      'max_position_embeddings': config.max_positions,
      'mlp_bias': False,
      'model_type': 'llama',
      'num_attention_heads': config.num_heads,
      'num_hidden_layers': config.num_layers,
      'num_key_value_heads': config.num_kv_heads,
      'pad_token_id': pad_id,
      'rms_norm_eps': config.norm_eps,
      'rope_parameters': rope,          # Read by transformers 5,
      'rope_theta': config.rope_theta,  # and by transformers 4.
      'tie_word_embeddings': config.tie_embeddings,
      'torch_dtype': weights_dtype,
      'vocab_size': config.vocab_size,
  } | (labels if is_reward_model else {})


def _check_supported(hf: dict, path: pathlib.Path) -> None:
  """Refuses every field that would change what the model computes."""
  if hf.get('model_type') != 'llama':
    raise InputError(
        f'{path}: model_type={hf.get("model_type")!r} is not supported; use a '
        f"model of model_type 'llama' ({' or '.join(ARCHITECTURES)})")
  for architecture in hf.get('architectures') or []:
    if architecture not in ARCHITECTURES:
      raise InputError(
          f'{path}: architectures={architecture!r} is not supported; use '
          f'{" or ".join(ARCHITECTURES)}')
  if hf.get('hidden_act', 'silu') != 'silu':
    raise InputError(
        f"{path}: hidden_act={hf['hidden_act']!r} is not supported; the MLP "
        "is SwiGLU, so it must be 'silu'")
  for field in ('attention_bias', 'mlp_bias'):
    if hf.get(field):
      raise InputError(
          f'{path}: {field}={hf[field]!r} is not supported; projections have '
          'no bias, so it must be false')
  if hf.get('quantization_config'):
    raise InputError(
        f'{path}: quantization_config is set; use the float32, bfloat16 or '
        'float16 weights that were quantized')


def _rope_theta(hf: dict, path: pathlib.Path) -> float:
  """The base of RoPE's wavelengths, wherever the file's version put it."""
  for field in ('rope_scaling', 'rope_parameters'):
    rope = hf.get(field) or {}
    if not isinstance(rope, dict):
      raise InputError(
          f'{path}: {field}={rope!r} must be an object; correct it')
    kind = rope.get('rope_type', rope.get('type', 'default'))
    partial = rope.get('partial_rotary_factor', 1.0)
    if kind != 'default' or partial != 1.0:
      raise InputError(
          f'{path}: {field}={rope!r} is not supported; RoPE must be unscaled '
          "(rope_type 'default')")
  for source in (hf.get('rope_parameters'), hf.get('rope_scaling'), hf):
    if (source or {}).get('rope_theta') is not None:
      return _positive(source, 'rope_theta', path)
  return 10_000.0


def _positive(hf: dict, field: str, path: pathlib.Path, default=None) -> float:
  """A positive number, or an InputError naming file, field and value."""
  value = default if hf.get(field) is None else hf[field]
  if isinstance(value, bool) or not isinstance(value, (int, float)) or (
      not value > 0):
    raise InputError(f'{path}: {field}={value!r} must be a positive number; '
                     'correct it')
  return float(value)


def _count(hf: dict, field: str, path: pathlib.Path, default=None) -> int:
  """A positive whole number, or an InputError naming file, field and value."""
  value = default if hf.get(field) is None else hf[field]
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise InputError(f'{path}: {field}={value!r} must be a positive whole '
                     'number; correct it')
  return value
