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
