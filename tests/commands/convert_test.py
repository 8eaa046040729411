"""`alignjax convert`: the same bits on the other side, or nothing at all."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from alignjax import checkpoints
from alignjax import hf
from alignjax.models import CausalLM
from alignjax.models import lora
from tests.commands import tiny
from tests.families import FAMILIES
from tests.families import random_params


def shapes_of(config):
  """The tree of shapes of a configuration."""
  return jax.eval_shape(CausalLM(config).init, jax.random.key(0))


def make_folder(folder, name='llama', *, head=False):
  """A folder of a family: norms in float32, the rest in bfloat16."""
  config = FAMILIES[name]
  params = random_params(shapes_of(config))
  params = jax.tree_util.tree_map_with_path(
      lambda path, x: x if 'norm' in str(path) else x.astype(jnp.bfloat16),
      params)
  vector = np.linspace(-1, 1, config.hidden_size, dtype=np.float32)
  hf.save_model(folder, config, params, tokenizer=tiny.TOKENIZER,
                head=vector if head else None,
                generation=None if head else {'temperature': 0.5})
  fields = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(fields | {'own': 'field'}))
  return params


def tensors_of(folder):
  """{name: (dtype, shape, bytes)} of every tensor of a folder."""
  found = {}
  for path in folder.glob('*.safetensors'):
    found |= safetensors_numpy.load_file(path)
  return {name: (str(x.dtype), x.shape, x.tobytes())
          for name, x in found.items()}


def small_files(folder):
  """What is not weights."""
  return {path.name: path.read_bytes() for path in folder.iterdir()
          if path.is_file() and 'safetensors' not in path.name}


def leftovers(folder):
  """What a conversion left that is no result."""
  return [path.name for path in folder.iterdir() if path.name.startswith('.')]


@pytest.mark.parametrize('name, head', [
    ('llama biased', False), ('phi3', False), ('gpt_neox', False),
    ('gemma3_text', False), ('gpt2', False), ('mistral', True)])
def test_there_and_back_gives_the_same_bytes(name, head, call, tmp_path):
  source, saved, back = (tmp_path / part for part in 'abc')
  params = make_folder(source, name, head=head)
  (source / 'LICENSE').write_text('terms')
  status, out, err = call('convert', source, '--out', saved)
  assert (status, out) == (0, ''), err
  assert f'wrote {saved}' in err and 'compared' in err
  assert call('convert', saved, '--out', back)[0] == 0
  assert tensors_of(back) == tensors_of(source)
  assert small_files(back) == small_files(saved) == small_files(source)
  assert leftovers(tmp_path) == []
  # Plain Orbax sees the tree that the models read.
  tree = {'backbone': params} if head else params
  root = checkpoints.Leaves(saved)
  due = {tuple(key.key for key in path): leaf for path, leaf
         in jax.tree_util.tree_leaves_with_path(tree) if path[-1].key !=
         'unembed' or not head}
  got = {path for path in root.shapes() if path != ('head',)}
  assert got == due.keys()
  assert (('head',) in root.shapes()) == head
  for path, leaf in due.items():
    assert root.read(path).tobytes() == leaf.tobytes()


def test_dtype_casts_every_tensor_and_says_so(call, tmp_path):
  make_folder(tmp_path / 'a')
  assert call('convert', tmp_path / 'a', '--out', tmp_path / 'b', '--to', 'hf',
              '--dtype', 'float16')[0] == 0
  a, b = (safetensors_numpy.load_file(tmp_path / name / 'model.safetensors')
          for name in 'ab')
  assert a.keys() == b.keys()
  for name, tensor in a.items():
    assert b[name].tobytes() == tensor.astype(np.float16).tobytes()
  config = json.loads((tmp_path / 'b' / 'config.json').read_text())
  assert (config['torch_dtype'], config['own']) == ('float16', 'field')


def test_dtype_that_cannot_hold_the_weights_writes_nothing(call, tmp_path):
  config = FAMILIES['llama']
  params = random_params(shapes_of(config))
  params['final_norm'][0] = 1e6
  hf.save_model(tmp_path / 'a', config, params, tokenizer=tiny.TOKENIZER)
  tiny.check_refused(
      call('convert', tmp_path / 'a', '--out', tmp_path / 'b',
           '--dtype', 'float16'), 'final_norm', '1e+06', 'bfloat16')
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_large_weights_are_split_and_read_again(call, tmp_path):
  make_folder(tmp_path / 'a')
  assert call('convert', tmp_path / 'a', '--out', tmp_path / 'b', '--to', 'hf',
              '--max-shard-gb', 2e-6)[0] == 0
  files = list((tmp_path / 'b').glob('model-*.safetensors'))
  assert len(files) > 2
  assert all(len(safetensors_numpy.load_file(f)) == 1 or
             f.stat().st_size < 4_000 for f in files)
  assert tensors_of(tmp_path / 'b') == tensors_of(tmp_path / 'a')
  hf.load_model(tmp_path / 'b')


def make_adapter(folder, base, *, head=None):
  """An adapter folder, and the merged tree that it makes of the base."""
  config, params = hf.load_model(base)
  adapted = dataclasses.replace(config, lora=lora.Lora(
      rank=2, alpha=6.0, targets=('query', 'down')))
  _, adapters = lora.split(random_params(shapes_of(adapted), seed=1))
  hf.save_adapters(folder, adapted, adapters, base=str(base), head=head)
  return lora.merge(lora.join(params, adapters), adapted.lora)


@pytest.mark.parametrize('name', ['llama biased', 'phi3'])
def test_merge_adds_the_adapters_to_their_base(name, call, tmp_path):
  config = FAMILIES[name]
  hf.save_model(tmp_path / 'a', config, random_params(shapes_of(config)),
                tokenizer=tiny.TOKENIZER, generation={'top_p': 0.5})
  due = make_adapter(tmp_path / 'b', tmp_path / 'a')
  status, _, err = call('convert', tmp_path / 'b', '--out', tmp_path / 'c',
                        '--merge')
  assert status == 0, err
  _, got = hf.load_model(tmp_path / 'c')
  jax.tree.map(np.testing.assert_array_equal, got, due)
  _, base = hf.load_model(tmp_path / 'a')
  assert not np.array_equal(got['layers_0']['query'], base['layers_0']['query'])
  assert small_files(tmp_path / 'c')['generation_config.json'] == small_files(
      tmp_path / 'a')['generation_config.json']


def test_merged_adapters_with_a_head_are_a_reward_model(call, tmp_path):
  config = FAMILIES['llama biased']
  hf.save_model(tmp_path / 'a', config, random_params(shapes_of(config)),
                tokenizer=tiny.TOKENIZER)
  head = np.arange(config.hidden_size, dtype=np.float32)
  due = make_adapter(tmp_path / 'b', tmp_path / 'a', head=head)
  assert call('convert', tmp_path / 'b', '--out', tmp_path / 'c', '--merge',
              '--base', tmp_path / 'a')[0] == 0
  _, got = hf.load_reward_model(tmp_path / 'c')
  np.testing.assert_array_equal(got['head'], head)
  due.pop('unembed')
  jax.tree.map(np.testing.assert_array_equal, got['backbone'], due)


def make_run(workdir, state, model):
  """A workdir whose newest checkpoint is `state`."""
  checkpoints.save(workdir / 'checkpoints', 4, state)
  (workdir / 'config.json').write_text(json.dumps(
      {'experiment': 'sft', 'model': str(model)}))


@pytest.mark.parametrize('kind', ['plain', 'stacked', 'ppo'])
def test_checkpoint_of_a_run_becomes_a_folder(kind, call, tmp_path):
  make_folder(tmp_path / 'a')
  params = random_params(shapes_of(FAMILIES['llama']), seed=5)
  state = {'step': jnp.zeros((), jnp.int32), 'opt_state': (jnp.ones(2),),
           'params': hf.stack_layers(params) if kind == 'stacked' else params}
  if kind == 'ppo':
    state = {'policy': state, 'value': {'params': {'head': jnp.ones(3)}}}
  make_run(tmp_path / 'run', state, tmp_path / 'a')
  status, _, err = call('convert', tmp_path / 'run', '--out', tmp_path / 'b')
  assert status == 0, err
  _, got = hf.load_model(tmp_path / 'b')
  jax.tree.map(np.testing.assert_array_equal, got, params)
  config = json.loads((tmp_path / 'b' / 'config.json').read_text())
  assert config['torch_dtype'] == 'float32'  # The run's, and not the base's.


def test_checkpoint_of_a_reward_run_becomes_a_reward_model(call, tmp_path):
  make_folder(tmp_path / 'a')
  params = random_params(shapes_of(FAMILIES['llama']), seed=5)
  head = np.arange(12, dtype=np.float32)
  make_run(tmp_path / 'run', {'params': {'backbone': params, 'head': head}},
           tmp_path / 'a')
  status, _, err = call('convert', tmp_path / 'run', '--out', tmp_path / 'b')
  assert status == 0, err
  _, got = hf.load_reward_model(tmp_path / 'b')
  np.testing.assert_array_equal(got['head'], head)
  jax.tree.map(np.testing.assert_array_equal, got['backbone'], params)


def test_run_of_the_testbed_needs_to_be_told_its_model(call, tmp_path):
  make_folder(tmp_path / 'a')
  params = random_params(shapes_of(FAMILIES['llama']))
  make_run(tmp_path / 'run', {'params': params}, 'testbed')
  args = 'convert', tmp_path / 'run', '--out', tmp_path / 'b'
  tiny.check_refused(call(*args), 'no config.json', '--base')
  assert call(*args, '--base', tmp_path / 'a')[0] == 0


# --- What is refused


def test_other_bits_on_the_disk_are_found_and_not_put_in_place(
    call, tmp_path, monkeypatch):
  make_folder(tmp_path / 'a')
  save = hf.save_weights

  def save_badly(folder, *args, **settings):
    save(folder, *args, **settings)
    path = folder / 'model.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

  monkeypatch.setattr(hf, 'save_weights', save_badly)
  tiny.check_refused(call('convert', tmp_path / 'a', '--out', tmp_path / 'b',
                          '--to', 'hf'), 'other bits')
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_models_alone_are_replaced_and_only_when_asked(call, tmp_path):
  make_folder(tmp_path / 'a')
  make_folder(tmp_path / 'old', 'qwen3')
  (tmp_path / 'home').mkdir()
  (tmp_path / 'home' / 'thesis.txt').write_text('dear')
  (tmp_path / 'empty').mkdir()
  convert = lambda out, *flags: call(
      'convert', tmp_path / 'a', '--out', tmp_path / out, '--to', 'hf', *flags)
  tiny.check_refused(convert('old'), 'holds files', '--overwrite')
  tiny.check_refused(convert('home', '--overwrite'), 'other than a model')
  tiny.check_refused(convert('a', '--overwrite'), 'in one another')
  tiny.check_refused(convert('a/b'), 'in one another')
  tiny.check_refused(convert('no/where'), 'not a folder that can be written')
  tiny.check_refused(convert('home/thesis.txt'), 'is not a folder')
  assert (tmp_path / 'home' / 'thesis.txt').read_text() == 'dear'
  assert hf.read_config(tmp_path / 'old').family == 'qwen3'
  assert convert('old', '--overwrite')[0] == convert('empty')[0] == 0
  assert tensors_of(tmp_path / 'old') == tensors_of(tmp_path / 'a')
  assert leftovers(tmp_path) == []


def test_damaged_checkpoint_is_refused(call, tmp_path):
  make_folder(tmp_path / 'a')
  assert call('convert', tmp_path / 'a', '--out', tmp_path / 'b')[0] == 0
  arrays = tmp_path / 'b' / 'step_00000000' / 'arrays'
  largest = max((p for p in arrays.rglob('*') if p.is_file()),
                key=lambda p: p.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  tiny.check_refused(call('convert', tmp_path / 'b', '--out', tmp_path / 'c'),
                     'checksum')
  assert not (tmp_path / 'c').exists()


def test_adapters_alone_are_no_model(call, tmp_path):
  make_folder(tmp_path / 'a')
  make_adapter(tmp_path / 'b', tmp_path / 'a')
  args = 'convert', tmp_path / 'b', '--out', tmp_path / 'c'
  tiny.check_refused(call(*args), 'adapters alone', '--merge')
  tiny.check_refused(call('convert', tmp_path / 'a', '--out', tmp_path / 'c',
                          '--merge'), 'nothing to merge')
  tiny.check_refused(call(*args, '--merge', '--base', 'no/where'),
                     'no/where', '--base')


def test_run_of_adapters_is_sent_to_its_adapter_folder(call, tmp_path):
  make_folder(tmp_path / 'a')
  make_run(tmp_path / 'run', {'params': {'layers_0': {
      'query_lora_a': jnp.ones(2)}}}, tmp_path / 'a')
  tiny.check_refused(call('convert', tmp_path / 'run', '--out', tmp_path / 'b'),
                     'trains adapters', 'adapter', '--merge')


@pytest.mark.parametrize('args, words', [
    (['no/where', '--out', 'b'], ['no/where is not a folder']),
    (['.', '--out', 'b'], ['in one another']),
    (['.', '--out', '/b', '--max-shard-gb', '0'], ['max_shard_gb=0.0']),
    (['--out', 'b'], ['SOURCE']),
    (['.'], ['--out']),
])
def test_command_lines_that_make_no_sense_are_refused(call, args, words):
  tiny.check_refused(call('convert', *args), *words)


def test_folder_without_a_model_is_refused(call, tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'notes.txt').write_text('')
  tiny.check_refused(call('convert', tmp_path / 'a', '--out', tmp_path / 'b'),
                     'holds no model', 'notes.txt')
