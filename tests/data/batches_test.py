"""Claims about the order of batches."""

import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from alignjax import types
from alignjax.data import batches
from alignjax.data import tokenize

MAX_LENGTH = 8
ORDER_OF_SEED_0 = [1, 11, 2, 10, 6, 4, 3, 7, 5, 0, 8, 9]
all_lengths = st.lists(st.integers(2, MAX_LENGTH), min_size=1, max_size=13)
all_buckets = st.sampled_from([(), (4,), (2, 5), (1, 2, 3, 4, 5, 6, 7, 8)])
batch_sizes = st.integers(1, 4)


def make_rows(lengths):
  """Row i holds the id 100 + i; its last token is its response."""
  return [
      tokenize.TokenizedResponse(np.full(n, 100 + i, np.int32), n - 1)
      for i, n in enumerate(lengths)
  ]


def make(lengths, **settings):
  settings = {'batch_size': 3, 'max_length': MAX_LENGTH} | settings
  return batches.demonstration_batches(make_rows(lengths), **settings)


def ids(batch):
  """The rows of a batch, filler left out."""
  return [int(t) - 100 for t in batch.tokens[:, 0][batch.weight > 0]]


def flat_ids(stream):
  return [i for batch in stream for i in ids(batch)]


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def error_of(function, *args, **settings) -> str:
  with pytest.raises(types.InputError) as caught:
    function(*args, **settings)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_a_stream_says_which_rows_a_batch_is_made_of():
  stream = make([2, 3, 8, 4, 2, 5, 6], buckets=(4,), num_epochs=2)
  for step, batch in enumerate(stream):
    assert stream.rows_of(step) == ids(batch)


@given(all_lengths, all_buckets, batch_sizes, st.integers(0, 99))
def test_an_epoch_holds_every_row_exactly_once(
    lengths, buckets, batch_size, seed):
  stream = list(make(lengths, buckets=buckets, batch_size=batch_size,
                     seed=seed, num_epochs=2))
  steps = batches.num_steps_per_epoch(
      lengths, batch_size=batch_size, max_length=MAX_LENGTH, buckets=buckets)
  assert len(stream) == 2 * steps
  for epoch in (stream[:steps], stream[steps:]):
    assert sorted(flat_ids(epoch)) == list(range(len(lengths)))


@given(all_lengths, all_buckets, batch_sizes)
def test_a_row_is_in_the_shortest_bucket_that_holds_it(
    lengths, buckets, batch_size):
  allowed = sorted({*buckets, MAX_LENGTH})
  for batch in make(lengths, buckets=buckets, batch_size=batch_size,
                    num_epochs=1):
    assert batch.tokens.shape[0] == batch_size
    for i in ids(batch):
      due = next(length for length in allowed if length >= lengths[i])
      assert batch.tokens.shape[1] == due


@given(all_lengths, all_buckets, batch_sizes)
def test_filler_is_at_most_one_batch_less_one_row_per_bucket(
    lengths, buckets, batch_size):
  filler = {}
  for batch in make(lengths, buckets=buckets, batch_size=batch_size,
                    num_epochs=1):
    length = batch.tokens.shape[1]
    filler[length] = filler.get(length, 0) + int(np.sum(batch.weight == 0))
  assert all(count < batch_size for count in filler.values())


@given(all_lengths, all_buckets, st.integers(0, 9), st.integers(0, 12))
def test_starting_late_gives_the_tail_of_the_stream(
    lengths, buckets, seed, start):
  settings = {'buckets': buckets, 'seed': seed}
  whole = list(itertools.islice(make(lengths, **settings), start + 3))
  tail = list(itertools.islice(make(lengths, start=start, **settings), 3))
  assert len(tail) == 3
  for a, b in zip(whole[start:], tail, strict=True):
    assert_same(a, b)


def test_starting_at_the_end_gives_nothing():
  assert list(make([3] * 6, num_epochs=2, start=4)) == []
  assert len(list(make([3] * 6, num_epochs=2, start=3))) == 1


