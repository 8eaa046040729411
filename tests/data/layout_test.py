"""Claims about rows that responses share: what lies where, and who has which.

That losses are the same is tested with the objectives.
"""

import collections
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from alignjax import types
from alignjax.data import batches
from alignjax.data import collate
from alignjax.data import layout
from alignjax.data import make_prompt_layout
from alignjax.data import tokenize
from alignjax.models import attention

LENGTH = 9
texts = st.lists(st.integers(0, 2), min_size=1, max_size=4)
pairs_of_ids = st.lists(
    st.tuples(texts, texts, texts), min_size=1, max_size=4)
layouts = pytest.mark.parametrize('kind', ['packed', 'branched'])


def response(prompt, ids):
  return tokenize.TokenizedResponse(
      np.array(prompt + ids, np.int32), len(prompt))


def make_pairs(rows, batch_size=4):
  return collate.collate_preferences(
      [tokenize.TokenizedPair(response(p, a), response(p, b))
       for p, a, b in rows], batch_size=batch_size, length=LENGTH)


def by_cell(batch):
  """(tokens, mask, rows, flat index) of each cell: [B / C · K, T], [M, S]."""
  rows = batch.rows
  for c in range(rows.tokens.shape[0]):
    lines = lambda x, c=c: x[c].reshape(-1, LENGTH)
    yield (lines(batch.tokens), lines(batch.attention_mask),
           jax.tree.map(lambda x, c=c: x[c], rows), lines(rows.index))


@layouts
@given(pairs_of_ids, st.sampled_from([1, 2, 4]))
def test_each_token_is_read_once_at_its_own_position_behind_those_before_it(
    kind, rows, num_cells):
  """What a token sees, in order, is its response up to and with itself."""
  batch = layout.make_layout(kind, num_cells=num_cells)(make_pairs(rows))
  for tokens, mask, rows, index in by_cell(batch):
    seen = np.asarray(attention.visible(
        rows.attention_mask, rows.segments, rows.branches))
    flat = lambda x, rows=rows: getattr(rows, x).reshape(-1)
    for text, real, places in zip(tokens, mask, index, strict=True):
      if real.sum() < 2:
        continue  # Filler.
      places, text = places[real], text[real]
      np.testing.assert_array_equal(flat('tokens')[places], text)
      np.testing.assert_array_equal(flat('positions')[places],
                                    np.arange(len(text)))
      for t, place in enumerate(places):
        row, column = divmod(int(place), rows.tokens.shape[1])
        visible = np.flatnonzero(seen[row, column])
        np.testing.assert_array_equal(rows.tokens[row, visible], text[:t + 1])
        if t:
          # So that the column before it is where it is predicted.
          np.testing.assert_array_equal(
              rows.tokens[row, column - 1], text[t - 1])
          assert seen[row, column, column - 1]


@layouts
@given(pairs_of_ids)
def test_no_softmax_is_taken_over_nothing(kind, rows):
  batch = layout.make_layout(kind)(make_pairs(rows))
  for _, _, rows, _ in by_cell(batch):
    assert np.asarray(attention.visible(
        rows.attention_mask, rows.segments, rows.branches)).any(-1).all()


@given(pairs_of_ids)
def test_branches_read_no_more_tokens_than_packing(rows):
  pairs = make_pairs(rows)
  packed, branched = (
      layout.make_layout(kind)(pairs).rows for kind in ('packed', 'branched'))
  read = lambda x: x.attention_mask.sum() - (~x.attention_mask[..., 1]).sum()
  assert read(branched) <= read(packed) <= pairs.attention_mask.sum()


def test_a_prompt_is_read_once_but_for_its_last_token():
  """The example of the module's docstring."""
  rows = layout.make_layout('branched')(collate.collate_preferences(
      [tokenize.TokenizedPair(response([5, 6], [7, 8, 9]),
                              response([5, 6], [4]))],
      batch_size=1, length=8)).rows
  np.testing.assert_array_equal(rows.tokens[0], [[5, 6, 7, 8, 9, 6, 4, 0]])
  np.testing.assert_array_equal(rows.segments[0], [[1] * 8])
  np.testing.assert_array_equal(rows.branches[0], [[0, 1, 1, 1, 1, 2, 2, 2]])
  np.testing.assert_array_equal(rows.positions[0], [[0, 1, 2, 3, 4, 1, 2, 0]])
  np.testing.assert_array_equal(
      rows.index[0, 0, :, :5], [[0, 1, 2, 3, 4], [0, 1, 6, 0, 0]])
  np.testing.assert_array_equal(rows.wanted, [[2, 3, 4, 6]])


