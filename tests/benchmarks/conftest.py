"""A random Llama folder with pairs in words that it knows."""

import jax
import pytest

from alignjax import hf
from alignjax import models
from alignjax import sources
from alignjax import testbed


@pytest.fixture(scope='session')
def tiny_folder(tmp_path_factory):
  """(folder of a model of one layer, file of 80 pairs)."""
  root = tmp_path_factory.mktemp('benchmarks')
  tokenizer = sources.testbed_tokenizer()
  config = models.ModelConfig(
      vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32,
      num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, max_positions=64)
  params = jax.jit(models.CausalLM(config).init)(jax.random.key(0))
  hf.save_model(root / 'llama', config, params, tokenizer=tokenizer)
  pairs = [{'prompt': prompt.text, 'chosen': text, 'rejected': f'{text} {text}'}
           for prompt, text in testbed.demonstrations(
               sources.WORLD, 0, count=80)]
  return str(root / 'llama'), sources.write_jsonl(root / 'pairs.jsonl', pairs)
