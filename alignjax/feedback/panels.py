"""From a panel's answers to preferences, thumbs, and what they are worth.

    answers ─► ratings [A, pairs] ─► majority | Dawid-Skene | Bradley-Terry
                    │                        │
                    └► agreement, screening  └► pairs and rankings with weights
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import numpy as np

from alignjax import types
from alignjax.feedback import aggregation
from alignjax.feedback import agreement
from alignjax.feedback import annotation
from alignjax.feedback import answers as answers_lib

Method = Literal['majority', 'dawid_skene', 'bradley_terry']


@dataclasses.dataclass(frozen=True)
class Pair:
  """A preference that the panel arrives at."""

  item: answers_lib.Item
  winner: int         # Index of a response.
  loser: int
  confidence: float   # Share of the votes, or the model's probability.
  opinions: int       # Annotators who did not call it a tie.

  def record(self) -> dict:
    """The pair as a line of preference data; `strength` from 0 to 3."""
    return {'prompt': _plain(self.item.prompt),
            'chosen': self.item.responses[self.winner],
            'rejected': self.item.responses[self.loser],
            'agreement': self.confidence, 'opinions': self.opinions,
            'strength': round(6 * (self.confidence - 0.5))}


@dataclasses.dataclass(frozen=True)
class Panel:
  """Who answered what.

  Attributes:
    annotators: [A] names, in the order of their first answers.
    pairs: [P] (item, i, j), i < j: what can be compared.
    ratings: [A, P] 1 where the annotator prefers i, −1 for j, 0 for a tie, NaN
      where they did not answer.
    skips: [A] items that they saw and skipped.
    num_items: [A] items that they answered.
  """

  annotators: tuple[str, ...]
  pairs: tuple[tuple[answers_lib.Item, int, int], ...]
  ratings: np.ndarray
  skips: np.ndarray
  num_items: np.ndarray


def make_panel(items: Sequence[answers_lib.Item],
               answers: Sequence[answers_lib.Answer]) -> Panel:
  """Lays answers out by annotator and pair of responses; ranks only."""
  annotators = tuple(dict.fromkeys(a.annotator for a in answers))
  pairs, first = [], {}
  for item in items:
    first[item.id] = len(pairs)
    size = len(item.responses)
    pairs += [(item, i, j) for i in range(size) for j in range(i + 1, size)]
  row = {name: i for i, name in enumerate(annotators)}
  ratings = np.full((len(annotators), len(pairs)), np.nan)
  skips, num_items = (np.zeros(len(annotators), int) for _ in range(2))
  for answer in answers:
    who = row[answer.annotator]
    if answer.ranks is None:
      skips[who] += answer.good is None
      continue
    num_items[who] += 1
    ranks = np.array(answer.ranks)
    above, below = np.triu_indices(len(ranks), 1)
    at = first[answer.item]
    ratings[who, at:at + len(above)] = np.sign(ranks[below] - ranks[above])
  return Panel(annotators, tuple(pairs), ratings, skips, num_items)


def aggregate(panel: Panel, method: Method = 'majority') -> list[Pair]:
  """The preferences that a panel's answers amount to.

  majority: the side with more votes; ties are no votes.
  dawid_skene: votes weighed by how reliable their annotators prove to be over
    all pairs (`aggregation.dawid_skene`, ties left out). Responses are turned
    around in every second pair, so that "the first" means nothing.
  bradley_terry: within each item the strengths of its responses, half a win
    being added each way, so that a pair is judged by the others too.

  Returns:
    `Pair`s in the items' order; what comes out even is left out. With one
    annotator every method gives that annotator's own preferences.
  """
  votes = np.where(panel.ratings == 0, np.nan, panel.ratings)
  opinions = np.sum(~np.isnan(votes), axis=0)
  chance = np.full(len(panel.pairs), 0.5)  # That the first is preferred.
  seen = opinions > 0
  if method == 'majority':
    chance[seen] = np.sum(votes[:, seen] > 0, axis=0) / opinions[seen]
  elif method == 'dawid_skene':
    if seen.any():
      turned = np.where(np.arange(len(panel.pairs)) % 2, -1, 1)
      labels = (1 - votes * turned) / 2  # 0: the first.
      first = aggregation.dawid_skene(labels[:, seen]).posterior[:, 0]
      chance[seen] = np.where(turned[seen] > 0, first, 1 - first)
  elif method == 'bradley_terry':
    chance = _strength_chances(panel, votes)
  else:
    raise types.InputError(f'method={method!r} is none of majority, '
                           'dawid_skene, bradley_terry')
  pairs = []
  for (item, i, j), p, count in zip(
      panel.pairs, chance, opinions, strict=True):
    if count and not np.isclose(p, 0.5):
      winner, loser = (i, j) if p > 0.5 else (j, i)
      pairs.append(Pair(item, winner, loser, float(max(p, 1 - p)), int(count)))
  return pairs


def screen_panel(
    items: Sequence[answers_lib.Item],
    answers: Sequence[answers_lib.Answer], *, min_agreement: float = 0.75,
    min_pairs: int = 3,
) -> dict[str, tuple[float, bool]]:
  """How each annotator did on the control items, and whether they passed.

  Args:
    items: those with `known` ranks are the controls.
    answers: of the panel.
    min_agreement: share of the known pairs to order rightly, in (0.5, 1].
    min_pairs: somebody who met fewer known pairs is not judged, and passes.

  Returns:
    (share, passed) by name; the share is NaN for whoever met no control. A tie
    counts half, as in `annotation.screen`.
  """
  known = {item.id: item for item in items if item.known is not None}
  result = {}
  for name in dict.fromkeys(a.annotator for a in answers):
    own = [a for a in answers if a.annotator == name and a.item in known
           and a.ranks is not None]
    pairs = sum(len(annotation.ranking_to_pairs(known[a.item].known))
                for a in own)
    share = float('nan')
    if pairs:
      share = float(np.sum([
          annotation.screen([[a.ranks]], [known[a.item].known]).agreement[0]
          * len(annotation.ranking_to_pairs(known[a.item].known))
          for a in own]) / pairs)
    result[name] = share, bool(pairs < min_pairs or share >= min_agreement)
  return result


def agreement_table(panel: Panel, *, seed: int = 0) -> dict:
  """What a panel's report says, ready for JSON.

  Returns:
    Krippendorff's alpha and, where every pair has all votes, Fleiss' kappa,
    each with its interval over pairs; Cohen's kappa by two annotators; and for
    each annotator the answers, skips, ties, and agreement with the majority of
    the others. What has no value is None.
  """
  ratings = panel.ratings
  report = {'annotators': {}, 'cohen': {}, 'alpha': None, 'fleiss': None}
  for i, name in enumerate(panel.annotators):
    others = np.delete(ratings, i, axis=0)
    report['annotators'][name] = {
        'items': int(panel.num_items[i]), 'skips': int(panel.skips[i]),
        'ties': _share(ratings[i] == 0, ~np.isnan(ratings[i])),
        'with_majority': _with_majority(ratings[i], others)}
    for j in range(i):
      both = ~np.isnan(ratings[[i, j]]).any(axis=0)
      kappa = agreement.cohen_kappa(
          ratings[i], ratings[j]) if both.any() else np.nan
      report['cohen'][f'{panel.annotators[j]} {name}'] = _number(kappa)
  shared = np.sum(~np.isnan(ratings), axis=0) >= 2
  if shared.any():
    report['alpha'] = _interval(
        agreement.krippendorff_alpha, ratings[:, shared], seed)
    if not np.isnan(ratings[:, shared]).any():
      report['fleiss'] = _interval(
          agreement.fleiss_kappa, ratings[:, shared], seed)
  return report


def _strength_chances(panel: Panel, votes: np.ndarray) -> np.ndarray:
  """[P] P(the first beats the second) by the strengths within each item."""
  by_item = {}
  for index, (item, i, j) in enumerate(panel.pairs):
    by_item.setdefault(item.id, []).append((index, i, j))
  chance = np.full(len(panel.pairs), 0.5)
  for rows in by_item.values():
    size = max(j for _, _, j in rows) + 1
    wins = np.zeros((size, size))
    for index, i, j in rows:
      wins[i, j] = np.sum(votes[:, index] > 0)
      wins[j, i] = np.sum(votes[:, index] < 0)
    if wins.any():
      strength = aggregation.bradley_terry(wins, prior_wins=0.5)
      for index, i, j in rows:
        chance[index] = strength[i] / (strength[i] + strength[j])
  return chance


def _with_majority(own: np.ndarray, others: np.ndarray) -> float | None:
  """Share of somebody's opinions that the others' majority shares."""
  total = np.sign(np.nansum(others, axis=0))
  compared = (total != 0) & ~np.isnan(own) & (own != 0)
  return _share(own == total, compared)


def _share(values: np.ndarray, where: np.ndarray) -> float | None:
  return float(np.mean(values[where])) if where.any() else None


def _interval(statistic, ratings, seed) -> list[float | None]:
  found = agreement.agreement_interval(statistic, ratings, seed=seed)
  return [_number(x) for x in found]


def _number(value: float) -> float | None:
  return None if np.isnan(value) else float(value)


def _plain(prompt):
  return prompt if isinstance(prompt, str) else list(prompt)
