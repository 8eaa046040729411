"""What a panel says, when its members are not equally good.

Labels are [A, N] categories 0 … C−1, NaN where an annotator has given none.

    majority_label    every vote counts the same
    dawid_skene       votes count by how often their annotator is right
    bradley_terry     items get strengths from who beat whom, over all pairs
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignjax import types

_LEAST = 1e-10  # Probability of an error that was not seen.


class DawidSkene(NamedTuple):
  """What the EM algorithm finds."""

  posterior: np.ndarray  # [N, C] P(category of the item).
  confusion: np.ndarray  # [A, C, C] P(annotator says column | truth is row).
  prior: np.ndarray      # [C]
  num_steps: int         # Of EM, until nothing moved any more.

  @property
  def accuracy(self) -> np.ndarray:
    """[A] how often each annotator is right, by the model."""
    return np.einsum('c,acc->a', self.prior, self.confusion)


def majority_label(labels: Sequence[Sequence[float]]) -> np.ndarray:
  """[N, C] each category's share of an item's votes; 0 without any vote."""
  votes = _votes(labels)
  counts = np.sum(votes, axis=0)
  total = counts.sum(axis=1, keepdims=True)
  return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def dawid_skene(
    labels: Sequence[Sequence[float]], *, max_steps: int = 1_000,
    tolerance: float = 1e-10,
) -> DawidSkene:
  """Truth and annotators' error rates, each from the other, by EM.

    E:  T_ic ∝ p_c Π_a π_a[c, l_ai]
    M:  π_a[c, l] = Σ_i T_ic [l_ai = l] / Σ_i T_ic [a rated i]
        p_c = mean_i T_ic

  Dawid and Skene (1979), https://doi.org/10.2307/2346806, from the shares of
  the votes. What an annotator never said has probability 1e-10. An annotator
  who is always wrong is as informative as one who is always right.

  Args:
    labels: [A, N] categories from 0 on; NaN for none.
    max_steps: of EM, at most.
    tolerance: EM ends when no posterior moves by more.

  Returns:
    A `DawidSkene`; of one annotator the posterior is what they said.

  Raises:
    InputError: no labels, an item with none, or one that is no category.
  """
  votes = _votes(labels)
  if not votes.any(axis=(0, 2)).all():
    empty = int(np.flatnonzero(~votes.any(axis=(0, 2)))[0])
    raise types.InputError(
        f'item {empty} has no label; leave out items that nobody has rated.')
  posterior = majority_label(labels)
  steps = 0
  for steps in range(1, max_steps + 1):  # noqa: B007, it is told.
    confusion, prior = _maximize(votes, posterior)
    log_joint = np.log(prior) + np.einsum(
        'ail,acl->ic', votes, np.log(confusion))
    new = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    new /= new.sum(axis=1, keepdims=True)
    moved = np.max(np.abs(new - posterior))
    posterior = new
    if moved <= tolerance:
      break
  return DawidSkene(posterior, *_maximize(votes, posterior), steps)


def bradley_terry(
    wins: Sequence[Sequence[float]], *, prior_wins: float = 0.0,
    max_steps: int = 100_000, tolerance: float = 1e-12,
) -> np.ndarray:
  """Strengths of K items from who beat whom, by maximum likelihood.

    P(i beats j) = p_i / (p_i + p_j)
    p_i ← Σ_j w_ij / Σ_j (w_ij + w_ji) / (p_i + p_j),   Σ p = 1

  Bradley and Terry (1952); the iteration is Hunter's (2004),
  https://doi.org/10.1214/aos/1079120141, eq. 3.

  Args:
    wins: [K, K] how often row beat column; a tie is half a win for each.
    prior_wins: added to both directions of every pair, ≥ 0. With none, an item
      that never lost has no finite strength.
    max_steps: of the iteration, at most.
    tolerance: it ends when no strength moves by more, relatively.

  Returns:
    [K] strengths that add up to 1, so log(p_i / p_j) is the log odds that i
    beats j; of two items with 3 and 1 wins they are 3/4 and 1/4.

  Raises:
    InputError: an item or group of items never lost (or never won) against the
      rest, so that no finite strengths exist; it is named.
  """
  wins = np.asarray(wins, np.float64)
  if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or len(wins) < 2 or (
      not np.all(np.isfinite(wins))) or wins.min() < 0 or prior_wins < 0:
    raise types.InputError(
        f'wins of shape {wins.shape} with prior_wins={prior_wins}: give a '
        'square of counts from 0 on, of 2 items or more.')
  wins = wins + prior_wins
  np.fill_diagonal(wins, 0)
  _check_connected(wins)
  games, won = wins + wins.T, wins.sum(axis=1)
  strength = np.full(len(wins), 1 / len(wins))
  for _ in range(max_steps):
    new = won / np.sum(games / (strength[:, None] + strength), axis=1)
    new /= new.sum()
    moved = np.max(np.abs(new - strength) / strength)
    strength = new
    if moved <= tolerance:
      break
  return strength


def _maximize(votes, posterior) -> tuple[np.ndarray, np.ndarray]:
  """Confusion [A, C, C] and prior [C] of a posterior."""
  counts = np.maximum(np.einsum('ic,ail->acl', posterior, votes), _LEAST)
  return (counts / counts.sum(axis=2, keepdims=True),
          np.maximum(posterior.mean(axis=0), np.finfo(float).tiny))


def _check_connected(wins: np.ndarray) -> None:
  """Each item must reach each other one by a chain of wins (Ford, 1957)."""
  reach = (wins > 0) | np.eye(len(wins), dtype=bool)
  for _ in range(len(wins).bit_length()):
    reach = reach @ reach
  if not reach.all():
    row, column = np.argwhere(~reach)[0]
    raise types.InputError(
        f'item {row} has beaten neither item {column} nor any that leads '
        'to it, so no finite strengths fit; collect more comparisons, or set '
        'prior_wins (0.1, say).')


def _votes(labels) -> np.ndarray:
  """[A, N, C] 1 where an annotator gave an item that category."""
  try:
    labels = np.asarray(labels, np.float64)
  except (TypeError, ValueError) as error:
    raise types.InputError('labels are no rectangle of numbers; give [A, N], '
                           'NaN for no label.') from error
  given = labels[~np.isnan(labels)]
  if labels.ndim != 2 or not given.size or given.min() < 0 or np.any(
      given != np.floor(given)):
    raise types.InputError(
        f'labels of shape {labels.shape} must be [A, N] categories 0, 1, 2 '
        '... with at least one label; NaN for none.')
  classes = np.arange(max(2, int(given.max()) + 1))
  return (labels[..., None] == classes).astype(np.float64)
