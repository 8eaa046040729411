"""config.json of a model folder to `ModelConfig`, and back."""

import os
import pathlib

from alignjax.hf import families
from alignjax.hf import files
from alignjax.hf.families import Family
from alignjax.hf.fields import Fields
from alignjax.models.config import ModelConfig
from alignjax.types import InputError

FAMILIES = families.FAMILIES

# What the file may call an activation, and what it is here.
_MOST_LAYERS = 10_000  # Each is made and named: a slip would take all memory.
_ACTIVATIONS = {
    'silu': 'silu', 'swish': 'silu', 'gelu': 'gelu', 'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_fast': 'gelu_tanh',
}


def read_config(folder: str | os.PathLike) -> ModelConfig:
  """The `ModelConfig` of a Hugging Face model folder.

  Fields that are left out take the defaults of transformers for the model
  type. What this decoder does not compute (quantized weights, other kinds of
  RoPE scaling, models that also see) is refused rather than ignored.

  Args:
    folder: holds `config.json`.

  Returns:
    The configuration with float32 activations, unrolled layers and no remat.

  Raises:
    InputError: naming the file, the field, its value and what is supported.
  """
  path = pathlib.Path(folder) / 'config.json'
  values = files.read_json(path)
  family = _family(values, path)
  fields = Fields(values, path, family.defaults)
  _check_supported(fields, family)
  name = lambda field: family.names.get(field, field)
  _check_there(fields, [name(field) for field in (
      'vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads',
      *(() if family.name == 'gpt2' else ('intermediate_size',)))], family)
  hidden = fields.count(name('hidden_size'))
  heads = fields.count(name('num_attention_heads'))
  layers = fields.count(name('num_hidden_layers'))
  if layers > _MOST_LAYERS:
    raise fields.bad(name('num_hidden_layers'), f'is more than {_MOST_LAYERS}; '
                     'correct it')
  kv_heads = heads
  if family.is_grouped:
    kv_heads = fields.optional_count('num_key_value_heads') or heads
  if heads % kv_heads:
    raise fields.bad('num_key_value_heads', f'does not divide '
                     f'{name("num_attention_heads")}={heads}; correct one of '
                     'them')
  if fields.get('head_dim') is None and hidden % heads:
    raise fields.bad(name('hidden_size'), 'is no multiple of '
                     f'{name("num_attention_heads")}={heads}; add head_dim')
  head_dim = hidden // heads
  if family.is_grouped:
    head_dim = fields.optional_count('head_dim') or head_dim
    if head_dim % 2:
      raise InputError(f'{path}: head_dim={head_dim} is odd; RoPE turns pairs '
                       'of dimensions, so it must be even')
  inner = fields.optional_count(name('intermediate_size')) or 4 * hidden
  own = family.read(fields, head_dim)
  return ModelConfig(
      family=family.name,
      vocab_size=fields.count('vocab_size'),
      hidden_size=hidden,
      intermediate_size=inner,
      num_layers=layers,
      num_heads=heads,
      num_kv_heads=kv_heads,
      head_dim=head_dim,
      norm_eps=fields.number(name('rms_norm_eps')),
      tie_embeddings=fields.flag('tie_word_embeddings'),
      max_positions=fields.count(name('max_position_embeddings')),
      activation=_activation(fields, family),
      **own)


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
    config: the model; its `family` says in which type's fields.
    is_reward_model: one label on the last token instead of next-token logits.
    weights_dtype: the dtype of the weights beside it.
    bos_id: id of the token that begins a text.
    eos_id: id, or ids, of the token that ends a response.
    pad_id: id of the padding token. Transformers finds the token to score as
      the last that is not padding, so a reward model needs one unlike EOS.

  Returns:
    A JSON-able dictionary; `read_config` gives `config` back, numerics aside.
  """
  family = FAMILIES[config.family]
  field, activation = family.activation
  common = {
      'hidden_size': config.hidden_size,
      'intermediate_size': config.intermediate_size,
      'max_position_embeddings': config.max_positions,
      'num_attention_heads': config.num_heads,
      'num_hidden_layers': config.num_layers,
      'rms_norm_eps': config.norm_eps,
  }
  if family.is_grouped:
    common['num_key_value_heads'] = config.num_kv_heads
    common['head_dim'] = config.head_dim
  labels = {'id2label': {'0': 'LABEL_0'}, 'label2id': {'LABEL_0': 0}}
  return {
      'architectures': [
          family.classifier if is_reward_model else family.causal],
      'bos_token_id': bos_id,
      'eos_token_id': eos_id,
      field: activation,
      'model_type': family.name,
      'pad_token_id': pad_id,
      'tie_word_embeddings': config.tie_embeddings,
      'torch_dtype': weights_dtype,
      'vocab_size': config.vocab_size,
      **{family.names.get(key, key): value for key, value in common.items()},
      **family.write(config),
      **(labels if is_reward_model else {}),
  }


def _family(values: dict, path: pathlib.Path) -> Family:
  """The model type, or an InputError with those there are."""
  name = values.get('model_type')
  if isinstance(name, str) and name in FAMILIES:
    return FAMILIES[name]
  advice = f"use a model of one of the types {', '.join(FAMILIES)}"
  if isinstance(values.get('text_config'), dict):
    inner = values['text_config'].get('model_type')
    advice = (f'it also sees images, and its text part ({inner}) would be '
              'saved without the rest; give a text-only model')
  raise InputError(
      f'{path}: model_type={name!r:.80} is not supported; {advice}')


def _check_supported(fields: Fields, family: Family) -> None:
  """Refuses every field that would change what the model computes."""
  known = (family.causal, family.classifier)
  names = fields.get('architectures') or []
  if not isinstance(names, list) or any(name not in known for name in names):
    raise fields.bad('architectures', 'is not supported; use a list of '
                     f'{" or ".join(known)}')
  if fields.get('quantization_config'):
    raise InputError(
        f'{fields.path}: quantization_config is set; use the float32, bfloat16 '
        'or float16 weights that were quantized')
  for name, allowed in family.fixed.items():
    if fields.get(name) not in allowed:
      raise fields.bad(name, f'is not supported; it must be {allowed[-1]!r}')


def _check_there(fields: Fields, names: list[str], family: Family) -> None:
  missing = [name for name in names if fields.get(name) is None]
  if missing:
    raise InputError(
        f'{fields.path} lacks {", ".join(missing)}; a {family.name} '
        f'configuration needs {", ".join(names)}')


def _activation(fields: Fields, family: Family) -> str:
  """The activation; Gemma's first files say gelu and mean its tanh form."""
  field, usual = family.activation
  name = fields.get(field)
  if name is None and field == 'hidden_activation':
    name = fields.get('hidden_act')
  name = usual if name is None or (
      name == 'gelu' and family.name.startswith('gemma')) else name
  if not isinstance(name, str) or _ACTIVATIONS.get(name) != _ACTIVATIONS[usual]:
    raise fields.bad(field, f'is not supported; a {family.name} model has '
                     f'{usual!r}')
  return _ACTIVATIONS[name]
