"""What read_config takes from a config.json, and what it refuses."""

import dataclasses
import json

import pytest

from alignjax.hf import config as hf_config
from alignjax.models.config import ModelConfig
from alignjax.types import InputError

MINIMAL = {
    'model_type': 'llama', 'vocab_size': 32, 'hidden_size': 8,
    'intermediate_size': 12, 'num_hidden_layers': 2, 'num_attention_heads': 4,
}
CONFIG = ModelConfig(
    vocab_size=32, hidden_size=8, intermediate_size=12, num_layers=2,
    num_heads=4, num_kv_heads=2, head_dim=6, rope_theta=5e5, norm_eps=1e-6,
    tie_embeddings=False, max_positions=64)


def read(tmp_path, **fields):
  """read_config of a folder whose config.json is MINIMAL and `fields`."""
  (tmp_path / 'config.json').write_text(json.dumps(MINIMAL | fields))
  return hf_config.read_config(tmp_path)


def test_fields_left_out_take_the_defaults_of_transformers(tmp_path):
  assert read(tmp_path) == ModelConfig(
      vocab_size=32, hidden_size=8, intermediate_size=12, num_layers=2,
      num_heads=4, num_kv_heads=4, head_dim=2, rope_theta=10_000.0,
      norm_eps=1e-6, tie_embeddings=False, max_positions=2_048)


@pytest.mark.parametrize('is_reward_model', [False, True])
@pytest.mark.parametrize('tied', [False, True])
def test_written_configuration_reads_back_equal(
    tmp_path, tied, is_reward_model):
  config = dataclasses.replace(CONFIG, tie_embeddings=tied)
  fields = hf_config.config_to_hf(config, is_reward_model=is_reward_model)
  assert read(tmp_path, **fields) == config


@pytest.mark.parametrize('fields', [
    {'rope_theta': 7e4},
    {'rope_theta': 7e4, 'rope_scaling': None},
    {'rope_theta': 7e4, 'rope_scaling': {'type': 'default'}},
    {'rope_parameters': {'rope_theta': 7e4, 'rope_type': 'default'}},
    {'rope_parameters': {'rope_theta': 7e4}, 'rope_theta': 1e4},
])
def test_rope_theta_is_found_where_each_version_writes_it(tmp_path, fields):
  assert read(tmp_path, **fields).rope_theta == 7e4


def test_reward_model_says_so_to_transformers():
  fields = hf_config.config_to_hf(CONFIG, is_reward_model=True, pad_id=3)
  assert fields['architectures'] == ['LlamaForSequenceClassification']
  assert fields['id2label'] == {'0': 'LABEL_0'}
  assert fields['pad_token_id'] == 3


@pytest.mark.parametrize('fields,line', [
    ({'model_type': 'qwen2'},
     ("config.json: model_type='qwen2' is not supported; use a model of "
      "model_type 'llama'")),
    ({'model_type': None}, 'model_type=None is not supported'),
    ({'architectures': ['LlamaForTokenClassification']},
     ("architectures='LlamaForTokenClassification' is not supported; use "
      'LlamaForCausalLM or LlamaForSequenceClassification')),
    ({'hidden_act': 'gelu'}, ("hidden_act='gelu' is not supported; the MLP is "
      "SwiGLU, so it must be 'silu'")),
    ({'attention_bias': True}, ('attention_bias=True is not supported; '
      'projections have no bias, so it must be false')),
    ({'mlp_bias': True}, 'mlp_bias=True is not supported'),
    ({'quantization_config': {'bits': 4}}, ('quantization_config is set; use '
      'the float32, bfloat16 or float16 weights')),
    ({'rope_scaling': {'type': 'linear', 'factor': 2}},
     ("rope_scaling={'type': 'linear', 'factor': 2} is not supported; RoPE "
      'must be unscaled')),
    ({'rope_parameters': {'rope_type': 'llama3', 'rope_theta': 5e5}},
     "rope_parameters={'rope_type': 'llama3', 'rope_theta': 500000.0} is not"),
    ({'rope_parameters': {'partial_rotary_factor': 0.5}}, 'is not supported'),
    ({'rope_scaling': 'linear'}, "rope_scaling='linear' must be an object"),
    ({'rope_theta': -1}, 'rope_theta=-1 must be a positive number; correct'),
    ({'rms_norm_eps': '1e-5'}, "rms_norm_eps='1e-5' must be a positive number"),
    ({'vocab_size': 0}, 'vocab_size=0 must be a positive whole number'),
    ({'hidden_size': 8.5}, 'hidden_size=8.5 must be a positive whole number'),
    ({'num_hidden_layers': True}, 'num_hidden_layers=True must be a positive'),
    ({'num_key_value_heads': 3}, ('num_key_value_heads=3 does not divide '
      'num_attention_heads=4; correct one of them')),
    ({'hidden_size': 9}, ('hidden_size=9 is no multiple of '
      'num_attention_heads=4; add head_dim')),
    ({'head_dim': 3}, ('head_dim=3 is odd; RoPE turns pairs of dimensions, so '
      'it must be even')),
    ({'hidden_size': None, 'vocab_size': None},
     'config.json lacks vocab_size, hidden_size; a Llama configuration needs'),
])
def test_unusable_field_is_named_with_its_value_and_the_repair(
    tmp_path, fields, line):
  with pytest.raises(InputError) as raised:
    read(tmp_path, **fields)
  assert line in str(raised.value)
  assert str(tmp_path / 'config.json') in str(raised.value)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('content,line', [
    (b'{"a": 1,\n]', 'config.json:2:1 is not JSON'),
    (b'[1]', 'config.json holds a JSON list; it must be an object'),
    (b'\xff{}', 'config.json is not UTF-8 text (invalid start byte at byte 0)'),
])
def test_broken_file_is_named_with_the_place(tmp_path, content, line):
  (tmp_path / 'config.json').write_bytes(content)
  with pytest.raises(InputError) as raised:
    hf_config.read_config(tmp_path)
  assert line in str(raised.value)


def test_missing_file_says_what_is_there_instead(tmp_path):
  (tmp_path / 'params.json').touch()
  with pytest.raises(InputError) as raised:
    hf_config.read_config(tmp_path)
  assert 'config.json is missing (found params.json); copy it' in str(
      raised.value)


def test_missing_folder_is_not_taken_for_a_model_name(tmp_path):
  with pytest.raises(InputError) as raised:
    hf_config.read_config(tmp_path / 'org' / 'model')
  assert f'{tmp_path}/org/model is not a folder; give a local' in str(
      raised.value)
  assert 'nothing is downloaded' in str(raised.value)
