"""Folders of random weights, read and written again, whole and broken."""

import dataclasses
import json
import tracemalloc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from alignjax import sharding
from alignjax.hf import config as hf_config
from alignjax.hf import layout
from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.hf import weights
from alignjax.models import CausalLM
from alignjax.models import ModelConfig
from alignjax.models import ScalarModel
from alignjax.types import InputError
from tests.families import FAMILIES

# Every dimension differs, so that no transpose or reshape can hide.
CONFIG = ModelConfig(
    vocab_size=13, hidden_size=8, intermediate_size=10, num_layers=2,
    num_heads=6, num_kv_heads=2, head_dim=4, tie_embeddings=False)
TIED = dataclasses.replace(CONFIG, tie_embeddings=True)
WORDS = ('<unk>', '<s>', '</s>', '<pad>', 'a', 'b')


def random_tensors(config, *, is_reward_model=False, dtype='float32'):
  """Random tensors under the names and shapes of a file."""
  rng = np.random.default_rng(0)
  return {
      slot.name: rng.normal(size=slot.file_shape).astype(dtype)
      for slot in layout.slots(config, is_reward_model=is_reward_model)}


def make_folder(folder, tensors, config=CONFIG, *, is_reward_model=False):
  """A model folder with one safetensors file."""
  folder.mkdir(exist_ok=True)
  fields = hf_config.config_to_hf(config, is_reward_model=is_reward_model)
  (folder / 'config.json').write_text(json.dumps(fields))
  safetensors_numpy.save_file(tensors, folder / 'model.safetensors')
  return folder


def make_tokenizer(pad_token='<pad>'):
  """A word-level tokenizer of WORDS."""
  special = [
      {'id': i, 'content': word, 'special': True, 'single_word': False,
       'lstrip': False, 'rstrip': False, 'normalized': False}
      for i, word in enumerate(WORDS[:4])]
  return hf_tokenizer.Tokenizer.from_json(
      json.dumps({
          'version': '1.0', 'added_tokens': special,
          'pre_tokenizer': {'type': 'WhitespaceSplit'},
          'model': {'type': 'WordLevel', 'unk_token': '<unk>',
                    'vocab': {word: i for i, word in enumerate(WORDS)}}}),
      bos_token='<s>', eos_token='</s>', pad_token=pad_token)


def tensors_of(folder):
  """Every tensor of a folder, whatever file it is in."""
  found = {}
  for path in folder.glob('*.safetensors'):
    found |= safetensors_numpy.load_file(path)
  return found


def bits(tree):
  """Leaves as dtype and bytes, so that equality is bitwise."""
  return jax.tree.map(lambda x: (str(x.dtype), np.asarray(x).tobytes()), tree)


def read_error(folder, load=weights.load_model):
  """The one line of the InputError that reading the folder raises."""
  with pytest.raises(InputError) as raised:
    load(folder)
  assert '\n' not in str(raised.value)
  assert str(folder) in str(raised.value)
  return str(raised.value)


def save_error(folder, *args, **kwargs):
  """The one line of the InputError that saving raises."""
  with pytest.raises(InputError) as raised:
    weights.save_model(folder, *args, **kwargs)
  assert not folder.exists(), 'nothing may be written before the checks'
  return str(raised.value)


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_round_trip_is_bitwise(tmp_path, dtype, tied, scan_layers):
  config = TIED if tied else CONFIG
  tensors = random_tensors(config, dtype=dtype)
  folder = make_folder(tmp_path / 'in', tensors, config)
  loaded, params = weights.load_model(
      folder, param_dtype=dtype, scan_layers=scan_layers)
  weights.save_model(tmp_path / 'out', loaded, params)
  assert bits(tensors_of(tmp_path / 'out')) == bits(tensors)


