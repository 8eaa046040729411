"""What a reward model's scores are worth: accuracy, calibration, correlation.

A margin is r(chosen) − r(rejected). The Bradley-Terry model reads it as the log
odds that the chosen response is the better one, so a reward model is calibrated
if, of the pairs that it is 80 % sure of, it is right about 80 %.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignjax import types


class ReliabilityBins(NamedTuple):
  """Pairs by how sure the reward model was; empty bins are NaN."""

  confidence: np.ndarray  # [bins] mean σ(|margin|), within [0.5, 1].
  accuracy: np.ndarray    # [bins] share of pairs ordered rightly.
  weight: np.ndarray      # [bins] pairs.

  def lists(self) -> dict[str, list[float | None]]:
    """The bins ready for JSON: None where there is nothing."""
    return {name: [None if np.isnan(x) else float(x) for x in values]
            for name, values in self._asdict().items()}


def pair_accuracy(
    chosen_rewards: Sequence[float],
    rejected_rewards: Sequence[float],
    weight: Sequence[float] | None = None,
) -> float:
  """Share of the pairs whose chosen response has the higher reward.

  Args:
    chosen_rewards: [B] reward of the preferred response.
    rejected_rewards: [B] reward of the other.
    weight: [B] 0 for filler pairs; all 1 if None.

  Returns:
    A share in [0, 1]; equal rewards count half, so a constant reward model
    scores 0.5.
  """
  margins, weight = _checked(
      np.subtract(chosen_rewards, rejected_rewards, dtype=np.float64), weight)
  return float(np.average(_rightness(margins), weights=weight))


def reliability_bins(
    margins: Sequence[float],
    weight: Sequence[float] | None = None,
    *,
    num_bins: int = 10,
) -> ReliabilityBins:
  """Compares how sure the reward model was with how often it was right.

  Every outcome of a margin is "chosen", so calibration is read from the side
  that the model favours: its confidence is σ(|margin|), and it was right if the
  margin is positive.

  Args:
    margins: [B] r(chosen) − r(rejected), in nats of log odds.
    weight: [B] 0 for filler pairs; all 1 if None.
    num_bins: bins of equal width over [0.5, 1].

  Returns:
    `ReliabilityBins`; their weights add up to the pairs' weight.
  """
  margins, weight = _checked(margins, weight)
  confidence = 1 / (1 + np.exp(-np.abs(margins)))
  index = np.minimum(
      ((confidence - 0.5) * 2 * num_bins).astype(int), num_bins - 1)
  total = np.bincount(index, weight, num_bins)

  def mean(values):
    return np.divide(np.bincount(index, weight * values, num_bins), total,
                     out=np.full(num_bins, np.nan), where=total > 0)

  return ReliabilityBins(mean(confidence), mean(_rightness(margins)), total)


def expected_calibration_error(
    margins: Sequence[float],
    weight: Sequence[float] | None = None,
    *,
    num_bins: int = 10,
) -> float:
  """Mean gap between a reward model's confidence and its accuracy.

    ECE = Σ_b w_b |accuracy_b − confidence_b| / Σ_b w_b

  Guo et al. (2017), https://arxiv.org/abs/1706.04599, eq. 3, over the bins of
  `reliability_bins`.

  Args:
    margins: [B] r(chosen) − r(rejected), in nats of log odds.
    weight: [B] 0 for filler pairs; all 1 if None.
    num_bins: bins of equal width over [0.5, 1].

  Returns:
    A probability in [0, 0.5] for a model that beats guessing; 0.5 for one that
    is always right and never sure.
  """
  bins = reliability_bins(margins, weight, num_bins=num_bins)
  filled = bins.weight > 0
  gap = np.abs(bins.accuracy - bins.confidence)[filled]
  return float(np.average(gap, weights=bins.weight[filled]))


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
  """Pearson's correlation of two scores; 0 where one of them is constant."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if x.shape != y.shape or x.ndim != 1 or x.size < 2:
    raise types.InputError(
        f'values of shapes {x.shape} and {y.shape} do not correlate; give two '
        'scores of the same N >= 2 responses.')
  if np.ptp(x) == 0 or np.ptp(y) == 0:
    return 0.0
  return float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
  """Spearman's correlation: Pearson's of the ranks, ties sharing theirs.

  Unlike `correlation` it does not change under an increasing transformation of
  either score, which is what a policy that maximises a reward cares about.
  """
  return correlation(_ranks(x), _ranks(y))


def _ranks(values: Sequence[float]) -> np.ndarray:
  """[N] ranks from 0; equal values share their mean rank."""
  _, index, count = np.unique(
      np.asarray(values, np.float64), return_inverse=True, return_counts=True)
  return (np.cumsum(count) - (count + 1) / 2)[index]


def _rightness(margins: np.ndarray) -> np.ndarray:
  """[B] 1 where the chosen response scores higher, 0.5 for a tie."""
  return (margins > 0) + 0.5 * (margins == 0)


def _checked(margins, weight) -> tuple[np.ndarray, np.ndarray]:
  """Margins and weights as float64 [B], something of them to weigh."""
  margins = np.asarray(margins, np.float64)
  weight = (np.ones_like(margins) if weight is None
            else np.asarray(weight, np.float64))
  if margins.ndim != 1 or margins.shape != weight.shape or weight.sum() <= 0:
    raise types.InputError(
        f'margins of shape {margins.shape} with weight of shape {weight.shape} '
        'cannot be averaged; give one weight per pair, not all 0.')
  margins = np.where(weight > 0, margins, 0.0)
  if np.any(np.isnan(margins)):
    raise types.InputError(
        f'{np.sum(np.isnan(margins))} of {margins.size} pairs have a reward of '
        'NaN; find out where the reward model breaks before you grade it.')
  return margins, weight
