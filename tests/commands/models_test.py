"""`alignjax inspect DIR`: what is said of models, and that no weight is read.
"""

import json
import os
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import hf
from alignjax.hf import config as hf_config
from alignjax.hf import layout
from alignjax.models import CausalLM
from alignjax.models import lora
from alignjax.models import ModelConfig
from tests.commands import tiny
from tests.families import FAMILIES
from tests.families import random_params


def make_folder(folder, name='llama', **settings):
  """A folder of a family, and its configuration and tree."""
  config = FAMILIES[name]
  params = random_params(jax.eval_shape(CausalLM(config).init,
                                        jax.random.key(0)))
  hf.save_model(folder, config, params, tokenizer=tiny.TOKENIZER, **settings)
  return config, params


def inspect(call, folder):
  """(facts, text) of a folder."""
  status, text, err = call('inspect', folder)
  assert (status, err) == (0, '')
  status, out, err = call('inspect', folder, '--json')
  assert (status, err) == (0, '')
  return json.loads(out), text


def test_counts_are_those_of_the_tree(call, tmp_path):
  config, params = make_folder(tmp_path, 'llama biased')
  facts, text = inspect(call, tmp_path)
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  weights = facts['weights']
  assert weights['parameters'] == count(params)
  assert weights['embedding_parameters'] == count(
      [params['embed'], params['unembed']])
  assert weights['layer_parameters'] == [count(params['layers_0'])]
  assert weights['dtypes'] == {'float32': count(params)}
  assert weights['bytes'] == os.path.getsize(tmp_path / 'model.safetensors')
  assert f'{count(params):,}, of these 456 embeddings' in text
  assert '3 of width 12, 6 heads of 4 sharing 2 keys and values' in text
  assert 'apart from the unembedding' in text
  assert facts['problems'] == [] and 'problem' not in text
  assert config.num_layers == facts['shape']['layers']


def test_folder_that_convert_wrote_has_the_same_counts(call, tmp_path):
  make_folder(tmp_path / 'a')
  assert call('convert', tmp_path / 'a', '--out', tmp_path / 'b')[0] == 0
  a, b = (inspect(call, tmp_path / name)[0] for name in 'ab')
  for field in ('parameters', 'layer_parameters', 'embedding_parameters',
                'dtypes', 'tensors'):
    assert a['weights'][field] == b['weights'][field]
  assert a['shape'] == b['shape'] and a['tokenizer'] == b['tokenizer']


def test_dtypes_are_told_apart(call, tmp_path):
  config, params = make_folder(tmp_path)
  params['embed'] = params['embed'].astype(jnp.bfloat16)
  hf.save_model(tmp_path, config, params, tokenizer=tiny.TOKENIZER)
  facts, text = inspect(call, tmp_path)
  assert facts['weights']['dtypes']['bfloat16'] == params['embed'].size
  assert 'float32 (' in text and 'bfloat16 (' in text


@pytest.mark.parametrize('name, words', [
    ('llama 3', ['llama3 (factor=8, low=1, high=4, original_length=32)']),
    ('qwen2 sliding', ['layers 1-2: the last 4 tokens', 'layers 0: all tokens',
                       'RoPE θ=1,000,000', 'attention biases (qkv)']),
    ('smollm3', ['layers 1: all tokens so far, no RoPE', 'layers 0, 2: all']),
    ('phi3', ['longrope (original_length=32', 'the last 9 tokens']),
    ('gpt2', ['no RoPE', 'layer norms', 'MLP biases']),
    ('olmo2', ['norms of queries and keys', 'rms norms post']),
])
def test_attention_is_said_in_words(name, words, call, tmp_path):
  make_folder(tmp_path, name)
  facts, text = inspect(call, tmp_path)
  for word in words:
    assert word in text
  assert facts['problems'] == []


def test_reward_model_is_called_one(call, tmp_path):
  _, params = make_folder(tmp_path, head=np.ones(12, np.float32))
  facts, text = inspect(call, tmp_path)
  assert facts['kind'] == 'reward model' and facts['problems'] == []
  assert 'LlamaForSequenceClassification' in text
  assert facts['weights']['parameters'] == 12 + sum(
      x.size for x in jax.tree.leaves(params))


def test_tokenizer_is_described_and_its_template_shown(call, tmp_path):
  make_folder(tmp_path, generation={'eos_token_id': [2, 5]})
  facts, text = inspect(call, tmp_path)
  tokenizer = facts['tokenizer']
  assert tokenizer['named'] == {
      'bos': {'id': 1, 'text': '<s>'}, 'eos': {'id': 2, 'text': '</s>'},
      'pad': {'id': 2, 'text': '</s>'}}
  assert tokenizer['vocab_size'] == 15 and not tokenizer['adds_bos']
  assert 'bos <s> (1), eos </s> (2), pad </s> (2)' in text
  assert '15 ids, 4 fewer than the model has' in text
  assert ('<s> <user> Hello <assistant> Hello! How can I help? </s> <user> '
          'Name a prime. <assistant>') in text
  assert facts['stops'] == [2, 5] and 'stops at        2, 5' in text


