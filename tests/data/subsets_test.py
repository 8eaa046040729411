"""Rows that are held out are drawn by the seed, and are no others."""

import pytest

from alignjax import data
from alignjax.errors import InputError


def test_held_out_rows_are_drawn_by_the_seed_and_are_no_others():
  rows = list(range(20))
  held = lambda seed: [list(x) for x in data.hold_out(rows, 5, seed=seed)]
  kept, out = held(0)
  assert len(out) == 5 and sorted(kept + out) == rows
  assert (kept, out) == (sorted(kept), sorted(out))
  assert out == held(0)[1] != held(1)[1]
  assert list(data.hold_out(rows, 5, seed=0)[1][1:3]) == out[1:3]


def test_not_all_rows_can_be_held_out():
  with pytest.raises(InputError, match='holding out 3 of 3 rows leaves none'):
    data.hold_out([1, 2, 3], 3, seed=0)
