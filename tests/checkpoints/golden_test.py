"""Checkpoints of earlier releases load, bit for bit.

golden/checkpoints holds one of each format. A new format gets a folder beside
the old ones, which stay as they are.
"""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import checkpoints
from alignjax.checkpoints import manifest
from alignjax.train.state import TrainState

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'checkpoints'
FOLDER = GOLDEN / 'format_1'


def state() -> TrainState:
  """Numbers that are exact in every dtype, and none of them drawn."""
  numbers = jnp.arange(12, dtype=jnp.float32).reshape(3, 4) / 8 - 0.5
  params = {'embed': numbers, 'head': numbers[0].astype(jnp.bfloat16)}
  return TrainState(
      step=jnp.int32(7), params=params, key=jax.random.key(3),
      opt_state={'mu': jax.tree.map(lambda x: x / 4, params),
                 'count': jnp.int32(7)})


def test_there_is_one_of_every_format():
  assert sorted(path.name for path in GOLDEN.iterdir()) == [
      f'format_{i}' for i in range(1, manifest.FORMAT + 1)]


@pytest.mark.parametrize('folder', sorted(GOLDEN.iterdir()),
                         ids=lambda path: path.name)
def test_every_release_loads_bit_for_bit(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'run')  # A read may rename what is bad.
  found = checkpoints.restore(tmp_path / 'run', jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state()))
  assert (found.step, found.meta) == (7, {'config': 'of alignjax 0.1'})
  raw = lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(
      x.dtype, jax.dtypes.prng_key) else x)
  for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(state()),
                  strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(raw(a), raw(b))
  assert checkpoints.best_step(tmp_path / 'run') == 7
