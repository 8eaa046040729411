"""Tests of scales, ticks and elements."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax.report import svg

_few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
_numbers = st.floats(-1e6, 1e6)


def test_attributes_and_text_are_escaped():
  assert svg.element('a', class_='x"y', stroke_width=2.04) == (
      '<a class="x&quot;y" stroke-width="2"/>')
  assert '&lt;b&gt;' in svg.text('<b>', 0, 0)


def test_a_line_breaks_where_it_is_not_finite_and_a_lone_point_is_a_dot():
  line = svg.path([1, 2, 3, 4], [1, math.nan, 3, 4])
  assert 'd="M1.0 1.0h0M3.0 3.0h0L4.0 4.0"' in line


def test_an_area_leaves_out_points_that_are_not_finite():
  assert 'points="0.0,2.0 2.0,2.0 2.0,1.0 0.0,1.0"' in svg.area(
      [0, 1, 2], [1, math.inf, 1], [2, 2, 2])


@_few
@hypothesis.given(_numbers, st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low, size):
  scale = svg.Scale(low, low + size, 0, 100)
  ticks = scale.ticks()
  assert 1 <= len(ticks) <= 8
  assert all(low - 1e-6 * size <= t <= low + size * (1 + 1e-6) for t in ticks)
  steps = np.diff(ticks)
  mantissa = steps / 10 ** np.floor(np.log10(steps * 1.0001))
  assert all(np.isclose(mantissa[:, None], [1, 2, 5]).any(axis=1))


def test_a_log_scale_has_decades_and_no_place_for_zero():
  scale = svg.Scale(0.01, 100, 0, 100, log=True)
  assert scale.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
  np.testing.assert_allclose(scale([0.01, 1, 100]), [0, 50, 100])
  assert np.isnan(scale([0, -1])).all()


@_few
@hypothesis.given(st.lists(st.one_of(_numbers, st.sampled_from(
    [math.nan, math.inf])), max_size=5))
def test_a_span_holds_all_finite_values_and_is_never_empty(values):
  low, high = svg.span([values])
  assert math.isfinite(low) and math.isfinite(high) and low < high
  assert all(low <= v <= high for v in values if math.isfinite(v))


def test_a_span_from_zero_starts_there():
  assert svg.span([[1, 2]], from_zero=True)[0] == 0
  assert svg.span([[-1, -2]], from_zero=True)[1] == 0


@pytest.mark.parametrize('value, label', [
    (0, '0'), (1e-17, '0'), (0.25, '0.25'), (1500, '1,500'), (20_000, '20k'),
    (3e6, '3M'), (-0.5, '−0.5'), (1e-5, '1e−05')])
def test_tick_labels_are_short(value, label):
  assert svg.tick_label(value) == label


def test_ticks_close_together_get_the_digits_that_tell_them_apart():
  assert svg.tick_labels([1000.1, 1000.2]) == ['1,000.1', '1,000.2']
  assert svg.tick_labels([0, 0.5]) == ['0', '0.5']


@_few
@hypothesis.given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_names_never_overlap_nor_leave_the_chart(wanted):
  placed = sorted(svg.spread(wanted, 14, 0, 100))
  assert all(np.diff(placed) >= 14 - 1e-9)
  assert placed[0] >= 0 and placed[-1] <= 100


def test_names_with_room_stay_where_they_are():
  assert svg.spread([50, 10], 14, 0, 100) == [50, 10]


def test_zeros_alone_still_have_an_axis():
  low, high = svg.span([[0.0, 0.0]], from_zero=True)
  assert svg.round_step(low, high, 7) > 0
