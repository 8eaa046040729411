"""Claims about padding and masks."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax.data import collate
from alignjax.data import tokenize

# Ids from 0: no id may be taken for padding.
rows_of_ids = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4),
              st.lists(st.integers(0, 3), min_size=1, max_size=4)),
    min_size=1, max_size=3,
)
pad_ids = st.sampled_from([0, 1, 3])


def response(prompt, ids):
  return tokenize.TokenizedResponse(np.array(prompt + ids, np.int32),
                                    len(prompt))


@given(rows_of_ids, pad_ids)
def test_masks_follow_lengths_whatever_the_pad_id(rows, pad_id):
  batch = collate.collate_demonstrations(
      [response(p, r) for p, r in rows], batch_size=4, length=9, pad_id=pad_id)
  assert batch.tokens.shape == (4, 9) and batch.tokens.dtype == np.int32
  assert batch.attention_mask.dtype == batch.loss_mask.dtype == bool
  assert batch.weight.dtype == np.float32
  for i, (prompt, ids) in enumerate(rows):
    n = len(prompt) + len(ids)
    np.testing.assert_array_equal(
        batch.tokens[i], prompt + ids + [pad_id] * (9 - n))
    np.testing.assert_array_equal(batch.attention_mask[i], np.arange(9) < n)
    np.testing.assert_array_equal(
        batch.loss_mask[i], (np.arange(9) >= len(prompt)) & (np.arange(9) < n))
  np.testing.assert_array_equal(batch.weight, np.arange(4) < len(rows))


def test_a_row_that_says_which_tokens_bear_loss_is_believed():
  mask = np.array([False, True, False, True, True])
  row = response([5, 6, 7], [8, 0])._replace(loss_mask=mask)
  batch = collate.collate_demonstrations(
      [row, response([5], [6, 7])], batch_size=3, length=6)
  assert list(np.flatnonzero(batch.loss_mask[0])) == [1, 3, 4]
  assert list(np.flatnonzero(batch.loss_mask[1])) == [1, 2]
  assert not batch.loss_mask[2].any()


def test_filler_bears_no_loss_and_has_one_real_token():
  row = response([5], [6, 7])
  batch = collate.collate_demonstrations([row], batch_size=3, length=4)
  assert list(batch.weight) == [1, 0, 0]
  assert not batch.loss_mask[1:].any()
  np.testing.assert_array_equal(batch.attention_mask[1:].sum(1), 1)
  np.testing.assert_array_equal(
      batch.attention_mask[1], [True, False, False, False])
  pairs = collate.collate_preferences(
      [tokenize.TokenizedPair(row, row)], batch_size=2, length=4)
  assert list(pairs.weight) == [1, 0]
  assert not pairs.loss_mask[1].any()
  prompts = collate.collate_prompts(
      [tokenize.TokenizedPrompt(np.array([5]), 0)], batch_size=2, length=3)
  np.testing.assert_array_equal(
      prompts.attention_mask, [[False, False, True]] * 2)
  assert list(prompts.weight) == [1, 0]


def test_pairs_hold_chosen_first():
  pair = tokenize.TokenizedPair(response([5, 6], [7, 2]), response([5, 6], [2]))
  batch = collate.collate_preferences([pair], batch_size=1, length=5)
  np.testing.assert_array_equal(
      batch.tokens, [[[5, 6, 7, 2, 0], [5, 6, 2, 0, 0]]])
  np.testing.assert_array_equal(
      batch.loss_mask, [[[0, 0, 1, 1, 0], [0, 0, 1, 0, 0]]])
  np.testing.assert_array_equal(
      batch.attention_mask, [[[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]])
  assert batch.ref_logprobs is None


@given(st.lists(st.tuples(rows_of_ids.map(lambda rows: rows[0]),
                          st.booleans()), min_size=2, max_size=4), pad_ids)
def test_a_prompt_is_mismatched_with_the_response_of_the_next_real_row(
    rows, pad_id):
  batch = collate.collate_unpaired(
      [tokenize.TokenizedLabel(response(p, r), desirable)
       for (p, r), desirable in rows],
      batch_size=6, length=8, pad_id=pad_id)
  own, others = ([p for (p, _), _ in rows], [r for (_, r), _ in rows])
  for i, prompt in enumerate(own):
    other = prompt + others[(i + 1) % len(rows)]
    for got, ids in ((batch, prompt + others[i]), (batch.mismatched, other)):
      np.testing.assert_array_equal(
          got.tokens[i], ids + [pad_id] * (8 - len(ids)))
      columns = np.arange(8)
      np.testing.assert_array_equal(got.attention_mask[i], columns < len(ids))
      np.testing.assert_array_equal(
          got.loss_mask[i], (columns >= len(prompt)) & (columns < len(ids)))
  for got in (batch, batch.mismatched):
    np.testing.assert_array_equal(got.weight, np.arange(6) < len(rows))
    assert not got.loss_mask[len(rows):].any()
    np.testing.assert_array_equal(got.attention_mask[len(rows):].sum(1), 1)
  np.testing.assert_array_equal(
      batch.desirable, [d for _, d in rows] + [False] * (6 - len(rows)))
  assert batch.ref_logprobs is None and batch.kl is None


def test_a_mismatched_row_that_does_not_fit_loses_its_end():
  rows = [tokenize.TokenizedLabel(row, True) for row in (
      response([1, 2, 3], [4]), response([5], [6, 7, 8]))]
  mismatched = collate.collate_unpaired(
      rows, batch_size=2, length=4).mismatched
  np.testing.assert_array_equal(mismatched.tokens, [[1, 2, 3, 6], [5, 4, 0, 0]])
  np.testing.assert_array_equal(
      mismatched.loss_mask, [[0, 0, 0, 1], [0, 1, 0, 0]])


def test_a_row_alone_has_nothing_to_be_mismatched_with():
  row = tokenize.TokenizedLabel(response([5], [6, 7]), True)
  batch = collate.collate_unpaired([row], batch_size=2, length=4)
  np.testing.assert_array_equal(batch.weight, [1, 0])
  np.testing.assert_array_equal(batch.mismatched.weight, [0, 0])
  assert batch.mismatched.weight.dtype == np.float32


def test_rankings_of_unequal_width_are_filled_up():
  rows = [
      tokenize.TokenizedRanking((response([5], [6, 7]), response([5], [8])),
                                (1, 0)),
      tokenize.TokenizedRanking(
          (response([4], [1]), response([4], [2]), response([4], [3, 3])),
          (0, 2, 0))]
  batch = collate.collate_rankings(
      rows, batch_size=3, length=4, num_ranked=3, pad_id=9)
  np.testing.assert_array_equal(batch.tokens, [
      [[5, 6, 7, 9], [5, 8, 9, 9], [9] * 4],
      [[4, 1, 9, 9], [4, 2, 9, 9], [4, 3, 3, 9]], [[9] * 4] * 3])
  # What does not exist has one real token, that attention has something.
  np.testing.assert_array_equal(
      batch.attention_mask.sum(-1), [[3, 2, 1], [2, 2, 3], [1, 1, 1]])
  assert batch.attention_mask[..., 0].all()
  np.testing.assert_array_equal(
      batch.mask, [[1, 1, 0], [1, 1, 1], [0, 0, 0]])
  np.testing.assert_array_equal(
      batch.ranks, [[1, 0, 0], [0, 2, 0], [0, 0, 0]])
  np.testing.assert_array_equal(batch.weight, [1, 1, 0])
  assert batch.mask.dtype == bool
  assert batch.tokens.dtype == batch.ranks.dtype == np.int32


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4),
                min_size=1, max_size=3), pad_ids)
def test_prompts_end_in_the_last_column(prompts, pad_id):
  batch = collate.collate_prompts(
      [tokenize.TokenizedPrompt(np.array(ids, np.int32), 40 + i)
       for i, ids in enumerate(prompts)],
      batch_size=3, length=5, pad_id=pad_id)
  for i, ids in enumerate(prompts):
    blank = 5 - len(ids)
    np.testing.assert_array_equal(batch.tokens[i], [pad_id] * blank + ids)
    np.testing.assert_array_equal(
        batch.attention_mask[i], np.arange(5) >= blank)
    assert batch.prompt_id[i] == 40 + i
  assert batch.prompt_id.dtype == batch.sample_id.dtype == np.int32


@pytest.mark.parametrize('num_samples', [1, 2])
def test_samples_of_one_prompt_lie_side_by_side(num_samples):
  rows = [tokenize.TokenizedPrompt(np.array([i]), i) for i in (7, 8)]
  batch = collate.collate_prompts(
      rows, batch_size=3 * num_samples, length=2, num_samples=num_samples,
      first_sample_id=10)
  groups = (3, num_samples)
  np.testing.assert_array_equal(
      batch.prompt_id.reshape(groups), [[7] * num_samples, [8] * num_samples,
                                        [0] * num_samples])
  np.testing.assert_array_equal(
      batch.sample_id.reshape(groups),
      [[10 + k for k in range(num_samples)]] * 3)
  np.testing.assert_array_equal(
      batch.weight.reshape(groups), [[1] * num_samples, [1] * num_samples,
                                     [0] * num_samples])
  np.testing.assert_array_equal(batch.tokens[:num_samples, 1], 7)