@layouts
@given(pairs_of_ids, st.sampled_from([1, 2, 4]))
def test_exactly_what_bears_loss_is_wanted(kind, rows, num_cells):
  batch = layout.make_layout(kind, num_cells=num_cells)(make_pairs(rows))
  num_columns = np.prod(batch.rows.tokens.shape[1:])
  if batch.rows.wanted is None:
    return
  bears = batch.loss_mask & (batch.weight > 0)[..., None, None]
  bears[..., 0] = False
  assert batch.rows.wanted.shape[1] % -(-num_columns // 4) == 0
  for wanted, index, mask in zip(
      batch.rows.wanted, batch.rows.index, bears, strict=True):
    real = wanted[wanted < num_columns]
    np.testing.assert_array_equal(real, np.unique(index[mask]))


def test_responses_are_laid_longest_first_where_there_is_room():
  singles = collate.collate_demonstrations(
      [response([i], [i] * (n - 1)) for i, n in enumerate((2, 6, 3, 5), 1)],
      batch_size=4, length=8)
  rows = layout.make_layout('packed')(singles).rows
  np.testing.assert_array_equal(
      rows.tokens[0], [[2, 2, 2, 2, 2, 2, 1, 1], [4, 4, 4, 4, 4, 3, 3, 3]])
  assert layout.fill_of(types.merge_cells(
      layout.make_layout('packed')(singles))) == (2, 8, 1.0)
  assert layout.describe_layout(layout.make_layout('packed')(singles)) == (
      '2 rows of 8 tokens, 100% real, instead of 4 of 8, 50% real')
  assert layout.describe_layout(singles) == '4 rows of 8 tokens, 50% real'


@given(st.lists(st.integers(1, 32), min_size=1, max_size=32))
def test_the_number_of_rows_is_eighths_and_they_hold_everything(lengths):
  tokens = np.ones((32, 32), np.int32)
  real = np.arange(32) < np.array(
      lengths + [1] * (32 - len(lengths)))[:, None]
  rows = layout.make_rows(tokens, real, np.arange(32) < len(lengths))
  count = rows.tokens.shape[1]
  assert count % 4 == 0 and rows.tokens.shape[2] == 32
  # First fit, longest first, is within 11/9 of the best and a row; an eighth.
  assert count <= 11 / 9 * -(-sum(lengths) // 32) + 2 + 4 or (
      count == 4 * -(-len(lengths) // 4))
  assert rows.attention_mask.sum() >= sum(lengths)


def test_rows_grow_by_quarters_to_hold_all_branches_of_a_prompt():
  pair = tokenize.TokenizedPair(
      response([1], [2] * 7), response([1], [3] * 7))
  rows = layout.make_layout('branched')(collate.collate_preferences(
      [pair], batch_size=1, length=8)).rows
  assert rows.tokens.shape == (1, 1, 16)
  short = layout.make_layout('branched')(collate.collate_preferences(
      [pair._replace(rejected=response([1], [3, 3]))], batch_size=1,
      length=8)).rows
  assert short.tokens.shape == (1, 1, 12)  # 8 + 3 tokens.


def test_what_does_not_exist_is_not_read():
  ranking = tokenize.TokenizedRanking(
      (response([1], [2, 3]), response([1], [4])), (0, 1))
  rankings = collate.collate_rankings(
      [ranking], batch_size=2, length=6, num_ranked=3)
  rows = layout.make_layout('branched')(rankings).rows
  np.testing.assert_array_equal(rows.tokens[0], [[1, 2, 3, 1, 4, 0]])
  assert not rows.index[0, 1].any() and not rows.index[0, 0, 2].any()
  nothing = layout.make_rows(
      rankings.tokens, rankings.attention_mask, np.zeros((2, 3), bool))
  np.testing.assert_array_equal(nothing.attention_mask, [[[1, 0, 0, 0, 0, 0]]])


def test_a_prompt_on_the_left_of_its_samples_is_shared_too():
  """As trajectories have it: [B, T], K rows of a prompt side by side."""
  trajectory = types.Trajectory(
      tokens=np.array([[0, 1, 2, 3, 4], [0, 1, 2, 5, 0]], np.int32),
      attention_mask=np.array([[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]], bool),
      response_mask=np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]], bool),
      weight=np.ones(2, np.float32), sampler_logprobs=np.zeros((2, 5)))
  rows = layout.make_layout('branched', num_samples=2)(trajectory).rows
  np.testing.assert_array_equal(
      rows.tokens[0], [[1, 2, 3, 4, 2, 5, 0]])
  np.testing.assert_array_equal(
      rows.index[0], [[0, 0, 1, 2, 3], [0, 0, 1, 5, 0]])


