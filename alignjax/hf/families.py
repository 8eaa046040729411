"""Model types of Hugging Face: how config.json says what each one computes.

A family adds to the common fields what it has of its own, as two functions that
undo each other: `read` gives `ModelConfig` fields, `write` gives config.json
fields. What its tensors are called is in layout.py.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

from alignjax.hf import rope as hf_rope
from alignjax.hf.fields import Fields
from alignjax.models.config import Attention
from alignjax.models.config import ModelConfig
from alignjax.models.rope import Rope

Read = Callable[[Fields, int], dict[str, Any]]  # (fields, head_dim)
Write = Callable[[ModelConfig], dict[str, Any]]

_TYPES = ('full_attention', 'sliding_attention')


@dataclasses.dataclass(frozen=True)
class Family:
  """One model type.

  Attributes:
    name: `model_type` in the file.
    causal: the architecture of its language models.
    classifier: the architecture of its reward models.
    read: `(fields, head_dim)` to what `ModelConfig` has beyond the common.
    write: back.
    names: common fields that this type calls otherwise.
    defaults: what transformers takes where the file leaves a field out.
    fixed: fields that must have one of these values, with what is the matter.
    activation: the field of the MLP's activation, and how it is written.
    is_grouped: whether keys and values may have fewer heads than queries, and
      heads a width of their own.
  """

  name: str
  causal: str
  classifier: str
  read: Read
  write: Write
  names: Mapping[str, str] = dataclasses.field(default_factory=dict)
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fixed: Mapping[str, tuple[Any, ...]] = dataclasses.field(
      default_factory=dict)
  activation: tuple[str, str] = ('hidden_act', 'silu')
  is_grouped: bool = True


def _uniform(
    fields: Fields, head_dim: int, window: int | None = None
) -> dict[str, Any]:
  """All layers attend alike."""
  return {'attention': (Attention(hf_rope.read(fields, head_dim), window),)}


def _patterned(
    kinds: Sequence[Attention], which: Sequence[int]
) -> dict[str, Any]:
  """`attention` and the shortest `pattern` that repeats to `which`."""
  used = sorted(set(which))
  which = [used.index(kind) for kind in which]
  period = next(p for p in range(1, len(which) + 1) if all(
      kind == which[i % p] for i, kind in enumerate(which)))
  return {'attention': tuple(kinds[kind] for kind in used),
          'pattern': tuple(which[:period])}


def _layer_types(fields: Fields, otherwise: Callable[[int], bool]) -> list[int]:
  """1 for each layer that slides: by the file's list, or by the rule."""
  count = fields.count('num_hidden_layers')
  listed = fields.choices('layer_types', count, _TYPES)
  if listed is not None:
    return [_TYPES.index(kind) for kind in listed]
  return [int(otherwise(i)) for i in range(count)]


def _write_types(config: ModelConfig) -> list[str]:
  return [_TYPES[config.attention[config.attention_of(i)].window is not None]
          for i in range(config.num_layers)]


def _window(config: ModelConfig) -> int | None:
  """The window of the layers that slide, if any does."""
  return next((a.window for a in config.attention if a.window), None)


def _bias(fields: Fields) -> dict[str, Any]:
  return {'attention_bias': 'all' if fields.flag('attention_bias') else 'none'}


def _write_bias(config: ModelConfig) -> dict[str, Any]:
  return {'attention_bias': config.attention_bias == 'all',
          'attention_dropout': 0.0}


def _read_llama(fields: Fields, head_dim: int) -> dict[str, Any]:
  return _uniform(fields, head_dim) | _bias(fields) | {
      'mlp_bias': fields.flag('mlp_bias')}


def _write_llama(config: ModelConfig) -> dict[str, Any]:
  return hf_rope.write(config.attention[0].rope) | _write_bias(config) | {
      'mlp_bias': config.mlp_bias}


def _read_mistral(fields: Fields, head_dim: int) -> dict[str, Any]:
  # A null window is none; a window that is left out is transformers' default.
  window = (None if fields.values.get('sliding_window', 0) is None
            else fields.optional_count('sliding_window'))
  return _uniform(fields, head_dim, window)


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
  return hf_rope.write(config.attention[0].rope) | {
      'attention_dropout': 0.0, 'sliding_window': _window(config)}


