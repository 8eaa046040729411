"""The loop: order of hooks, metrics one step behind, shapes told once."""

import io
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import checkpoints
from alignjax import metrics as metrics_lib
from alignjax.train import loop
from alignjax.types import Mean


class Batch(NamedTuple):
  """What the loop looks at."""

  tokens: np.ndarray
  attention_mask: np.ndarray


def make_batch(width=4):
  mask = np.arange(width) < np.array([[width], [2]])
  return Batch(np.zeros((2, width), np.int32), mask)


def add_one(state, batch):
  """A step: the state counts, the loss is the state squared."""
  state = state + 1
  return state, {'loss': Mean(state.astype(jnp.float32)**2, jnp.float32(1))}


def fail_at_three(state, batch):
  if state == 2:
    raise RuntimeError('out of memory')
  return add_one(state, batch)


class Note:
  """A hook that writes down what it was called with."""

  def __init__(self, notes, name):
    self.notes, self.name = notes, name

  def __call__(self, step, state, metrics, tokens):
    self.notes.append((self.name, step, int(state), tokens))

  def close(self):
    self.notes.append((self.name, 'closed'))


def test_hooks_are_called_in_order_after_every_step_and_closed():
  notes = []
  state = loop.fit(
      add_one, jnp.int32(0), [make_batch(4), make_batch(3)], num_steps=2,
      hooks=[Note(notes, 'a'), lambda *args: notes.append('plain'),
             Note(notes, 'b')])
  assert state == 2
  assert notes == [
      ('a', 1, 1, 6), 'plain', ('b', 1, 1, 6),
      ('a', 2, 2, 5), 'plain', ('b', 2, 2, 5),
      ('a', 'closed'), ('b', 'closed')]


def test_a_resumed_loop_counts_on_from_its_start():
  notes = []
  state = loop.fit(add_one, jnp.int32(3), iter([make_batch()] * 9),
                   num_steps=5, start=3, hooks=[Note(notes, 'a')])
  assert state == 5
  assert [note[1] for note in notes] == [4, 5, 'closed']


def test_a_finished_run_takes_no_step():
  notes = []
  state = loop.fit(add_one, jnp.int32(5), [], num_steps=5, start=5,
                   hooks=[Note(notes, 'a')])
  assert state == 5 and notes == [('a', 'closed')]


def test_hooks_are_closed_when_a_step_fails():
  notes = []

  with pytest.raises(RuntimeError, match='out of memory'):
    loop.fit(fail_at_three, jnp.int32(0), [make_batch()] * 3, num_steps=3,
             hooks=[Note(notes, 'a')])
  assert notes == [('a', 1, 1, 6), ('a', 2, 2, 6), ('a', 'closed')]


def test_each_batch_shape_is_announced_once():
  stream = io.StringIO()
  batches = [make_batch(w) for w in (4, 4, 3, 4, 3)]
  loop.fit(add_one, jnp.int32(0), batches, num_steps=5, name='sft',
           console=metrics_lib.Console(stream=stream))
  said = [line for line in stream.getvalue().splitlines() if '...' in line]
  assert said == ['sft: compiling for [2, 4] ...',
                  'sft: compiling for [2, 3] ...']


def test_metrics_are_one_step_behind_and_none_is_lost(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  seen = []

  def count_lines(step, state, metrics, tokens):
    seen.append(len(metrics_lib.read_jsonl(path)) if path.exists() else 0)

  log = loop.LogMetrics(path, stage='sft', num_steps=4)
  loop.fit(add_one, jnp.int32(0), [make_batch()] * 4, num_steps=4,
           hooks=[log, count_lines])
  assert seen == [0, 1, 2, 3]
  assert metrics_lib.read_jsonl(path) == [
      {'step': n, 'stage': 'sft', 'loss': float(n**2)} for n in (1, 2, 3, 4)]


def test_a_failed_step_loses_no_metrics_of_those_before(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  log = loop.LogMetrics(path, stage='sft', num_steps=9)
  with pytest.raises(RuntimeError, match='out of memory'):
    loop.fit(fail_at_three, jnp.int32(0), [make_batch()] * 9, num_steps=9,
             hooks=[log])
  assert [r['step'] for r in metrics_lib.read_jsonl(path)] == [1, 2]


def test_a_resumed_log_drops_the_lines_beyond_its_start(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  for start, num_steps in ((0, 5), (2, 4)):
    log = loop.LogMetrics(path, stage='sft', num_steps=num_steps, start=start)
    loop.fit(add_one, jnp.int32(start), [make_batch()] * 5,
             num_steps=num_steps, start=start, hooks=[log])
  assert [r['step'] for r in metrics_lib.read_jsonl(path)] == [1, 2, 3, 4]


def test_the_console_shows_the_last_step(tmp_path):
  stream = io.StringIO()
  log = loop.LogMetrics(tmp_path / 'metrics.jsonl', stage='sft', num_steps=3,
                        console=metrics_lib.Console(stream=stream))
  loop.fit(add_one, jnp.int32(0), [make_batch()] * 3, num_steps=3, hooks=[log])
  assert 'sft 3/3' in stream.getvalue() and 'loss 9' in stream.getvalue()


@pytest.mark.parametrize('every, saved', [(2, [2, 4, 5]), (0, [5]), (5, [5])])
def test_states_are_saved_every_so_often_and_at_the_end(
    tmp_path, every, saved):
  steps = []

  def note_newest(step, state, metrics, tokens):
    newest = checkpoints.latest_step(tmp_path)
    if newest is not None and newest not in steps:
      steps.append(newest)

  save = loop.SaveCheckpoints(tmp_path, every=every, num_steps=5)
  loop.fit(add_one, jnp.int32(0), [make_batch()] * 5, num_steps=5,
           hooks=[save, note_newest])
  assert steps == saved
