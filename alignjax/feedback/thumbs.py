"""Thumbs: a log of (prompt, response, is_good) becomes rows for KTO.

A log of a service is no sample of responses. People press twice; a response
that was shown often has more thumbs than one shown once; and one popular prompt
can be half the log. So, in this order:

    one vote     of a user's thumbs on one response the last one counts
    one row      each distinct response is one row, whatever it was shown: its
                 label is what most users say, and split votes are left out
    fair share   a prompt keeps at most `max_per_prompt` rows, those seen most
                 often, good and bad by turns

How one class outnumbers the other is left to KTO's weights.
"""

import collections
from collections.abc import Hashable, Sequence
import dataclasses
import json
import os

from alignjax import types
from alignjax.data import chat
from alignjax.data import records


@dataclasses.dataclass(frozen=True)
class Thumb:
  """One press of a button."""

  prompt: chat.Prompt
  response: str
  is_good: bool
  user: str = ''  # Presses of nobody in particular are different people's.


@dataclasses.dataclass(frozen=True)
class Labeled:
  """A response and what its users think of it."""

  prompt: chat.Prompt
  response: str
  good: int  # Votes.
  bad: int

  def record(self) -> dict:
    """The row as KTO's data."""
    prompt = self.prompt if isinstance(self.prompt, str) else list(self.prompt)
    return {'prompt': prompt, 'response': self.response,
            'label': self.good > self.bad, 'good': self.good, 'bad': self.bad}


@dataclasses.dataclass(frozen=True)
class Digest:
  """What became of a log."""

  rows: tuple[Labeled, ...]
  presses: int
  repeated: int  # Presses that a later one of the same user replaced.
  split: int     # Responses with as many good votes as bad.
  crowded: int   # Responses beyond a prompt's share.

  def __str__(self) -> str:
    good = sum(row.good > row.bad for row in self.rows)
    return (f'{self.presses:,} thumbs: {len(self.rows):,} responses, {good:,} '
            f'of them good; {self.repeated:,} pressed again, {self.split:,} '
            f'split, {self.crowded:,} beyond their prompt\'s share')


def read_thumbs(path: str | os.PathLike[str]) -> list[Thumb]:
  """The presses of a log, oldest first.

  Args:
    path: JSONL of {"prompt", "response", "is_good"} and, if known, "user".

  Raises:
    InputError: a line that is no press, with its field and value.
  """
  thumbs = []
  for line, record in records.read_jsonl(path):
    where = f'{path}:{line}'
    prompt = record.get('prompt')
    if isinstance(prompt, list):
      prompt = chat.read_messages(prompt, 'prompt', where)
    for field, value, rule, good in (
        ('prompt', prompt, 'text or messages', isinstance(prompt, tuple) or (
            isinstance(prompt, str) and prompt.strip())),
        ('response', record.get('response'), 'text', isinstance(
            record.get('response'), str)),
        ('is_good', record.get('is_good'), 'true or false', isinstance(
            record.get('is_good'), bool)),
        ('user', record.get('user', ''), 'a name', isinstance(
            record.get('user', ''), (str, int)))):
      if not good:
        raise types.InputError(f"{where}: field '{field}' is "
                               f'{records.show(value)}; it must be {rule}')
    thumbs.append(Thumb(prompt, record['response'], record['is_good'],
                        str(record.get('user', ''))))
  return thumbs


def digest(thumbs: Sequence[Thumb], *, max_per_prompt: int = 8) -> Digest:
  """A log as rows to learn from.

  Args:
    thumbs: presses, oldest first.
    max_per_prompt: rows that one prompt may have, ≥ 1.

  Returns:
    A `Digest`, whose rows do not change when every press is repeated.
  """
  if max_per_prompt < 1:
    raise types.InputError(f'max_per_prompt={max_per_prompt} leaves nothing; '
                           'use 1 or more')
  votes = {}
  for number, thumb in enumerate(thumbs):
    key = _key(thumb.prompt), thumb.response
    votes.setdefault(key, {})[thumb.user or number] = thumb
  by_prompt, split = collections.defaultdict(list), 0
  for cast in votes.values():
    good = sum(thumb.is_good for thumb in cast.values())
    bad = len(cast) - good
    if good == bad:
      split += 1
      continue
    shown = next(iter(cast.values()))
    by_prompt[_key(shown.prompt)].append(
        Labeled(shown.prompt, shown.response, good, bad))
  kept = [row for rows in by_prompt.values()
          for row in _share(rows, max_per_prompt)]
  return Digest(
      tuple(kept), len(thumbs), len(thumbs) - sum(map(len, votes.values())),
      split, sum(map(len, by_prompt.values())) - len(kept))


def _share(rows: list[Labeled], count: int) -> list[Labeled]:
  """The rows with most votes, good and bad by turns, in their own order."""
  if len(rows) <= count:
    return rows
  by_votes = sorted(rows, key=lambda row: -(row.good + row.bad))
  sides = [[r for r in by_votes if (r.good > r.bad) == good]
           for good in (True, False)]
  turns = []
  for i in range(len(rows)):
    turns += [side[i] for side in sides if i < len(side)]
  chosen = {id(row) for row in turns[:count]}
  return [row for row in rows if id(row) in chosen]


def _key(prompt: chat.Prompt) -> Hashable:
  return prompt if isinstance(prompt, str) else json.dumps(prompt)
