"""Reads what a record says of its responses: labels, ranks, scores, steps."""

from typing import Any, NamedTuple

from alignjax import types
from alignjax.data import chat
from alignjax.data import records
from alignjax.data import rows
from alignjax.data import rules
from alignjax.data import shapes

Format = shapes.Format
BadRecord = rules.BadRecord
Unusable = rules.Unusable

_LABELS = {'true': True, 'false': False}
_MAX_SCORE = 1e30  # What a float32 holds, and more than anyone gives.
_STEP_END = '\n'  # Stands between the steps of a response, as in TRL.


class Ranked(NamedTuple):
  """Responses to one prompt and their ranks."""

  prompt: chat.Prompt
  responses: tuple[str, ...]
  ranks: tuple[int, ...]  # 0 for the best of a record that says scores.


def read_label(
    record: dict[str, Any], where: str, repairs: list[str]
) -> bool:
  """Whether a record's one response is good."""
  label = rows.read_field(record, 'label', where)
  return _to_label(label, 'label', where, repairs)


def read_steps(
    record: dict[str, Any], where: str, repairs: list[str]
) -> tuple[chat.Prompt, str, bool]:
  """(prompt, response, whether all its steps are right)."""
  prompt = rows.read_prompt(record, Format.STEPWISE, where)
  steps = rows.read_field(record, 'completions', where)
  labels = rows.read_field(record, 'labels', where)
  if not isinstance(steps, list) or not steps:
    raise _no_list(where, 'completions', steps, 'a list of one or more steps')
  if not isinstance(labels, list) or len(labels) != len(steps):
    raise _no_list(where, 'labels', labels,
                   f'a list of {len(steps)} labels, one per step')
  texts = [_read_step(step, f'completions[{i}]', where)
           for i, step in enumerate(steps)]
  right = [_to_label(label, f'labels[{i}]', where, repairs)
           for i, label in enumerate(labels)]
  response = rows.filled_response(_STEP_END.join(texts), 'completions')
  return prompt, response, all(right)


def check_steps(are_right: bool) -> None:
  """Unusable if a step of what is to be imitated is wrong."""
  if not are_right:
    raise Unusable(
        'wrong step',
        "field 'labels' marks a step as wrong; what is imitated must be right",
    )


def read_strength(record: dict[str, Any], where: str) -> int:
  """How much better the chosen response is, 0 to 3; 0 where nothing is said."""
  strength = record.get('strength')
  if strength is None:
    return 0
  if isinstance(strength, bool) or strength not in (0, 1, 2, 3):
    raise BadRecord(
        'bad score',
        f"{where}: field 'strength' is {records.show(strength)}; it must be 3"
        ' (significantly better), 2, 1 or 0 (negligibly, or unsure); rewrite'
        ' it.',
    )
  return int(strength)


def check_scores(record: dict[str, Any], where: str) -> None:
  """Of a pair with scores, as UltraFeedback's, the chosen one's is higher.

  Raises:
    BadRecord: A score is no number, or the rejected one's is higher.
    Unusable: The scores tie: which is chosen was drawn by lot.
  """
  names = ('score_chosen', 'score_rejected')
  if any(record.get(name) is None for name in names):
    return
  chosen, rejected = (
      _to_score(record[name], name, where) for name in names)
  if chosen < rejected:
    raise BadRecord(
        'bad score',
        f"{where}: field 'score_rejected' is {rejected:g}, more than"
        f" 'score_chosen', {chosen:g}; exchange the responses or the scores.",
    )
  if chosen == rejected:
    raise Unusable(
        'score tie',
        f"field 'score_rejected' is {rejected:g}, as is 'score_chosen'; one"
        ' response must be better',
    )


def read_ranking(
    record: dict[str, Any], format_: Format, where: str, repairs: list[str]
) -> Ranked:
  """The ranked responses of a record that has ranks, or scores."""
  if format_ == Format.ULTRAFEEDBACK:
    ranked = _read_scored(record, where)
  else:
    ranked = _read_ranked(record, where)
  merged = merge_equal(ranked)
  if len(merged.responses) < len(ranked.responses):
    repairs.append('equal responses merged')
  return _check_order(merged, format_)


def pairs_of(ranked: Ranked) -> list[tuple[chat.Prompt, str, str]]:
  """(prompt, better, worse) for any two responses of unequal rank."""
  order = range(len(ranked.ranks))
  return [
      (ranked.prompt, ranked.responses[i], ranked.responses[j])
      for i in order for j in order if ranked.ranks[i] < ranked.ranks[j]
  ]


def best_of(ranked: Ranked) -> tuple[chat.Prompt, str]:
  """(prompt, response): the best one, of several the first."""
  best = ranked.ranks.index(min(ranked.ranks))
  return ranked.prompt, ranked.responses[best]


def is_rank(rank: Any) -> bool:
  """Whether a value is a whole number from 0."""
  return isinstance(rank, int) and not isinstance(rank, bool) and rank >= 0


