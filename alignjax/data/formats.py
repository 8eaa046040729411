"""Records of many shapes become demonstrations, preferences and prompts.

The shape is read off the fields of a file's first record and holds for the
whole file. Rows that cannot be what they claim to be (a field is missing, null
or of the wrong type, no turn is the assistant's) stop the run with their line.
Rows that are well formed and teach nothing are dropped by name and counted:

  empty prompt      the prompt has no text
  empty response    a response has no text
  equal responses   chosen and rejected are the same
  prompts differ    chosen and rejected answer different prompts

A real file holds a few of these. More than `max_dropped` of a file's rows means
that the file is not what it was taken for, and stops the run too.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import os
import pathlib
from typing import Any

from alignjax import types
from alignjax.data import chat
from alignjax.data import files
from alignjax.data import records
from alignjax.data import rows
from alignjax.data import shapes

Format = shapes.Format
sniff = shapes.sniff


@dataclasses.dataclass(frozen=True)
class Demonstration:
  """A prompt and the response to imitate."""

  prompt: chat.Prompt
  response: str
  where: str        # 'file:line'
  source: str = ''  # The field of that name: who or what wrote the response.


@dataclasses.dataclass(frozen=True)
class Preference:
  """A prompt and two responses, one preferred."""

  prompt: chat.Prompt
  chosen: str
  rejected: str
  where: str
  strength: int = 0  # 3: significantly better, ... 0: negligibly, or unsure.


@dataclasses.dataclass(frozen=True)
class Unpaired:
  """A prompt and a response that is desirable or not."""

  prompt: chat.Prompt
  response: str
  desirable: bool
  where: str


@dataclasses.dataclass(frozen=True)
class Ranking:
  """A prompt and K ranked responses."""

  prompt: chat.Prompt
  responses: tuple[str, ...]
  ranks: tuple[int, ...]  # 0 for the best; equal ones tie.
  where: str


@dataclasses.dataclass(frozen=True)
class PromptOnly:
  """A prompt to sample from."""

  prompt: chat.Prompt
  where: str


@dataclasses.dataclass(frozen=True)
class Reading:
  """What was read from a file, and what was left out."""

  path: str
  format: Format
  noun: str                             # What the rows are, in the plural.
  num_rows: int                         # Rows kept.
  dropped: tuple[tuple[str, str], ...]  # (reason, where) of rows dropped.

  def __str__(self) -> str:
    name = pathlib.Path(self.path).name
    text = f'{self.num_rows:,} {self.noun} from {name} ({self.format.value})'
    if self.dropped:
      text += f'; {summarize_dropped(self.dropped)}'
    return text


def demonstrations(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Demonstration], Reading]:
  """The demonstrations of a file; of preferences, the chosen responses.

  Args:
    path: A JSONL file, or a directory that a TFDS builder wrote.
    split: Which split of a TFDS directory.
    max_dropped: The share of the file's rows, in [0, 1], that may be dropped.

  Returns:
    The demonstrations in the file's order, and what was read and dropped;
    `str()` of it is one line for people.

  Raises:
    InputError: A row that cannot be read, or too many that teach nothing.
  """

  def read(record, format_, where):
    if format_ in shapes.PREFERENCES:
      prompt, response = rows.read_side(record, 'chosen', format_, where)
    elif format_ in shapes.LABELED:
      raise types.InputError(
          f"{where}: field 'label' marks responses good or bad, and a"
          ' demonstration must be good; keep the good rows and remove the'
          " field 'label'."
      )
    else:
      prompt, response = rows.read_response(record, format_, where)
    source = record.get('source')
    yield Demonstration(
        prompt, response, where, source if isinstance(source, str) else '')

  return _read_file(path, split, read, 'demonstrations', max_dropped)


def preferences(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Preference], Reading]:
  """The preference pairs of a file; see `demonstrations`.

  Chosen and rejected may repeat the prompt, as transcripts and conversations
  do; the prompt is then what stands before the last assistant turn.
  """

  def read(record, format_, where):
    if format_ not in shapes.PREFERENCES:
      raise rows.wrong_shape(where, format_, "fields 'chosen' and 'rejected'")
    prompt, chosen, rejected = rows.read_pair(record, format_, where)
    yield Preference(
        prompt, chosen, rejected, where, rows.read_strength(record, where))

  return _read_file(path, split, read, 'pairs', max_dropped)


def unpaired(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Unpaired], Reading]:
  """Responses with a label; a preference pair gives one of each."""

  def read(record, format_, where):
    if format_ in shapes.PREFERENCES:
      prompt, chosen, rejected = rows.read_pair(record, format_, where)
      yield Unpaired(prompt, chosen, True, where)
      yield Unpaired(prompt, rejected, False, where)
    elif format_ in shapes.LABELED:
      label = rows.read_field(record, 'label', where)
      # `1 == True` in Python and in most files; 1.0 and "true" are no labels.
      if not isinstance(label, int) or label not in (0, 1):
        raise types.InputError(
            f"{where}: field 'label' is {records.show(label)}; it must be true"
            ' or false (or 1 or 0); rewrite it.'
        )
      prompt, response = rows.read_response(record, format_, where)
      yield Unpaired(prompt, response, bool(label), where)
    else:
      raise rows.wrong_shape(where, format_, "field 'label'")

  return _read_file(path, split, read, 'labeled responses', max_dropped)


def rankings(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[Ranking], Reading]:
  """Prompts with ranked responses; a preference pair is a ranking of two."""

  def read(record, format_, where):
    if format_ in shapes.PREFERENCES:
      prompt, chosen, rejected = rows.read_pair(record, format_, where)
      yield Ranking(prompt, (chosen, rejected), (0, 1), where)
    elif format_ == Format.RANKING:
      prompt, responses, ranks = rows.read_ranking(record, where)
      yield Ranking(prompt, responses, ranks, where)
    else:
      raise rows.wrong_shape(where, format_, "fields 'responses' and 'ranks'")

  return _read_file(path, split, read, 'rankings', max_dropped)


def prompts(
    path: str | os.PathLike[str],
    *,
    split: str = 'train',
    max_dropped: float = 0.01,
) -> tuple[list[PromptOnly], Reading]:
  """The prompts of a file of any known shape; see `demonstrations`."""

  def read(record, format_, where):
    yield PromptOnly(rows.read_prompt(record, format_, where), where)

  return _read_file(path, split, read, 'prompts', max_dropped)


def summarize_dropped(dropped: Iterable[tuple[str, str]]) -> str:
  """'dropped 5: 4 empty response (lines 87, 517, 9, ...), 1 prompts differ'."""
  by_reason = collections.defaultdict(list)
  for reason, where in dropped:
    by_reason[reason].append(where.rpartition(':')[2])
  parts = []
  for reason, lines in by_reason.items():
    count = f'{len(lines):,} ' if len(by_reason) > 1 else ''
    more = ', ...' if len(lines) > 3 else ''
    word = 'line' if len(lines) == 1 else 'lines'
    parts.append(f"{count}{reason} ({word} {', '.join(lines[:3])}{more})")
  total = sum(len(lines) for lines in by_reason.values())
  return f"dropped {total:,}: {', '.join(parts)}"


def _read_file(
    path: str | os.PathLike[str],
    split: str,
    read: Callable[[dict[str, Any], Format, str], Iterator[Any]],
    noun: str,
    max_dropped: float,
) -> tuple[list[Any], Reading]:
  """Reads every row, and holds the dropped ones against the limit."""
  if not 0 <= max_dropped <= 1:
    raise types.InputError(
        f'max_dropped={max_dropped} is not a share; use a number from 0 to 1.'
    )
  items, dropped, format_, first, num_rows = [], [], None, None, 0
  for line, record in _read_records(path, split):
    where = f'{path}:{line}'
    format_ = format_ or sniff(record, where)
    num_rows += 1
    try:
      items.extend(read(record, format_, where))
    except rows.Unusable as row:
      dropped.append((row.reason, where))
      first = first or row
  if len(dropped) > max_dropped * num_rows:
    raise types.InputError(
        f'{dropped[0][1]}: {first.detail}; {len(dropped):,} of {num_rows:,}'
        f' rows would be dropped, more than max_dropped={max_dropped:g} of'
        ' them; repair the rows, or pass a larger --max-dropped.'
    )
  if not items:
    raise types.InputError(
        f'{path}: all {num_rows:,} rows were dropped; give at least one that'
        ' has text.'
    )
  return items, Reading(str(path), format_, noun, len(items), tuple(dropped))


def _read_records(
    path: str | os.PathLike[str],
    split: str,
    on_error: records.OnError | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
  return files.read_records(path, split, on_error)
