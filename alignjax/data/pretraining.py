"""Documents become rows of token ids, for pretraining."""

from collections.abc import Iterable, Sequence

import numpy as np

from alignjax import types
from alignjax.data import tokenize


def pack_documents(
    documents: Iterable[Sequence[int]], length: int
) -> list[tokenize.TokenizedResponse]:
  """Rows for pretraining: a document each, split where it is too long.

  Every token but the row's first bears loss, as the first has nothing before
  it. A piece of one token is left out, because nothing in it can be learnt.

  Args:
    documents: Ids of one document each, BOS and EOS included if wanted.
    length: The most tokens a row may have, at least 2.

  Returns:
    Rows whose `prompt_length` is 1, in the documents' order.
  """
  if length < 2:
    raise types.InputError(
        f'length={length} leaves no token to predict; use 2 or more.'
    )
  rows = []
  for document in documents:
    tokens = np.asarray(document, np.int32)
    for start in range(0, len(tokens), length):
      piece = tokens[start : start + length]
      if len(piece) > 1:
        rows.append(tokenize.TokenizedResponse(piece, 1))
  return rows


def tokenize_documents(
    texts: Iterable[str], tokenizer: tokenize.Tokenizer, *, max_length: int
) -> list[tokenize.TokenizedResponse]:
  """Rows `BOS text EOS` for pretraining; see `pack_documents`."""
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  return pack_documents(
      (bos + list(tokenizer.encode(text)) + [tokenizer.eos_id]
       for text in texts),
      max_length,
  )
