"""Claims about mixing rows of several sources by weight."""

import fractions

import grain
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import data
from alignjax import types
from alignjax.data import mixture


def rows_of(mixed):
  return [mixed[i] for i in range(len(mixed))]


def error_of(function, *args, **kwargs):
  with pytest.raises(types.InputError) as caught:
    function(*args, **kwargs)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_the_order_is_the_one_of_the_docs():
  mixed = data.mix([['a0', 'a1', 'a2', 'a3'], ['b0', 'b1']], [0.75, 0.25])
  assert rows_of(mixed) == ['a0', 'a3', 'b1', 'a1', 'a2', 'a1', 'b0']
  assert mixed.counts == (5, 2)


@hypothesis.given(st.lists(st.integers(1, 1000), min_size=1, max_size=7))
@hypothesis.example([1] * 7)
@hypothesis.example([1000, 1, 1, 1])
@hypothesis.example([998, 999, 1000])
def test_no_source_is_ever_a_row_off_its_share(weights):
  shares = [fractions.Fraction(w, sum(weights)) for w in weights]
  drawn = mixture.schedule(shares, 600)
  n = len(weights)
  bound = 1 - fractions.Fraction(1, 2 * n - 2) if n > 1 else 0
  for i, share in enumerate(shares):
    # Behind most just before a draw of its own, ahead most just after one.
    counts = np.cumsum(drawn == i).tolist()
    off = max(abs(count - share * p) for p, count in enumerate(counts, start=1))
    assert off <= bound


