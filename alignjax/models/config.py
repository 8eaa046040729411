"""What a decoder is made of: one frozen dataclass for every family."""

import dataclasses
from typing import Literal

from alignjax.models.lora import Lora
from alignjax.models.rope import LongRope
from alignjax.models.rope import Rope


@dataclasses.dataclass(frozen=True)
class Attention:
  """What one kind of layer sees, and how it knows positions."""

  rope: Rope | None = Rope()  # None: nothing turns.
  window: int | None = None   # Sees the last `window` tokens, itself included.


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and numerics of a decoder.

  The defaults are Llama's: RMSNorm before each half of a layer, RoPE,
  grouped-query attention, SwiGLU, no biases. The tree of parameters that a
  configuration implies, leaves [shape]; what stands after a colon is there
  only under that condition:

      embed                      [V, D]
      position_embed             [max_positions, D]: learned_positions
      layers_0 ... layers_{n-1}  (one `layers`, leading [L], if scan_layers)
        attention_norm           [D]: norms 'pre' or 'both'
        query                    [D, H, head_dim]
        key, value               [D, num_kv_heads, head_dim]
        query_norm, key_norm     [head_dim]: qk_norm 'head'; [heads, head_dim]:
                                 qk_norm 'all'
        out                      [H, head_dim, D]
        post_attention_norm      [D]: norms 'post' or 'both'
        mlp_norm                 [D]: norms 'pre' or 'both'
        gate                     [D, F]: gated_mlp
        up                       [D, F]
        down                     [F, D]
        post_mlp_norm            [D]: norms 'post' or 'both'
      final_norm                 [D]
      unembed                    [V, D]: not tie_embeddings

  A leaf with a bias has it beside it, as `query_bias` [H, head_dim] or
  `final_norm_bias` [D]; a matrix with an adapter, `query_lora_a` [D, r] and
  `query_lora_b` [r, H, head_dim] (see lora.py).
  """

  vocab_size: int
  hidden_size: int           # D
  intermediate_size: int     # F
  num_layers: int            # L
  num_heads: int             # H
  num_kv_heads: int          # Divides num_heads; fewer is grouped-query.
  head_dim: int
  family: str = 'llama'      # Whose config.json it is saved as.

  # Layer i attends as `attention[pattern[i % len(pattern)]]` says.
  attention: tuple[Attention, ...] = (Attention(),)
  pattern: tuple[int, ...] = (0,)
  learned_positions: bool = False     # Added to the embedding.
  attention_scale: float | None = None  # Of scores; None: 1/√head_dim.
  attention_softcap: float | None = None  # c: scores become c tanh(score / c).
  qk_norm: Literal['none', 'head', 'all'] = 'none'  # Over a head, or over all.
  attention_bias: Literal['none', 'qkv', 'all'] = 'none'

  norm: Literal['rms', 'layer'] = 'rms'  # LayerNorms have biases.
  norm_eps: float = 1e-5
  norm_offset: float = 0.0   # Added to RMSNorm's scales; Gemma stores w − 1.
  norms: Literal['pre', 'post', 'both'] = 'pre'  # Of each half of a layer.
  parallel: bool = False     # Both halves read the layer's input.

  activation: Literal['silu', 'gelu', 'gelu_tanh'] = 'silu'
  gated_mlp: bool = True     # act(gate) · up, else act(up).
  mlp_bias: bool = False

  embed_scale: float = 1.0   # Multiplies the embedding.
  tie_embeddings: bool = True
  logit_softcap: float | None = None  # c: logits become c tanh(logit / c).
  max_positions: int = 2_048  # Tokens; what the model was trained for.

  lora: Lora | None = None    # Adapters beside the layers' matrices.
  dtype: str = 'float32'      # Of activations and matmuls.
  scan_layers: bool = False   # One compiled layer, parameters stacked [L, ...].
  remat: bool = False         # Recompute activations in the backward pass.
  attention_block: int | None = None  # Queries whose scores exist at one time.
  # 'splash' is a kernel for TPUs (models/splash.py), of whole rows.
  attention_kernel: Literal['xla', 'splash'] = 'xla'

  def attention_of(self, layer: int) -> int:
    """Which of `attention` layer `layer` has."""
    return self.pattern[layer % len(self.pattern)]

  @property
  def first_length(self) -> int | None:
    """Tokens after which a row turns otherwise (LongRoPE); None: never."""
    scalings = [kind.rope.scaling for kind in self.attention if kind.rope]
    return next((scaling.original_length for scaling in scalings
                 if isinstance(scaling, LongRope)), None)