def _read_ranked(record: dict[str, Any], where: str) -> Ranked:
  prompt = rows.read_prompt(record, Format.RANKING, where)
  responses = rows.read_field(record, 'responses', where)
  ranks = rows.read_field(record, 'ranks', where)
  if not isinstance(responses, list) or not all(
      isinstance(text, str) for text in responses) or len(responses) < 2:
    raise _no_list(where, 'responses', responses, 'a list of two texts or more')
  if not isinstance(ranks, list) or len(ranks) != len(responses) or not all(
      is_rank(rank) for rank in ranks):
    raise _no_list(
        where, 'ranks', ranks,
        f'a list of {len(responses)} whole numbers, one per response, 0 for the'
        ' best', rule='bad score')
  for i, text in enumerate(responses):
    rows.filled_response(text, f'responses[{i}]')
  return Ranked(prompt, tuple(responses), tuple(ranks))


def _read_scored(record: dict[str, Any], where: str) -> Ranked:
  """UltraFeedback's completions, ranked by their overall scores."""
  prompt = rows.read_prompt(record, Format.ULTRAFEEDBACK, where)
  completions = rows.read_field(record, 'completions', where)
  if not isinstance(completions, list) or not all(
      isinstance(item, dict) for item in completions):
    raise _no_list(where, 'completions', completions,
                   "a list of objects with 'response' and 'overall_score'")
  responses, scores = [], []
  for i, item in enumerate(completions):
    for name in ('response', 'overall_score'):
      if name not in item:
        raise BadRecord(
            'missing field',
            f"{where}: field 'completions[{i}].{name}' is missing; a response"
            ' needs its text and its score; add it.',
        )
    responses.append(rows.check_text(
        item['response'], f'completions[{i}].response', where))
    scores.append(_to_score(
        item['overall_score'], f'completions[{i}].overall_score', where))
  for i, text in enumerate(responses):
    rows.filled_response(text, f'completions[{i}].response')
  order = sorted(set(scores), reverse=True)
  return Ranked(prompt, tuple(responses), tuple(map(order.index, scores)))


def merge_equal(ranked: Ranked) -> Ranked:
  """Equal texts as one response, at the best rank that one of them has."""
  best: dict[str, int] = {}
  for text, rank in zip(ranked.responses, ranked.ranks, strict=True):
    best[text] = min(rank, best.get(text, rank))
  return Ranked(ranked.prompt, tuple(best), tuple(best.values()))


def _check_order(ranked: Ranked, format_: Format) -> Ranked:
  """The ranking, which must say that one response is better than another."""
  if len(ranked.responses) < 2:
    raise Unusable(
        'one response',
        f'the row has {len(ranked.responses)} different responses; a ranking'
        ' needs two',
    )
  if len(set(ranked.ranks)) < 2:
    if format_ == Format.ULTRAFEEDBACK:
      raise Unusable(
          'score tie',
          "field 'completions' has one 'overall_score' for all; one response"
          ' must be better than another',
      )
    raise Unusable(
        'all tied',
        f"field 'ranks' is {records.show(list(ranked.ranks))}, all equal; one"
        ' response must be better than another',
    )
  return ranked


def _to_label(
    label: Any, field: str, where: str, repairs: list[str]
) -> bool:
  """A label as true or false; what it could have been is not guessed."""
  if isinstance(label, str) and label.strip().lower() in _LABELS:
    repairs.append('label as text')
    return _LABELS[label.strip().lower()]
  # `1 == True` in Python and in most files; 1.0 may be a score.
  if not isinstance(label, int) or label not in (0, 1):
    raise BadRecord(
        'bad label',
        f"{where}: field '{field}' is {records.show(label)}; it must be true or"
        ' false (or 1 or 0); rewrite it.',
    )
  return bool(label)


def _to_score(score: Any, field: str, where: str) -> float:
  if isinstance(score, bool) or not isinstance(score, (int, float)) or (
      not abs(score) < _MAX_SCORE):
    raise BadRecord(
        'bad score',
        f"{where}: field '{field}' is {records.show(score)}; it must be a"
        ' number; write it, or take the row out.',
    )
  return score


def _read_step(step: Any, field: str, where: str) -> str:
  """A step as text, or as one turn of the assistant's."""
  if not isinstance(step, list):
    return rows.check_text(step, field, where)
  turns = chat.read_messages(step, field, where)
  if [turn['role'] for turn in turns] != ['assistant']:
    raise BadRecord(
        'wrong type',
        f"{where}: field '{field}' is {records.show(step)}; a step is one turn"
        " of the assistant's; rewrite it.",
    )
  return turns[0]['content']


def _no_list(
    where: str, field: str, value: Any, due: str, rule: str = 'wrong type'
) -> types.InputError:
  return BadRecord(
      rule,
      f"{where}: field '{field}' is {records.show(value)}; it must be {due};"
      ' rewrite it.',
  )
