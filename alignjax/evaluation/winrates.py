"""Win rates with intervals: paired signs, length control, many models.

A score is 1 for a win of the first model, 0.5 for a tie, 0 for a loss.
"""

from collections.abc import Hashable, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from alignjax import feedback
from alignjax import types
from alignjax.evaluation import bootstrap

_RIDGE = 1e-2  # On the win rate's log odds, per √prompt; see the docstring.
_ELO = 400 / math.log(10)  # Elo points of one nat of log odds.


class SignTest(NamedTuple):
  """What wins and losses say, ties left out."""

  wins: int
  losses: int
  ties: int
  rate: float   # wins / (wins + losses)
  low: float    # Exact 95 % interval of it.
  high: float
  p_value: float  # Two-sided, of no difference.


class LengthControlled(NamedTuple):
  """A win rate, and what it would be at equal lengths."""

  rate: float         # As it was observed.
  controlled: float
  low: float          # 95 % interval of `controlled`.
  high: float
  length_effect: float  # Log odds for a response one typical difference longer.


class Strengths(NamedTuple):
  """Models on one scale, in Elo points around their mean of 0."""

  names: tuple[str, ...]
  elo: np.ndarray   # [M]
  low: np.ndarray   # [M] 95 % bootstrap intervals.
  high: np.ndarray


def sign_test(scores: Sequence[float], *, level: float = 0.95) -> SignTest:
  """Exact interval and test of a paired win rate, ties left out.

  The interval is `share_interval`'s.

  Args:
    scores: [N] 1, 0.5 or 0 on each prompt.
    level: of the interval, in (0, 1).

  Returns:
    A `SignTest`. The interval holds 0.5 exactly where the p-value is above
    1 − level; of 8 wins and 2 losses it is [0.444, 0.975], p = 0.109.
  """
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 1 or not scores.size or not np.isin(
      scores, (0.0, 0.5, 1.0)).all():
    raise types.InputError('scores must be 1, 0.5 or 0, one per prompt')
  wins, losses = int(np.sum(scores == 1)), int(np.sum(scores == 0))
  count = wins + losses
  if not count:
    return SignTest(0, 0, len(scores), 0.5, 0.0, 1.0, 1.0)
  low, high = share_interval(wins, count, level=level)
  p_value = min(1.0, 2 * _at_least(max(wins, losses), count, 0.5))
  return SignTest(wins, losses, len(scores) - count, wins / count, low, high,
                  p_value)


def share_interval(
    successes: int, count: int, *, level: float = 0.95) -> tuple[float, float]:
  """Exact interval of a share, of independent trials.

  Clopper and Pearson (1934), https://doi.org/10.1093/biomet/26.4.404.

  Returns:
    (low, high); of none in `count` trials (0, 1 − ((1 − level)/2)^(1/count)).
  """
  if not 0 <= successes <= count or not 0 < level < 1:
    raise types.InputError(f'{successes} of {count} at level {level} is no '
                           'share; give 0 to count, and a level in (0, 1)')
  tail = (1 - level) / 2
  low = 0.0 if not successes else _solve(
      lambda p: _at_least(successes, count, p) - tail)
  high = 1.0 if successes == count else _solve(
      lambda p: tail - _at_least(count - successes, count, 1 - p))
  return low, high


def length_controlled(
    scores: Sequence[float], lengths: Sequence[float],
    rival_lengths: Sequence[float],
    groups: Sequence[Hashable] | None = None, *, num_resamples: int = 500,
    seed: int = 0,
) -> LengthControlled:
  """A win rate with what length did to it taken out.

    logit P(win) = θ + φ tanh(Δ / s),   Δ = length − rival's,  s = rms Δ
    controlled = σ(θ): the win rate at Δ = 0

  as in Dubois et al. (2024), https://arxiv.org/abs/2404.04475, eq. 1, without
  its terms for the prompts' difficulty, which need many models. s is the root
  mean square, so that lengths that always differ alike do not divide by 0.
  There θ and φ cannot be told apart, and a small ridge on θ gives the credit to
  length: the answer is about 0.5, with an interval that says that nothing is
  known at equal length. The interval is the wider of the bootstrap's and of
  the fit's own (θ ± 1.96 standard errors), since one rival that always wins
  leaves the bootstrap nothing to vary. Swapping the models gives
  1 − controlled.

  Args:
    scores: [N] 1, 0.5 or 0.
    lengths: [N] of the first model's responses, in tokens or characters.
    rival_lengths: [N] of the other's.
    groups: [N] as for `bootstrap_interval`.
    num_resamples: bootstrap samples.
    seed: of them.

  Returns:
    A `LengthControlled`; with equal lengths throughout it is the plain rate,
    drawn by the ridge towards 0.5 by less than 1 % of a tie.
  """
  scores = np.asarray(scores, np.float64)
  delta = np.subtract(lengths, rival_lengths, dtype=np.float64)
  if scores.shape != delta.shape or scores.ndim != 1 or not scores.size:
    raise types.InputError(
        f'scores of shape {scores.shape} and lengths of shape {delta.shape} '
        'do not belong together; give one of each per prompt')
  members = np.arange(scores.size)
  if groups is not None:
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    members = np.array([index[group] for group in groups])
  theta, phi, error = _fit(scores, delta, np.ones(scores.size))
  rng, drawn = np.random.default_rng(seed), []
  count = members.max() + 1
  for _ in range(num_resamples):
    weight = rng.multinomial(count, np.full(count, 1 / count))[members]
    if weight.any():
      drawn.append(_fit(scores, delta, weight.astype(float))[0])
  low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (theta, theta)
  return LengthControlled(
      float(scores.mean()), _sigmoid(theta),
      _sigmoid(min(low, theta - 1.96 * error)),
      _sigmoid(max(high, theta + 1.96 * error)), float(phi * np.tanh(1.0)))


