"""Claims about rows of whole documents."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from alignjax import types
from alignjax.data import pretraining


@given(st.lists(st.integers(0, 7), max_size=3), st.integers(2, 4))
def test_documents_are_kept_whole_or_split_in_order(lengths, length):
  texts = [list(range(n)) for n in lengths]
  rows = pretraining.pack_documents(texts, length)
  assert all(2 <= len(r.tokens) <= length for r in rows)
  assert all(r.prompt_length == 1 for r in rows)
  left_out = sum(n % length == 1 for n in lengths)
  assert sum(len(row.tokens) for row in rows) == sum(lengths) - left_out
  whole = [d for d in texts if 2 <= len(d) <= length]
  assert all(any(list(r.tokens) == d for r in rows) for d in whole)


def test_a_document_lies_between_bos_and_eos(tokenizer):
  (row,) = pretraining.tokenize_documents(['a b'], tokenizer, max_length=8)
  assert list(row.tokens) == [1, *tokenizer.encode('a b'), 0]


def test_a_row_of_one_token_cannot_be_trained_on():
  with pytest.raises(types.InputError, match='length=1 leaves no token'):
    pretraining.pack_documents([[1, 2]], 1)