def source_of(lengths, seed, num_epochs=None):
  return batches.BatchSource(
      make_rows(lengths), lambda rows, length, epoch: [
          int(r.tokens[0]) - 100 for r in rows],
      length_of=lambda r: len(r.tokens), batch_size=2, max_length=MAX_LENGTH,
      seed=seed, buckets=(4,), num_epochs=num_epochs)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_a_step_does_not_depend_on_what_was_asked_before(steps):
  lengths = [2, 3, 4, 5, 6, 7, 8]
  asked = source_of(lengths, 3)
  for step in steps:
    assert asked[step] == source_of(lengths, 3)[step]


def test_threads_get_what_one_reader_gets():
  lengths = [2, 3, 4, 5, 6, 7, 8]
  shared, alone, got = source_of(lengths, 1), source_of(lengths, 1), {}

  def read(offset):
    for step in range(offset, 200, 4):
      got[step] = shared[step]

  threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [got[i] for i in range(200)] == [alone[i] for i in range(200)]


def test_the_order_is_this_one_for_ever():
  # A run that is resumed after an upgrade must go on with the same rows.
  assert flat_ids(make([4] * 12, seed=0, num_epochs=1)) == ORDER_OF_SEED_0


def test_seeds_and_epochs_give_different_orders():
  n = 20
  orders = [tuple(flat_ids(make([4] * n, seed=s, num_epochs=1)))
            for s in range(4)]
  two = flat_ids(make([4] * n, seed=0, num_epochs=2))
  orders.append(tuple(two[n:]))
  assert len(set(orders)) == 5
  assert tuple(two[:n]) == orders[0]


def test_every_row_is_first_about_equally_often():
  source = source_of([3] * 4, seed=0)
  firsts = [source[2 * epoch][0] for epoch in range(400)]
  counts = np.bincount(firsts, minlength=4)
  assert counts.min() > 60 and counts.max() < 140  # 100 ± 4.6 σ.


def test_buckets_are_mixed_over_the_epoch():
  lengths = [3] * 30 + [8] * 30
  shapes = [b.tokens.shape[1] for b in make(lengths, buckets=(4,),
                                            num_epochs=1)]
  assert shapes not in (sorted(shapes), sorted(shapes)[::-1])


def test_without_shuffle_rows_keep_their_order():
  assert flat_ids(make([4] * 7, shuffle=False, num_epochs=1)) == list(range(7))
  assert flat_ids(make([8, 2, 8, 2], shuffle=False, num_epochs=1,
                       buckets=(4,))) == [1, 3, 0, 2]


def test_the_stream_has_no_end_without_a_number_of_epochs():
  stream = make([3], batch_size=1)
  assert flat_ids(itertools.islice(stream, 50)) == [0] * 50


def test_pairs_go_where_the_longer_response_fits():
  def row(n):
    return make_rows([n])[0]
  pairs = [tokenize.TokenizedPair(row(2), row(6)),
           tokenize.TokenizedPair(row(3), row(2))]
  stream = list(batches.preference_batches(
      pairs, batch_size=1, max_length=8, buckets=(4,), num_epochs=1))
  shapes = {int(b.attention_mask.sum()): b.tokens.shape for b in stream}
  assert shapes == {8: (1, 2, 8), 5: (1, 2, 4)}


def unpaired_stream(**settings):
  rows = [tokenize.TokenizedLabel(row, i % 2 == 0)
          for i, row in enumerate(make_rows([2, 3, 4, 5, 6, 7, 8]))]
  return batches.unpaired_batches(
      rows, batch_size=3, max_length=MAX_LENGTH, **settings)


def ranking_stream(**settings):
  rows = make_rows([2, 3, 4, 5, 6, 7, 8])
  rankings = [
      tokenize.TokenizedRanking((row,) * (2 + i % 3), (1, 0, 2, 3)[:2 + i % 3])
      for i, row in enumerate(rows)]
  return batches.ranking_batches(
      rankings, batch_size=3, max_length=MAX_LENGTH, **settings)


