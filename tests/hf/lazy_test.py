"""Models opened without being read."""

import dataclasses
import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from alignjax import hf
from alignjax.hf import lazy
from alignjax.models import CausalLM
from alignjax.types import InputError
from tests.families import FAMILIES
from tests.families import random_params


def make_folder(folder, name):
  """A folder of a family, and the tree in it."""
  config = FAMILIES[name]
  params = random_params(jax.eval_shape(CausalLM(config).init,
                                        jax.random.key(0)))
  hf.save_model(folder, config, params)
  return config, params


@pytest.mark.parametrize('name', ['llama biased', 'phi3', 'gpt_neox', 'gpt2'])
def test_leaves_are_those_of_the_loaded_model(name, tmp_path):
  make_folder(tmp_path, name)
  config, params = hf.load_model(tmp_path)
  with hf.open_model(tmp_path) as model:
    got = dict(model.leaves())
    assert (model.config, model.head) == (config, None)
    due = {tuple(key.key for key in path): leaf for path, leaf
           in jax.tree_util.tree_leaves_with_path(params)}
    assert got.keys() == due.keys()
    for path, leaf in due.items():
      assert (got[path].shape, got[path].dtype) == (leaf.shape, leaf.dtype)
      np.testing.assert_array_equal(np.asarray(got[path]), leaf)


def test_reward_model_has_its_head(tmp_path):
  config, params = make_folder(tmp_path / 'a', 'llama')
  head = np.arange(config.hidden_size, dtype=np.float32)
  hf.save_model(tmp_path / 'b', config, params, head=head,
                generation={'pad_token_id': 0})
  with hf.open_model(tmp_path / 'b') as model:
    np.testing.assert_array_equal(np.asarray(model.head), head)


def test_lazy_leaves_are_saved_like_arrays(tmp_path):
  config, _ = make_folder(tmp_path / 'a', 'llama biased')
  (tmp_path / 'b').mkdir()
  with hf.open_model(tmp_path / 'a') as model:
    hf.save_weights(tmp_path / 'b', config, model.params)
  assert (tmp_path / 'b' / 'model.safetensors').read_bytes() == (
      tmp_path / 'a' / 'model.safetensors').read_bytes()


def test_cast_rounds_as_numpy_does_and_refuses_what_overflows(tmp_path):
  config, params = make_folder(tmp_path / 'a', 'llama')
  with hf.open_model(tmp_path / 'a') as model:
    for path, leaf in lazy.cast(model, 'bfloat16').leaves():
      due = np.asarray(dict(model.leaves())[path]).astype(jnp.bfloat16)
      assert leaf.dtype == due.dtype
      assert np.asarray(leaf).tobytes() == due.tobytes()
  params['final_norm'][0] = 7e4
  hf.save_model(tmp_path / 'b', config, params)
  with hf.open_model(tmp_path / 'b') as model:
    with pytest.raises(InputError, match=r'final_norm .* 7e\+04'):
      np.asarray(lazy.cast(model, 'float16').params['final_norm'])


def test_infinity_that_was_there_passes_a_cast(tmp_path):
  config, params = make_folder(tmp_path, 'llama')
  params['final_norm'][0] = np.inf
  hf.save_model(tmp_path, config, params)
  with hf.open_model(tmp_path) as model:
    got = np.asarray(lazy.cast(model, 'float16').params['final_norm'])
  assert np.isinf(got[0]) and np.isfinite(got[1:]).all()


def test_mixed_widths_are_aligned_and_read_by_the_library(tmp_path):
  config, params = make_folder(tmp_path, 'llama')
  narrow = {name: leaf if name == 'final_norm' else jax.tree.map(
      lambda x: x.astype(jnp.bfloat16), leaf) for name, leaf in params.items()}
  hf.save_model(tmp_path, config, narrow)
  tensors = safetensors_numpy.load_file(tmp_path / 'model.safetensors')
  np.testing.assert_array_equal(
      tensors['model.norm.weight'], params['final_norm'])
  np.testing.assert_array_equal(
      tensors['model.embed_tokens.weight'], narrow['embed'])
  content = (tmp_path / 'model.safetensors').read_bytes()
  header = json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])
  (first,) = [name for name, tensor in header.items()
              if tensor.get('data_offsets', [None])[0] == 0]
  assert first == 'model.norm.weight'  # Wide ones first: all are aligned.


def test_headers_alone_are_read_where_values_are_not_to_be_checked(tmp_path):
  make_folder(tmp_path, 'llama')
  path = tmp_path / 'model.safetensors'
  tensors = safetensors_numpy.load_file(path)
  tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'] + 1
  safetensors_numpy.save_file(tensors, path)
  with hf.open_model(tmp_path, check_values=False):
    pass
  with pytest.raises(InputError, match='differs from the embedding'):
    with hf.open_model(tmp_path):
      pass


def test_memory_holds_a_tensor_and_not_the_file(tmp_path):
  wide = dataclasses.replace(
      FAMILIES['llama'], hidden_size=512, intermediate_size=512, num_layers=16)
  (tmp_path / 'out').mkdir()
  shapes = jax.eval_shape(CausalLM(wide).init, jax.random.key(0))
  leaves = jax.tree.map(lambda x: hf.Leaf(
      x.shape, np.dtype('float32'), lambda: np.zeros(x.shape, np.float32)),
      shapes)
  tracemalloc.start()
  hf.save_weights(tmp_path / 'out', wide, leaves)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  size = (tmp_path / 'out' / 'model.safetensors').stat().st_size
  assert size > 50e6 and peak < 6e6
