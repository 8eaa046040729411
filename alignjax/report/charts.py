"""Line charts, bar charts and histograms as inline SVG.

Colours are CSS classes (c0 ... c7) that the page defines for light and dark.
Lines are named where they end, so that no reader needs to match colours.
"""

from collections.abc import Sequence
import dataclasses
import html

import numpy as np

from alignjax import types
from alignjax.metrics import format_value
from alignjax.report import svg

WIDTH, HEIGHT = 480, 270       # Pixels of the drawing, scaled by the page.
NUM_COLORS = 8
MAX_POINTS = 240               # Longer curves are averaged to at most this.
_LEFT, _TOP, _BOTTOM = 52, 12, 40


@dataclasses.dataclass(frozen=True)
class Series:
  """One named line: [N] x and y, and a band where low and high are given."""

  name: str
  x: Sequence[float]
  y: Sequence[float]
  low: Sequence[float] | None = None
  high: Sequence[float] | None = None
  color: int | None = None  # 0 to 7; its place in the chart if None.
  dashed: bool = False


@dataclasses.dataclass(frozen=True)
class LineChart:
  """Lines over x, or paths through a plane when x goes back and forth."""

  title: str
  series: Sequence[Series]
  x_label: str
  y_label: str = ''
  caption: str = ''
  log_y: bool = False
  marks: bool = False  # A dot at each point; a ring at the first.
  lines: bool = True   # False: a scatter of dots.
  from_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Bars:
  """One named value per category, with error bars where there are any."""

  name: str
  values: Sequence[float]
  low: Sequence[float] | None = None
  high: Sequence[float] | None = None
  color: int | None = None


@dataclasses.dataclass(frozen=True)
class BarChart:
  """Categories side by side, in each one bar per model."""

  title: str
  categories: Sequence[str]
  bars: Sequence[Bars]
  y_label: str = ''
  caption: str = ''
  wide: bool = False  # Takes the page's whole width.


@dataclasses.dataclass(frozen=True)
class Histogram:
  """How often each value occurs, as a share, one outline per name."""

  title: str
  values: dict[str, Sequence[float]]
  x_label: str
  caption: str = ''
  num_bins: int = 24
  colors: dict[str, int] | None = None


def draw(chart: LineChart | BarChart | Histogram) -> str:
  """The chart as an <svg> element of its own."""
  if isinstance(chart, LineChart):
    return _draw_lines(chart)
  if isinstance(chart, BarChart):
    return _draw_bars(chart)
  return _draw_histogram(chart)


def _draw_lines(chart: LineChart) -> str:
  """Frame, bands, lines, marks, then the names at the lines' ends."""
  series = [_prepared(line, chart) for line in chart.series]
  right = _right_margin([line.name for line in series])
  bands = [band for line in series for band in (line.low, line.high)
           if band is not None]
  y_scale = svg.Scale(*svg.span(
      [line.y for line in series] + bands, log=chart.log_y,
      from_zero=chart.from_zero), HEIGHT - _BOTTOM, _TOP, chart.log_y)
  low, high = svg.span([line.x for line in series])
  if not chart.marks:  # Curves start at the axis.
    air = (high - low) / 22
    low, high = low + air, high - air
  x_scale = svg.Scale(low, high, _LEFT, WIDTH - right)
  parts = [_frame(x_scale, y_scale, chart.x_label, chart.y_label, right)]
  ends = []
  for index, line in enumerate(series):
    color = _color(line.color, index)
    x, y = x_scale(line.x), y_scale(line.y)
    if line.low is not None and line.high is not None:
      parts.append(svg.area(
          x, y_scale(line.low), y_scale(line.high), class_=f'band {color}'))
    if chart.lines:
      parts.append(svg.path(
          x, y, class_=f'line {color}',
          stroke_dasharray='5 4' if line.dashed else None))
    if chart.marks or not chart.lines:
      parts += _marks(line, x, y, color, ring=chart.lines)
    ends.append(_end(x, y))
  parts += _end_labels(series, ends, right)
  return _svg(chart.title, parts)