def strengths(
    scores: Mapping[tuple[str, str], Sequence[float]],
    groups: Sequence[Hashable] | None = None, *, num_resamples: int = 200,
    seed: int = 0,
) -> Strengths:
  """Many models on one scale by Bradley-Terry, in Elo points.

    P(i beats j) = 1 / (1 + 10^((R_j − R_i) / 400))

  fitted to all comparisons at one time, so that their order does not matter, as
  it does in Elo's own updates. Half a win is added each way to every pair.

  Args:
    scores: [N] for each (model, rival), on the same N prompts.
    groups: [N] as for `bootstrap_interval`.
    num_resamples: of the prompts, for the intervals.
    seed: of them.

  Returns:
    `Strengths` around a mean of 0; a model that beats another in 10 of 11
    comparisons stands about 400 points above it.
  """
  names = tuple(dict.fromkeys(name for pair in scores for name in pair))
  sizes = {len(s) for s in scores.values()}
  if len(names) < 2 or len(sizes) != 1:
    raise types.InputError('strengths needs two models or more, compared on '
                           'the same prompts')
  count = sizes.pop()
  members = np.arange(count)
  if groups is not None:
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    members = np.array([index[group] for group in groups])
  elo = _elo(scores, names, np.ones(count))
  rng, total = np.random.default_rng(seed), members.max() + 1
  drawn = np.array([
      _elo(scores, names, rng.multinomial(
          total, np.full(total, 1 / total))[members].astype(float))
      for _ in range(num_resamples)])
  low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
  return Strengths(names, elo, low, high)


def compare(
    scores: Sequence[float], lengths: Sequence[float],
    rival_lengths: Sequence[float],
    groups: Sequence[Hashable] | None = None, *, seed: int = 0,
) -> dict:
  """All that is said of two models, ready for JSON."""
  test = sign_test(np.where(np.asarray(scores) == 0.5, 0.5,
                            np.asarray(scores) > 0.5))
  controlled = length_controlled(
      scores, lengths, rival_lengths, groups, seed=seed)
  return {
      'win_rate': float(np.mean(scores)),
      'win_rate_interval': list(bootstrap.bootstrap_interval(
          scores, groups, seed=seed)),
      'wins': test.wins, 'losses': test.losses, 'ties': test.ties,
      'sign_rate': test.rate, 'sign_interval': [test.low, test.high],
      'p_value': test.p_value,
      'length_controlled': controlled.controlled,
      'length_controlled_interval': [controlled.low, controlled.high],
      'length_effect': controlled.length_effect}


def _fit(scores, delta, weight) -> tuple[float, float, float]:
  """θ, φ and the standard error of θ, by Newton's method."""
  scale = math.sqrt(np.average(delta**2, weights=weight))
  z = np.tanh(delta / scale) if scale > 0 else np.zeros(delta.size)
  x = np.stack([np.ones(delta.size), z], axis=1)
  total = weight.sum()
  ridge = np.diag([_RIDGE, 1e-4 * _RIDGE]) * math.sqrt(total)
  beta = np.zeros(2)
  for _ in range(100):
    chance = 1 / (1 + np.exp(-x @ beta))
    gradient = x.T @ (weight * (scores - chance)) - ridge @ beta
    hessian = (x * (weight * chance * (1 - chance))[:, None]).T @ x + ridge
    step = np.linalg.solve(hessian, gradient)
    step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
    beta = beta + step
    if np.abs(step).max() < 1e-10:
      break
  error = math.sqrt(np.linalg.inv(hessian)[0, 0])
  return float(beta[0]), float(beta[1]), error


def _elo(scores, names, weight) -> np.ndarray:
  """[M] strengths in Elo points, mean 0."""
  place = {name: i for i, name in enumerate(names)}
  wins = np.zeros((len(names), len(names)))
  for (a, b), values in scores.items():
    values = np.asarray(values, np.float64)
    wins[place[a], place[b]] += weight @ values
    wins[place[b], place[a]] += weight @ (1 - values)
  played = (wins + wins.T > 0) & ~np.eye(len(names), dtype=bool)
  log = np.log(feedback.bradley_terry(
      wins + 0.5 * played, tolerance=1e-8, max_steps=10_000))
  return _ELO * (log - log.mean())


def _at_least(wins: int, count: int, p: float) -> float:
  """P(Binomial(count, p) ≥ wins)."""
  if p <= 0.0 or p >= 1.0:
    return float(p >= 1.0 or wins == 0)
  k = np.arange(wins, count + 1)
  lgamma = np.vectorize(math.lgamma)
  log = (math.lgamma(count + 1) - lgamma(k + 1.0) - lgamma(count - k + 1.0)
         + k * math.log(p) + (count - k) * math.log1p(-p))
  return float(min(1.0, np.exp(log).sum()))


def _solve(function) -> float:
  """The root of an increasing function on [0, 1], by bisection."""
  low, high = 0.0, 1.0
  for _ in range(60):
    middle = 0.5 * (low + high)
    low, high = (low, middle) if function(middle) > 0 else (middle, high)
  return 0.5 * (low + high)


def _sigmoid(x: float) -> float:
  return float(1 / (1 + math.exp(-max(-700.0, x))))