@pytest.mark.parametrize('is_reward_model', [False, True])
@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('name', FAMILIES)
def test_round_trip_of_every_family_is_bitwise(
    tmp_path, name, scan_layers, is_reward_model):
  config = FAMILIES[name]
  tensors = random_tensors(config, is_reward_model=is_reward_model)
  make_folder(tmp_path / 'in', tensors, config, is_reward_model=is_reward_model)
  if is_reward_model:
    got, params = weights.load_reward_model(
        tmp_path / 'in', scan_layers=scan_layers)
    weights.save_model(
        tmp_path / 'out', got, params['backbone'], head=params['head'],
        generation={'pad_token_id': 3})
  else:
    got, params = weights.load_model(tmp_path / 'in', scan_layers=scan_layers)
    weights.save_model(tmp_path / 'out', got, params)
  written = safetensors_numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  chex.assert_trees_all_equal(written, tensors)


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('spec', ['fsdp:8', 'data:2,fsdp:2,tensor:2'])
def test_mesh_gets_the_same_parameters_sharded(tmp_path, spec, scan_layers):
  make_folder(tmp_path, random_tensors(CONFIG))
  _, due = weights.load_model(tmp_path, scan_layers=scan_layers)
  mesh = sharding.make_mesh(spec)
  config, got = weights.load_model(
      tmp_path, scan_layers=scan_layers, mesh=mesh)
  chex.assert_trees_all_equal(got, due)
  shardings = sharding.tree_shardings(mesh, CausalLM(config).axes(), due)
  jax.tree.map(lambda x, s: np.testing.assert_equal(x.sharding, s), got,
               shardings)
  assert got['embed'].addressable_shards[0].data.size < got['embed'].size


@pytest.mark.parametrize('scan_layers', [False, True])
def test_a_cpu_device_takes_what_was_read_without_a_copy(
    tmp_path, scan_layers):
  make_folder(tmp_path, random_tensors(CONFIG))
  _, params = weights.load_model(tmp_path, scan_layers=scan_layers)
  for leaf in jax.tree.leaves(params):
    there = jax.device_put(leaf, jax.devices()[0])
    assert there.unsafe_buffer_pointer() == leaf.ctypes.data


@pytest.mark.parametrize('scan_layers', [False, True])
def test_loading_onto_a_mesh_holds_no_second_copy_on_the_host(
    tmp_path, scan_layers):
  config = dataclasses.replace(
      CONFIG, hidden_size=256, num_layers=12, intermediate_size=512)
  tensors = random_tensors(config)
  make_folder(tmp_path, tensors, config)
  whole = sum(x.nbytes for x in tensors.values())
  largest = max(x.nbytes for x in tensors.values())
  leaf = largest * (12 if scan_layers else 1)
  del tensors
  mesh = sharding.make_mesh('fsdp:8')
  tracemalloc.start()
  _, params = weights.load_model(
      tmp_path, scan_layers=scan_layers, mesh=mesh)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  owned = sum(  # On CPUs a device may keep the host's own buffer.
      shard.data.nbytes for x in jax.tree.leaves(params)
      for shard in x.addressable_shards)
  assert owned >= whole
  assert peak <= owned + leaf + 2 * largest + 2_000_000


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_narrow_weights_pass_through_float32_unchanged(tmp_path, dtype):
  tensors = random_tensors(CONFIG, dtype=dtype)
  config, params = weights.load_model(make_folder(tmp_path / 'in', tensors))
  assert params['embed'].dtype == np.float32
  weights.save_model(tmp_path / 'out', config, params, dtype=dtype)
  assert bits(tensors_of(tmp_path / 'out')) == bits(tensors)
  fields = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert fields['torch_dtype'] == dtype


def test_projections_compute_what_a_torch_linear_computes(tmp_path):
  tensors = random_tensors(CONFIG)
  _, params = weights.load_model(make_folder(tmp_path, tensors))
  layer, name = params['layers_1'], 'model.layers.1.self_attn.'
  x = np.random.default_rng(1).normal(size=8)
  query = np.einsum('d,dhk->hk', x, layer['query'])
  np.testing.assert_allclose(
      query.ravel(), tensors[f'{name}q_proj.weight'] @ x, rtol=1e-5)
  out = np.einsum('hk,hkd->d', query, layer['out'])
  np.testing.assert_allclose(
      out, tensors[f'{name}o_proj.weight'] @ query.ravel(), rtol=1e-5)
  np.testing.assert_allclose(
      x @ layer['gate'],
      tensors['model.layers.1.mlp.gate_proj.weight'] @ x, rtol=1e-5)


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('tied', [False, True])
def test_tree_is_the_one_that_the_model_initialises(
    tmp_path, tied, scan_layers):
  config = TIED if tied else CONFIG
  folder = make_folder(tmp_path, random_tensors(config), config)
  loaded, params = weights.load_model(
      folder, dtype='bfloat16', scan_layers=scan_layers, remat=True)
  assert loaded == dataclasses.replace(
      config, dtype='bfloat16', scan_layers=scan_layers, remat=True)
  due = jax.eval_shape(CausalLM(loaded).init, jax.random.key(0))
  chex.assert_trees_all_equal_shapes_and_dtypes(params, due)