def _prepared(line: Series, chart: LineChart) -> Series:
  """Checks a line's lengths and averages a long curve."""
  given = [band for band in (line.low, line.high) if band is not None]
  if any(len(values) != len(line.x) for values in [line.y, *given]):
    raise types.InputError(
        f'chart {chart.title!r}: line {line.name!r} has {len(line.x)} x and '
        f'{len(line.y)} y; give one y, low and high for each x.')
  size = -(-len(line.x) // MAX_POINTS)
  if size <= 1 or chart.marks or not chart.lines:
    return line
  starts = range(0, len(line.x), size)

  def mean(values):
    if values is None:
      return None
    values = np.asarray(values, np.float64)
    return np.array([values[i:i + size].mean() for i in starts])

  return dataclasses.replace(
      line, x=mean(line.x), y=mean(line.y), low=mean(line.low),
      high=mean(line.high))


def _marks(line: Series, x, y, color: str, *, ring: bool) -> list[str]:
  """A dot at each point that says its numbers when pointed at."""
  marks = []
  for i in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
    says = (f'{line.name}: {format_value(float(line.x[i]))}, '
            f'{format_value(float(line.y[i]))}')
    marks.append(svg.element(
        'circle', svg.element('title', html.escape(says)),
        cx=x[i], cy=y[i], r=3.5 if ring and not i else 2.5,
        class_=f'{"ring" if ring and not i else "dot"} {color}'))
  return marks


def _end(x, y) -> tuple[float, float] | None:
  """A line's last point, where its name goes."""
  finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
  return (float(x[finite[-1]]), float(y[finite[-1]])) if finite.size else None


def _end_labels(series, ends, right: float) -> list[str]:
  """Each line's name in the right margin, at the height of its end."""
  named = [(line, end, i) for i, (line, end) in enumerate(
      zip(series, ends, strict=True)) if end and line.name]
  if len(series) < 2:
    return []
  heights = svg.spread([end[1] for _, end, _ in named], 14, _TOP + 4,
                       HEIGHT - _BOTTOM)
  labels = []
  for (line, end, index), y in zip(named, heights, strict=True):
    color = _color(line.color, index)
    x = WIDTH - right + 8
    labels.append(svg.path(
        [end[0] + 4, x - 2], [end[1], y], class_=f'leader {color}'))
    labels.append(svg.text(_short(line.name), x, y + 4, class_=f'name {color}'))
  return labels


def _draw_bars(chart: BarChart) -> str:
  """Frame, bars, error bars; the values above the bars if they are few."""
  width = 2 * WIDTH if chart.wide else WIDTH
  for bars in chart.bars:
    if len(bars.values) != len(chart.categories):
      raise types.InputError(
          f'chart {chart.title!r}: {bars.name!r} has {len(bars.values)} values '
          f'for {len(chart.categories)} categories; give one for each.')
  everything = [values for bars in chart.bars
                for values in (bars.values, bars.low, bars.high)
                if values is not None]
  top = _TOP + (20 if len(chart.bars) > 1 else 6)
  y_scale = svg.Scale(*svg.span(everything, from_zero=True),
                      HEIGHT - _BOTTOM + 12, top)
  parts = [_frame(None, y_scale, '', chart.y_label, 8, width=width)]
  slot = (width - 8 - _LEFT) / max(len(chart.categories), 1)
  thick = min(0.8 * slot / max(len(chart.bars), 1), 40)
  for place, category in enumerate(chart.categories):
    middle = _LEFT + (place + 0.5) * slot
    parts.append(svg.text(category, middle, HEIGHT - _BOTTOM + 28,
                          class_='tick', text_anchor='middle'))
    for index, bars in enumerate(chart.bars):
      left = middle + (index - len(chart.bars) / 2) * thick
      color = _color(bars.color, index)
      parts += _bar(bars, place, left, thick, y_scale, color)
  if len(chart.bars) > 1:
    parts += _legend([(bars.name, _color(bars.color, i))
                      for i, bars in enumerate(chart.bars)])
  return _svg(chart.title, parts, width=width)


def _bar(bars: Bars, place: int, left: float, thick: float,
         y_scale: svg.Scale, color: str) -> list[str]:
  """One bar, its error bar, and its value if there is room for it."""
  value = float(bars.values[place])
  if not np.isfinite(value):
    return []
  zero, y = float(y_scale(0)), float(y_scale(value))
  low = high = float('nan')
  if bars.low is not None and bars.high is not None:
    low, high = float(bars.low[place]), float(bars.high[place])
  has_error = np.isfinite(low + high)
  says = f'{bars.name}: {format_value(value)}' + (
      f' [{format_value(low)}, {format_value(high)}]' if has_error else '')
  parts = [svg.element(
      'rect', svg.element('title', html.escape(says)), x=left + 1,
      y=min(zero, y), width=max(thick - 2, 1), height=abs(zero - y),
      class_=f'bar {color}')]
  middle, above = left + thick / 2, min(zero, y)
  if has_error:
    parts.append(svg.path([middle] * 2, y_scale([low, high]), class_='error'))
    above = min(above, float(y_scale(high)))
  if thick >= 22:
    parts.append(svg.text(f'{value:.2f}', middle, above - 4, class_='value',
                          text_anchor='middle'))
  return parts


def _draw_histogram(chart: Histogram) -> str:
  """One row per name, on one x axis; all rows are drawn to one scale."""
  edges = _bin_edges(chart)
  shares = {}
  for name, values in chart.values.items():
    values = np.asarray(values, np.float64)
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    shares[name] = counts / max(counts.sum(), 1)
  tallest = max((share.max() for share in shares.values()), default=1.0) or 1.0
  right = _right_margin(list(shares)) if len(shares) > 1 else 12.0
  x_scale = svg.Scale(edges[0], edges[-1], _LEFT, WIDTH - right)
  room = (HEIGHT - _BOTTOM - _TOP) / max(len(shares), 1)
  x, parts = np.repeat(x_scale(edges), 2), []
  for index, (name, share) in enumerate(shares.items()):
    color = _color((chart.colors or {}).get(name), index)
    base = _TOP + (index + 1) * room
    y = base - np.concatenate([[0], np.repeat(share, 2), [0]]) / tallest * (
        0.86 * room)
    parts += [
        svg.area(x, np.full(len(x), base), y, class_=f'band {color}'),
        svg.path(x, y, class_=f'line {color}'),
        svg.path([_LEFT, WIDTH - right], [base] * 2, class_='grid')]
    if len(shares) > 1:
      parts.append(svg.text(_short(name), WIDTH - right + 8, base - 3,
                            class_=f'name {color}'))
  parts.append(_x_axis(x_scale, HEIGHT - _BOTTOM, chart.x_label))
  top = svg.tick_label(round(100 * tallest))
  parts.append(svg.text(f'{top} %', _LEFT - 6, _TOP + 0.14 * room + 4,
                        class_='tick', text_anchor='end'))
  return _svg(chart.title, parts)


def _bin_edges(chart: Histogram) -> np.ndarray:
  """Edges over all names' values: whole bins for whole numbers."""
  pooled = np.concatenate([np.zeros(0), *(
      np.asarray(v, np.float64) for v in chart.values.values())])
  pooled = pooled[np.isfinite(pooled)]
  low, high = (pooled.min(), pooled.max()) if pooled.size else (0.0, 1.0)
  if np.all(pooled == np.round(pooled)):
    size = -(-(high - low + 1) // chart.num_bins)
    return np.arange(low - 0.5, high + size, size)
  return np.histogram_bin_edges(pooled, chart.num_bins)


def _frame(x_scale, y_scale, x_label: str, y_label: str, right: float,
           width: float = WIDTH) -> str:
  """Grid lines, tick labels and the names of the axes."""
  end, parts = width - right, []
  ticks = y_scale.ticks()
  for tick, label in zip(ticks, svg.tick_labels(ticks), strict=True):
    y = float(y_scale(tick))
    parts.append(svg.path([_LEFT, end], [y, y], class_='grid'))
    parts.append(svg.text(label, _LEFT - 6, y + 4, class_='tick',
                          text_anchor='end'))
  if x_scale:
    parts.append(_x_axis(x_scale, y_scale.start, x_label))
  else:  # Bars stand on zero.
    parts.append(svg.path([_LEFT, end], [float(y_scale(0))] * 2, class_='axis'))
  middle = (y_scale.start + y_scale.end) / 2
  parts.append(svg.text(y_label, 12, middle, class_='label',
                        text_anchor='middle',
                        transform=f'rotate(-90 12 {middle:.0f})'))
  return ''.join(parts)


def _x_axis(x_scale, bottom: float, name: str) -> str:
  """A horizontal axis with its ticks and its name."""
  start, end = x_scale.start, x_scale.end
  parts = [svg.path([start, end], [bottom] * 2, class_='axis')]
  ticks = x_scale.ticks()
  for tick, label in zip(ticks, svg.tick_labels(ticks), strict=True):
    x = float(x_scale(tick))
    parts.append(svg.path([x, x], [bottom, bottom + 4], class_='axis'))
    parts.append(svg.text(label, x, bottom + 17, class_='tick',
                          text_anchor='middle'))
  parts.append(svg.text(name, (start + end) / 2, bottom + 34, class_='label',
                        text_anchor='middle'))
  return ''.join(parts)


def _legend(names: Sequence[tuple[str, str]]) -> list[str]:
  """Swatches and names in one row above the bars."""
  parts, x = [], float(_LEFT)
  for name, color in names:
    parts.append(svg.element('rect', x=x, y=2, width=11, height=11, rx=2,
                             class_=f'bar {color}'))
    parts.append(svg.text(_short(name), x + 16, 12, class_=f'name {color}'))
    x += 32 + 6.8 * len(_short(name))
  return parts


def _right_margin(names: Sequence[str]) -> float:
  """Room for the names at the lines' ends."""
  if len(names) < 2:
    return 12.0
  return 18 + 6.8 * max(len(_short(name)) for name in names)


def _short(name: str, limit: int = 20) -> str:
  return name if len(name) <= limit else name[:limit - 1] + '…'


def _color(chosen: int | None, index: int) -> str:
  return f'c{(index if chosen is None else chosen) % NUM_COLORS}'


def _svg(title: str, parts: Sequence[str], *, width: float = WIDTH) -> str:
  return svg.element(
      'svg', svg.element('title', html.escape(title)), *parts, role='img',
      viewBox=f'0 0 {width} {HEIGHT}')
