"""A tiny model of every family, whose dimensions all differ."""

import dataclasses
import math

import numpy as np

from alignjax.models.config import Attention
from alignjax.models.config import ModelConfig
from alignjax.models.rope import Linear
from alignjax.models.rope import Llama3
from alignjax.models.rope import LongRope
from alignjax.models.rope import Rope
from alignjax.models.rope import Yarn

_LLAMA = ModelConfig(
    vocab_size=19, hidden_size=12, intermediate_size=20, num_layers=3,
    num_heads=6, num_kv_heads=2, head_dim=4, max_positions=64)
_rope = lambda *args, **kwargs: (Attention(Rope(*args, **kwargs)),)
_GEMMA = dict(norm_offset=1.0, embed_scale=math.sqrt(12),
              activation='gelu_tanh')
_CAPPED = _GEMMA | dict(
    norms='both', attention_scale=0.25, attention_softcap=4.0,
    logit_softcap=3.0)
_GPT = dict(
    norm='layer', gated_mlp=False, mlp_bias=True, attention_bias='all',
    num_heads=6, num_kv_heads=6, head_dim=2)

FAMILIES = {name: dataclasses.replace(_LLAMA, **fields) for name, fields in {
    'llama': {},
    'llama biased': dict(attention_bias='all', mlp_bias=True,
                         tie_embeddings=False),
    'llama 3': dict(attention=_rope(5e5, scaling=Llama3(8.0, 1.0, 4.0, 32))),
    'mistral': dict(family='mistral', attention=(Attention(Rope(), 4),),
                    tie_embeddings=False),
    'qwen2': dict(family='qwen2', attention_bias='qkv', attention=_rope(
        1e6, scaling=Yarn(4.0, 32, 1.13))),
    'qwen2 sliding': dict(
        family='qwen2', attention_bias='qkv', pattern=(0, 1, 1),
        attention=(Attention(Rope(1e6)), Attention(Rope(1e6), 4))),
    'qwen3': dict(family='qwen3', qk_norm='head', attention=_rope(1e6)),
    'gemma': dict(family='gemma', **_GEMMA),
    'gemma2': dict(family='gemma2', attention=(
        Attention(Rope()), Attention(Rope(), 4)), pattern=(1, 0), **_CAPPED),
    'gemma3_text': dict(
        family='gemma3_text', qk_norm='head', pattern=(1, 0), attention=(
            Attention(Rope(1e6, scaling=Linear(8.0))), Attention(Rope(), 4)),
        **_CAPPED | dict(attention_softcap=None)),
    'smollm3': dict(family='smollm3', pattern=(1, 0), attention=(
        Attention(None), Attention(Rope(2e6)))),
    'phi3': dict(family='phi3', num_heads=3, num_kv_heads=1, attention=(
        Attention(Rope(scaling=LongRope((1.0, 1.2), (2.0, 4.0), 32, 1.2)), 9),
    )),
    'olmo2': dict(family='olmo2', norms='post', qk_norm='all'),
    'gpt2': dict(family='gpt2', attention=(Attention(None),),
                 learned_positions=True, activation='gelu_tanh', **_GPT),
    'gpt_neox': dict(family='gpt_neox', parallel=True, activation='gelu',
                     attention=_rope(1e4, 1.0), **_GPT),
}.items()}


def random_params(shapes: dict, seed: int = 0) -> dict:
  """A tree of weights that no library's new generator can change."""
  random = np.random.RandomState(seed)
  fill = lambda leaf: (
      {name: fill(x) for name, x in sorted(leaf.items())}
      if isinstance(leaf, dict)
      else (0.3 * random.randn(*leaf.shape)).astype(np.float32))
  return fill(shapes)
