"""Tests of alignjax/checkpoints.py."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignjax import checkpoints
from alignjax.checkpoints import manifest
from alignjax.checkpoints import room
from alignjax.types import InputError

_P = jax.sharding.PartitionSpec
_LIKE = jax.ShapeDtypeStruct


@flax.struct.dataclass
class _State:
  step: jax.Array
  params: dict
  opt_state: tuple
  key: jax.Array


def _make_state(step: int = 1) -> _State:
  """Has what has gone wrong in checkpoints: bf16, keys, empty nodes, NaN."""
  odd = [np.nan, -0.0, np.inf, 1e-45, 3.0, -1e38, 0.1, float(step)]
  params = {
      'kernel': jnp.asarray(odd * 2, jnp.float32).reshape(8, 2),
      'layer/0': {'bias.x': jnp.asarray(odd, jnp.bfloat16)},
      'mask': jnp.asarray([True, False]),
  }
  floats = {k: params[k] for k in ('kernel', 'layer/0')}
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  return _State(
      jnp.int32(step), params, tx.init(floats), jax.random.key(step)
  )


def _bytes(leaf: jax.Array) -> bytes:
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf).tobytes()


def _assert_bitwise_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    assert _bytes(x) == _bytes(y)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.rglob('*') if p.is_file())


def _flip_a_bit(file: pathlib.Path) -> None:
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def _save_two(directory: pathlib.Path) -> None:
  for step in (1, 2):
    checkpoints.save(directory, step, {'a': jnp.arange(4) + step})


_TWO_LIKE = {'a': _LIKE((4,), jnp.int32)}


def test_restores_every_bit_of_a_training_state(tmp_path):
  state = _make_state()
  meta = {'config': 'sha256:ab', 'nested': {'list': [1, 2.5, None, 'é']}}
  checkpoints.save(tmp_path, 7, state, meta)
  restored = checkpoints.restore(tmp_path, jax.eval_shape(lambda: state))
  _assert_bitwise_equal(restored.state, state)
  assert restored.step == 7
  assert restored.meta == meta


def test_a_restored_key_draws_what_the_saved_one_draws(tmp_path):
  keys = {'a': jax.random.key(3), 'b': jax.random.split(jax.random.key(4), 2)}
  checkpoints.save(tmp_path, 0, keys)
  restored = checkpoints.restore(tmp_path, keys).state
  np.testing.assert_array_equal(
      jax.random.bits(restored['a'], (3,)), jax.random.bits(keys['a'], (3,))
  )
  assert restored['b'].dtype == keys['b'].dtype


@pytest.mark.parametrize(
    'before, after',
    [(_P('data'), _P()), (_P(), _P('data')), (_P('data'), _P(None, 'tensor'))],
)
def test_restores_every_bit_onto_another_sharding(tmp_path, before, after):
  mesh = jax.make_mesh(
      (4, 2),
      ('data', 'tensor'),
      axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )
  values = jnp.arange(32, dtype=jnp.float32).reshape(8, 4) * np.pi
  saved = jax.device_put(values, jax.sharding.NamedSharding(mesh, before))
  target = jax.sharding.NamedSharding(mesh, after)
  checkpoints.save(tmp_path, 1, {'x': saved})
  like = {'x': _LIKE((8, 4), jnp.float32, sharding=target)}
  restored = checkpoints.restore(tmp_path, like).state['x']
  assert restored.sharding.is_equivalent_to(target, 2)
  assert _bytes(restored) == _bytes(values)


def test_what_is_saved_on_a_mesh_is_restored_onto_one_device(tmp_path):
  mesh = jax.make_mesh((8,), ('data',))
  values = jax.device_put(
      jnp.arange(16.0), jax.sharding.NamedSharding(mesh, _P('data'))
  )
  checkpoints.save(tmp_path, 1, {'x': values})
  restored = checkpoints.restore(tmp_path, {'x': _LIKE((16,), jnp.float32)})
  assert restored.state['x'].sharding.device_set == {jax.devices()[0]}
  assert _bytes(restored.state['x']) == _bytes(values)


def test_one_flipped_bit_in_any_file_is_found_and_the_previous_step_used(
    tmp_path,
):
  _save_two(tmp_path / 'good')
  names = [
      p.relative_to(tmp_path / 'good')
      for p in _files(tmp_path / 'good' / 'step_00000002')
      if p.stat().st_size
  ]
  assert len(names) > 5
  for i, name in enumerate(names):
    copy = tmp_path / f'copy{i}'
    shutil.copytree(tmp_path / 'good', copy)
    _flip_a_bit(copy / name)
    with pytest.warns(UserWarning, match=r'step_00000002: .*set aside as'):
      restored = checkpoints.restore(copy, _TWO_LIKE)
    assert restored.step == 1, name
    np.testing.assert_array_equal(restored.state['a'], jnp.arange(4) + 1)
    assert (copy / 'step_00000002.bad').is_dir()
    assert checkpoints.latest_step(copy) == 1


@pytest.mark.parametrize(
    'harm, problem',
    [
        (lambda f: os.truncate(f, f.stat().st_size // 2), 'checksum'),
        (lambda f: f.unlink(), 'is missing'),
        (lambda f: f.with_name('more').write_text('x'), 'not in its manifest'),
    ],
    ids=['truncated', 'deleted', 'added'],
)
def test_a_file_that_is_cut_or_gone_or_new_is_named_in_the_warning(
    tmp_path, harm, problem
):
  _save_two(tmp_path)
  largest = max(
      _files(tmp_path / 'step_00000002' / 'arrays'),
      key=lambda p: p.stat().st_size,
  )
  harm(largest)
  with pytest.warns(UserWarning, match=problem):
    assert checkpoints.restore(tmp_path, _TWO_LIKE).step == 1


def test_a_damaged_checkpoint_warns_once_and_its_step_can_be_saved_again(
    tmp_path,
):
  _save_two(tmp_path)
  for _ in range(2):
    _flip_a_bit(_files(tmp_path / 'step_00000002' / 'arrays' / 'state')[0])
    with pytest.warns(UserWarning):
      assert checkpoints.restore(tmp_path, _TWO_LIKE).step == 1
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      assert checkpoints.restore(tmp_path, _TWO_LIKE).step == 1
    checkpoints.save(tmp_path, 2, {'a': jnp.arange(4) + 2})
    assert checkpoints.restore(tmp_path, _TWO_LIKE).step == 2
  assert (tmp_path / 'step_00000002.bad2').is_dir()


def test_a_save_without_its_manifest_does_not_count(tmp_path):
  _save_two(tmp_path)
  (tmp_path / 'step_00000002' / 'manifest.json').unlink()
  assert checkpoints.latest_step(tmp_path) == 1
  with pytest.warns(UserWarning, match=r'step_00000002 has no manifest.json'):
    assert checkpoints.restore(tmp_path, _TWO_LIKE).step == 1
  checkpoints.save(tmp_path, 2, {'a': jnp.arange(4) * 10})
  restored = checkpoints.restore(tmp_path, _TWO_LIKE)
  np.testing.assert_array_equal(restored.state['a'], jnp.arange(4) * 10)


def test_interrupted_saves_are_swept_up_by_the_next_one(tmp_path):
  _save_two(tmp_path)
  (tmp_path / 'step_00000002' / 'manifest.json').unlink()
  checkpoints.save(tmp_path, 3, {'a': jnp.arange(4)})
  assert [p.name for p in sorted(tmp_path.iterdir())] == [
      'step_00000001',
      'step_00000003',
  ]


@pytest.mark.parametrize(
    'keep, left', [(1, [5]), (3, [3, 4, 5]), (None, [1, 2, 3, 4, 5])]
)
def test_keeps_the_newest_and_nothing_of_the_others(tmp_path, keep, left):
  for step in range(1, 6):
    checkpoints.save(tmp_path, step, {'a': jnp.arange(4)}, keep=keep)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      f'step_{s:08d}' for s in left
  ]


def test_the_best_is_kept_beside_the_newest(tmp_path):
  for step, score in enumerate([0.1, 0.7, None, 0.7, 0.2, -9.0], start=1):
    checkpoints.save(
        tmp_path, step, {'a': jnp.arange(4)}, keep=1, score=score)
    assert checkpoints.best_step(tmp_path) == [1, 2, 2, 4, 4, 4][step - 1]
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'step_00000004', 'step_00000006']


def test_an_older_step_can_be_asked_for(tmp_path):
  _save_two(tmp_path)
  restored = checkpoints.restore(tmp_path, _TWO_LIKE, step=1)
  assert restored.step == 1
  np.testing.assert_array_equal(restored.state['a'], jnp.arange(4) + 1)


def test_there_is_no_latest_step_before_the_first_save(tmp_path):
  assert checkpoints.latest_step(tmp_path / 'absent') is None
  assert checkpoints.latest_step(tmp_path) is None


def test_a_relative_directory_is_taken_from_here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _save_two(pathlib.Path('run'))
  assert checkpoints.latest_step(tmp_path / 'run') == 2
  assert checkpoints.restore('run', _TWO_LIKE).step == 2


@pytest.mark.parametrize(
    'like, message',
    [
        (
            {'a': _LIKE((4,), jnp.bfloat16)},
            r"leaf \['a'\] is int32\[4\] in the checkpoint and bfloat16\[4\]",
        ),
        (
            {'a': _LIKE((2, 2), jnp.int32)},
            r"leaf \['a'\] is int32\[4\] in the checkpoint and int32\[2, 2\]",
        ),
        (
            {'a': _LIKE((4,), jnp.int32), 'b': _LIKE((1,), jnp.int32)},
            r"leaf \['b'\] is absent in the checkpoint and int32\[1\]",
        ),
        ({}, r"leaf \['a'\] is int32\[4\] in the checkpoint and absent"),
        (
            {'b': _LIKE((4,), jnp.int32)},
            r"leaf \['a'\] \(and 1 more\) is int32\[4\] in the checkpoint and",
        ),
    ],
    ids=['dtype', 'shape', 'missing', 'extra', 'renamed'],
)
def test_a_state_that_does_not_fit_is_refused_and_both_sides_are_named(
    tmp_path, like, message
):
  _save_two(tmp_path)
  with pytest.raises(InputError, match=message):
    checkpoints.restore(tmp_path, like)
  assert checkpoints.latest_step(tmp_path) == 2  # It was not at fault.


def test_a_key_of_another_kind_is_refused(tmp_path):
  checkpoints.save(tmp_path, 1, {'k': jax.random.key(0)})
  with pytest.raises(InputError, match=r'key<fry>\[\].*key<rbg>\[\]'):
    checkpoints.restore(tmp_path, {'k': jax.random.key(0, impl='rbg')})


@pytest.mark.parametrize('step', [1, 2, -1])
def test_a_step_that_is_not_newer_is_refused(tmp_path, step):
  _save_two(tmp_path)
  with pytest.raises(InputError, match=f'step={step} cannot be saved'):
    checkpoints.save(tmp_path, step, {'a': jnp.arange(4)})


@pytest.mark.parametrize(
    'kwargs, message',
    [
        ({'keep': 0}, 'keep=0'),
        ({'meta': {'x': object()}}, 'cannot be written as JSON'),
        ({'meta': {'x': float('nan')}}, 'cannot be written as JSON'),
        ({'meta': {1: 'x'}}, 'string keys'),
        ({'meta': {'x': (1, 2)}}, 'lists'),
        ({'state': {'n': 3}}, r"\['n'\] is of type int"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path, kwargs, message
):
  arguments = {'state': {'a': jnp.arange(4)}} | kwargs
  with pytest.raises(InputError, match=message):
    checkpoints.save(tmp_path / 'run', 1, **arguments)
  assert not (tmp_path / 'run').exists()


def test_nothing_to_restore_is_an_error_that_names_the_directory(tmp_path):
  with pytest.raises(InputError, match=f'{tmp_path} holds no intact'):
    checkpoints.restore(tmp_path, _TWO_LIKE)


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path):
  _save_two(tmp_path)
  with pytest.raises(InputError, match=r'step 9; it has \[1, 2\]'):
    checkpoints.restore(tmp_path, _TWO_LIKE, step=9)


def test_a_damaged_step_that_was_asked_for_is_an_error_and_stays(tmp_path):
  _save_two(tmp_path)
  _flip_a_bit(_files(tmp_path / 'step_00000001' / 'arrays' / 'state')[0])
  with pytest.raises(InputError, match='cannot be trusted'):
    checkpoints.restore(tmp_path, _TWO_LIKE, step=1)
  assert (tmp_path / 'step_00000001').is_dir()


@pytest.mark.parametrize('delay', [0.0, 0.013, 0.051])
def test_a_process_killed_while_saving_leaves_an_intact_step(tmp_path, delay):
  script = textwrap.dedent("""
    import sys
    import jax.numpy as jnp
    from alignjax import checkpoints
    for step in range(1, 10_000):
      checkpoints.save(sys.argv[1], step, {'a': jnp.full((1 << 20,), step)})
  """)
  process = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)])
  deadline = time.monotonic() + 120
  while (checkpoints.latest_step(tmp_path) or 0) < 3:
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.01)
  time.sleep(delay)
  process.send_signal(signal.SIGKILL)
  process.wait()
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # Interrupted is not damaged.
    warnings.filterwarnings('ignore', '.* its save was cut short')
    restored = checkpoints.restore(
        tmp_path, {'a': _LIKE((1 << 20,), jnp.int32)}
    )
  assert restored.step >= 3
  assert np.all(np.asarray(restored.state['a']) == restored.step)


def test_a_later_format_is_refused_with_both_and_not_set_aside(
    tmp_path, monkeypatch):
  checkpoints.save(tmp_path, 1, {'a': jnp.arange(4)})
  monkeypatch.setattr(manifest, 'FORMAT', 7)
  checkpoints.save(tmp_path, 2, {'a': jnp.arange(4)})
  monkeypatch.undo()
  with pytest.raises(InputError, match=r'format 7, .* up to format 1'):
    checkpoints.restore(tmp_path, {'a': _LIKE((4,), jnp.int32)})
  assert (tmp_path / 'step_00000002').exists()


def test_a_save_for_which_there_is_no_room_leaves_what_was_there(
    tmp_path, monkeypatch):
  checkpoints.save(tmp_path, 1, {'a': jnp.arange(4)})
  monkeypatch.setattr(room, 'free', lambda root: 3)
  with pytest.raises(checkpoints.SaveError, match=r'16 bytes, 3 are free'):
    checkpoints.save(tmp_path, 2, {'a': jnp.arange(4)})
  monkeypatch.undo()
  assert [p.name for p in tmp_path.iterdir()] == ['step_00000001']
  checkpoints.save(tmp_path, 2, {'a': jnp.arange(4)})
