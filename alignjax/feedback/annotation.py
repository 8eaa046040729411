"""From rankings to preference pairs, when annotators disagree.

Ranks are [K] numbers, 0 for the best response; equal ranks are a tie, and a tie
says nothing about its two responses. A panel's ranks are [A, K], one row per
annotator.

What the disagreement calls for: a written rubric, several annotators per item
(`majority_vote`), and a screening on control items before the main run
(`screen`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignjax import types


class Vote(NamedTuple):
  """What a panel says about two responses."""

  winner: int       # Index of the response that most annotators prefer.
  loser: int
  agreement: float  # Share of the opinions that are for the winner, (0.5, 1].
  opinions: int     # Annotators who did not call it a tie.


class Screening(NamedTuple):
  """How each annotator did on the control items."""

  agreement: np.ndarray  # [A] share of the known pairs ordered as known.
  passed: np.ndarray     # [A] bool


def ranking_to_pairs(ranks: Sequence[float]) -> list[tuple[int, int]]:
  """All (winner, loser) pairs that one ranking of K responses implies.

  Ouyang et al. (2022), https://arxiv.org/abs/2203.02155, section 3.5.

  Args:
    ranks: [K] rank of each response, 0 best; equal ranks tie.

  Returns:
    Pairs of indices, the best winner first: K(K − 1)/2 without ties, so 6 for
    K = 4 and 36 for K = 9. The ranking A > C > B, that is ranks (0, 2, 1),
    gives (A, C), (A, B), (C, B).
  """
  ranks = _checked(ranks, 1)
  order = np.argsort(ranks, kind='stable')
  return [(int(winner), int(loser))
          for place, winner in enumerate(order)
          for loser in order[place + 1:] if ranks[winner] < ranks[loser]]


def majority_vote(rank_lists: Sequence[Sequence[float]]) -> list[Vote]:
  """The pairs that most annotators of a panel order the same way.

  Args:
    rank_lists: [A, K] one ranking per annotator; a tie is no opinion.

  Returns:
    A `Vote` for each pair of responses with a majority, in the order of their
    indices; pairs with as many opinions for as against are left out. Majorities
    over three and more responses may be circular: no single ranking is implied.
  """
  signs = _signs(_checked(rank_lists, 2))
  votes = []
  for first, second in zip(*np.triu_indices(signs.shape[-1], 1), strict=True):
    opinions = signs[:, first, second]
    wins, losses = np.sum(opinions > 0), np.sum(opinions < 0)
    if wins != losses:
      pair = (first, second) if wins > losses else (second, first)
      votes.append(Vote(
          int(pair[0]), int(pair[1]),
          float(max(wins, losses) / (wins + losses)), int(wins + losses)))
  return votes


def agreement_matrix(
    items: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
  """How often each two annotators order a pair of responses the same way.

  Args:
    items: one [A, K] panel of ranks per item, A the same in all, K free.

  Returns:
    [A, A] shares of the pairs that neither calls a tie, 1 on the diagonal; NaN
    where two annotators have no such pair in common.
  """
  alike = compared = 0
  for ranks in items:
    rows, columns = np.triu_indices(np.shape(ranks)[-1], 1)
    signs = _signs(_checked(ranks, 2))[:, rows, columns]
    product = signs[:, None] * signs[None, :]
    alike = alike + np.sum(product > 0, axis=-1)
    compared = compared + np.sum(product != 0, axis=-1)
  if np.ndim(compared) == 0:
    raise types.InputError(
        'agreement_matrix got no items; give at least one panel of ranks.')
  return np.divide(alike, compared, out=np.full(compared.shape, np.nan),
                   where=compared > 0)


def agreement_rate(items: Sequence[Sequence[Sequence[float]]]) -> float:
  """Mean agreement over all pairs of different annotators.

  Args:
    items: as for `agreement_matrix`, A at least 2.

  Returns:
    A share in [0, 1]: 1 for a panel of one mind, about 0.5 for one that tosses
    coins. Trained annotators of chat responses reach about 0.73 (Ouyang et al.,
    section 3.4).
  """
  matrix = agreement_matrix(items)
  others = matrix[np.triu_indices(len(matrix), 1)]
  if np.all(np.isnan(others)):
    raise types.InputError(
        f'{len(matrix)} annotator(s) share no pair without a tie; agreement '
        'needs two annotators and items that both order.')
  return float(np.nanmean(others))


def screen(
    items: Sequence[Sequence[Sequence[float]]],
    known: Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]],
    *,
    min_agreement: float = 0.75,
) -> Screening:
  """Tests annotators on control items before their rankings are used.

  Args:
    items: one [A, K] panel of ranks per control item.
    known: the ranking each should find: [K] per item, the same for all; or
      [A, K] per item, say each annotator's own ranks of the week before.
    min_agreement: the share of known pairs to order rightly, in (0.5, 1].

  Returns:
    A `Screening`. A tie where the known ranking has none counts half, so that
    an annotator who ties everything scores 0.5 and fails.
  """
  if not 0.5 < min_agreement <= 1:
    raise types.InputError(
        f'min_agreement={min_agreement} is not in (0.5, 1]; guesses reach '
        '0.5: ask for more.')
  if len(items) != len(known) or not len(items):
    raise types.InputError(
        f'screen got {len(items)} items and {len(known)} known rankings; give '
        'one known ranking for each of at least one item.')
  right = total = 0.0
  for ranks, truth in zip(items, known, strict=True):
    ranks, truth = _checked(ranks, 2), np.asarray(truth, np.float64)
    if truth.shape not in (ranks.shape, ranks.shape[1:]):
      raise types.InputError(
          f'a known ranking has shape {truth.shape} and its panel '
          f'{ranks.shape}; rank the same K responses.')
    rows, columns = np.triu_indices(ranks.shape[-1], 1)
    product = (_signs(ranks) * _signs(truth))[:, rows, columns]
    is_known = np.broadcast_to(
        _signs(truth)[..., rows, columns] != 0, product.shape)
    right = right + np.sum((1 + product) / 2, axis=-1, where=is_known)
    total = total + np.sum(is_known, axis=-1)
  agreement = np.divide(
      right, total, out=np.zeros_like(right), where=total > 0)
  return Screening(agreement, agreement >= min_agreement)


def _signs(ranks: np.ndarray) -> np.ndarray:
  """[..., K, K] 1 where row beats column, −1 where it loses, 0 for a tie."""
  return np.sign(ranks[..., None, :] - ranks[..., :, None])


def _checked(ranks, rank: int) -> np.ndarray:
  """Ranks as float64 [K] or [A, K], K at least 2, all of them numbers."""
  try:
    array = np.asarray(ranks, np.float64)
  except (TypeError, ValueError) as error:
    raise types.InputError(
        f'ranks {ranks!r} are not a rectangle of numbers; give each of the K '
        'responses one rank.') from error
  if array.ndim != rank or array.shape[-1] < 2 or np.any(np.isnan(array)):
    raise types.InputError(
        f'ranks of shape {array.shape} do not rank; give {rank} dimension(s), '
        'at least 2 responses and no NaN.')
  return array
