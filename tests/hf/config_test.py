"""What read_config takes from a config.json, and what it refuses."""

import dataclasses
import json

import pytest

from alignjax.hf import config as hf_config
from alignjax.models.config import Attention
from alignjax.models.config import ModelConfig
from alignjax.models.rope import Linear
from alignjax.models.rope import Llama3
from alignjax.models.rope import Rope
from alignjax.types import InputError
from tests.families import FAMILIES

MINIMAL = {
    'model_type': 'llama', 'vocab_size': 32, 'hidden_size': 8,
    'intermediate_size': 12, 'num_hidden_layers': 2, 'num_attention_heads': 4,
}
CONFIG = ModelConfig(
    vocab_size=32, hidden_size=8, intermediate_size=12, num_layers=2,
    num_heads=4, num_kv_heads=2, head_dim=6, norm_eps=1e-6,
    attention=(Attention(Rope(5e5)),), tie_embeddings=False, max_positions=64)


def read(tmp_path, **fields):
  """read_config of a folder whose config.json is MINIMAL and `fields`."""
  (tmp_path / 'config.json').write_text(json.dumps(MINIMAL | fields))
  return hf_config.read_config(tmp_path)


def test_fields_left_out_take_the_defaults_of_transformers(tmp_path):
  assert read(tmp_path) == ModelConfig(
      vocab_size=32, hidden_size=8, intermediate_size=12, num_layers=2,
      num_heads=4, num_kv_heads=4, head_dim=2,
      norm_eps=1e-6, tie_embeddings=False, max_positions=2_048)


@pytest.mark.parametrize('is_reward_model', [False, True])
@pytest.mark.parametrize('tied', [False, True])
def test_written_configuration_reads_back_equal(
    tmp_path, tied, is_reward_model):
  config = dataclasses.replace(CONFIG, tie_embeddings=tied)
  fields = hf_config.config_to_hf(config, is_reward_model=is_reward_model)
  assert read(tmp_path, **fields) == config


@pytest.mark.parametrize('is_reward_model', [False, True])
@pytest.mark.parametrize('name', FAMILIES)
def test_written_configuration_of_every_family_reads_back_equal(
    tmp_path, name, is_reward_model):
  config = FAMILIES[name]
  fields = hf_config.config_to_hf(config, is_reward_model=is_reward_model)
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  assert hf_config.read_config(tmp_path) == config


@pytest.mark.parametrize('fields', [
    {'rope_theta': 7e4},
    {'rope_theta': 7e4, 'rope_scaling': None},
    {'rope_theta': 7e4, 'rope_scaling': {'type': 'default'}},
    {'rope_parameters': {'rope_theta': 7e4, 'rope_type': 'default'}},
    {'rope_parameters': {'rope_theta': 7e4}, 'rope_theta': 1e4},
])
def test_rope_theta_is_found_where_each_version_writes_it(tmp_path, fields):
  assert read(tmp_path, **fields).attention == (Attention(Rope(7e4)),)


@pytest.mark.parametrize('fields,scaling', [
    ({'rope_scaling': {'type': 'linear', 'factor': 2}}, Linear(2.0)),
    ({'rope_parameters': {'rope_type': 'linear', 'factor': 2}}, Linear(2.0)),
    ({'rope_scaling': {
        'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0,
        'high_freq_factor': 4.0, 'original_max_position_embeddings': 16}},
     Llama3(8.0, 1.0, 4.0, 16)),
])
def test_scaling_is_found_where_each_version_writes_it(
    tmp_path, fields, scaling):
  assert read(tmp_path, **fields).attention == (
      Attention(Rope(scaling=scaling)),)


