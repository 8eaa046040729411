"""Rows from a cache are the rows that were stored, or they are not there."""

import numpy as np
import pytest

from alignjax import data
from alignjax.data import prepared


def response(seed, *, masked=False, weight=1.0):
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, 99, 3 + seed % 5).astype(np.int32)
  return data.TokenizedResponse(
      tokens, 2, weight, rng.random(len(tokens)) < 0.5 if masked else None)


ROWS = {
    'response': [response(i, masked=i % 2 == 0, weight=1 / (i + 1))
                 for i in range(5)],
    'pair': [data.TokenizedPair(response(i), response(i + 9), i % 4)
             for i in range(5)],
    'pair, one side of which a reference knows': [data.TokenizedPair(
        response(i)._replace(ref_logprobs=np.linspace(
            -i, 0, 3 + i % 5, dtype=np.float32)), response(i + 9))
                                                  for i in range(5)],
    'label': [data.TokenizedLabel(response(i), i % 2 == 0) for i in range(5)],
    'ranking': [data.TokenizedRanking(
        tuple(response(i + j) for j in range(2 + i)), tuple(range(2 + i)))
                for i in range(3)],
}


def plain(x):
  """Something that compares, types included."""
  if isinstance(x, np.ndarray):
    return 'array', x.dtype, x.tolist()
  if isinstance(x, tuple):
    return type(x), [plain(each) for each in x]
  return type(x), x


@pytest.mark.parametrize('kind', ROWS)
def test_what_is_stored_is_what_is_loaded(kind, tmp_path):
  rows, notes = ROWS[kind], ['read', {'rows': 5}]
  prepared.store(tmp_path / 'a', rows, notes)
  loaded, said = prepared.load(tmp_path / 'a')
  assert said == notes
  assert len(loaded) == len(rows)
  assert [plain(row) for row in loaded] == [plain(row) for row in rows]
  assert plain(tuple(loaded[-2:])) == plain(tuple(rows[-2:]))
  assert plain(loaded[-1]) == plain(rows[-1])
  with pytest.raises(IndexError, match='row 9 of'):
    loaded[9]
  assert [p.name for p in tmp_path.iterdir()] == ['a']
  assert not (tmp_path / 'a').stat().st_mode & 0o077  # Nobody else's to read.


def test_batches_of_stored_rows_are_the_same(tmp_path):
  rows = ROWS['pair']
  prepared.store(tmp_path / 'a', rows, None)
  settings = dict(batch_size=2, max_length=16, num_epochs=2)
  pairs = zip(
      data.preference_batches(rows, **settings),
      data.preference_batches(prepared.load(tmp_path / 'a')[0], **settings),
      strict=True)
  for a, b in pairs:
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.loss_mask, b.loss_mask)
    np.testing.assert_array_equal(a.strength, b.strength)


@pytest.mark.parametrize('name', [
    'tokens.npy', 'masks.npy', 'references.npy', 'responses.npy', 'rows.npy',
    'about.json'])
@pytest.mark.parametrize('act, place', [
    ('flip', 5), ('flip', -5), ('cut', 0), ('delete', 0)])
def test_what_was_damaged_is_not_there(name, act, place, tmp_path):
  prepared.store(tmp_path / 'a', ROWS['pair'], None)
  path = tmp_path / 'a' / name
  content = bytearray(path.read_bytes())
  if act == 'delete':
    path.unlink()
  elif act == 'cut':
    path.write_bytes(content[:-3])
  else:
    content[place] ^= 1
    path.write_bytes(content)
  assert prepared.load(tmp_path / 'a') is None
  assert not (tmp_path / 'a').exists()
  assert prepared.load(tmp_path / 'a') is None


def test_what_is_there_stays(tmp_path):
  prepared.store(tmp_path / 'a', ROWS['pair'], 'first')
  prepared.store(tmp_path / 'a', ROWS['label'], 'second')
  assert prepared.load(tmp_path / 'a')[1] == 'first'
