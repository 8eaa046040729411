"""How gold falls while the proxy climbs: the curves of Gao et al. (2022).

With d = √KL(π ‖ π_ref), in √nats, they fit the gold score that optimisation
against a proxy gains over the reference by

    best of n   R(d) = d · (α − β · d)
    RL          R(d) = d · (α − β · log d)

https://arxiv.org/abs/2210.10760, equations 1 and 2. α is how much a step is
worth at first, β how fast that is lost; the gold score peaks where R′ = 0.
"""

from collections.abc import Sequence
import math
from typing import Literal, NamedTuple

import numpy as np

Form = Literal['best_of_n', 'rl']


class Fit(NamedTuple):
  """A fitted curve of the gain over the reference.

  Attributes:
    form: which of the two curves.
    alpha: gold per √nat at the reference.
    beta: gold per nat (best of n), or per √nat and e-fold of d (RL).
    residual: root mean squared error, in gold.
  """

  form: Form
  alpha: float
  beta: float
  residual: float

  def gain(self, d) -> np.ndarray:
    """The curve at d = √KL [...], in gold over the reference; 0 at 0."""
    d = np.asarray(d, float)
    return self.alpha * d - self.beta * _lost(self.form, d)

  @property
  def peak(self) -> float:
    """The d at which the curve is highest; ∞ if it only climbs.

    α / 2β for best of n, exp(α/β − 1) for RL.
    """
    if self.beta <= 0:
      return math.inf
    if self.form == 'best_of_n':
      return self.alpha / (2 * self.beta)
    return math.exp(min(self.alpha / self.beta - 1, 700.0))


def fit_overoptimization(
    form: Form, kl: Sequence[float], gold: Sequence[float], *, start: float,
) -> Fit:
  """The least squares fit of a curve to what was measured.

  Args:
    form: which of the two curves.
    kl: [N] nats to the reference, ≥ 0, two of them above 0 and different.
    gold: [N] gold scores there.
    start: the reference's gold score, which the curve is fixed to at 0 nats.

  Returns:
    The fit; curves that were made by either equation give their α and β back.

  Raises:
    ValueError: fewer than two different places above 0 nats.
  """
  d = np.sqrt(np.maximum(np.asarray(kl, float), 0.0))
  gain = np.asarray(gold, float) - start
  if len(np.unique(d[d > 0])) < 2:
    raise ValueError(f'kl={list(kl)} has fewer than two different values above '
                     '0; a curve of two parameters needs them')
  columns = np.stack([d, -_lost(form, d)], axis=1)
  (alpha, beta), *_ = np.linalg.lstsq(columns, gain, rcond=None)
  residual = math.sqrt(float(np.mean((columns @ [alpha, beta] - gain) ** 2)))
  return Fit(form, float(alpha), float(beta), residual)


def _lost(form: Form, d: np.ndarray) -> np.ndarray:
  """What β multiplies: d² or d · log d, which is 0 at 0."""
  if form == 'best_of_n':
    return d * d
  return d * np.log(np.where(d > 0, d, 1.0))


def best_of_n_kl(n: int) -> float:
  """log n − (n − 1)/n, nats that choosing the best of n costs; 0 for n = 1.

  Exact where no two responses tie. Stiennon et al. (2020), appendix G.3,
  https://arxiv.org/abs/2009.01325.
  """
  return math.log(n) - (n - 1) / n


def best_of_n(
    proxy: np.ndarray, gold: np.ndarray, n: int) -> tuple[float, float]:
  """What the response with the best proxy of n is worth, on average.

  Over all subsets of n of the N ≥ n responses to each prompt, which has less
  noise than one subset: the r-th best of N is the best of a subset with
  probability C(N − r, n − 1) / C(N, n). Nakano et al. (2021), appendix I,
  https://arxiv.org/abs/2112.09332.

  Args:
    proxy: [P, N] rewards of N responses to each of P prompts.
    gold: [P, N] their gold scores.
    n: how many to choose from, 1 to N.

  Returns:
    (proxy, gold) of the chosen; their means for n = 1, the maximum's for n = N.

  Raises:
    ValueError: n is out of range.
  """
  total = proxy.shape[1]
  if not 1 <= n <= total:
    raise ValueError(f'n={n} is not among {total} responses; use 1 to {total}')
  order = np.argsort(-proxy, axis=1, kind='stable')
  chances = np.array([
      math.comb(total - rank, n - 1) / math.comb(total, n)
      for rank in range(1, total + 1)])
  chosen = lambda x: float(
      np.mean(np.take_along_axis(x, order, axis=1) @ chances))
  return chosen(proxy), chosen(gold)