@pytest.mark.parametrize('kind', ['padded', 'packed', 'branched'])
def test_cells_come_and_go_and_the_padded_batch_is_left(kind):
  pairs = make_pairs([([1], [2], [1, 1]), ([2, 1], [2], [2])])
  laid_out = layout.make_layout(kind, num_cells=2)(pairs)
  merged = types.merge_cells(laid_out)
  jax.tree.map(np.testing.assert_array_equal, merged.replace(rows=None), pairs)
  jax.tree.map(np.testing.assert_array_equal, types.split_cells(merged),
               laid_out)
  assert types.merge_cells(merged) is merged


def test_what_does_not_split_is_refused():
  with pytest.raises(types.InputError, match=(
      'batch_size=4 does not split into num_cells=3 of whole groups of 1; use '
      'a multiple of 3')):
    layout.make_layout('packed', num_cells=3)(make_pairs([([1], [2], [3])]))
  with pytest.raises(types.InputError, match=(
      'a batch of 2 parts does not split over 4 processes; use a batch_size, '
      'or num_cells, that is a multiple of 4')):
    layout.make_layout('packed', num_cells=2, process_count=4)(
        make_pairs([([1], [2], [3])]))


# --- The order of a run.


def stream_of(name, kind, **settings):
  """The batches of one kind of data, laid out, for one process."""
  rng = np.random.default_rng(5)
  prompts = [[1, i + 2] for i in range(19)]
  row = lambda p: response(p, rng.integers(2, 9, rng.integers(1, 7)).tolist())
  rows = {
      'pairs': [tokenize.TokenizedPair(row(p), row(p)) for p in prompts],
      'unpaired': [tokenize.TokenizedLabel(row(p), i % 2 == 0)
                   for i, p in enumerate(prompts)],
      'ranked': [tokenize.TokenizedRanking((row(p), row(p), row(p)), (0, 2, 1))
                 for p in prompts],
      'demonstrations': [row(p) for p in prompts],
  }[name]
  make = {'pairs': batches.preference_batches,
          'unpaired': batches.unpaired_batches,
          'ranked': batches.ranking_batches,
          'demonstrations': batches.demonstration_batches}[name]
  start = settings.pop('start', 0)
  return make(rows, batch_size=8, max_length=LENGTH, seed=3, buckets=(6,),
              num_epochs=2, start=start, layout=layout.make_layout(
                  kind, num_cells=4, **settings))


@pytest.mark.parametrize('name', ['pairs', 'unpaired', 'ranked',
                                  'demonstrations'])
@pytest.mark.parametrize('kind', ['padded', 'packed', 'branched'])
def test_the_order_is_the_same_for_1_2_and_4_processes_and_after_resume(
    name, kind):
  """At every step the processes' parts are the whole, from any start."""
  whole = list(stream_of(name, kind))
  join = lambda *parts: jax.tree.map(lambda *x: np.concatenate(x), *parts)
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  assert len(whole) >= 6
  for count in (1, 2, 4):
    for start in range(len(whole)):
      parts = [list(stream_of(name, kind, start=start, process_index=i,
                              process_count=count)) for i in range(count)]
      assert {len(part) for part in parts} == {len(whole) - start}
      for due, *held in zip(whole[start:], *parts, strict=True):
        same(join(*held), due)


@settings(max_examples=5)
@given(st.integers(0, 9))
def test_a_step_holds_the_same_responses_under_every_layout(step):
  padded, *others = (
      next(stream_of('pairs', kind, start=step % 6))
      for kind in ('padded', 'packed', 'branched'))
  for other in others:
    jax.tree.map(np.testing.assert_array_equal,
                 types.merge_cells(other).replace(rows=None), padded)


def test_most_batches_of_prompts_are_of_one_shape():
  """As nine tenths of the first twenty need; alone they have more."""
  rng = np.random.default_rng(3)
  rows = [tokenize.TokenizedPrompt(np.ones(n, np.int32), i)
          for i, n in enumerate(rng.geometric(0.05, 600).clip(1, 64))]

  prompts = list(itertools.islice(batches.prompt_batches(
      rows, batch_size=32, max_length=64, num_samples=2), 60))

  def told(**settings):
    plan = make_prompt_layout(
        'packed', max_new_tokens=16, num_samples=2, num_cells=2, **settings)
    return collections.Counter(
        (*planned.rows.tokens.shape, planned.width)
        for planned in map(plan, prompts)).most_common()

  (shape, count), *others = told(like=prompts[:20])
  assert count >= 0.65 * 60 and 1 + len(others) < len(told())
  # In which there is little room: a group is a prompt and two responses.
  cells = [batch.attention_mask[::2].sum(axis=1) + 2 * 17 - 1
           for batch in prompts]
  assert shape[1] * shape[2] < 1.5 * np.mean(cells) * 8
