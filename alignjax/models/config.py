"""What a decoder is made of: one frozen dataclass for the Llama family."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and numerics of a decoder: RMSNorm, RoPE, GQA, SwiGLU.

  The parameter tree that it implies, leaves [shape]:

      embed                      [V, D]
      layers_0 ... layers_{n-1}  (one `layers`, leading [L], if scan_layers)
        attention_norm           [D]
        query                    [D, H, head_dim]
        key, value               [D, num_kv_heads, head_dim]
        out                      [H, head_dim, D]
        mlp_norm                 [D]
        gate, up                 [D, F]
        down                     [F, D]
      final_norm                 [D]
      unembed                    [V, D], absent when tie_embeddings
  """

  vocab_size: int
  hidden_size: int           # D
  intermediate_size: int     # F
  num_layers: int            # L
  num_heads: int             # H
  num_kv_heads: int          # Divides num_heads; fewer is grouped-query.
  head_dim: int
  rope_theta: float = 10_000.0
  norm_eps: float = 1e-5
  tie_embeddings: bool = True
  max_positions: int = 2_048  # Tokens; what the model was trained for.
  dtype: str = 'float32'      # Of activations and matmuls.
  scan_layers: bool = False   # One compiled layer, parameters stacked [L, ...].
  remat: bool = False         # Recompute activations in the backward pass.
