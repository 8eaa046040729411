"""Tests of charts: what is drawn, where, and under which name."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from alignjax import types
from alignjax.report import charts


def _draw(chart):
  """The chart as a tree; also shows that it is well-formed XML."""
  return ET.fromstring(charts.draw(chart))


def _texts(tree):
  return [node.text for node in tree.iter('text') if node.text]


def _lines(tree):
  return [node for node in tree.iter('path')
          if 'line' in node.get('class').split()]


def _line_chart(series, **settings):
  return charts.LineChart('Loss', series, 'step', 'nats', **settings)


def test_lines_axes_and_names_are_all_there():
  tree = _draw(_line_chart([
      charts.Series('sft', [0, 1, 2], [3, 2, 1]),
      charts.Series('<dpo>', [0, 1, 2], [3, 1, 0])]))
  assert len(_lines(tree)) == 2
  assert {'step', 'nats', 'sft', '<dpo>'} <= set(_texts(tree))
  assert tree.find('title').text == 'Loss' and tree.get('role') == 'img'


def test_a_higher_value_is_drawn_higher_and_a_later_step_further_right():
  tree = _draw(_line_chart([charts.Series('a', [0, 10], [1, 5])]))
  line = _lines(tree)[0].get('d')
  (x0, y0), (x1, y1) = re.findall(r'([\d.]+) ([\d.]+)', line)
  assert float(x0) < float(x1) and float(y0) > float(y1)


def test_a_single_line_is_named_by_the_title_alone():
  assert 'a' not in _texts(_draw(_line_chart([charts.Series('a', [0], [1])])))


def test_a_path_may_turn_back_and_rings_its_first_point():
  tree = _draw(_line_chart(
      [charts.Series('a', [0, 2, 1], [0, 1, 2])], marks=True))
  rings = [c for c in tree.iter('circle') if 'ring' in c.get('class')]
  assert len(rings) == 1 and len(list(tree.iter('circle'))) == 3
  assert rings[0].find('title').text == 'a: 0, 0'


def test_a_scatter_has_dots_and_no_line():
  tree = _draw(_line_chart(
      [charts.Series('a', [0, 2, 1], [0, 1, 2])], lines=False))
  assert not _lines(tree) and len(list(tree.iter('circle'))) == 3


def test_a_band_is_drawn_only_where_both_bounds_are_given():
  series = [charts.Series('a', [0, 1], [1, 1], low=[0, 0], high=[2, 2]),
            charts.Series('b', [0, 1], [1, 1], low=[0, 0])]
  assert len(list(_draw(_line_chart(series)).iter('polygon'))) == 1


def test_a_long_curve_keeps_its_mean_and_its_length_bounded():
  y = np.random.default_rng(0).random(5_000)
  chart = _line_chart([charts.Series('a', range(5_000), y)])
  path = _lines(_draw(chart))[0].get('d')
  assert 200 < path.count('L') < charts.MAX_POINTS


def test_values_that_are_not_finite_neither_break_nor_stretch_the_chart():
  y = [1, math.nan, 2, math.inf, math.nan, 3]
  tree = _draw(_line_chart([charts.Series('a', range(6), y)]))
  line = _lines(tree)[0].get('d')
  assert line.count('M') == 3
  y = [float(v) for v in re.findall(r' ([\d.]+)', line)]
  assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2) and y[0] > y[2] + 50


@pytest.mark.parametrize('y', [[], [math.nan], [0.0], [7.0, 7.0]])
def test_empty_constant_and_lost_lines_are_still_charts(y):
  for settings in ({}, {'log_y': True}, {'marks': True}):
    drawn = charts.draw(_line_chart(
        [charts.Series('a', range(len(y)), y)], **settings))
    assert 'nan' not in drawn and ET.fromstring(drawn) is not None


def test_lines_of_unequal_length_are_named():
  with pytest.raises(types.InputError, match="'Loss': line 'a' has 2 x and 1"):
    charts.draw(_line_chart([charts.Series('a', [0, 1], [1])]))


def _bar_chart(bars):
  return charts.BarChart('Gold', ['helpful', 'honest'], bars, 'score')


def test_bars_stand_on_zero_and_are_as_high_as_their_values():
  tree = _draw(_bar_chart([charts.Bars('a', [0.2, 0.4])]))
  first, second = (node for node in tree.iter('rect'))
  assert float(second.get('height')) == pytest.approx(
      2 * float(first.get('height')), abs=0.2)
  bottoms = {float(node.get('y')) + float(node.get('height'))
             for node in (first, second)}
  assert max(bottoms) - min(bottoms) < 0.2


def test_error_bars_and_legend_come_with_several_models():
  tree = _draw(_bar_chart([
      charts.Bars('sft', [0.2, 0.4], low=[0.1, 0.3], high=[0.3, 0.5]),
      charts.Bars('ppo', [0.5, math.nan])]))
  assert len([p for p in tree.iter('path') if p.get('class') == 'error']) == 2
  assert {'sft', 'ppo', 'helpful', 'honest'} <= set(_texts(tree))
  assert len(list(tree.iter('rect'))) == 3 + 2  # Bars and swatches.
  assert 'sft: 0.2 [0.1, 0.3]' in [t.text for t in tree.iter('title')]


def test_bars_without_a_value_for_each_category_are_named():
  with pytest.raises(types.InputError, match="'a' has 1 values for 2"):
    charts.draw(_bar_chart([charts.Bars('a', [1])]))


def test_whole_numbers_are_counted_in_whole_bins():
  chart = charts.Histogram('Length', {'a': [3, 4, 4, 40]}, 'words', num_bins=5)
  edges = charts._bin_edges(chart)
  assert np.all(edges % 1 == 0.5) and len(edges) <= 6
  assert edges[0] < 3 and edges[-1] > 40


def test_a_histogram_has_one_row_per_model_to_one_scale():
  chart = charts.Histogram(
      'Length', {'a': [1, 1, 1, 1], 'b': [1, 2, 3, 4]}, 'words')
  tree = _draw(chart)
  heights = []
  for line in _lines(tree):
    y = [float(v) for v in re.findall(r' (-?[\d.]+)', line.get('d'))]
    heights.append(max(y) - min(y))
  assert heights[0] == pytest.approx(4 * heights[1], abs=0.5)
  assert {'a', 'b', '100 %'} <= set(_texts(tree))


@pytest.mark.parametrize('values', [{}, {'a': []}, {'a': [2]},
                                    {'a': [0.5, 0.5], 'b': []}])
def test_histograms_of_little_or_nothing_are_still_charts(values):
  drawn = charts.draw(charts.Histogram('Length', values, 'words'))
  assert 'nan' not in drawn and ET.fromstring(drawn) is not None
