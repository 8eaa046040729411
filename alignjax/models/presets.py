"""Shapes of well-known decoders, to plan with: no weights, no download."""

from alignjax.models.config import ModelConfig

PRESETS: dict[str, ModelConfig] = {
    'smollm2-135m': ModelConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1_536,
        num_layers=30, num_heads=9, num_kv_heads=3, head_dim=64,
        max_positions=8_192),
    'llama-3.2-1b': ModelConfig(
        vocab_size=128_256, hidden_size=2_048, intermediate_size=8_192,
        num_layers=16, num_heads=32, num_kv_heads=8, head_dim=64,
        max_positions=131_072),
    'llama-2-7b': ModelConfig(
        vocab_size=32_000, hidden_size=4_096, intermediate_size=11_008,
        num_layers=32, num_heads=32, num_kv_heads=32, head_dim=128,
        tie_embeddings=False, max_positions=4_096),
    'mistral-7b': ModelConfig(
        vocab_size=32_000, hidden_size=4_096, intermediate_size=14_336,
        num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128,
        tie_embeddings=False, max_positions=32_768),
    'llama-3.1-8b': ModelConfig(
        vocab_size=128_256, hidden_size=4_096, intermediate_size=14_336,
        num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128,
        tie_embeddings=False, max_positions=131_072),
    'llama-2-13b': ModelConfig(
        vocab_size=32_000, hidden_size=5_120, intermediate_size=13_824,
        num_layers=40, num_heads=40, num_kv_heads=40, head_dim=128,
        tie_embeddings=False, max_positions=4_096),
    'llama-2-70b': ModelConfig(
        vocab_size=32_000, hidden_size=8_192, intermediate_size=28_672,
        num_layers=80, num_heads=64, num_kv_heads=8, head_dim=128,
        tie_embeddings=False, max_positions=4_096),
}


def count_parameters(config: ModelConfig) -> int:
  """Parameters of a Llama-like decoder, from its shape alone.

    V D (1 or 2) + L (2 D H h + 2 D K h + 3 D F + 2 D) + D

  with K the key heads and h their size. llama-2-7b has 6,738,415,616.
  """
  width, inner = config.hidden_size, config.intermediate_size
  heads = config.num_heads + config.num_kv_heads
  layer = 2 * width * config.head_dim * heads + width * (
      (3 if config.gated_mlp else 2) * inner + 2)
  tables = config.vocab_size * width * (1 if config.tie_embeddings else 2)
  return tables + config.num_layers * layer + width
