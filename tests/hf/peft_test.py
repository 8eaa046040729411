"""Adapters saved and read again, whole and broken."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from alignjax.hf import peft
from alignjax.models import CausalLM
from alignjax.models.lora import Lora
from alignjax.models.lora import split
from alignjax.types import InputError
from tests.families import FAMILIES
from tests.families import random_params

PLAIN = FAMILIES['llama']
CONFIG = dataclasses.replace(PLAIN, lora=Lora(3, 5.0, ('query', 'out', 'up')))


def adapters_of(config):
  return random_params(split(
      jax.eval_shape(CausalLM(config).init, jax.random.key(0)))[1])


@pytest.fixture
def folder(tmp_path):
  peft.save_adapters(tmp_path, CONFIG, adapters_of(CONFIG), base='org/base')
  return tmp_path


def read_error(folder, config=PLAIN):
  with pytest.raises(InputError) as raised:
    peft.load_adapters(folder, config)
  assert '\n' not in str(raised.value)
  return str(raised.value)


@pytest.mark.parametrize('stabilised', [False, True])
@pytest.mark.parametrize('scan_layers', [False, True])
def test_round_trip_is_bitwise(tmp_path, scan_layers, stabilised):
  config = dataclasses.replace(
      CONFIG, scan_layers=scan_layers,
      lora=dataclasses.replace(CONFIG.lora, rank_stabilised=stabilised))
  adapters = adapters_of(config)
  peft.save_adapters(tmp_path, config, adapters)
  plain = dataclasses.replace(config, lora=None)
  got_config, got, head = peft.load_adapters(tmp_path, plain)
  assert head is None and got_config == config
  chex.assert_trees_all_equal(got, adapters)


def test_head_of_a_reward_model_is_saved_whole(tmp_path):
  head = np.arange(12, dtype=np.float32)
  peft.save_adapters(tmp_path, CONFIG, adapters_of(CONFIG), head=head)
  np.testing.assert_array_equal(peft.load_adapters(tmp_path, PLAIN)[2], head)
  fields = json.loads((tmp_path / peft.CONFIG).read_text())
  assert fields['task_type'] == 'SEQ_CLS'
  assert fields['modules_to_save'] == ['score']


def test_what_peft_needs_to_know_is_written(folder):
  fields = json.loads((folder / peft.CONFIG).read_text())
  assert fields['base_model_name_or_path'] == 'org/base'
  assert (fields['r'], fields['lora_alpha']) == (3, 5.0)
  assert set(fields['target_modules']) == {'q_proj', 'o_proj', 'up_proj'}
  tensors = safetensors_numpy.load_file(folder / peft.WEIGHTS)
  name = 'base_model.model.model.layers.2.self_attn.o_proj.lora_'
  assert tensors[name + 'A.weight'].shape == (3, 24)
  assert tensors[name + 'B.weight'].shape == (12, 3)


@pytest.mark.parametrize('fields,line', [
    ({'peft_type': 'IA3'}, "peft_type='IA3' is not supported; it must be 'LOR"),
    ({'use_dora': True}, 'use_dora=True is not supported; it must be False'),
    ({'bias': 'all'}, "bias='all' is not supported; it must be 'none'"),
    ({'r': 0}, 'r=0 must be a positive whole number'),
])
def test_other_kinds_of_adapters_are_refused(folder, fields, line):
  path = folder / peft.CONFIG
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))
  assert line in read_error(folder)


def test_adapter_of_another_model_is_named_with_both_sizes(folder):
  wide = dataclasses.replace(PLAIN, intermediate_size=21)
  assert ('adapter of model.layers.0.mlp.up_proj.weight is [20, 3] by [3, 12] '
          'where the base has 21 outputs and 12 inputs') in read_error(
              folder, wide)


def test_tensors_that_are_no_adapter_are_named(folder):
  path = folder / peft.WEIGHTS
  tensors = safetensors_numpy.load_file(path)
  tensors['base_model.model.lm_head.lora_A.weight'] = np.zeros((3, 12), 'f4')
  safetensors_numpy.save_file(tensors, path)
  assert 'lm_head.lora_A.weight is no adapter of a llama layer' in read_error(
      folder)


def test_fewer_layers_than_adapters_are_refused(folder):
  short = dataclasses.replace(PLAIN, num_layers=2)
  assert 'layers.2.mlp.up_proj.lora_A.weight is no adapter' in read_error(
      folder, short)


def test_cut_and_missing_files_are_named(folder):
  path = folder / peft.WEIGHTS
  path.write_bytes(path.read_bytes()[:100])
  assert 'is cut or corrupt' in read_error(folder)
  path.unlink()
  assert f'{path} is missing (found adapter_config.json)' in read_error(folder)
