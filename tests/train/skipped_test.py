"""Steps with bad numbers change nothing, are told, and at last stop a run."""

import contextlib
import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import checkpoints
from alignjax import objectives
from alignjax import train
from alignjax.checkpoints import room
from alignjax.errors import InputError
from alignjax.errors import Stopped


@pytest.fixture(scope='module')
def run(tiny, mesh_of):
  """Runs a stage whose loss is what the rows' weights make of it."""
  mesh = mesh_of('data:8')
  optimizer = train.make_optimizer(1e-2, 8)

  state, shardings = train.init_state(
      tiny.params, tiny.model.axes(), optimizer, mesh=mesh, seed=0)
  step = train.make_train_step(
      objectives.sft(tiny.model), optimizer, shardings=shardings, mesh=mesh,
      skip_above=1e6)
  fresh = lambda: jax.tree.map(jnp.copy, state)

  def run(workdir, num_steps, bad=(), scale=np.nan, act=lambda i: None, **more):

    def batches(start):
      for i in itertools.count(start):
        act(i)
        batch = tiny.tokens(i)
        weight = np.where(batch.weight > 0, np.float32(scale), 0)
        yield batch.replace(weight=weight) if i + 1 in bad else batch

    stage = train.Stage('sft', workdir, mesh, num_steps, seed=0, **more)
    return train.run_stage(stage, step, fresh(), shardings, batches)

  run.state = state
  return run


def leaves(tree):
  return [np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(
      x.dtype, jax.dtypes.prng_key) else x) for x in jax.tree.leaves(tree)]


def assert_same(a, b):
  for x, y in zip(leaves(a), leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('scale', [np.nan, np.inf])
def test_a_skipped_step_changes_no_bit_but_the_count(run, tmp_path, scale):
  state = run(tmp_path, 1, bad={1}, scale=scale)
  assert_same((state.params, state.opt_state),
              (run.state.params, run.state.opt_state))
  assert state.step == 1
  line, = (tmp_path / 'skipped.jsonl').read_text().splitlines()
  assert json.loads(line)['step'] == 1


def test_a_run_goes_on_behind_a_skipped_step(run, tmp_path):
  state = run(tmp_path, 4, bad={2})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['skipped'] for line in lines] == [0, 1, 0, 0]
  assert all(np.isfinite(x).all() for x in leaves(state.params))


@pytest.mark.parametrize('limit', [2, 3])
def test_so_many_in_a_row_end_a_run_that_can_be_replayed(run, tmp_path, limit):
  bad = set(range(2, 9))
  last = 1 + limit  # The first bad step is 2.
  with pytest.raises(InputError, match=rf'sft {last}: .*replay {last}'):
    run(tmp_path, 8, bad=bad, max_skipped=limit)
  kept = tmp_path / f'skipped_step_{last:08d}' / 'checkpoints'
  assert checkpoints.latest_step(kept) == last - 1
  with pytest.raises(Stopped, match=rf'replayed step {last}: .*"loss": NaN'):
    run(tmp_path, 8, replay=last)  # The batch is the one that was written.
  with pytest.raises(InputError, match=r'gave up at no such step'):
    run(tmp_path, 8, replay=7)


def test_good_steps_between_bad_ones_do_not_end_a_run(run, tmp_path):
  run(tmp_path, 6, bad={2, 4, 5}, max_skipped=3)
  assert not list(tmp_path.glob('skipped_step_*'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_the_rest_is_the_same(
    run, tmp_path, number):
  def kill(i):
    if i == 2:
      os.kill(os.getpid(), number)

  before = signal.getsignal(number)
  with pytest.raises(Stopped, match=r'stopped after step \d') as stopped:
    run(tmp_path / 'a', 6, act=kill)
  assert stopped.value.status == 128 + number
  assert signal.getsignal(number) is before
  step = checkpoints.latest_step(tmp_path / 'a' / 'checkpoints')
  lines = (tmp_path / 'a' / 'metrics.jsonl').read_text().splitlines()
  assert len(lines) == step < 6  # No step is lost.
  assert_same(run(tmp_path / 'a', 6), run(tmp_path / 'b', 6))
  assert (tmp_path / 'a' / 'metrics.jsonl').read_bytes() == (
      tmp_path / 'b' / 'metrics.jsonl').read_bytes()


def test_a_save_that_fails_stops_or_is_told(run, tmp_path, monkeypatch):
  left = [10**12]
  monkeypatch.setattr(room, 'free', lambda root: left[0])

  def fill(i):
    left[0] = 1_000 if 1 <= i < 4 else 10**12

  with pytest.raises(checkpoints.SaveError, match=r'needs about [\d,]+ bytes'):
    run(tmp_path / 'a', 6, act=fill, save_every=1)
  state = run(tmp_path / 'b', 6, act=fill, save_every=1, goes_on_unsaved=True,
              console=Told())
  assert checkpoints.latest_step(tmp_path / 'b' / 'checkpoints') == 6
  assert_same(state, run(tmp_path / 'a', 6))


class Told:
  """A console that keeps nothing."""

  def note(self, text):
    """Says nothing."""

  def working(self, text):
    """Nothing to wait for."""
    return contextlib.nullcontext()

  def progress(self, stage, total):
    """No line."""
    return None
