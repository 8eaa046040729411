"""The few words of SVG that the report's charts are written in."""

from collections.abc import Iterable, Sequence
import dataclasses
import html
import math

import numpy as np


def element(tag: str, *children: str, **attributes) -> str:
  """One element; attribute values are escaped, children are SVG already.

  `stroke_width=2` becomes `stroke-width="2"`, `class_` `class`; floats are
  rounded to a tenth of a pixel, and attributes of None are left out.
  """
  written = ''.join(
      f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
      for name, value in attributes.items() if value is not None)
  if children:
    return f'<{tag}{written}>{"".join(children)}</{tag}>'
  return f'<{tag}{written}/>'


def text(content: str, x: float, y: float, **attributes) -> str:
  """A line of text, escaped."""
  return element('text', html.escape(content), x=x, y=y, **attributes)


def path(x: Sequence[float], y: Sequence[float], **attributes) -> str:
  """A line through points in pixels, broken where one is not finite."""
  words, is_drawing = [], False
  for px, py in zip(x, y, strict=True):
    is_finite = math.isfinite(px) and math.isfinite(py)
    if is_finite and is_drawing:
      words.append(f'L{px:.1f} {py:.1f}')
    elif is_finite:
      words.append(f'M{px:.1f} {py:.1f}h0')  # A point alone is a dot.
    is_drawing = is_finite
  return element('path', d=''.join(words), **attributes)


def area(
    x: Sequence[float], low: Sequence[float], high: Sequence[float],
    **attributes) -> str:
  """The area between two lines in pixels; points not finite are left out."""
  points = [(a, b, c) for a, b, c in zip(x, low, high, strict=True)
            if math.isfinite(a + b + c)]
  corners = ([(a, c) for a, _, c in points]
             + [(a, b) for a, b, _ in reversed(points)])
  return element(
      'polygon', points=' '.join(f'{a:.1f},{b:.1f}' for a, b in corners),
      **attributes)


@dataclasses.dataclass(frozen=True)
class Scale:
  """Maps numbers in [low, high] to pixels between start and end."""

  low: float
  high: float
  start: float
  end: float
  log: bool = False

  def __call__(self, values) -> np.ndarray:
    """Pixels; NaN for what a logarithm does not have."""
    values = np.asarray(values, np.float64)
    low, high = self.low, self.high
    if self.log:
      low, high = math.log(low), math.log(high)
      values = np.log(np.where(values > 0, values, np.nan))
    return self.start + (values - low) / (high - low) * (self.end - self.start)

  def ticks(self, count: int = 7) -> list[float]:
    """Round numbers within the scale: decades if it spans two of them."""
    if self.log and self.high / self.low >= 100:
      decades = range(math.ceil(math.log10(self.low) - 1e-9),
                      math.floor(math.log10(self.high) + 1e-9) + 1)
      return [10.0 ** n for n in decades][::max(1, len(decades) // count)]
    step = round_step(self.low, self.high, count)
    first = math.ceil(self.low / step - 1e-9)
    last = math.floor(self.high / step + 1e-9)
    ticks = [n * step for n in range(first, last + 1)]
    return [tick for tick in ticks if tick > 0 or not self.log]


def round_step(low: float, high: float, count: int) -> float:
  """1, 2 or 5 times a power of ten, at most `count` of them in the range."""
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  return next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)


def span(
    values: Iterable[Sequence[float]], *, log: bool = False,
    from_zero: bool = False) -> tuple[float, float]:
  """A range that holds all finite values, with a little air."""
  flat = np.concatenate([np.zeros(0), *(
      np.asarray(value, np.float64).ravel() for value in values)])
  flat = flat[np.isfinite(flat) & ((flat > 0) | (not log))]
  low, high = (flat.min(), flat.max()) if flat.size else (0.1, 1.0)
  if log:
    return float(low) / 1.1, float(high) * 1.1
  if from_zero:
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:  # All zeros: an axis needs a length.
      return 0.0, 1.0
  air = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
  return (float(low) if from_zero and low == 0 else float(low - air),
          float(high) if from_zero and high == 0 else float(high + air))


def tick_labels(ticks: Sequence[float]) -> list[str]:
  """Labels as short as they can be while no two are the same."""
  for digits in range(4, 16):
    labels = [tick_label(tick, digits) for tick in ticks]
    if len(set(labels)) == len(labels):
      break
  return labels


def tick_label(value: float, digits: int = 4) -> str:
  """A short number: 0.25, 1,500, 20k, 3M, 1e-05."""
  size = abs(value)
  if size < 1e-12:
    return '0'
  for least, unit, name in ((1e9, 1e9, 'G'), (1e6, 1e6, 'M'), (1e4, 1e3, 'k')):
    if size >= least:
      return f'{value / unit:,.{digits}g}{name}'.replace('-', '−')
  return f'{value:,.{digits}g}'.replace('-', '−')


def spread(wanted: Sequence[float], gap: float, low: float, high: float
          ) -> list[float]:
  """Positions near the wanted ones, at least `gap` apart, within bounds."""
  order = sorted(range(len(wanted)), key=lambda i: wanted[i])
  placed, floor = {}, low
  for i in order:
    placed[i] = floor = max(wanted[i], floor)
    floor += gap
  ceiling = high
  for i in reversed(order):
    placed[i] = ceiling = min(placed[i], ceiling)
    ceiling -= gap
  return [placed[i] for i in range(len(wanted))]


def _attribute(value) -> str:
  if isinstance(value, (float, np.floating)):
    value = f'{value:.1f}'.removesuffix('.0')
  return html.escape(str(value))