@pytest.mark.parametrize('model_type,fields,which', [
    ('gemma2', {}, [1, 0, 1, 0]),
    ('gemma3_text', {'sliding_window_pattern': 2}, [1, 0, 1, 0]),
    ('gemma3_text', {'sliding_window_pattern': 3}, [1, 1, 0, 1]),
    ('gemma3_text', {}, [1, 1, 1, 1]),  # Every sixth of 62 does not slide.
    ('gemma3_text', {'layer_types': ['full_attention'] * 3 + [
        'sliding_attention']}, [0, 0, 0, 1]),
    ('qwen2', {'use_sliding_window': True, 'max_window_layers': 3},
     [0, 0, 0, 1]),
    ('qwen2', {}, [0, 0, 0, 0]),
    ('mistral', {}, [1, 1, 1, 1]),
    ('mistral', {'sliding_window': None}, [0, 0, 0, 0]),
])
def test_windows_fall_on_the_layers_that_each_family_says(
    tmp_path, model_type, fields, which):
  config = read(tmp_path, model_type=model_type, num_hidden_layers=4,
                num_key_value_heads=4, **fields)
  kinds = [config.attention[config.attention_of(i)] for i in range(4)]
  assert [kind.window for kind in kinds] == [
      4_096 if slides else None for slides in which]


def test_first_gemma_files_say_gelu_and_mean_its_tanh_form(tmp_path):
  config = read(tmp_path, model_type='gemma', hidden_act='gelu',
                num_key_value_heads=1)
  assert config.activation == 'gelu_tanh' and config.head_dim == 256


def test_reward_model_says_so_to_transformers():
  fields = hf_config.config_to_hf(CONFIG, is_reward_model=True, pad_id=3)
  assert fields['architectures'] == ['LlamaForSequenceClassification']
  assert fields['id2label'] == {'0': 'LABEL_0'}
  assert fields['pad_token_id'] == 3


@pytest.mark.parametrize('fields,line', [
    ({'model_type': 'mamba'},
     ("config.json: model_type='mamba' is not supported; use a model of one of "
      'the types llama, mistral, qwen2, ')),
    ({'model_type': None}, 'model_type=None is not supported'),
    ({'model_type': 'gemma3', 'text_config': {'model_type': 'gemma3_text'}},
     ("model_type='gemma3' is not supported; it also sees images, and its text "
      'part (gemma3_text) would be saved without the rest')),
    ({'architectures': ['LlamaForTokenClassification']},
     ("architectures=['LlamaForTokenClassification'] is not supported; use "
      'a list of LlamaForCausalLM or LlamaForSequenceClassification')),
    ({'hidden_act': 'relu'}, ("hidden_act='relu' is not supported; a llama "
      "model has 'silu'")),
    ({'attention_bias': 'yes'}, "attention_bias='yes' must be true or false"),
    ({'model_type': 'gpt2', 'n_embd': 8, 'n_layer': 1, 'n_head': 2,
      'scale_attn_by_inverse_layer_idx': True},
     'scale_attn_by_inverse_layer_idx=True is not supported; it must be False'),
    ({'model_type': 'qwen2', 'use_sliding_window': True, 'layer_types': ['x'],
      'num_key_value_heads': 4},
     "layer_types=['x'] must hold 2 of 'full_attention', 'sliding_attention'"),
    ({'quantization_config': {'bits': 4}}, ('quantization_config is set; use '
      'the float32, bfloat16 or float16 weights')),
    ({'rope_scaling': {'type': 'dynamic', 'factor': 2}},
     ("rope_scaling.type='dynamic' is not supported; use one of default, "
      'linear, llama3, yarn, longrope')),
    ({'rope_scaling': {'rope_type': 'linear'}},
     'rope_scaling.factor=None must be a positive number'),
    ({'rope_scaling': {'rope_type': 'longrope', 'short_factor': [1.0],
                       'long_factor': [1.0, 2.0]}},
     'rope_scaling.long_factor=[1.0, 2.0] must be a list of 1 positive'),
    ({'rope_parameters': {'partial_rotary_factor': 1.5}},
     'rope_parameters.partial_rotary_factor=1.5 of head_dim=2 leaves 3'),
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
     'config.json lacks vocab_size, hidden_size; a llama configuration needs'),
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