@pytest.mark.parametrize('stream', [unpaired_stream, ranking_stream])
def test_labels_and_rankings_are_a_function_of_seed_and_step(stream):
  first = lambda **settings: list(
      itertools.islice(stream(buckets=(4,), **settings), 6))
  whole, tail = first(seed=3), first(seed=3, start=2)
  for a, b in zip(whole[2:], tail[:4], strict=True):
    assert_same(a, b)
  other = first(seed=4)
  assert any(not np.array_equal(a.tokens, b.tokens)
             for a, b in zip(whole, other, strict=True))


def test_an_epoch_of_labels_holds_each_response_with_its_own():
  seen = {}
  for batch in unpaired_stream(buckets=(4,), num_epochs=1):
    seen |= zip(ids(batch), batch.desirable[batch.weight > 0].tolist(),
                strict=True)
    assert ids(batch.mismatched) == ids(batch) or len(ids(batch)) == 1
  assert seen == {i: i % 2 == 0 for i in range(7)}


def test_rankings_are_as_wide_as_the_widest_and_go_where_the_longest_fits():
  a, b, c = make_rows([2, 3, 6])
  rows = [tokenize.TokenizedRanking((a, b), (0, 1)),
          tokenize.TokenizedRanking((a, c, b), (0, 1, 2))]
  stream = batches.ranking_batches(
      rows, batch_size=1, max_length=8, buckets=(4,), num_epochs=1)
  shapes = {int(batch.mask.sum()): batch.tokens.shape for batch in stream}
  assert shapes == {2: (1, 3, 4), 3: (1, 3, 8)}


def test_prompts_come_in_groups_with_new_samples_each_epoch():
  prompts = [tokenize.TokenizedPrompt(np.array([i, i]), i) for i in range(3)]
  stream = list(batches.prompt_batches(
      prompts, batch_size=4, num_samples=2, max_length=4, num_epochs=2))
  assert len(stream) == 4
  pairs = [
      (int(p), int(s))
      for b in stream
      for p, s in zip(b.prompt_id[b.weight > 0], b.sample_id[b.weight > 0],
                      strict=True)
  ]
  assert sorted(pairs) == [(p, s) for p in range(3) for s in range(4)]
  for b in stream:
    groups = b.prompt_id.reshape(2, 2)
    np.testing.assert_array_equal(groups[:, 0], groups[:, 1])


def test_a_group_is_never_split():
  assert 'num_samples=3; use a multiple of 3' in error_of(
      batches.prompt_batches, [], batch_size=4, num_samples=3, max_length=4)


def test_the_iterator_remembers_nothing_but_its_place():
  stream = make([3] * 9)
  next(stream)
  state = stream.get_state()
  due = next(stream)
  stream.set_state(state)
  assert_same(next(stream), due)


@pytest.mark.parametrize(
    ('settings', 'fragment'),
    [
        ({'batch_size': 0}, 'batch_size=0 is out of range; use 1 or more'),
        ({'max_length': 0}, 'max_length=0 is out of range'),
        ({'seed': -1}, 'seed=-1 is out of range; use 0 or more'),
        ({'start': -1}, 'start=-1 is out of range'),
        ({'num_epochs': 0}, 'num_epochs=0 is out of range'),
        ({'buckets': (4, 9)}, 'buckets=(4, 9) holds 9; a bucket is a length'),
        ({'buckets': (0,)}, 'buckets=(0,) holds 0'),
        ({'max_length': 4}, 'row 1 has 6 tokens, more than max_length=4'),
    ],
)
def test_settings_out_of_range_are_refused(settings, fragment):
  assert fragment in error_of(make, [3, 6], **settings)


def test_no_rows_is_an_error():
  assert 'there are no rows' in error_of(make, [])


def test_a_batch_must_split_over_the_data_shards():
  assert error_of(batches.check_batch_size, 30, 4) == (
      'batch_size=30 does not split over 4 data shards; use a multiple of 4.')
  batches.check_batch_size(32, 4)
  assert 'batch_size=0' in error_of(batches.check_batch_size, 0, 4)


def test_a_batch_can_cross_into_jit():
  batch = next(make([3, 4]))
  total = jax.jit(lambda b: (b.loss_mask.sum(), b.weight.sum()))(batch)
  assert [int(x) for x in total] == [2, 2]
