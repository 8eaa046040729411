"""What is cut and what is dropped so that every row fits, and who is told.

tokenize.py has the table of the rules; here they are kept account of.
"""

import dataclasses
from typing import Literal

from alignjax import types
from alignjax.data import formats

LongPrompts = Literal['auto', 'error', 'drop', 'left']

# Under 'auto', the share of a file's rows that may be dropped as too long.
_MAX_LONG = 0.25


@dataclasses.dataclass(frozen=True)
class Fitted:
  """What was cut and dropped so that every row fits `max_length`."""

  max_length: int
  num_rows: int                             # Rows kept.
  cut_responses: tuple[str, ...] = ()       # `where` of responses cut.
  cut_prompts: tuple[str, ...] = ()         # `where` of prompts cut.
  dropped: tuple[tuple[str, str], ...] = ()  # (reason, where) of rows dropped.

  def __str__(self) -> str:
    parts = [f'{self.num_rows:,} rows fit max_length={self.max_length}']
    if self.cut_responses:
      parts.append(f'cut {len(self.cut_responses):,} responses at the end')
    if self.cut_prompts:
      parts.append(f'cut {len(self.cut_prompts):,} prompts at the start')
    if self.dropped:
      parts.append(formats.summarize_dropped(self.dropped))
    return '; '.join(parts)


class _LongPromptError(types.InputError):
  """A prompt that leaves no room for one token of a response."""


class Notes:
  """Collects what was cut and dropped while rows are fitted."""

  def __init__(self, max_length: int, long_prompts: str, room: int = 1):
    if long_prompts not in ('auto', 'error', 'drop', 'left'):
      raise types.InputError(
          f"long_prompts={long_prompts!r} is not known; use 'auto', 'error',"
          " 'drop' or 'left'."
      )
    self.max_length = max_length
    self.long_prompts = long_prompts
    self.room = room  # Tokens that a response needs at the least.
    self.cut_responses: list[str] = []
    self.cut_prompts: list[str] = []
    self.dropped: list[tuple[str, str]] = []
    self.first_long: _LongPromptError | None = None

  def fit(
      self,
      where: str,
      prompt: list[int],
      response_length: int,
      bos_id: int | None,
  ) -> list[int] | None:
    """The prompt that goes into the row, or None where the row is dropped."""
    try:
      check_room(where, len(prompt), self.max_length, room=self.room)
      return prompt
    except _LongPromptError as error:
      if self.long_prompts == 'error':
        raise
      self.first_long = self.first_long or error
    if self.long_prompts in ('auto', 'drop'):
      self.dropped.append(('long prompt', where))
      return None
    # A response keeps at most half of the row, or there is no prompt left.
    kept = self.max_length - min(response_length, self.max_length // 2)
    self.cut_prompts.append(where)
    if bos_id is not None and prompt[0] == bos_id and kept > 1:
      return [bos_id] + prompt[-(kept - 1):]
    return prompt[-kept:]

  def note_cut(self, where: str, length: int):
    """Takes note of a response that loses its end."""
    if length > self.max_length:
      self.cut_responses.append(where)

  def finish(self, num_rows: int) -> Fitted:
    """The summary; InputError if too much or everything was dropped."""
    num_long = sum(reason == 'long prompt' for reason, _ in self.dropped)
    if self.long_prompts == 'auto' and (
        num_long > _MAX_LONG * (num_rows + len(self.dropped))):
      raise self.first_long
    if not num_rows:
      what = (
          formats.summarize_dropped(self.dropped)
          if self.dropped
          else 'there were no records'
      )
      raise types.InputError(
          f'no row is left at max_length={self.max_length}: {what}; a run needs'
          ' at least one row; raise max_length or give more records.'
      )
    return Fitted(
        self.max_length,
        num_rows,
        tuple(self.cut_responses),
        tuple(self.cut_prompts),
        tuple(self.dropped),
    )


def check_room(where: str, prompt_length: int, max_length: int, *, room: int):
  """InputError unless `room` tokens fit behind the prompt."""
  if prompt_length + room <= max_length:
    return
  rule = (
      'which leaves no room for a response in'
      if room
      else 'which is more than'
  )
  raise _LongPromptError(
      f'{where}: the prompt has {prompt_length} tokens, {rule}'
      f' max_length={max_length}; raise max_length to {prompt_length + room} or'
      ' more, or pass --long-prompts drop (or left).'
  )
