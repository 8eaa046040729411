"""How far annotators agree, beyond what chance would bring about.

Ratings are [A, N] numbers, one row per annotator and one column per item, NaN
where an annotator has not rated an item. All three coefficients compare the
disagreement that is seen with that which is expected,

    coefficient = 1 − D_observed / D_expected,

and differ in what they expect: Cohen's keeps each annotator's own habits,
Fleiss' takes one habit for all, Krippendorff's draws without replacement, so
that few items are not flattered, and takes gaps.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from alignjax import types

Level = Literal['nominal', 'ordinal', 'interval', 'ratio']
Weights = Literal['none', 'linear', 'quadratic']


class Agreement(NamedTuple):
  """A coefficient and its bootstrap interval."""

  value: float
  low: float
  high: float


def cohen_kappa(
    a: Sequence[float], b: Sequence[float], *, weights: Weights = 'none',
) -> float:
  """Agreement of two annotators, each with habits of their own.

    κ = 1 − Σ_cd w_cd O_cd / Σ_cd w_cd p_c q_d

  with O the shares of items rated (c, d), p and q its margins, and w_cd =
  [c≠d], |c − d| or (c − d)² in the order of the categories. Cohen (1960),
  https://doi.org/10.1177/001316446002000104, and (1968) for the weights.

  Args:
    a: [N] the first annotator's ratings; NaN where there is none.
    b: [N] the second's. Items that only one has rated are left out.
    weights: how bad a disagreement is: all alike, by distance, by its square.

  Returns:
    At most 1; 0 for two that agree as often as chance has it, and NaN where
    both give one and the same rating throughout, which shows nothing.
  """
  pair = _checked([a, b], 'cohen_kappa')
  both = ~np.isnan(pair).any(axis=0)
  if not both.any():
    raise types.InputError(
        'cohen_kappa got no item that both annotators have rated; give some.')
  values, codes = np.unique(pair[:, both], return_inverse=True)
  codes = codes.reshape(2, -1)
  observed = np.zeros((values.size, values.size))
  np.add.at(observed, tuple(codes), 1 / codes.shape[1])
  place = np.arange(values.size)
  distance = np.abs(place[:, None] - place)
  weight = {'none': (distance > 0).astype(float), 'linear': distance,
            'quadratic': distance**2}[weights]
  expected = observed.sum(axis=1)[:, None] * observed.sum(axis=0)
  return _coefficient(np.sum(weight * observed), np.sum(weight * expected))


def fleiss_kappa(ratings: Sequence[Sequence[float]]) -> float:
  """Agreement of a panel in which every item is rated equally often.

    κ = (P̄ − P̄_e) / (1 − P̄_e),   P̄_e = Σ_c p_c²

  with P̄ the mean share of agreeing pairs of an item. Fleiss (1971),
  https://doi.org/10.1037/h0031619. Categories have no order.

  Args:
    ratings: [A, N] categories; NaN for no rating. Which annotators rated an
      item may differ, how many may not.

  Returns:
    At most 1; NaN where there is but one category.

  Raises:
    InputError: items with different numbers of ratings, or with only one.
  """
  _, counts = _counts(_checked(ratings, 'fleiss_kappa'))
  sizes = counts.sum(axis=1)
  if sizes.min() != sizes.max() or sizes[0] < 2:
    raise types.InputError(
        f'fleiss_kappa got items with {sizes.min():g} to {sizes.max():g} '
        'ratings; it needs the same number, 2 or more, for each: use '
        'krippendorff_alpha where there are gaps.')
  size = sizes[0]
  alike = np.mean(np.sum(counts * (counts - 1), axis=1) / (size * (size - 1)))
  chance = np.sum((counts.sum(axis=0) / counts.sum())**2)
  return _coefficient(1 - alike, 1 - chance)


def krippendorff_alpha(
    ratings: Sequence[Sequence[float]], *, level: Level = 'nominal') -> float:
  """Agreement of a panel with gaps, for categories, ranks or numbers.

    α = 1 − (n − 1) Σ_u (1 / (m_u − 1)) Σ_cd n_uc n_ud δ²(c, d)
            / Σ_cd n_c n_d δ²(c, d)

  over the items u with m_u ≥ 2 ratings, n_uc of them being c, n = Σ m_u.
  Krippendorff, Content Analysis (2004), chapter 11. δ² is [c ≠ d] for nominal
  ratings, (c − d)² for interval, ((c − d) / (c + d))² for ratio, and for
  ordinal (Σ_{g=c..d} n_g − (n_c + n_d) / 2)².

  Args:
    ratings: [A, N] numbers; NaN for no rating.
    level: what the numbers mean.

  Returns:
    At most 1; NaN where all ratings are the same.

  Raises:
    InputError: no item has two ratings, or a ratio is of negative numbers.
  """
  values, counts = _counts(_checked(ratings, 'krippendorff_alpha'))
  counts = counts[counts.sum(axis=1) >= 2]
  if not counts.size:
    raise types.InputError(
        'krippendorff_alpha got no item with two ratings or more; have some '
        'items rated by several annotators.')
  sizes, total = counts.sum(axis=1), counts.sum(axis=0)
  distance = _distance(values, total, level)
  observed = np.einsum(
      'uc,ud,cd,u->', counts, counts, distance, 1 / (sizes - 1))
  expected = total @ distance @ total / (total.sum() - 1)
  return _coefficient(observed, expected)


def agreement_interval(
    statistic: Callable[[np.ndarray], float],
    ratings: Sequence[Sequence[float]], *,
    num_resamples: int = 1_000, level: float = 0.95, seed: int = 0,
) -> Agreement:
  """A coefficient with its percentile bootstrap interval, over items.

  Annotators stay who they are, items are drawn with replacement: the interval
  is that of other items for this panel. Resamples without a value, say of one
  category, are left out.

  Args:
    statistic: from [A, N] ratings to a number, such as `krippendorff_alpha`.
    ratings: [A, N].
    num_resamples: bootstrap samples.
    level: share of the resampled values that the interval holds, in (0, 1).
    seed: same seed, same interval.

  Returns:
    The value of all items, and the interval; low and high are NaN where no
    resample has a value. It narrows as 1/√N.
  """
  ratings = _checked(ratings, 'agreement_interval')
  rng = np.random.default_rng(seed)
  num_items = ratings.shape[1]
  drawn = []
  for _ in range(num_resamples):
    try:
      drawn.append(statistic(ratings[:, rng.integers(num_items,
                                                     size=num_items)]))
    except types.InputError:
      continue  # A resample of items that nobody shares.
  drawn = np.array([x for x in drawn if not np.isnan(x)])
  low, high = (np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
               if drawn.size else (np.nan, np.nan))
  return Agreement(float(statistic(ratings)), float(low), float(high))


def _distance(values: np.ndarray, total: np.ndarray,
              level: Level) -> np.ndarray:
  """[C, C] squared distance δ² of each two categories."""
  first, second = values[:, None], values[None, :]
  if level == 'nominal':
    return (first != second).astype(float)
  if level == 'interval':
    return (first - second)**2
  if level == 'ratio':
    if values.min() < 0:
      raise types.InputError(
          f'level=ratio with a rating of {values.min():g}; ratios are of '
          'numbers from 0 on: use interval.')
    top = first + second
    return np.divide(first - second, top, out=np.zeros(top.shape),
                     where=top > 0)**2
  if level != 'ordinal':
    raise types.InputError(
        f'level={level!r} is none of nominal, ordinal, interval, ratio.')
  # All ratings from one category to the other, the ends counted half.
  middle = np.cumsum(total) - total / 2
  return (middle[:, None] - middle)**2


def _counts(ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The categories [C] in order, and how often each item [N, C] has them."""
  is_rated = ~np.isnan(ratings)
  values, codes = np.unique(ratings[is_rated], return_inverse=True)
  counts = np.zeros((ratings.shape[1], values.size))
  np.add.at(counts, (np.nonzero(is_rated)[1], codes), 1)
  return values, counts


def _coefficient(observed: float, expected: float) -> float:
  """1 − observed / expected; NaN where no disagreement can be expected."""
  return float(1 - observed / expected) if expected > 0 else float('nan')


def _checked(ratings, name: str) -> np.ndarray:
  """Ratings as float64 [A, N], two annotators and an item at least."""
  try:
    array = np.asarray(ratings, np.float64)
  except (TypeError, ValueError) as error:
    raise types.InputError(
        f'{name} got ratings that are no rectangle of numbers; give [A, N], '
        'NaN where there is no rating.') from error
  if array.ndim != 2 or array.shape[0] < 2 or not array.shape[1]:
    raise types.InputError(
        f'{name} got ratings of shape {array.shape}; give [A, N] with at least '
        '2 annotators and 1 item.')
  if np.isinf(array).any():
    raise types.InputError(f'{name} got an infinite rating; give numbers, and '
                           'NaN where there is none.')
  return array