@pytest.mark.parametrize('tied', [False, True])
def test_reward_model_round_trip_is_bitwise(tmp_path, tied):
  config = TIED if tied else CONFIG
  tensors = random_tensors(config, is_reward_model=True)
  folder = make_folder(
      tmp_path / 'in', tensors, config, is_reward_model=True)
  loaded, params = weights.load_reward_model(folder)
  assert loaded == TIED, 'no unembedding, so tied'
  due = jax.eval_shape(ScalarModel(loaded).init, jax.random.key(0))
  chex.assert_trees_all_equal_shapes_and_dtypes(params, due)
  weights.save_model(
      tmp_path / 'out', loaded, params['backbone'], head=params['head'],
      generation={'pad_token_id': 3})
  assert bits(tensors_of(tmp_path / 'out')) == bits(tensors)


def test_reward_model_on_an_untied_policy_drops_the_unembedding(tmp_path):
  _, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  weights.save_model(tmp_path / 'out', CONFIG, params, head=np.ones(8),
                     dtype='float32', tokenizer=make_tokenizer())
  assert 'lm_head.weight' not in tensors_of(tmp_path / 'out')
  assert not (tmp_path / 'out' / 'generation_config.json').exists()


def test_reward_model_is_saved_with_padding_unlike_eos(tmp_path):
  _, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  weights.save_model(tmp_path / 'out', CONFIG, params,
                     head=np.ones(8, np.float32),
                     tokenizer=make_tokenizer(pad_token='</s>'))
  fields = json.loads((tmp_path / 'out' / 'config.json').read_text())
  reloaded = hf_tokenizer.load_tokenizer(tmp_path / 'out')
  assert fields['eos_token_id'] == reloaded.eos_id == 2
  assert fields['pad_token_id'] == reloaded.pad_id == 0


def test_shards_hold_the_same_bits_as_one_file(tmp_path):
  tensors = random_tensors(CONFIG)
  config, params = weights.load_model(make_folder(tmp_path / 'in', tensors))
  weights.save_model(tmp_path / 'out', config, params, max_shard_bytes=1_000)
  shards = sorted(p.name for p in (tmp_path / 'out').glob('*.safetensors'))
  assert len(shards) > 2 and shards[0].startswith('model-00001-of-')
  sizes = [sum(t.nbytes for t in safetensors_numpy.load_file(
      tmp_path / 'out' / name).values()) for name in shards]
  assert max(sizes) <= 1_000
  index = json.loads(
      (tmp_path / 'out' / 'model.safetensors.index.json').read_text())
  assert index['metadata']['total_size'] == sum(sizes)
  assert bits(weights.load_model(tmp_path / 'out')[1]) == bits(params)


def test_saving_again_leaves_nothing_of_the_save_before(tmp_path):
  config, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  out = tmp_path / 'out'
  weights.save_model(out, config, params, max_shard_bytes=1_000,
                     tokenizer=make_tokenizer())
  (out / 'chat_template.jinja').write_text('of another tokenizer')
  changed = jax.tree.map(lambda x: x + 1, params)
  weights.save_model(out, config, changed, tokenizer=make_tokenizer())
  assert {p.name for p in out.iterdir()} == {
      'config.json', 'generation_config.json', 'model.safetensors',
      'tokenizer.json', 'tokenizer_config.json'}
  assert bits(weights.load_model(out)[1]) == bits(changed)


