"""Claims about rows of ids: where the response lies and what is cut."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import types
from alignjax.data import formats
from alignjax.data import tokenize

words = st.lists(st.sampled_from('abc'), min_size=1, max_size=9).map(' '.join)


def demonstration(prompt='q', response='r', where='f.jsonl:1'):
  return formats.Demonstration(prompt, response, where)


def error_of(function, *args, **settings) -> str:
  with pytest.raises(types.InputError) as caught:
    function(*args, **settings)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@given(prompt=words, response=words, max_length=st.integers(12, 24))
def test_a_row_is_the_prompt_then_the_response_cut_at_the_end(
    tokenizer, prompt, response, max_length):
  row = tokenize.tokenize_demonstration(
      demonstration(prompt, response), tokenizer, max_length=max_length)
  before = tokenizer.prompt_tokens(prompt)
  whole = before + tokenizer.response_tokens(response)
  np.testing.assert_array_equal(row.tokens, whole[:max_length])
  assert row.tokens.dtype == np.int32
  assert row.prompt_length == len(before)
  kept = row.tokens[row.prompt_length:]
  is_whole = len(whole) <= max_length
  assert np.sum(kept == tokenizer.eos_id) == int(is_whole)
  assert not is_whole or kept[-1] == tokenizer.eos_id
  assert np.sum(row.tokens == tokenizer.bos_id) == 1


@given(prompt=words, chosen=words, rejected=words)
def test_a_pair_shares_its_prompt(tokenizer, prompt, chosen, rejected):
  pair = tokenize.tokenize_preference(
      formats.Preference(prompt, chosen, rejected, 'f:1'), tokenizer,
      max_length=24)
  n = pair.chosen.prompt_length
  assert n == pair.rejected.prompt_length
  np.testing.assert_array_equal(
      pair.chosen.tokens[:n], pair.rejected.tokens[:n])
  for row, text in ((pair.chosen, chosen), (pair.rejected, rejected)):
    np.testing.assert_array_equal(
        row.tokens[n:], tokenizer.response_tokens(text))


def test_plain_leaves_the_template_out(tokenizer):
  row = tokenize.tokenize_demonstration(
      demonstration('a b', 'c'), tokenizer, max_length=9, plain=True)
  assert row.prompt_length == 3
  assert tokenizer.user_id not in row.tokens


def test_a_prompt_with_no_room_behind_it_is_refused(tokenizer):
  # BOS, user, 5 words, assistant: 8 tokens.
  row = demonstration('a b c d e', 'r', 'x.jsonl:9')
  fits = tokenize.tokenize_demonstration(row, tokenizer, max_length=9)
  assert len(fits.tokens) == 9
  for function, rows in ((tokenize.tokenize_demonstration, row),
                         (tokenize.tokenize_demonstrations, [row])):
    assert error_of(function, rows, tokenizer, max_length=8) == (
        'x.jsonl:9: the prompt has 8 tokens, which leaves no room for a'
        ' response in max_length=8; raise max_length to 9 or more, or pass'
        ' --long-prompts drop (or left).')


def test_a_prompt_to_sample_from_may_fill_its_row(tokenizer):
  row = formats.PromptOnly('a b c d e', 'x:9')
  fits = tokenize.tokenize_prompt(row, tokenizer, max_length=8)
  assert len(fits.tokens) == 8
  assert 'more than max_length=7; raise max_length to 8' in error_of(
      tokenize.tokenize_prompt, row, tokenizer, max_length=7)


def test_long_prompts_can_be_dropped_and_are_counted(tokenizer):
  rows = [demonstration('a', 'r', 'f:1'),
          demonstration('a b c d e', 'r', 'f:2')]
  kept, fitted = tokenize.tokenize_demonstrations(
      rows, tokenizer, max_length=8, long_prompts='drop')
  assert len(kept) == 1
  assert fitted.dropped == (('long prompt', 'f:2'),)
  assert str(fitted) == (
      '1 rows fit max_length=8; dropped 1: long prompt (line 2)')


def test_long_prompts_can_lose_their_beginning_but_not_bos(tokenizer):
  rows = [demonstration('a b c d e', 'r', 'f:2')]
  (row,), fitted = tokenize.tokenize_demonstrations(
      rows, tokenizer, max_length=6, long_prompts='left')
  prompt = tokenizer.prompt_tokens('a b c d e')
  np.testing.assert_array_equal(
      row.tokens, prompt[:1] + prompt[-3:] + tokenizer.response_tokens('r'))
  assert row.prompt_length == 4
  assert fitted.cut_prompts == ('f:2',) and not fitted.cut_responses
  assert 'cut 1 prompts at the start' in str(fitted)


@given(prompt=words, response=words, max_length=st.integers(2, 8))
def test_cutting_on_the_left_leaves_room_for_a_response(
    tokenizer, prompt, response, max_length):
  (row,), _ = tokenize.tokenize_demonstrations(
      [demonstration(prompt, response)], tokenizer, max_length=max_length,
      long_prompts='left')
  assert 1 <= row.prompt_length < len(row.tokens) <= max_length
  np.testing.assert_array_equal(
      row.tokens[row.prompt_length:],
      tokenizer.response_tokens(response)[:len(row.tokens)-row.prompt_length])


def test_responses_that_were_cut_are_counted(tokenizer):
  rows = [demonstration('a', 'b c', 'f:1'), demonstration('a', 'b c d', 'f:2')]
  kept, fitted = tokenize.tokenize_demonstrations(
      rows, tokenizer, max_length=7)
  assert fitted.cut_responses == ('f:2',)
  assert [row.tokens[-1] == tokenizer.eos_id for row in kept] == [True, False]
  assert 'cut 1 responses at the end' in str(fitted)


def test_pairs_that_are_equal_once_cut_are_dropped_by_name(tokenizer):
  rows = [formats.Preference('a', 'b c d x', 'b c d y', 'f:1'),
          formats.Preference('a', 'x', 'y', 'f:2')]
  kept, fitted = tokenize.tokenize_preferences(rows, tokenizer, max_length=7)
  assert len(kept) == 1
  assert fitted.dropped == (('equal once cut', 'f:1'),)


def test_a_pair_that_is_equal_once_cut_gives_no_labels(tokenizer):
  """But a response may be good in one pair and bad in another."""
  rows = [formats.Unpaired('a', 'b c d x', True, 'f:1'),
          formats.Unpaired('a', 'b c d y', False, 'f:1'),
          formats.Unpaired('a', 'x', True, 'f:2'),
          formats.Unpaired('a', 'x', False, 'f:3')]
  kept, fitted = tokenize.tokenize_unpaired(rows, tokenizer, max_length=7)
  assert [row.desirable for row in kept] == [True, False]
  assert fitted.dropped == (('equal once cut', 'f:1'),)


def test_a_ranking_of_what_is_equal_once_cut_is_dropped(tokenizer):
  rows = [formats.Ranking('a', ('b c d x', 'b c d y', 'e'), (0, 1, 2), 'f:1'),
          formats.Ranking('a', ('b c d x', 'b c d y', 'e'), (0, 0, 2), 'f:2')]
  kept, fitted = tokenize.tokenize_rankings(rows, tokenizer, max_length=7)
  assert [row.ranks for row in kept] == [(0, 0, 2)]
  assert fitted.dropped == (('equal once cut', 'f:1'),)


def test_a_pair_keeps_how_sure_its_annotator_was(tokenizer):
  sure = formats.Preference('a', 'x', 'y', 'f:1', strength=3)
  (row,), _ = tokenize.tokenize_preferences([sure], tokenizer, max_length=7)
  alone = tokenize.tokenize_preference(sure, tokenizer, max_length=7)
  assert row.strength == alone.strength == 3


def test_a_label_stays_with_its_row_and_long_prompts_are_counted(tokenizer):
  rows = [formats.Unpaired('a', 'b c', True, 'f:1'),
          formats.Unpaired('a b c d e', 'x', True, 'f:2'),
          formats.Unpaired('a', 'b c d e', False, 'f:3')]
  kept, fitted = tokenize.tokenize_unpaired(
      rows, tokenizer, max_length=7, long_prompts='drop')
  assert [row.desirable for row in kept] == [True, False]
  prompt = tokenizer.prompt_tokens('a')
  for row, text in zip(kept, ('b c', 'b c d e'), strict=True):
    whole = prompt + tokenizer.response_tokens(text)
    np.testing.assert_array_equal(row.row.tokens, whole[:7])
    assert row.row.prompt_length == len(prompt)
  assert fitted.dropped == (('long prompt', 'f:2'),)
  assert fitted.cut_responses == ('f:3',) and fitted.num_rows == 2


def test_the_responses_of_a_ranking_share_its_prompt(tokenizer):
  rows = [formats.Ranking('a', ('b', 'b c d e', 'c'), (2, 0, 0), 'f:1'),
          formats.Ranking('a b c d e', ('b', 'c'), (0, 1), 'f:2'),
          formats.Ranking('a b', ('c', 'd'), (0, 1), 'f:3')]
  kept, fitted = tokenize.tokenize_rankings(
      rows, tokenizer, max_length=7, long_prompts='drop')
  assert [row.ranks for row in kept] == [(2, 0, 0), (0, 1)]
  for row, record in zip(kept, (rows[0], rows[2]), strict=True):
    prompt = tokenizer.prompt_tokens(record.prompt)
    assert len(row.rows) == len(record.responses)
    for got, text in zip(row.rows, record.responses, strict=True):
      whole = prompt + tokenizer.response_tokens(text)
      np.testing.assert_array_equal(got.tokens, whole[:7])
      assert got.prompt_length == len(prompt)
  assert fitted.dropped == (('long prompt', 'f:2'),)
  assert fitted.cut_responses == ('f:1',)  # One record, though three rows.


def test_a_long_prompt_is_cut_for_the_longest_response_of_a_ranking(tokenizer):
  rows = [formats.Ranking('a b c d e', ('b c', 'd'), (0, 1), 'f:1')]
  (row,), _ = tokenize.tokenize_rankings(
      rows, tokenizer, max_length=7, long_prompts='left')
  longest, shortest = row.rows
  np.testing.assert_array_equal(
      longest.tokens[longest.prompt_length:],
      tokenizer.response_tokens('b c'))
  assert len(longest.tokens) == 7 and len(shortest.tokens) == 6
  assert longest.prompt_length == shortest.prompt_length == 4


def test_prompts_keep_their_number_when_others_are_dropped(tokenizer):
  rows = [formats.PromptOnly(text, 'f:1') for text in ('a b c d e', 'a', 'b')]
  kept, _ = tokenize.tokenize_prompts(
      rows, tokenizer, max_length=5, long_prompts='drop')
  assert [row.prompt_id for row in kept] == [1, 2]


def test_no_row_left_is_an_error(tokenizer):
  rows = [demonstration('a b c d e', 'r', 'f:2')]
  message = error_of(tokenize.tokenize_demonstrations, rows, tokenizer,
                     max_length=4, long_prompts='drop')
  assert 'no row is left at max_length=4' in message
  assert 'long prompt (line 2)' in message
  assert 'there were no records' in error_of(
      tokenize.tokenize_demonstrations, [], tokenizer, max_length=4)


def test_an_unknown_way_with_long_prompts_is_refused(tokenizer):
  assert "long_prompts='right' is not known" in error_of(
      tokenize.tokenize_demonstrations, [], tokenizer, max_length=4,
      long_prompts='right')


def test_eos_inside_a_response_is_refused(tokenizer):
  class Leaky(type(tokenizer)):
    """Takes the word EOS for the token, as a careless tokenizer does."""

    def encode(self, text):
      return [self.eos_id if w == 'EOS' else 9 for w in text.split()]

  message = error_of(
      tokenize.tokenize_demonstration, demonstration(response='a EOS b'),
      Leaky(), max_length=20)
  assert 'f.jsonl:1: the response holds' in message
  assert 'at its token 1 of 4' in message


def test_fitted_cannot_be_changed(tokenizer):
  _, fitted = tokenize.tokenize_demonstrations(
      [demonstration()], tokenizer, max_length=9)
  with pytest.raises(dataclasses.FrozenInstanceError):
    fitted.num_rows = 2


TALK = ({'role': 'user', 'content': 'a'},
        {'role': 'assistant', 'content': 'b c'},
        {'role': 'user', 'content': 'd e'})


def test_all_turns_bear_loss_in_the_row_of_the_last(tokenizer):
  """Ids: BOS user a assistant b c user d e assistant f EOS."""
  talk = [demonstration(TALK, 'f')]
  (last,), fitted = tokenize.tokenize_demonstrations(
      talk, tokenizer, max_length=20)
  (row,), _ = tokenize.tokenize_demonstrations(
      talk, tokenizer, max_length=20, turns='all')
  np.testing.assert_array_equal(row.tokens, last.tokens)
  assert row.prompt_length == last.prompt_length == 10
  assert last.loss_mask is None
  assert row.loss_mask.dtype == bool
  assert list(np.flatnonzero(row.loss_mask)) == [4, 5, 10, 11]
  assert not fitted.cut_responses


@given(prompt=words, response=words, max_length=st.integers(2, 24),
       long_prompts=st.sampled_from(['drop', 'left']))
def test_a_row_of_one_turn_is_the_same_with_all_turns(
    tokenizer, prompt, response, max_length, long_prompts):
  rows = [demonstration('a', 'b'),
          demonstration(prompt, response, 'f:2'),
          demonstration(({'role': 'user', 'content': prompt},), response)]
  settings = dict(max_length=max_length, long_prompts=long_prompts)
  try:
    last, fitted = tokenize.tokenize_demonstrations(rows, tokenizer, **settings)
  except types.InputError as error:
    assert str(error) == error_of(
        tokenize.tokenize_demonstrations, rows, tokenizer, turns='all',
        **settings)
    return
  every, all_fitted = tokenize.tokenize_demonstrations(
      rows, tokenizer, turns='all', **settings)
  assert fitted == all_fitted
  for a, b in zip(last, every, strict=True):
    assert a.tokens.tobytes() == b.tokens.tobytes()
    assert a[1:] == b[1:] and b.loss_mask is None


def test_a_long_conversation_keeps_the_turns_that_fit(tokenizer):
  rows = [demonstration(TALK, 'f', 'f:1')]
  for max_length in (5, 6, 9, 11):
    (row,), fitted = tokenize.tokenize_demonstrations(
        rows, tokenizer, max_length=max_length, turns='all')
    whole = [4, 5, 10, 11]
    assert len(row.tokens) == len(row.loss_mask) == max_length
    assert list(np.flatnonzero(row.loss_mask)) == [
        i for i in whole if i < max_length]
    assert row.prompt_length == min(10, max_length)
    assert fitted.cut_responses == ('f:1',) and not fitted.dropped


def test_a_conversation_of_which_no_turn_fits_has_a_long_prompt(tokenizer):
  rows = [demonstration(TALK, 'f', 'f:1'), demonstration('', 'g', 'f:2')]
  for turns in ('last', 'all'):
    assert 'f:1: the prompt has 10 tokens, which leaves no room' in error_of(
        tokenize.tokenize_demonstrations, rows, tokenizer, max_length=4,
        turns=turns)
    kept, fitted = tokenize.tokenize_demonstrations(
        rows, tokenizer, max_length=4, long_prompts='drop', turns=turns)
    assert len(kept) == 1 and fitted.dropped == (('long prompt', 'f:1'),)


def test_a_prompt_that_loses_its_beginning_keeps_the_turns_that_are_left(
    tokenizer):
  talk = ({'role': 'user', 'content': 'a a a a a'},
          {'role': 'assistant', 'content': 'b'},
          {'role': 'user', 'content': 'c'})
  (row,), _ = tokenize.tokenize_demonstrations(
      [demonstration(talk, 'd')], tokenizer, max_length=8,
      long_prompts='left', turns='all')
  whole = tokenizer.prompt_tokens(talk)
  np.testing.assert_array_equal(
      row.tokens, whole[:1] + whole[-5:] + tokenizer.response_tokens('d'))
  # BOS assistant b user c assistant d EOS
  assert list(np.flatnonzero(row.loss_mask)) == [2, 6, 7]


def test_what_a_row_begins_with_bears_no_loss_as_nothing_is_before_it(
    tokenizer):
  class Early(type(tokenizer)):
    def conversation_tokens(self, messages, *, add_generation_prompt):
      ids = self.prompt_tokens(messages)
      return ids, [True] * self.marked + [False] * (len(ids) - self.marked)

  for marked, loss in ((1, None), (3, [1, 2, 10, 11])):
    early = Early()
    early.marked = marked
    (row,), _ = tokenize.tokenize_demonstrations(
        [demonstration(TALK, 'f')], early, max_length=20, turns='all')
    assert (loss is None and row.loss_mask is None) or (
        list(np.flatnonzero(row.loss_mask)) == loss)


def test_a_transcript_has_one_turn_that_bears_loss():
  class Transcripts:
    bos_id, eos_id = None, 0

    def prompt_tokens(self, prompt, *, plain):
      assert plain
      return [5, 6]

    def response_tokens(self, response):
      return [7, 0]

  (row,), _ = tokenize.tokenize_demonstrations(
      [demonstration(TALK, 'f')], Transcripts(), max_length=9, plain=True,
      turns='all')
  assert row.loss_mask is None and row.prompt_length == 2


def test_a_turn_whose_tokens_cannot_be_told_is_named_with_its_line(tokenizer):
  class Rewriter(type(tokenizer)):
    def conversation_tokens(self, messages, *, add_generation_prompt):
      raise types.InputError('messages[1]: the chat template ...')

  assert error_of(
      tokenize.tokenize_demonstrations, [demonstration(TALK, 'f', 'x:3')],
      Rewriter(), max_length=20, turns='all'
  ) == 'x:3: messages[1]: the chat template ...'
  assert "turns='first' is not known; use 'last' or 'all'" in error_of(
      tokenize.tokenize_demonstrations, [demonstration()], tokenizer,
      max_length=9, turns='first')


def test_a_response_cut_short_has_no_eos_and_one_that_fits_has_one(tokenizer):
  """EOS is neither lost without need nor put behind what was cut off."""
  talk = [demonstration('a', 'b c d')]  # 4 tokens, then 4 with EOS.
  for max_length in range(5, 10):
    (row,), _ = tokenize.tokenize_demonstrations(
        talk, tokenizer, max_length=max_length)
    assert list(row.tokens).count(tokenizer.eos_id) == (max_length >= 8)
    assert len(row.tokens) == min(8, max_length)