def _read_qwen(fields: Fields, head_dim: int) -> dict[str, Any]:
  rope = hf_rope.read(fields, head_dim)
  if not fields.flag('use_sliding_window'):
    return {'attention': (Attention(rope),)}
  kinds = (Attention(rope), Attention(rope, fields.count('sliding_window')))
  first = fields.count('max_window_layers')
  return _patterned(kinds, _layer_types(fields, lambda i: i >= first))


def _write_qwen(config: ModelConfig) -> dict[str, Any]:
  window = _window(config)
  return hf_rope.write(config.attention[0].rope) | {
      'attention_dropout': 0.0, 'use_sliding_window': window is not None,
      'sliding_window': window, 'layer_types': _write_types(config)}


def _read_qwen2(fields: Fields, head_dim: int) -> dict[str, Any]:
  return _read_qwen(fields, head_dim) | {'attention_bias': 'qkv'}


def _read_qwen3(fields: Fields, head_dim: int) -> dict[str, Any]:
  return _read_qwen(fields, head_dim) | _bias(fields) | {'qk_norm': 'head'}


def _read_gemma(fields: Fields, head_dim: int) -> dict[str, Any]:
  return _uniform(fields, head_dim) | _bias(fields) | {
      'norm_offset': 1.0,
      'embed_scale': math.sqrt(fields.count('hidden_size'))}


def _read_gemma2(fields: Fields, head_dim: int) -> dict[str, Any]:
  rope, window = hf_rope.read(fields, head_dim), fields.count('sliding_window')
  return _read_gemma(fields, head_dim) | _caps(fields) | _patterned(
      (Attention(rope), Attention(rope, window)),
      _layer_types(fields, lambda i: i % 2 == 0))


def _caps(fields: Fields) -> dict[str, Any]:
  """What Gemma 2 and 3 have beyond the first."""
  return {
      'norms': 'both',
      'attention_scale': fields.number('query_pre_attn_scalar') ** -0.5,
      'attention_softcap': fields.optional_number('attn_logit_softcapping'),
      'logit_softcap': fields.optional_number('final_logit_softcapping')}


def _write_gemma2(config: ModelConfig) -> dict[str, Any]:
  scalar = round(config.attention_scale ** -2, 6)
  return hf_rope.write(config.attention[0].rope) | _write_bias(config) | {
      'attn_logit_softcapping': config.attention_softcap,
      'final_logit_softcapping': config.logit_softcap,
      'layer_types': _write_types(config),
      'query_pre_attn_scalar': int(scalar) if scalar % 1 == 0 else scalar,
      'sliding_window': _window(config) or 4_096}


def _read_gemma3(fields: Fields, head_dim: int) -> dict[str, Any]:
  full = hf_rope.read(fields, head_dim, layer_type='full_attention')
  local = hf_rope.read(
      dataclasses.replace(fields, values={
          **fields.values, 'rope_scaling': None}), head_dim,
      layer_type='sliding_attention', theta='rope_local_base_freq')
  period = fields.count('sliding_window_pattern')
  kinds = Attention(full), Attention(local, fields.count('sliding_window'))
  return _read_gemma(fields, head_dim) | _caps(fields) | _patterned(
      kinds, _layer_types(fields, lambda i: (i + 1) % period != 0)) | {
          # A softcap of scores is written, and no one computes it.
          'qk_norm': 'head', 'attention_softcap': None}


def _write_gemma3(config: ModelConfig) -> dict[str, Any]:
  by_window = {kind.window is not None: kind.rope for kind in config.attention}
  full = by_window.get(False, Rope(theta=1e6))
  local = by_window.get(True, Rope())
  written = hf_rope.write(full)
  return _write_gemma2(config) | written | {
      'rope_local_base_freq': local.theta,
      'rope_parameters': {
          'full_attention': written['rope_parameters'],
          'sliding_attention': hf_rope.write(local)['rope_parameters']}}