def test_template_cannot_steer_the_terminal(call, tmp_path):
  make_folder(tmp_path)
  path = tmp_path / 'tokenizer_config.json'
  fields = json.loads(path.read_text())
  path.write_text(json.dumps(fields | {'chat_template': '\x1b[2Jgone'}))
  _, text = inspect(call, tmp_path)
  assert '\x1b' not in text and '\\x1b[2Jgone' in text


def test_seventy_billion_are_counted_without_being_read(call, tmp_path):
  """As Llama 3 70B: the file has its size, and holes in place of numbers."""
  config = ModelConfig(
      vocab_size=128_256, hidden_size=8_192, intermediate_size=28_672,
      num_layers=80, num_heads=64, num_kv_heads=8, head_dim=128,
      max_positions=8_192, tie_embeddings=False)
  (tmp_path / 'config.json').write_text(
      json.dumps(hf_config.config_to_hf(config)))
  tiny.TOKENIZER.save(tmp_path)
  header, end = {}, 0
  for slot in layout.slots(config):
    start, end = end, end + 2 * int(np.prod(slot.file_shape))
    header[slot.name] = {'dtype': 'BF16', 'shape': slot.file_shape,
                         'data_offsets': [start, end]}
  text = json.dumps(header).encode()
  path = tmp_path / 'model.safetensors'
  path.write_bytes(len(text).to_bytes(8, 'little') + text)
  os.truncate(path, 8 + len(text) + end)
  call('inspect', tmp_path)  # Imports.
  tracemalloc.start()
  facts, said = inspect(call, tmp_path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert facts['weights']['parameters'] == 70_553_706_496
  assert facts['problems'] == [] and '141.1 GB' in said
  assert peak < 50e6


# --- What is wrong with a folder is said, and the rest too


def problem_of(call, folder):
  """The one problem of a folder, of which the rest is told."""
  facts, text = inspect(call, folder)
  (problem,) = facts['problems']
  assert facts['tokenizer']['vocab_size'] == 15 and problem in text
  return facts, problem


def test_weights_of_another_model_are_a_problem(call, tmp_path):
  make_folder(tmp_path)
  path = tmp_path / 'config.json'
  fields = json.loads(path.read_text())
  path.write_text(json.dumps(fields | {'num_hidden_layers': 4}))
  facts, problem = problem_of(call, tmp_path)
  assert 'model.layers.3' in problem and 'missing' in problem
  assert facts['weights']['tensors'] == 29


def test_quantized_folder_is_named_and_counted(call, tmp_path):
  make_folder(tmp_path)
  path = tmp_path / 'config.json'
  fields = json.loads(path.read_text())
  path.write_text(json.dumps(
      fields | {'quantization_config': {'quant_method': 'awq'}}))
  facts, problem = problem_of(call, tmp_path)
  assert facts['quantized'] == 'awq' and 'quantization_config' in problem
  assert facts['weights']['tensors'] == 29


def test_unknown_family_is_counted_all_the_same(call, tmp_path):
  make_folder(tmp_path)
  path = tmp_path / 'config.json'
  fields = json.loads(path.read_text())
  path.write_text(json.dumps(fields | {'model_type': 'mamba'}))
  facts, problem = problem_of(call, tmp_path)
  assert "model_type='mamba'" in problem and facts['family'] == 'mamba'
  assert facts['weights']['layer_parameters']


def test_tokenizer_larger_than_the_model_is_pointed_out(call, tmp_path):
  config = ModelConfig(
      vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1,
      num_heads=2, num_kv_heads=2, head_dim=4)
  hf.save_model(tmp_path, config, random_params(jax.eval_shape(
      CausalLM(config).init, jax.random.key(0))))
  tiny.TOKENIZER.save(tmp_path)
  _, text = inspect(call, tmp_path)
  assert "15 ids, which is more than the model's 8" in text


def test_folder_without_a_tokenizer_is_still_described(call, tmp_path):
  make_folder(tmp_path)
  (tmp_path / 'tokenizer.json').unlink()
  facts, text = inspect(call, tmp_path)
  assert 'tokenizer' not in facts and 'tokenizer.json is missing' in text
  assert facts['weights']['parameters']


# --- Adapters


def test_adapter_is_described_without_its_base(call, tmp_path):
  config = FAMILIES['llama']
  settings = lora.Lora(rank=2, alpha=6.0, targets=('query', 'down'))
  adapted = ModelConfig(**{**vars(config), 'lora': settings})
  _, adapters = lora.split(random_params(jax.eval_shape(
      CausalLM(adapted).init, jax.random.key(0))))
  hf.save_adapters(tmp_path, adapted, adapters, base='no/where')
  facts, text = inspect(call, tmp_path)
  assert (facts['rank'], facts['alpha']) == (2, 6.0)
  assert facts['weights']['parameters'] == sum(
      x.size for x in jax.tree.leaves(adapters))
  assert 'q_proj' in text and 'down_proj' in text
  assert "'no/where' is no folder here" in text
  fields = json.loads((tmp_path / 'adapter_config.json').read_text())
  (tmp_path / 'adapter_config.json').write_text(
      json.dumps(fields | {'use_dora': True}))
  assert 'use_dora=True is not supported' in inspect(call, tmp_path)[1]