def test_save_that_fails_midway_leaves_the_old_model_whole(tmp_path):
  config, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  out = tmp_path / 'out'
  weights.save_model(out, config, params)
  before = {p.name: p.read_bytes() for p in out.iterdir()}
  lost = jnp.ones((8,))
  lost.delete()  # What a donated parameter is.
  with pytest.raises(RuntimeError):
    weights.save_model(out, config, params | {'final_norm': lost},
                       max_shard_bytes=1_000)
  assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_jax_leaves_save_as_numpy_leaves_do(tmp_path):
  tensors = random_tensors(CONFIG)
  config, params = weights.load_model(
      make_folder(tmp_path / 'in', tensors), scan_layers=True)
  weights.save_model(tmp_path / 'out', config, jax.tree.map(jnp.array, params))
  assert bits(tensors_of(tmp_path / 'out')) == bits(tensors)


def test_generation_settings_add_to_the_tokenizers_ids(tmp_path):
  _, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  weights.save_model(
      tmp_path / 'out', CONFIG, params, tokenizer=make_tokenizer(),
      generation={'temperature': 0.7, 'eos_token_id': [2, 3]})
  read = lambda name: json.loads((tmp_path / 'out' / name).read_text())
  assert read('generation_config.json') == {
      'bos_token_id': 1, 'eos_token_id': [2, 3], 'pad_token_id': 3,
      'temperature': 0.7}
  assert read('config.json')['eos_token_id'] == [2, 3]


def test_stacking_keeps_the_order_of_more_than_ten_layers():
  params = {f'layers_{i}': {'gate': np.full((2,), i)} for i in range(12)}
  stacked = weights.stack_layers(params | {'embed': np.ones(3)})
  np.testing.assert_array_equal(
      stacked['layers']['gate'][:, 0], np.arange(12))
  chex.assert_trees_all_equal(
      weights.unstack_layers(stacked), params | {'embed': np.ones(3)})


def test_stacked_and_unrolled_loads_are_the_same_parameters(tmp_path):
  folder = make_folder(tmp_path, random_tensors(CONFIG))
  _, unrolled = weights.load_model(folder)
  _, stacked = weights.load_model(folder, scan_layers=True)
  chex.assert_trees_all_equal(weights.stack_layers(unrolled), stacked)
  chex.assert_trees_all_equal(weights.unstack_layers(stacked), unrolled)


def test_redundant_tensors_of_older_files_are_passed_over(tmp_path):
  tensors = random_tensors(TIED)
  tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(3)
  tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']
  _, params = weights.load_model(make_folder(tmp_path, tensors, TIED))
  assert 'unembed' not in params


def test_untied_unembedding_of_a_tied_model_is_refused(tmp_path):
  tensors = random_tensors(CONFIG)
  assert ('lm_head.weight differs from the embedding although config.json says '
          'tie_word_embeddings=true; set it to false') in read_error(
              make_folder(tmp_path, tensors, TIED))


def test_missing_tensor_is_named(tmp_path):
  tensors = random_tensors(CONFIG)
  del tensors['model.layers.1.mlp.up_proj.weight']
  assert 'tensor model.layers.1.mlp.up_proj.weight is missing' in read_error(
      make_folder(tmp_path, tensors))


def test_unknown_tensors_are_named_and_counted(tmp_path):
  tensors = random_tensors(CONFIG)
  for name in ('q', 'k'):
    tensors[f'model.layers.0.self_attn.{name}_proj.bias'] = np.ones(2)
  assert ('tensor model.layers.0.self_attn.k_proj.bias and 1 more is unknown; '
          'config.json describes another model') in read_error(
              make_folder(tmp_path, tensors))


def test_misshapen_tensor_is_named_with_both_shapes(tmp_path):
  tensors = random_tensors(CONFIG)
  name = 'model.layers.0.self_attn.q_proj.weight'
  tensors[name] = np.ones((8, 24), np.float32)
  assert (f'{name} has shape [8, 24] where config.json implies [24, 8]'
          ) in read_error(make_folder(tmp_path, tensors))


def test_integer_weights_are_refused_by_dtype(tmp_path):
  tensors = random_tensors(CONFIG)
  tensors['model.norm.weight'] = np.ones(8, np.int8)
  assert ('model.norm.weight has dtype I8; save the model in one of F32, BF16, '
          'F16') in read_error(make_folder(tmp_path, tensors))


