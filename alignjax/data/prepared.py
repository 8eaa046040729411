"""Tokenized rows on disk: a file that was read once need not be read again.

    folder/
      tokens.npy      [N] int32, of all responses one after the other
      masks.npy       [N] bool, their loss masks; False where there is none
      references.npy  [N] float32, what a reference says of them; [0] if nothing
      responses.npy   [M] one `_RESPONSE` each
      rows.npy        [R + 1] int64, at which response each row begins
      about.json      the rows' kind, notes, and a digest of all of that

Rows come through a memory map: of a file of any length a run holds the rows of
the batches that it makes, and where the others are.
"""

from collections.abc import Sequence
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

from alignjax.data import tokenize

_RESPONSE = np.dtype([
    ('start', np.int64), ('prompt_length', np.int32), ('mark', np.int32),
    ('weight', np.float64), ('has_mask', np.bool_),
    ('has_reference', np.bool_)])
_ARRAYS = ('tokens', 'masks', 'references', 'responses', 'rows')

# By kind: a row's responses with a number each, and the way back.
_KINDS = {
    'response': (
        tokenize.TokenizedResponse,
        lambda row: [(row, 0)],
        lambda own, marks: own[0]),
    'pair': (
        tokenize.TokenizedPair,
        lambda row: [(row.chosen, row.strength), (row.rejected, row.strength)],
        lambda own, marks: tokenize.TokenizedPair(*own, marks[0])),
    'label': (
        tokenize.TokenizedLabel,
        lambda row: [(row.row, row.desirable)],
        lambda own, marks: tokenize.TokenizedLabel(own[0], bool(marks[0]))),
    'ranking': (
        tokenize.TokenizedRanking,
        lambda row: list(zip(row.rows, row.ranks, strict=True)),
        lambda own, marks: tokenize.TokenizedRanking(
            tuple(own), tuple(marks))),
}


class StoredRows(Sequence):
  """Rows that were stored: each is made anew whenever it is asked for."""

  def __init__(self, folder: pathlib.Path, kind: str):
    """Maps the files; reads none."""
    self._tokens, self._masks, self._said, self._responses, self._rows = (
        np.load(folder / f'{name}.npy', mmap_mode='r', allow_pickle=False)
        for name in _ARRAYS)
    self._ends = np.append(self._responses['start'][1:], len(self._tokens))
    self._make = _KINDS[kind][2]

  def __len__(self) -> int:
    return len(self._rows) - 1

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    index %= len(self)
    own = range(int(self._rows[index]), int(self._rows[index + 1]))
    return self._make([self._response(i) for i in own],
                      [int(self._responses['mark'][i]) for i in own])

  def _response(self, i: int) -> tokenize.TokenizedResponse:
    about = self._responses[i]
    place = slice(int(about['start']), int(self._ends[i]))
    return tokenize.TokenizedResponse(
        np.array(self._tokens[place]), int(about['prompt_length']),
        float(about['weight']),
        np.array(self._masks[place]) if about['has_mask'] else None,
        np.array(self._said[place]) if about['has_reference'] else None)


def store(folder: str | os.PathLike, rows: Sequence, notes: Any) -> None:
  """Writes rows of one kind; all of them are there then, or nothing is.

  Args:
    folder: must not be there, or is left as it is.
    rows: of one kind, at least one.
    notes: what JSON can hold; `load` returns it.

  Raises:
    OSError: the disk is full, or may not be written to.
  """
  folder = pathlib.Path(folder)
  kind, = (name for name, (cls, *_) in _KINDS.items()
           if isinstance(rows[0], cls))
  parts = [_KINDS[kind][1](row) for row in rows]
  flat = [pair for part in parts for pair in part]
  lengths = [len(own.tokens) for own, _ in flat]
  responses = np.zeros(len(flat), _RESPONSE)
  responses['start'] = np.cumsum([0, *lengths[:-1]])
  for place, (own, mark) in zip(responses, flat, strict=True):
    place['prompt_length'], place['mark'] = own.prompt_length, mark
    place['weight'] = own.weight
    place['has_mask'] = own.loss_mask is not None
    place['has_reference'] = own.ref_logprobs is not None
  arrays = {
      'tokens': np.concatenate([own.tokens for own, _ in flat]),
      'masks': _joined([own.loss_mask for own, _ in flat], lengths, bool),
      'references': _joined(
          [own.ref_logprobs for own, _ in flat], lengths, np.float32)
                    if responses['has_reference'].any()
                    else np.zeros(0, np.float32),
      'responses': responses,
      'rows': np.cumsum([0, *map(len, parts)]).astype(np.int64)}
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder.parent) as made:
    made = pathlib.Path(made) / folder.name
    made.mkdir(mode=0o700)  # What users' data says is for them to read.
    for name, array in arrays.items():
      np.save(made / f'{name}.npy', array)
    about = [kind, notes, {
        name: _digest(made / f'{name}.npy') for name in arrays}]
    (made / 'about.json').write_text(json.dumps([about, _digest_of(about)]))
    try:
      made.rename(folder)
    except OSError:
      if not folder.exists():  # Else it was stored before, or meanwhile.
        raise


def load(folder: str | os.PathLike) -> tuple[StoredRows, Any] | None:
  """(rows, notes) as they were stored, or None where they are not.

  Files that are not as they were written are deleted; so each load reads all of
  them once, but holds none.
  """
  folder = pathlib.Path(folder)
  if not folder.exists():
    return None
  try:
    about, digest = json.loads((folder / 'about.json').read_text())
    kind, notes, digests = about
    if digest == _digest_of(about) and digests == {
        name: _digest(folder / f'{name}.npy') for name in _ARRAYS}:
      return StoredRows(folder, kind), notes
  except (OSError, ValueError, KeyError, TypeError):
    pass  # Damaged, as a wrong digest says of the other files.
  shutil.rmtree(folder, ignore_errors=True)
  return None


def _joined(parts: Sequence[np.ndarray | None], lengths: Sequence[int], dtype
            ) -> np.ndarray:
  """One after the other, zeros where a part is missing."""
  return np.concatenate([
      np.zeros(length, dtype) if part is None else part
      for part, length in zip(parts, lengths, strict=True)])


def _digest_of(value) -> str:
  return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
