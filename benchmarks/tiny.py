"""A tiny Llama with random weights, and a tokenizer of some file's words.

  python -m benchmarks.tiny --model DIR --data FILE

4 layers of 256, 4 heads of 64, F = 1024, 4,096 tokens: 5 M parameters, of which
a step takes a fraction of a second. For comparing speeds, of which what the
weights are tells nothing.
"""

import dataclasses
import pathlib

import jax
import tokenizers

from alignjax import cli
from alignjax import data
from alignjax import hf
from alignjax import models
from alignjax.models.config import Attention
from alignjax.models.rope import Rope


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """What to make it of."""

  model: str  # The folder that is made.
  data: str  # Preference pairs, whose texts the tokenizer is made from.
  vocab_size: int = 4_096


def main(cfg: Config) -> None:
  """Makes it; see `Config`."""
  records, _ = data.preferences(cfg.data)
  spoken = tokenizers.Tokenizer(tokenizers.models.BPE())
  spoken.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False)
  spoken.decoder = tokenizers.decoders.ByteLevel()
  spoken.train_from_iterator(
      (text for r in records for text in (r.chosen, r.rejected)),
      tokenizers.trainers.BpeTrainer(
          vocab_size=cfg.vocab_size, special_tokens=['<eos>', '<pad>'],
          initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
          show_progress=False))
  tokenizer = hf.Tokenizer.from_json(
      spoken.to_str(), bos_token=None, eos_token='<eos>', pad_token='<pad>')
  config = models.ModelConfig(
      vocab_size=tokenizer.vocab_size, hidden_size=256, intermediate_size=1_024,
      num_layers=4, num_heads=4, num_kv_heads=4, head_dim=64,
      # Tunix 0.1.7 turns all of its Llamas by this, whatever they say.
      attention=(Attention(Rope(theta=1e6)),))
  params = jax.jit(models.CausalLM(config).init)(jax.random.key(0))
  hf.save_model(pathlib.Path(cfg.model), config, params, tokenizer=tokenizer)


if __name__ == '__main__':
  cli.run(main, Config)