def _read_smollm3(fields: Fields, head_dim: int) -> dict[str, Any]:
  rope, count = hf_rope.read(fields, head_dim), fields.count(
      'num_hidden_layers')
  period = fields.count('no_rope_layer_interval')
  turns = fields.choices('no_rope_layers', count, (0, 1))
  if turns is None:
    turns = [int((i + 1) % period != 0) for i in range(count)]
  window = fields.optional_count('sliding_window')
  if not fields.flag('use_sliding_window'):
    window = None
  slides = _layer_types(
      fields, lambda i: window is not None and not turns[i])
  kinds = [Attention(r, w) for w in (None, window) for r in (None, rope)]
  which = [2 * s * (window is not None) + t
           for s, t in zip(slides, turns, strict=True)]
  return _patterned(kinds, which) | _bias(fields) | {
      'mlp_bias': fields.flag('mlp_bias')}


def _write_smollm3(config: ModelConfig) -> dict[str, Any]:
  kinds = [config.attention[config.attention_of(i)]
           for i in range(config.num_layers)]
  rope = next((k.rope for k in kinds if k.rope), Rope())
  return hf_rope.write(rope) | _write_bias(config) | {
      'layer_types': _write_types(config), 'mlp_bias': config.mlp_bias,
      'no_rope_layers': [int(kind.rope is not None) for kind in kinds],
      'sliding_window': _window(config),
      'use_sliding_window': _window(config) is not None}


def _read_phi3(fields: Fields, head_dim: int) -> dict[str, Any]:
  return _uniform(fields, head_dim, fields.optional_count('sliding_window'))


def _write_phi3(config: ModelConfig) -> dict[str, Any]:
  rope = config.attention[0].rope
  written = hf_rope.write(rope)
  length = written['rope_parameters'].get(
      'original_max_position_embeddings', config.max_positions)
  return written | {
      'attention_dropout': 0.0, 'embd_pdrop': 0.0, 'resid_pdrop': 0.0,
      'original_max_position_embeddings': length,
      'partial_rotary_factor': rope.fraction,
      'sliding_window': _window(config)}


def _read_olmo2(fields: Fields, head_dim: int) -> dict[str, Any]:
  return _uniform(fields, head_dim) | _bias(fields) | {
      'norms': 'post', 'qk_norm': 'all'}


def _write_plain(config: ModelConfig) -> dict[str, Any]:
  return hf_rope.write(config.attention[0].rope) | _write_bias(config)


_GPT = {'norm': 'layer', 'gated_mlp': False, 'mlp_bias': True}


def _read_gpt2(fields: Fields, head_dim: int) -> dict[str, Any]:
  del fields, head_dim
  return _GPT | {'attention': (Attention(rope=None),), 'attention_bias': 'all',
                 'learned_positions': True}


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
  del config  # Dropout is off: policy and reference must say the same.
  return {'attn_pdrop': 0.0, 'embd_pdrop': 0.0, 'resid_pdrop': 0.0}


def _read_gpt_neox(fields: Fields, head_dim: int) -> dict[str, Any]:
  rope = hf_rope.read(fields, head_dim, theta='rotary_emb_base',
                      fraction='rotary_pct')
  return _GPT | _bias(fields) | {
      'attention': (Attention(rope),),
      'parallel': fields.flag('use_parallel_residual')}


def _write_gpt_neox(config: ModelConfig) -> dict[str, Any]:
  rope = config.attention[0].rope
  return hf_rope.write(rope, theta='rotary_emb_base') | _write_bias(config) | {
      'hidden_dropout': 0.0, 'rotary_pct': rope.fraction,
      'use_parallel_residual': config.parallel}


_GEMMA = dict(
    head_dim=256, tie_word_embeddings=True, rms_norm_eps=1e-6,
    max_position_embeddings=8_192)
