"""Tests of where numbers leave the device."""

import io
import json
import math
import sys
import types as python_types

import hypothesis
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import metrics
from alignjax import types

_few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


def _run(path, first, last, stage='sft', *, resume_at=None):
  """Writes rows first..last, as a run that restarts at `resume_at` would."""
  with metrics.JsonlWriter(path) as writer:
    if resume_at is not None:
      writer.truncate_after(resume_at, stage)
    for step in range(first, last + 1):
      writer.write(step, stage, {'loss': 1.0 / step})


def test_a_mean_is_divided_once_and_an_empty_one_is_zero():
  floats = metrics.to_floats({
      'loss': types.Mean(jnp.float32(3), jnp.float32(4)),
      'empty': types.Mean(jnp.float32(0), jnp.float32(0)),
      'norm': jnp.float32(2.5), 'lr': 1e-3, 'count': np.int64(7)})
  assert floats == {
      'loss': 0.75, 'empty': 0.0, 'norm': 2.5, 'lr': 1e-3, 'count': 7.0}
  assert all(type(value) is float for value in floats.values())


def test_merged_means_weigh_each_token_the_same():
  long, short = types.Mean(90.0, 30.0), types.Mean(1.0, 1.0)
  merged = types.Mean(long.total + short.total, long.weight + short.weight)
  assert metrics.to_floats({'x': merged})['x'] == 91 / 31


def test_a_metric_that_is_no_scalar_is_refused_by_name():
  with pytest.raises(types.InputError, match=r"'ratio' has shape \(2,\)"):
    metrics.to_floats({'ratio': jnp.ones(2)})


@_few
@hypothesis.given(st.dictionaries(
    st.sampled_from(['loss', 'kl', 'größe']), st.floats(), max_size=3))
def test_any_float_survives_a_file_of_strict_json(tmp_path_factory, values):
  path = tmp_path_factory.mktemp('m') / 'metrics.jsonl'
  with metrics.JsonlWriter(path) as writer:
    writer.write(3, 'ppo', values)

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  json.loads(path.read_text('utf-8'), parse_constant=refuse)
  (row,) = metrics.read_jsonl(path)
  np.testing.assert_equal(row, {'step': 3, 'stage': 'ppo'} | values)


def test_each_row_can_be_read_before_the_file_is_closed(tmp_path):
  writer = metrics.JsonlWriter(tmp_path / 'new' / 'metrics.jsonl')
  writer.write(1, 'sft', {'loss': 2.0})
  rows = metrics.read_jsonl(tmp_path / 'new' / 'metrics.jsonl')
  writer.close()
  assert rows == [{'step': 1, 'stage': 'sft', 'loss': 2.0}]


@_few
@hypothesis.given(
    st.integers(1, 9), st.integers(0, 9), st.integers(0, 40))
def test_an_interrupted_and_resumed_file_equals_the_uninterrupted_one(
    tmp_path_factory, stopped_at, saved_at, torn_bytes):
  folder = tmp_path_factory.mktemp('resume')
  saved_at = min(saved_at, stopped_at)
  for name in ('whole', 'resumed'):  # Both ran an earlier stage.
    _run(folder / name, 1, 12, 'pretrain')
  _run(folder / 'whole', 1, 9)
  _run(folder / 'resumed', 1, stopped_at)
  torn = b'{"step": 99, "stage": "sft", "loss": 0.125}'[:torn_bytes]
  with open(folder / 'resumed', 'ab') as file:
    file.write(torn)  # Killed while it wrote.
  _run(folder / 'resumed', saved_at + 1, 9, resume_at=saved_at)
  assert ((folder / 'resumed').read_bytes() ==
          (folder / 'whole').read_bytes())


def test_truncating_without_a_stage_looks_at_all_rows(tmp_path):
  _run(tmp_path / 'm', 1, 5)
  metrics.JsonlWriter(tmp_path / 'm').truncate_after(3)
  assert [row['step'] for row in metrics.read_jsonl(tmp_path / 'm')] == [
      1, 2, 3]


def test_restarting_a_stage_also_drops_the_stages_after_it(tmp_path):
  _run(tmp_path / 'm', 1, 3, 'sft')
  _run(tmp_path / 'm', 1, 3, 'reward')
  metrics.JsonlWriter(tmp_path / 'm').truncate_after(2, 'sft')
  assert [(row['stage'], row['step'])
          for row in metrics.read_jsonl(tmp_path / 'm')] == [
              ('sft', 1), ('sft', 2)]


def test_a_whole_last_row_without_its_newline_is_kept(tmp_path):
  (tmp_path / 'm').write_text('{"step": 1, "stage": "sft", "loss": 1.0}')
  _run(tmp_path / 'm', 2, 2)
  assert [row['step'] for row in metrics.read_jsonl(tmp_path / 'm')] == [1, 2]


@pytest.mark.parametrize('line', ['{"step": 1', '[]', '{"loss": 1}', '',
                                  '{"step": "1", "stage": "sft"}'])
def test_a_broken_line_is_named_by_file_and_number(tmp_path, line):
  good = '{"step": 1, "stage": "sft"}\n'
  (tmp_path / 'm.jsonl').write_text(good + line + '\n' + good)
  with pytest.raises(types.InputError, match=r'm\.jsonl, line 2') as error:
    metrics.read_jsonl(tmp_path / 'm.jsonl')
  assert '\n' not in str(error.value)


def test_a_missing_file_is_an_input_error(tmp_path):
  with pytest.raises(types.InputError, match='No such file'):
    metrics.read_jsonl(tmp_path / 'none.jsonl')


