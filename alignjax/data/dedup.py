"""Rows that repeat one another, or the test set, are dropped by name.

Texts are compared as one reads them: in Unicode's composed form, without case,
with any run of white space as one space and none at the ends. A prompt as text
and as one user's message is the same prompt.

  duplicate       the same prompt and responses, judged alike; the first stays
  reversed pair   two responses to a prompt, preferred both ways; none stays,
                  as no row tells which is right
  also in test    the prompt, or the prompt and a response, is one of the test's

Nothing near a duplicate is looked for: a word that differs makes another text.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
from typing import Any, TypeVar
import unicodedata

from alignjax.data import chat
from alignjax.data import formats
from alignjax.data import rows as row_reading

Row = TypeVar('Row', formats.Demonstration, formats.Preference,
              formats.Unpaired, formats.Ranking, formats.PromptOnly)
Dropped = tuple[tuple[str, str], ...]  # (reason, where), as in Reading.


def normalize(text: str) -> str:
  """The text as it is compared: composed, without case, single spaces."""
  return ' '.join(unicodedata.normalize('NFC', text.casefold()).split())


def without_duplicates(rows: Sequence[Row]) -> tuple[list[Row], Dropped]:
  """Drops rows that say again, or the contrary of, what another says.

  Args:
    rows: Of one kind, in the order in which the first of equals stays.

  Returns:
    The rows kept, in their order, and (reason, where) of each row dropped. A
    second call drops nothing.
  """
  keys = [(_prompt_key(row.prompt), _judgement(row)) for row in rows]
  known = set(keys)
  kept, dropped, seen = [], [], set()
  for row, (prompt, judgement) in zip(rows, keys, strict=True):
    if len(judgement) == 2 and (prompt, _reverse(judgement)) in known:
      dropped.append(('reversed pair', row.where))
    elif (prompt, judgement) in seen:
      dropped.append(('duplicate', row.where))
    else:
      seen.add((prompt, judgement))
      kept.append(row)
  return kept, tuple(dropped)


def without_test_prompts(
    rows: Sequence[Row], test: Iterable[Any]
) -> tuple[list[Row], Dropped]:
  """Drops rows whose prompt is a test row's, whatever is answered.

  Args:
    rows: To train on.
    test: Rows of any kind that has a prompt.

  Returns:
    The rows kept, in their order, and ('also in test', where) of the others.
  """
  seen = {_prompt_key(row.prompt) for row in test}
  return _split(rows, lambda row: _prompt_key(row.prompt) in seen)


def without_test_rows(
    rows: Sequence[Row], test: Iterable[Any]
) -> tuple[list[Row], Dropped]:
  """Drops rows that share the prompt and a response with a test row.

  Where train and test answer the same prompts by design, this is the leak that
  is left to look for. Rows of prompts alone share no response; see
  `without_test_prompts`.
  """
  seen = {key for row in test for key in _response_keys(row)}
  return _split(rows, lambda row: not seen.isdisjoint(_response_keys(row)))


def add_dropped(reading: formats.Reading, dropped: Dropped) -> formats.Reading:
  """The reading of a file of whose rows more were dropped."""
  return dataclasses.replace(
      reading,
      num_rows=reading.num_rows - len(dropped),
      dropped=reading.dropped + dropped,
  )


def _split(rows, is_in_test) -> tuple[list, Dropped]:
  kept, dropped = [], []
  for row in rows:
    if is_in_test(row):
      dropped.append(('also in test', row.where))
    else:
      kept.append(row)
  return kept, tuple(dropped)


def _prompt_key(prompt: chat.Prompt) -> bytes:
  return _digest(*(
      part
      for turn in row_reading.as_turns(prompt)
      for part in (turn['role'], turn['content'])
  ))


def _response_keys(row: Any) -> set[tuple[bytes, bytes]]:
  """(prompt, response) for every response of a row."""
  prompt = _prompt_key(row.prompt)
  return {(prompt, response) for response, _ in _judgement(row)}


def _judgement(row: Any) -> tuple[tuple[bytes, int], ...]:
  """(response, rank) of a row's responses, best first; ranks are 0, 1, ..."""
  match row:
    case formats.PromptOnly():
      ranked = []
    case formats.Demonstration():
      ranked = [(row.response, 0)]
    case formats.Unpaired():
      ranked = [(row.response, int(not row.desirable))]
    case formats.Preference():
      ranked = [(row.chosen, 0), (row.rejected, 1)]
    case formats.Ranking():
      order = sorted(set(row.ranks))
      ranked = [(text, order.index(rank)) for text, rank
                in zip(row.responses, row.ranks, strict=True)]
    case _:
      raise TypeError(f'{type(row).__name__} is no kind of row')
  keys = [(_digest(text), rank) for text, rank in ranked]
  return tuple(sorted(keys, key=lambda key: (key[1], key[0])))


def _reverse(
    judgement: tuple[tuple[bytes, int], ...]
) -> tuple[tuple[bytes, int], ...]:
  """What the other preference between two responses would be."""
  (first, low), (second, high) = judgement
  return (second, low), (first, high)


def _digest(*texts: str) -> bytes:
  """16 bytes that stand for texts; these need not be held in memory."""
  digest = hashlib.blake2b(digest_size=16)
  for text in texts:
    encoded = normalize(text).encode('utf-8')
    digest.update(len(encoded).to_bytes(8, 'little'))
    digest.update(encoded)
  return digest.digest()