_GEMMA2 = _GEMMA | dict(
    query_pre_attn_scalar=256, sliding_window=4_096,
    attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
_GEMMA3 = _GEMMA | dict(
    query_pre_attn_scalar=256, sliding_window=4_096,
    sliding_window_pattern=6, max_position_embeddings=131_072, rope_theta=1e6)
_TANH = ('hidden_activation', 'gelu_pytorch_tanh')
_CAUSAL_ONLY = {'use_bidirectional_attention': (None, False)}

FAMILIES = {family.name: family for family in (
    Family('llama', 'LlamaForCausalLM', 'LlamaForSequenceClassification',
           _read_llama, _write_llama,
           defaults=dict(rms_norm_eps=1e-6, max_position_embeddings=2_048)),
    Family('mistral', 'MistralForCausalLM', 'MistralForSequenceClassification',
           _read_mistral, _write_mistral,
           defaults=dict(num_key_value_heads=8, rms_norm_eps=1e-6,
                         sliding_window=4_096,
                         max_position_embeddings=131_072)),
    Family('qwen2', 'Qwen2ForCausalLM', 'Qwen2ForSequenceClassification',
           _read_qwen2, _write_qwen,
           defaults=dict(num_key_value_heads=32, rms_norm_eps=1e-6,
                         sliding_window=4_096, max_window_layers=28,
                         max_position_embeddings=32_768)),
    Family('qwen3', 'Qwen3ForCausalLM', 'Qwen3ForSequenceClassification',
           _read_qwen3, lambda c: _write_qwen(c) | _write_bias(c),
           defaults=dict(num_key_value_heads=32, head_dim=128,
                         rms_norm_eps=1e-6, sliding_window=4_096,
                         max_window_layers=28, max_position_embeddings=32_768)),
    Family('gemma', 'GemmaForCausalLM', 'GemmaForSequenceClassification',
           _read_gemma, _write_plain, defaults=_GEMMA | dict(
               num_key_value_heads=16), fixed=_CAUSAL_ONLY,
           activation=('hidden_act', 'gelu_pytorch_tanh')),
    Family('gemma2', 'Gemma2ForCausalLM', 'Gemma2ForSequenceClassification',
           _read_gemma2, _write_gemma2, defaults=_GEMMA2 | dict(
               num_key_value_heads=4), fixed=_CAUSAL_ONLY, activation=_TANH),
    Family('gemma3_text', 'Gemma3ForCausalLM',
           'Gemma3TextForSequenceClassification', _read_gemma3, _write_gemma3,
           defaults=_GEMMA3 | dict(num_key_value_heads=4), fixed=_CAUSAL_ONLY,
           activation=_TANH),
    Family('smollm3', 'SmolLM3ForCausalLM', 'SmolLM3ForSequenceClassification',
           _read_smollm3, _write_smollm3,
           defaults=dict(num_key_value_heads=4, rms_norm_eps=1e-6,
                         no_rope_layer_interval=4, tie_word_embeddings=True,
                         max_position_embeddings=32_768, rope_theta=2e6)),
    Family('phi3', 'Phi3ForCausalLM', 'Phi3ForSequenceClassification',
           _read_phi3, _write_phi3,
           defaults=dict(rms_norm_eps=1e-5, max_position_embeddings=4_096,
                         original_max_position_embeddings=4_096)),
    Family('olmo2', 'Olmo2ForCausalLM', 'Olmo2ForSequenceClassification',
           _read_olmo2, _write_plain,
           defaults=dict(rms_norm_eps=1e-5, max_position_embeddings=2_048)),
    Family('gpt2', 'GPT2LMHeadModel', 'GPT2ForSequenceClassification',
           _read_gpt2, _write_gpt2,
           names=dict(hidden_size='n_embd', intermediate_size='n_inner',
                      num_hidden_layers='n_layer', num_attention_heads='n_head',
                      max_position_embeddings='n_positions',
                      rms_norm_eps='layer_norm_epsilon'),
           defaults=dict(n_positions=1_024, layer_norm_epsilon=1e-5,
                         activation_function='gelu_new',
                         scale_attn_weights=True, tie_word_embeddings=True),
           fixed=dict(scale_attn_weights=(True,),
                      scale_attn_by_inverse_layer_idx=(None, False),
                      add_cross_attention=(None, False)),
           activation=('activation_function', 'gelu_new'), is_grouped=False),
    Family('gpt_neox', 'GPTNeoXForCausalLM', 'GPTNeoXForSequenceClassification',
           _read_gpt_neox, _write_gpt_neox,
           names=dict(rms_norm_eps='layer_norm_eps'),
           defaults=dict(layer_norm_eps=1e-5, max_position_embeddings=2_048,
                         rotary_pct=0.25, use_parallel_residual=True,
                         attention_bias=True),
           activation=('hidden_act', 'gelu'), is_grouped=False),
)}