def test_each_kind_of_model_sends_to_the_function_that_reads_it(tmp_path):
  policy = make_folder(tmp_path / 'policy', random_tensors(CONFIG))
  reward = make_folder(
      tmp_path / 'reward', random_tensors(CONFIG, is_reward_model=True),
      is_reward_model=True)
  assert 'score.weight is missing: this is no reward model; use load_model' in (
      read_error(policy, weights.load_reward_model))
  assert 'this is a reward model; use load_reward_model' in read_error(reward)


def test_folder_without_safetensors_says_what_to_do(tmp_path):
  folder = make_folder(tmp_path, random_tensors(CONFIG))
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  line = read_error(folder)
  assert 'neither model.safetensors nor model.safetensors.index.json' in line
  assert '(found config.json, pytorch_model.bin)' in line
  assert 'save_pretrained(safe_serialization=True)' in line


def test_missing_folder_is_said_to_be_missing(tmp_path):
  assert 'is not a folder; give a local Hugging Face model folder' in (
      read_error(tmp_path / 'nowhere'))


@pytest.mark.parametrize('kept', [0, 4, 100, -1])
def test_cut_file_is_named_with_its_size(tmp_path, kept):
  path = make_folder(tmp_path, random_tensors(CONFIG)) / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:kept])
  line = read_error(tmp_path)
  assert f'{path} of {path.stat().st_size} bytes is cut or corrupt' in line
  assert line.endswith('copy it again')


def test_missing_shard_is_named(tmp_path):
  config, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  out = tmp_path / 'out'
  weights.save_model(out, config, params, max_shard_bytes=2_000)
  shard = sorted(out.glob('*.safetensors'))[1]
  shard.unlink()
  assert f'{shard} is missing' in read_error(out)


def test_index_that_points_at_the_wrong_shard_is_refused(tmp_path):
  config, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  out = tmp_path / 'out'
  weights.save_model(out, config, params, max_shard_bytes=2_000)
  path = out / 'model.safetensors.index.json'
  index = json.loads(path.read_text())
  first = index['weight_map']['model.embed_tokens.weight']
  last = 'model.layers.1.mlp.down_proj.weight'
  index['weight_map'][last] = first
  path.write_text(json.dumps(index))
  assert f'{first} does not hold {last!r}, which' in read_error(out)
  path.write_text('{}')
  assert 'has no weight_map object' in read_error(out)


@pytest.mark.parametrize('argument', ['dtype', 'param_dtype'])
def test_unknown_dtype_is_named_with_the_known_ones(tmp_path, argument):
  with pytest.raises(InputError) as raised:
    weights.load_model(tmp_path, **{argument: 'int8'})
  assert str(raised.value) == (
      f"{argument}='int8' is not supported; use one of float32, bfloat16, "
      'float16')


def test_unsavable_arguments_are_named_before_anything_is_written(tmp_path):
  _, params = weights.load_model(
      make_folder(tmp_path / 'in', random_tensors(CONFIG)))
  out = tmp_path / 'out'
  assert 'params has unembed, which its configuration does not' in save_error(
      out, TIED, params)
  assert 'stack_layers and unstack_layers convert' in save_error(
      out, dataclasses.replace(CONFIG, scan_layers=True), params)
  assert 'params[embed] has shape (13, 8), its configuration says (14, 8)' in (
      save_error(out, dataclasses.replace(CONFIG, vocab_size=14), params))
  norm = {'final_norm': np.ones(8, np.int32)}
  assert "params[final_norm].dtype='int32' is not supported" in save_error(
      out, CONFIG, params | norm)
  assert 'params[head] has shape (1, 8), its configuration says (8,)' in (
      save_error(out, CONFIG, params, head=np.ones((1, 8), np.float32)))
  assert 'a reward model needs a pad_token_id' in save_error(
      out, CONFIG, params, head=np.ones(8, np.float32))
  small = dataclasses.replace(CONFIG, vocab_size=5)
  cut = params | {name: params[name][:5] for name in ('embed', 'unembed')}
  assert 'tokenizer has 6 ids, the model vocab_size=5' in save_error(
      out, small, cut, tokenizer=make_tokenizer())
