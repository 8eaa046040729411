"""What is counted, and how much that is."""

import pytest

from alignjax.hf import limits


def test_a_value_is_as_large_as_it_is_written_out():
  use = limits.Use({})
  inner = ['abc', 1]
  assert use.size('abc') == (4, 0)
  assert use.size(None) == (1, 0)
  assert use.size(2 ** 300)[0] > 90  # It has 91 digits.
  assert use.size(inner) == (1 + 4 + 1, 1)
  assert use.size((inner, inner)) == (1 + 2 * 6, 2)
  assert use.size({'a': inner}) == (1 + 2 + 6, 2)
  assert use.size({'a': inner}.items())[0] >= 6


def test_what_is_made_is_taken_from_what_is_left_once():
  use = limits.Use({'given': 'x' * 9})
  given = 10
  assert use.left == use.most == (
      limits._UNITS + limits._UNITS_PER_GIVEN * given)
  left = use.left
  text = use.admit('x' * 99)
  assert left - use.left == 100
  held = use.admit([text, text])
  assert left - use.left == 100 + 3
  use.admit([held])
  use.admit(held)
  assert left - use.left == 100 + 3 + 2


def test_items_that_are_made_one_by_one_are_counted_one_by_one():
  use = limits.Use({})
  left = use.left
  made = use.admit(iter(['a', 'bc']))
  assert use.left == left
  assert list(made) == ['a', 'bc'] and left - use.left == 2 + 3


def test_no_more_is_made_than_is_left():
  use = limits.Use({})
  use.foresee(use.left)
  with pytest.raises(limits.LimitError, match='makes more text and lists'):
    use.foresee(use.left + 1)
  half = 'x' * (use.left // 2)
  with pytest.raises(limits.LimitError, match='makes more text and lists'):
    use.admit([half, half, half, half])
  with pytest.raises(limits.LimitError, match='makes more text and lists'):
    use.measure((half, half, half, half), {})
  with pytest.raises(limits.LimitError, match='more than 8,192 bits'):
    use.admit(1 << 8_192)


def test_lists_in_lists_have_a_floor():
  use, value = limits.Use({}), []
  for _ in range(limits._NESTING - 1):
    value = [value]
  use.size(value)
  with pytest.raises(limits.LimitError, match='more than 64 deep'):
    use.size([value])


@pytest.mark.parametrize('text,values', [
    ('%(a)s' * 999, {'a': 'x' * 9_999}), ('%s' * 999, 'x' * 9_999),
    ('%(a).9999f' * 999, {'a': 1.5})])
def test_fields_are_foreseen_as_wide_as_what_they_may_hold(text, values):
  use = limits.Use({})
  with pytest.raises(limits.LimitError, match='makes more text and lists'):
    limits.foresee_percent(use, text, values)
  limits.foresee_percent(use, text[:10], values)
  braces = '{0}' * 999
  with pytest.raises(limits.LimitError, match='makes more text and lists'):
    limits.foresee_format(use, braces, (values,))
  limits.foresee_format(use, braces[:6], (values,))