def test_decimal_weights_are_exact_after_their_own_period():
  mixed = data.mix([range(50), range(50), range(50)], [0.1, 0.2, 0.7],
                   num_rows=100_000)
  for p in range(10, 100_000, 9_990):
    counts = np.bincount(mixed.source_of[:p], minlength=3)
    assert counts.tolist() == [p // 10, 2 * p // 10, 7 * p // 10]


def test_each_row_comes_once_before_any_comes_again():
  mixed = data.mix([range(7), range(100, 113)], [2, 1], num_rows=90, seed=5)
  small = [row for row in rows_of(mixed) if row < 100]
  passes = [small[i : i + 7] for i in range(0, 56, 7)]
  assert all(sorted(p) == list(range(7)) for p in passes)
  assert len({tuple(p) for p in passes}) == 8  # Each in an order of its own.


def test_it_ends_when_the_last_row_has_come_for_the_first_time():
  mixed = data.mix([range(10), range(100, 300)], [0.5, 0.5])
  rows = rows_of(mixed)
  assert set(rows) == {*range(10), *range(100, 300)}
  assert rows[-1] not in rows[:-1]
  assert mixed.counts in ((200, 200), (199, 200))


def test_without_weights_every_row_comes_once():
  mixed = data.mix([range(30), range(100, 107), range(200, 201)])
  assert sorted(rows_of(mixed)) == [*range(30), *range(100, 107), 200]
  assert mixed.counts == (30, 7, 1)


def test_a_longer_mixture_begins_with_the_shorter_one():
  make = lambda n: rows_of(
      data.mix([range(5), range(10, 16)], [0.3, 0.7], seed=2, num_rows=n))
  assert make(200)[:83] == make(83)


def test_the_seed_moves_rows_and_not_shares():
  make = lambda seed: data.mix(
      [range(50), range(100, 150)], [0.3, 0.7], seed=seed, num_rows=99)
  assert rows_of(make(1)) == rows_of(make(1)) != rows_of(make(2))
  assert make(1).source_of.tolist() == make(2).source_of.tolist()


def test_sources_of_one_size_are_shuffled_apart():
  mixed = data.mix([range(50), range(50)], seed=3)
  a, b = (mixed.row_of[mixed.source_of == i].tolist() for i in (0, 1))
  assert a != b


def test_counts_and_passes_are_told():
  mixed = data.mix([range(10), range(40)], [0.5, 0.5], num_rows=1_000,
                   names=['x/a.jsonl', 'b.jsonl'])
  assert str(mixed) == ('mixed 1,000 rows: 500 from x/a.jsonl (50.00 passes),'
                        ' 500 from b.jsonl (12.50 passes)')


def make_source(seed):
  """Batches of a mixture of long and short rows, in two buckets."""
  mixed = data.mix([[('a', i, 3) for i in range(20)],
                    [('b', i, 3 + i % 5) for i in range(12)]], [0.7, 0.3])
  collate = lambda chosen, length, epoch: (length, epoch, tuple(chosen))
  return mixed, data.BatchSource(
      mixed, collate, length_of=lambda row: row[2], batch_size=4, max_length=8,
      buckets=(4,), seed=seed)


def test_batches_hold_the_mixture_and_each_epoch_is_in_an_order_of_its_own():
  mixed, source = make_source(seed=0)
  epochs = [[source[e * source.num_steps_per_epoch + i]
             for i in range(source.num_steps_per_epoch)] for e in (0, 1)]
  for epoch in epochs:
    rows = [row for _, _, chosen in epoch for row in chosen]
    assert sorted(rows) == sorted(rows_of(mixed))
    assert sum(row[0] == 'a' for row in rows) == mixed.counts[0]
    assert all(row[2] <= length for length, _, chosen in epoch
               for row in chosen)
  assert [b[2] for b in epochs[0]] != [b[2] for b in epochs[1]]


@pytest.mark.parametrize('start', [0, 1, 7, 12, 23, 40])
def test_a_run_resumed_at_any_step_sees_the_same_batches(start):
  whole = [make_source(seed=1)[1][step] for step in range(start + 3)]
  mixed, _ = make_source(seed=1)
  resumed = data.make_batches(
      mixed, lambda chosen, length, epoch: (length, epoch, tuple(chosen)),
      length_of=lambda row: row[2], batch_size=4, max_length=8, buckets=(4,),
      seed=1, start=start)
  assert [next(resumed) for _ in range(3)] == whole[start:]


def test_grain_reads_a_mixture_by_position():
  mixed = data.mix([range(9), range(100, 104)], [0.5, 0.5])
  assert list(grain.MapDataset.source(mixed)[3:8]) == rows_of(mixed)[3:8]


def test_rows_are_read_when_they_are_asked_for():
  class Lazy:
    asked = []

    def __len__(self):
      return 1_000

    def __getitem__(self, i):
      self.asked.append(int(i))
      return int(i)

  mixed = data.mix([Lazy(), range(5)], [0.9, 0.1])
  assert not Lazy.asked
  assert [mixed[0]] == Lazy.asked


@pytest.mark.parametrize(('sources', 'weights', 'fragment'), [
    ([], [], 'a mixture of no sources'),
    ([[1], []], [1, 1], 'source 1: has no rows to mix'),
    ([[1], [2]], [1], 'are 1 for 2 sources'),
    ([[1], [2]], [1, 0], 'source 1: the weight is 0; use a number above 0'),
    ([[1], [2]], [1, -2], 'source 1: the weight is -2'),
    ([[1], [2]], [float('nan'), 1], 'source 0: the weight is nan'),
    ([[1], [2]], [float('inf'), 1], 'source 0: the weight is inf'),
    ([range(10**6), [2]], [1e-6, 1],
     'source 0: to give all its 1,000,000 rows at a share of 9.99999e-07'),
])
def test_what_cannot_be_mixed_is_refused(sources, weights, fragment):
  assert fragment in error_of(data.mix, sources, weights)


def test_numbers_out_of_range_are_refused():
  assert 'num_rows=0' in error_of(data.mix, [[1]], num_rows=0)
  assert 'seed=-1' in error_of(data.mix, [[1]], seed=-1)


@pytest.mark.parametrize(('text', 'parts'), [
    ('a.jsonl', [('a.jsonl', None)]),
    ('a.jsonl:0.7,b.jsonl:0.3', [('a.jsonl', 0.7), ('b.jsonl', 0.3)]),
    ('a.jsonl:7, b.jsonl:3', [('a.jsonl', 7.0), ('b.jsonl', 3.0)]),
    (['a.jsonl:1e1', 'b,c.jsonl:.5'], [('a.jsonl', 10.0), ('b,c.jsonl', 0.5)]),
    ('C:\\rows.jsonl,gs://x/y.jsonl',
     [('C:\\rows.jsonl', None), ('gs://x/y.jsonl', None)]),
    ('run:3:0.5', [('run:3', 0.5)]),
])
def test_texts_are_parsed_as_their_docs_say(text, parts):
  assert data.parse_mixture(text) == parts


def test_what_exists_is_a_path_whatever_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('a:1', 'b,c:2'):
    (tmp_path / name).write_text('{}')
  assert data.parse_mixture(['a:1']) == [('a:1', None)]
  assert data.parse_mixture('b,c:2') == [('b,c:2', None)]
  assert data.parse_mixture('a:1:3,d:4') == [('a:1', 3.0), ('d', 4.0)]


@pytest.mark.parametrize(('text', 'fragment'), [
    ('', 'a part names no file'),
    ([], 'names no file'),
    ('a:1,,b:2', 'a part names no file'),
    (':0.5', "':0.5' names no file"),
    ('a:0.5,b', "'b' has no weight and others have one"),
    ('a:0,b:1', "the weight of 'a' is 0; use a number above 0"),
    ('a:-1,b:1', "the weight of 'a' is -1"),
    ('a:nan', "the weight of 'a' is nan"),
    ('a:inf', "the weight of 'a' is inf"),
    ('a:1,b:1,a:2', "'a' comes twice"),
])
def test_what_names_no_mixture_is_refused(text, fragment):
  message = error_of(data.parse_mixture, text)
  assert message.startswith('data: ') and fragment in message


def test_files_are_read_and_mixed(write):
  write([{'prompt': f'p{i}', 'response': 'a'} for i in range(6)], 'a.jsonl')
  path = write([{'prompt': f'q{i}', 'response': 'b'} for i in range(3)],
               'b.jsonl')
  read = lambda path: data.demonstrations(path)[0]
  mixed = data.read_mixture(f'{path.parent}/a.jsonl:1,{path}:1', read, seed=4)
  assert len({row.where for row in rows_of(mixed)}) == 9
  assert f', 5 from {path} (1.67 passes)' in str(mixed)


def test_one_file_is_what_was_read(write):
  path = write([{'prompt': 'p', 'response': 'a'}])
  rows = [1, 2]
  assert data.read_mixture(str(path), lambda path: rows) is rows
  assert data.read_mixture(f'{path}:0.5', lambda path: rows) is rows
  again = data.read_mixture(str(path), lambda path: rows, num_rows=5)
  assert again.counts == (5,)