def test_a_reserved_metric_name_is_refused(tmp_path):
  with pytest.raises(types.InputError, match="'step' is taken"):
    metrics.JsonlWriter(tmp_path / 'm').write(1, 'sft', {'step': 2.0})


def test_only_the_first_process_writes_or_prints(tmp_path, monkeypatch):
  monkeypatch.setattr('jax.process_index', lambda: 1)
  stream = io.StringIO()
  console = metrics.Console(stream=stream)
  _run(tmp_path / 'm', 1, 3, resume_at=0)
  with console.working('compiling'), console.progress('sft', 2) as progress:
    progress.update(1, {'loss': 1.0})
  console.table('t', ['a'], [[1]])
  assert stream.getvalue() == ''
  assert not (tmp_path / 'm').exists()


def test_a_log_file_gets_the_first_and_the_last_line_only():
  stream = io.StringIO()
  with metrics.Console(stream=stream, interval=60).progress('sft', 5) as bar:
    for step in range(1, 6):
      bar.update(step, {'loss': 1 / step}, tokens=100)
  first, last = stream.getvalue().splitlines()
  assert first == 'sft 1/5  loss 1'
  assert last.startswith('sft 5/5  loss 0.2') and 'tokens/s' in last


def test_an_interrupted_stage_still_prints_its_last_step():
  stream = io.StringIO()
  with metrics.Console(stream=stream, interval=60).progress('ppo', 9) as bar:
    for step in (1, 2, 3):
      bar.update(step, {'kl': float(step)})
  assert stream.getvalue().splitlines()[-1].startswith('ppo 3/9  kl 3')


def test_rate_and_time_left_leave_out_the_compiling_first_step(monkeypatch):
  clock = iter([100.0, 102.0, 104.0])
  monkeypatch.setattr('time.monotonic', lambda: next(clock))
  stream = io.StringIO()
  bar = metrics.Console(stream=stream, interval=0).progress('sft', 33)
  for step in (1, 2, 3):
    bar.update(step, {}, tokens=50)
  assert stream.getvalue().splitlines()[-1] == (
      'sft 3/33  25 tokens/s  1:00 left')


def test_a_terminal_gets_one_line_redrawn_in_place():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  with metrics.Console(stream=stream).progress('sft', 3) as bar:
    for step in (1, 2, 3):
      bar.update(step, {'loss [nats]': 0.5})
  assert '3/3  loss [nats] 0.5' in stream.getvalue()
  assert stream.getvalue().count('\n') == 1


def test_working_says_what_began_and_what_it_took():
  stream = io.StringIO()
  with metrics.Console(stream=stream).working('compiling train step'):
    assert stream.getvalue() == 'compiling train step ...\n'
  assert 'compiling train step: took 0.' in stream.getvalue()


def test_working_says_that_it_failed_and_lets_the_error_pass():
  stream = io.StringIO()
  with pytest.raises(KeyError):
    with metrics.Console(stream=stream).working('loading'):
      raise KeyError
  assert 'loading: failed after' in stream.getvalue()


def test_a_table_aligns_numbers_and_prints_brackets_as_they_are():
  stream = io.StringIO()
  metrics.Console(stream=stream).table(
      'Gold', ['model', 'gold'], [['[base]', 0.01234], ['sft', 1234.5]])
  lines = [line.rstrip() for line in stream.getvalue().splitlines()]
  assert lines == ['Gold', 'model      gold', '[base]  0.01234',
                   'sft       1,234']


def test_a_table_in_a_file_is_as_wide_as_its_twelve_columns():
  columns = [f'column {i:02}' for i in range(12)]
  stream = io.StringIO()
  metrics.Console(stream=stream).table('Wide', columns, [[1.5] * 12] * 2)
  lines = stream.getvalue().splitlines()
  assert lines[1].split('  ') == columns
  assert lines[2].split() == ['1.5'] * 12 and len(lines) == 4


def test_a_long_note_is_not_wrapped():
  stream = io.StringIO()
  metrics.Console(stream=stream).note('word ' * 100)
  assert stream.getvalue().count('\n') == 1


@pytest.mark.parametrize('value, text', [
    (0.123456, '0.1235'), (12_345.6, '12,346'), (7, '7'), (True, 'True'),
    (math.nan, 'nan'), (-math.inf, '-inf'), (1e-7, '1e-07'), ('a', 'a'),
    (np.float32(0.5), '0.5'), (None, 'None')])
def test_values_are_rounded_for_reading(value, text):
  assert metrics.format_value(value) == text


def test_tensorboard_missing_is_said_with_the_command_that_mends_it(
    tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(types.InputError, match=r'alignjax\[tensorboard\]'):
    metrics.TensorBoardWriter(tmp_path)


def test_tensorboard_scalars_are_named_stage_slash_metric(
    tmp_path, monkeypatch):
  added = []

  class SummaryWriter:  # Stands in for the third party's class.
    def __init__(self, folder, purge_step):
      added.append((folder, purge_step))

    def add_scalar(self, *point):
      added.append(point)

    def close(self):
      pass

  stand_in = python_types.SimpleNamespace(SummaryWriter=SummaryWriter)
  monkeypatch.setitem(sys.modules, 'tensorboardX', stand_in)
  writer = metrics.TensorBoardWriter(tmp_path, purge_step=5)
  writer.write(5, 'sft', {'loss': 0.5})
  writer.close()
  assert added == [(str(tmp_path), 5), ('sft/loss', 0.5, 5)]
