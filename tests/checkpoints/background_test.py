"""A save in the background saves what was, not what has become of it."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import checkpoints
from alignjax.checkpoints import background
from alignjax.checkpoints import room
from alignjax.train import loop
from tests.train.loop_test import add_one
from tests.train.loop_test import make_batch

NUM_STEPS = 5


@pytest.fixture
def gate(monkeypatch):
  """Holds back what writes, until it is set."""
  opened, save = threading.Event(), background.states.save

  def wait_and_save(*args, **settings):
    assert opened.wait(30)
    save(*args, **settings)

  monkeypatch.setattr(background.states, 'save', wait_and_save)
  return opened


def test_it_returns_before_and_saves_the_state_that_was_then_donated(
    tmp_path, gate):
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = {'a': jnp.arange(64.0), 'b': jnp.bfloat16(3), 'n': jnp.int32(7)}
  saver = checkpoints.BackgroundSaver()
  saver.save(tmp_path, 1, state | {'key': jax.random.key(5)})
  for _ in range(3):
    state = step(state)
  saver.check()  # Raises nothing and waits for nothing.
  assert checkpoints.latest_step(tmp_path) is None
  gate.set()
  saver.wait()
  like = jax.tree.map(jnp.zeros_like, state) | {'key': jax.random.key(0)}
  found = checkpoints.restore(tmp_path, like).state
  np.testing.assert_array_equal(found['a'], np.arange(64))
  assert (found['b'].dtype, float(found['b'])) == (jnp.bfloat16, 3)
  assert int(found['n']) == 7 and int(state['n']) == 10
  assert (jax.random.key_data(found['key'])
          == jax.random.key_data(jax.random.key(5))).all()


def test_a_sharded_state_restores_on_its_mesh(tmp_path):
  mesh = jax.make_mesh((8,), ('data',))
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  state = {'w': jax.device_put(jnp.arange(32.0).reshape(8, 4), split)}
  saver = checkpoints.BackgroundSaver()
  saver.save(tmp_path, 1, state)
  assert saver.close() is None
  found = checkpoints.restore(tmp_path, state).state['w']
  assert found.sharding == split and (found == state['w']).all()


def test_a_host_without_memory_for_the_copy_waits(tmp_path, monkeypatch):
  monkeypatch.setattr(room, 'free_memory', lambda: 100)
  saver = checkpoints.BackgroundSaver()
  saver.save(tmp_path, 1, {'a': jnp.arange(100)})
  assert checkpoints.latest_step(tmp_path) == 1


def test_free_memory_is_what_host_and_container_both_have(
    tmp_path, monkeypatch):
  monkeypatch.setattr(room, '_MEMORY', tmp_path / 'meminfo')
  monkeypatch.setattr(room, '_CONTAINER', tmp_path)
  assert room.free_memory() is None
  (tmp_path / 'meminfo').write_text('MemTotal: 9 kB\nMemAvailable: 5 kB\n')
  assert room.free_memory() == 5 * 1024
  (tmp_path / 'memory.max').write_text('3000\n')
  (tmp_path / 'memory.current').write_text('2500\n')
  (tmp_path / 'memory.stat').write_text('anon 1500\nfile 1000\n')
  assert room.free_memory() == 1500
  (tmp_path / 'memory.max').write_text('max\n')
  assert room.free_memory() == 5 * 1024


def _fail_at(step, monkeypatch):
  save = background.states.save

  def maybe(directory, at, state, **settings):
    if at == step:
      raise checkpoints.SaveError(f'no room for step {at}')
    save(directory, at, state, **settings)

  monkeypatch.setattr(background.states, 'save', maybe)


def _fit(save):
  return loop.fit(add_one, jnp.int32(0), [make_batch()] * NUM_STEPS,
                  num_steps=NUM_STEPS, hooks=[save])


def test_the_loop_stops_for_a_save_that_failed_behind_it(tmp_path, monkeypatch):
  _fail_at(2, monkeypatch)
  save = loop.SaveCheckpoints(
      tmp_path, every=1, num_steps=NUM_STEPS, in_background=True)
  with pytest.raises(checkpoints.SaveError, match='step 2'):
    _fit(save)
  assert checkpoints.latest_step(tmp_path) == 1


def test_or_tells_it_and_saves_the_next(tmp_path, monkeypatch):
  _fail_at(2, monkeypatch)
  told = []
  save = loop.SaveCheckpoints(
      tmp_path, every=2, num_steps=NUM_STEPS, in_background=True,
      tell=told.append)
  _fit(save)
  assert told == ['warning: no room for step 2']
  assert checkpoints.latest_step(tmp_path) == NUM_STEPS


def test_a_step_that_is_being_saved_is_not_saved_again(tmp_path):
  save = loop.SaveCheckpoints(
      tmp_path, every=2, num_steps=NUM_STEPS, in_background=True)
  state = jnp.int32(2)
  save(2, state, {}, 0)
  assert save.save(2, state)  # As a signal behind this very step asks for.
  assert checkpoints.latest_step(tmp_path) == 2


def test_a_run_that_ends_by_an_error_waits_for_its_save(tmp_path, gate):
  save = loop.SaveCheckpoints(
      tmp_path, every=1, num_steps=NUM_STEPS, in_background=True)

  def fail(step, state, metrics, tokens):
    threading.Timer(0.1, gate.set).start()
    raise RuntimeError('of another hook')

  with pytest.raises(RuntimeError, match='another hook'):
    loop.fit(add_one, jnp.int32(0), [make_batch()] * NUM_STEPS,
             num_steps=NUM_STEPS, hooks=[save, fail])
  assert checkpoints.latest_step(tmp_path) == 1
