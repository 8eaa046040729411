"""Trees written part by part and read leaf by leaf."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import checkpoints
from alignjax.types import InputError

PARTS = [
    {'embed': np.arange(6, dtype=np.float32).reshape(2, 3)},
    {'layers_0': {'query': np.full((2, 2), np.nan, jnp.bfloat16),
                  'bias.x': np.array([-0.0, 1e-45], np.float32)}},
    {'layers_1': {'query': np.ones((2, 2), np.float16)}},
]


def test_each_leaf_comes_back_bit_for_bit(tmp_path):
  checkpoints.save_parts(tmp_path, PARTS, {'kind': 'params'})
  saved = checkpoints.Leaves(tmp_path)
  due = {('embed',): PARTS[0]['embed'],
         ('layers_0', 'query'): PARTS[1]['layers_0']['query'],
         ('layers_0', 'bias.x'): PARTS[1]['layers_0']['bias.x'],
         ('layers_1', 'query'): PARTS[2]['layers_1']['query']}
  assert (saved.step, saved.meta) == (0, {'kind': 'params'})
  assert {path: (like.shape, like.dtype)
          for path, like in saved.shapes().items()} == {
              path: (leaf.shape, leaf.dtype) for path, leaf in due.items()}
  for path, leaf in due.items():
    assert saved.read(path).tobytes() == leaf.tobytes()


def test_parts_are_restored_as_one_tree(tmp_path):
  checkpoints.save_parts(tmp_path, PARTS)
  tree = PARTS[0] | PARTS[1] | PARTS[2]
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
  state = checkpoints.restore(tmp_path, like).state
  for got, due in zip(jax.tree.leaves(state), jax.tree.leaves(tree)):
    assert np.asarray(got).tobytes() == due.tobytes()


def test_leaves_of_a_saved_state_are_read_below_their_root(tmp_path):
  state = {'params': {'a': jnp.arange(3.0)}, 'opt': (jnp.ones(2), {}),
           'key': jax.random.key(0)}
  checkpoints.save(tmp_path, 5, state)
  saved = checkpoints.Leaves(tmp_path)
  assert saved.step == 5
  assert list(saved.shapes('params')) == [('params', 'a')]
  assert saved.shapes('policy', 'params') == {}
  np.testing.assert_array_equal(saved.read(('params', 'a')), [0.0, 1.0, 2.0])


def test_manifest_alone_says_what_there_is(tmp_path):
  assert checkpoints.describe_saved(tmp_path) is None
  checkpoints.save_parts(tmp_path, PARTS)
  for path in (tmp_path / 'step_00000000' / 'arrays').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')  # Arrays are not read.
  step, leaves = checkpoints.describe_saved(tmp_path)
  assert step == 0 and leaves["['layers_0']['query']"] == 'bfloat16[2, 2]'


def test_damaged_checkpoint_is_refused_and_stays_where_it_is(tmp_path):
  checkpoints.save_parts(tmp_path, PARTS)
  files = [path for path in (tmp_path / 'step_00000000').rglob('*')
           if path.is_file() and path.name != 'manifest.json']
  files[0].write_bytes(files[0].read_bytes() + b'x')
  with pytest.raises(InputError, match='checksum'):
    checkpoints.Leaves(tmp_path)
  assert (tmp_path / 'step_00000000').is_dir()


def test_folder_without_a_checkpoint_is_refused(tmp_path):
  with pytest.raises(InputError, match='holds no complete checkpoint'):
    checkpoints.Leaves(tmp_path)
  checkpoints.save_parts(tmp_path, PARTS)
  with pytest.raises(InputError, match='exists'):
    checkpoints.save_parts(tmp_path, PARTS)


def test_memory_holds_a_part_and_not_the_tree(tmp_path):
  peaks = []

  def parts():
    for i in range(16):
      yield {f'l{i}': np.full(1 << 18, i, np.float32)}  # 1 MB.
      peaks.append(tracemalloc.get_traced_memory()[1])
      tracemalloc.reset_peak()

  checkpoints.save_parts(tmp_path / 'first', [{'a': np.ones(1)}])  # Imports.
  tracemalloc.start()
  checkpoints.save_parts(tmp_path / 'all', parts())
  tracemalloc.stop()
  assert len(peaks) == 16 and max(peaks) < 4e6
