"""Intervals and comparisons that respect which prompts belong together.

Prompts about one dish (one document, one user) succeed or fail together. An
interval that resamples prompts takes them for independent and comes out too
narrow; these resample whole groups.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from alignjax import types


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    num_resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
  """Percentile bootstrap interval of a mean, resampling whole groups.

    m* = Σ_g n_g s_g / Σ_g n_g c_g,    n ~ Multinomial(G, 1/G)

  with s_g the sum and c_g the count of group g's values. Efron and Tibshirani,
  An Introduction to the Bootstrap (1993), section 13.3; by groups as in Field
  and Welsh (2007), https://doi.org/10.1111/j.1467-9868.2007.00593.x.

  Args:
    values: [N] one value per prompt.
    groups: [N] the group of each; every value its own group if None.
    num_resamples: bootstrap samples.
    level: share of resampled means that the interval holds, in (0, 1).
    seed: same seed, same interval.

  Returns:
    (low, high), around the mean; both NaN where there is only one group, since
    one group tells nothing about the spread.

  Raises:
    InputError: if there are no values, or as many groups as values there are
      not.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size or not 0 < level < 1:
    raise types.InputError(
        f'values of shape {values.shape} at level {level} have no interval; '
        'give at least one value and a level in (0, 1).')
  if groups is None:
    members = np.arange(values.size)
  elif len(groups) != values.size:
    raise types.InputError(
        f'{len(groups)} groups for {values.size} values; name the group of '
        'each value.')
  else:
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    members = np.array([index[group] for group in groups])
  sums, counts = np.bincount(members, values), np.bincount(members)
  num_groups = counts.size
  if num_groups == 1:
    return float('nan'), float('nan')
  drawn = np.random.default_rng(seed).multinomial(
      num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
  means = (drawn @ sums) / (drawn @ counts)
  low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def win_scores(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
  """[N] 1 where a beats b on the same prompt, 0.5 for a tie, 0 for a loss."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape or a.ndim != 1 or not a.size:
    raise types.InputError(
        f'scores of shapes {a.shape} and {b.shape} cannot be compared; score '
        'both models on the same prompts, in one order.')
  return (a > b) + 0.5 * (a == b)


def win_rate(a: Sequence[float], b: Sequence[float]) -> float:
  """How often model a beats model b on the same prompt; a tie counts half.

  Args:
    a: [N] scores of the first model.
    b: [N] scores of the second, on the same prompts.

  Returns:
    A share in [0, 1], 0.5 against itself; win_rate(a, b) + win_rate(b, a) = 1.
  """
  return float(np.mean(win_scores(a, b)))


def win_rate_interval(
    a: Sequence[float],
    b: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    **settings,
) -> tuple[float, float]:
  """Bootstrap interval of the paired win rate.

  Args:
    a: [N] scores of the first model.
    b: [N] scores of the second, on the same prompts.
    groups: [N] as for `bootstrap_interval`.
    **settings: num_resamples, level and seed of `bootstrap_interval`.

  Returns:
    (low, high): an interval above 0.5 says that a is better.
  """
  return bootstrap_interval(win_scores(a, b), groups, **settings)
