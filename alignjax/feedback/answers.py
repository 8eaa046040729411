"""Items that people or models judge, and what they answer.

    items.jsonl      {"id", "prompt", "responses": [...], "known": [0, 1, ...]}
    answers.jsonl    {"item", "annotator", "ranks": [0, 2, 1]}      a ranking
                     {"item", "annotator", "good": true}            a thumb
                     {"item", "annotator", "skip": true}            none of it

A pair is a ranking of two, and equal ranks are a tie. `known` makes an item a
control: the ranking that a careful annotator finds. Answers are kept as they
were given, ties and skips too; what they amount to is decided afterwards.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import json
import os
from typing import Any

from alignjax import types
from alignjax.data import chat
from alignjax.data import records

_MAX_RANK = 1e9


@dataclasses.dataclass(frozen=True)
class Item:
  """What is shown."""

  id: str
  prompt: chat.Prompt
  responses: tuple[str, ...]
  known: tuple[float, ...] | None = None  # [K] ranks, of a control item.
  where: str = ''                         # 'file:line'


@dataclasses.dataclass(frozen=True)
class Answer:
  """What one annotator said to one item; none of the two: a skip."""

  item: str
  annotator: str
  ranks: tuple[float, ...] | None = None  # [K] 0 for the best.
  good: bool | None = None                # Of a thumb.

  def record(self) -> dict[str, Any]:
    """The answer as a line of `answers.jsonl`."""
    said = ({'ranks': list(self.ranks)} if self.ranks is not None else
            {'good': self.good} if self.good is not None else {'skip': True})
    return {'item': self.item, 'annotator': self.annotator} | said


def item_id(prompt: chat.Prompt, responses: Sequence[str]) -> str:
  """A name that depends on what is shown alone: 12 hexadecimal digits."""
  text = json.dumps([prompt, list(responses)], ensure_ascii=False)
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]


def read_items(
    path: str | os.PathLike[str], *, min_responses: int = 1) -> list[Item]:
  """The items of a file, in its order.

  Args:
    path: records with a prompt (text or messages) and responses; or chosen and
      rejected, which become two responses; or one response.
    min_responses: fewer cannot be judged: 2 for rankings and pairs.

  Raises:
    InputError: a record that is no item, or two of one id.
  """
  items, seen = [], {}
  for line, record in records.read_jsonl(path):
    item = parse_item(record, f'{path}:{line}', min_responses)
    if item.id in seen:
      raise types.InputError(
          f"{item.where}: field 'id' is {item.id!r}, as at {seen[item.id]}; "
          'an item stands once: take one out, or give it an id of its own')
    seen[item.id] = item.where
    items.append(item)
  return items


def parse_item(record: dict, where: str, min_responses: int = 1) -> Item:
  """A checked item of a record; see `read_items`."""
  prompt = record.get('prompt')
  if isinstance(prompt, list):
    prompt = chat.read_messages(prompt, 'prompt', where)
  elif not isinstance(prompt, str) or not prompt.strip():
    raise types.InputError(f"{where}: field 'prompt' is {records.show(prompt)}"
                           '; it must be text or messages')
  responses = record.get('responses')
  if responses is None and 'chosen' in record and 'rejected' in record:
    responses = [record['chosen'], record['rejected']]
  if responses is None and 'response' in record:
    responses = [record['response']]
  if not isinstance(responses, list) or not all(
      isinstance(r, str) for r in responses) or len(responses) < min_responses:
    raise types.InputError(
        f"{where}: field 'responses' is {records.show(responses)}; it must be "
        f'a list of {min_responses} or more texts')
  name = record.get('id', item_id(prompt, responses))
  if not isinstance(name, (str, int)) or not str(name):
    raise types.InputError(f"{where}: field 'id' is {records.show(name)}; it "
                           'must be text or a whole number')
  item = Item(str(name), prompt, tuple(responses), where=where)
  known = record.get('known')
  return item if known is None else dataclasses.replace(
      item, known=_ranks(known, item, 'known', where))


def read_answers(
    paths: Iterable[str | os.PathLike[str]], items: Sequence[Item],
) -> list[Answer]:
  """The answers of some files; of two to one item by one person, the last.

  Raises:
    InputError: a record that is no answer, or answers no item.
  """
  by_id = {item.id: item for item in items}
  answers = {}
  for path in paths:
    for line, record in records.read_jsonl(path):
      answer = parse_answer(record, by_id, f'{path}:{line}')
      answers[answer.item, answer.annotator] = answer
  return list(answers.values())


def parse_answer(
    record: Any, by_id: dict[str, Item], where: str) -> Answer:
  """A checked answer.

  Raises:
    InputError: it names no annotator or item, says two things or none, or
      ranks another number of responses than there are.
  """
  if not isinstance(record, dict):
    raise types.InputError(f'{where}: an answer must be a JSON object')
  name, annotator = record.get('item'), record.get('annotator')
  if not isinstance(name, str) or name not in by_id:
    raise types.InputError(
        f"{where}: field 'item' is {records.show(name)}, which is no item's "
        'id; give the items that were shown')
  if not isinstance(annotator, str) or not annotator.strip():
    raise types.InputError(
        f"{where}: field 'annotator' is {records.show(annotator)}; it must be "
        'a name')
  said = {key: record[key] for key in ('ranks', 'good', 'skip')
          if record.get(key) is not None}
  if len(said) != 1:
    raise types.InputError(
        f'{where}: the answer has {", ".join(said) or "nothing"}; give one of '
        "'ranks', 'good' and 'skip'")
  item = by_id[name]
  (kind, value), = said.items()
  if kind == 'ranks':
    return Answer(name, annotator, ranks=_ranks(value, item, 'ranks', where))
  if value not in (True, False) or isinstance(value, float) or (
      kind == 'skip' and not value):
    raise types.InputError(
        f"{where}: field '{kind}' is {records.show(value)}; it must be "
        f'{"true or false" if kind == "good" else "true"}')
  return Answer(name, annotator, good=bool(value) if kind == 'good' else None)


def _ranks(value: Any, item: Item, field: str, where: str) -> tuple[float, ...]:
  """A rank for each response."""
  is_number = lambda x: isinstance(x, (int, float)) and not isinstance(x, bool)
  if not isinstance(value, (list, tuple)) or not all(
      is_number(x) and abs(x) < _MAX_RANK for x in value) or len(value) != len(
          item.responses) or len(value) < 2:
    raise types.InputError(
        f"{where}: field '{field}' is {records.show(value)}; it must be a rank "
        f'for each of {len(item.responses)} responses, 0 for the best')
  return tuple(value)
