"""Records become rows of token ids, each with the length of its prompt.

The one place that decides what is cut when a row does not fit:

  prompt of P tokens, response of R tokens, EOS included, max_length L

    P + R <= L       kept whole
    P <= L - 1 < P + R - 1   the response loses its END, and so its EOS
    P > L - 1        no room to answer: `long_prompts` decides
                     'error'  InputError with the record's file and line
                     'drop'   the row is dropped, named and counted
                     'left'   the prompt loses its BEGINNING (BOS stays)

A response that was cut does not end in EOS, because the text did not end there:
it teaches the words and not where to stop.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Literal, NamedTuple, Protocol

import numpy as np

from alignjax import types
from alignjax.data import formats

LongPrompts = Literal['auto', 'error', 'drop', 'left']

# Under 'auto', the share of a file's rows that may be dropped as too long.
_MAX_LONG = 0.25


class Tokenizer(Protocol):
  """What this floor needs to know of a tokenizer."""

  bos_id: int | None
  eos_id: int
  pad_id: int

  def encode(self, text: str) -> list[int]:
    """The ids of bare text, no special token added."""

  def prompt_tokens(
      self,
      prompt: str | Sequence[Mapping[str, str]],
      *,
      plain: bool = False,
  ) -> list[int]:
    """The ids up to where the response starts, BOS at most once."""

  def response_tokens(self, response: str) -> list[int]:
    """The ids of a response, ending in EOS exactly once."""


class TokenizedResponse(NamedTuple):
  """A prompt and a response to it, one after the other."""

  tokens: np.ndarray  # [T] int32
  prompt_length: int  # The response is tokens[prompt_length:].


class TokenizedPair(NamedTuple):
  """Two responses to one prompt."""

  chosen: TokenizedResponse
  rejected: TokenizedResponse


class TokenizedPrompt(NamedTuple):
  """A prompt to sample from."""

  tokens: np.ndarray  # [P] int32
  prompt_id: int      # Its place among the prompts it was read with.


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


def tokenize_demonstration(
    demonstration: formats.Demonstration,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
) -> TokenizedResponse:
  """One prompt and its response as ids.

  Args:
    demonstration: The record.
    tokenizer: Gives the ids.
    max_length: The most tokens a row may have, prompt and response together.
    plain: True leaves the tokenizer's chat template out.

  Returns:
    A row of at most `max_length` tokens. It ends in EOS unless it was cut.

  Raises:
    InputError: The prompt has more than `max_length - 1` tokens.
  """
  prompt = _prompt(demonstration, tokenizer, plain)
  _check_room(demonstration.where, len(prompt), max_length, room=1)
  response = _response(
      demonstration.where, demonstration.response, tokenizer
  )
  return _join(prompt, response, max_length)


def tokenize_preference(
    preference: formats.Preference,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
) -> TokenizedPair:
  """One prompt and its two responses as ids; see `tokenize_demonstration`."""
  prompt = _prompt(preference, tokenizer, plain)
  _check_room(preference.where, len(prompt), max_length, room=1)
  chosen, rejected = (
      _response(preference.where, text, tokenizer)
      for text in (preference.chosen, preference.rejected)
  )
  return TokenizedPair(
      _join(prompt, chosen, max_length), _join(prompt, rejected, max_length)
  )


def tokenize_prompt(
    prompt: formats.PromptOnly,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    prompt_id: int = 0,
    plain: bool = False,
) -> TokenizedPrompt:
  """One prompt as ids; `max_length` bounds the prompt alone."""
  tokens = _prompt(prompt, tokenizer, plain)
  _check_room(prompt.where, len(tokens), max_length, room=0)
  return TokenizedPrompt(np.asarray(tokens, np.int32), prompt_id)


def tokenize_demonstrations(
    demonstrations: Iterable[formats.Demonstration],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: LongPrompts = 'error',
) -> tuple[list[TokenizedResponse], Fitted]:
  """Rows of ids, and what did not fit.

  Args:
    demonstrations: The records.
    tokenizer: Gives the ids.
    max_length: The most tokens a row may have, prompt and response together.
    plain: True leaves the tokenizer's chat template out.
    long_prompts: What happens to a prompt with no room behind it.

  Returns:
    The rows in the records' order, and what was cut and dropped.

  Raises:
    InputError: A long prompt under 'error', or no row is left.
  """
  rows, notes = [], _Notes(max_length, long_prompts)
  for record in demonstrations:
    prompt = _prompt(record, tokenizer, plain)
    response = _response(record.where, record.response, tokenizer)
    prompt = notes.fit(record.where, prompt, len(response), tokenizer.bos_id)
    if prompt is not None:
      rows.append(_join(prompt, response, max_length))
      notes.note_cut(record.where, len(prompt) + len(response))
  return rows, notes.finish(len(rows))


def tokenize_preferences(
    preferences: Iterable[formats.Preference],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: LongPrompts = 'error',
) -> tuple[list[TokenizedPair], Fitted]:
  """Pairs of rows, and what did not fit; see `tokenize_demonstrations`.

  A pair whose responses are the same tokens once cut says nothing, and is
  dropped by the name 'equal once cut'.
  """
  rows, notes = [], _Notes(max_length, long_prompts)
  for record in preferences:
    prompt = _prompt(record, tokenizer, plain)
    chosen = _response(record.where, record.chosen, tokenizer)
    rejected = _response(record.where, record.rejected, tokenizer)
    longest = max(len(chosen), len(rejected))
    prompt = notes.fit(record.where, prompt, longest, tokenizer.bos_id)
    if prompt is None:
      continue
    pair = TokenizedPair(
        _join(prompt, chosen, max_length), _join(prompt, rejected, max_length)
    )
    if np.array_equal(pair.chosen.tokens, pair.rejected.tokens):
      notes.dropped.append(('equal once cut', record.where))
      continue
    rows.append(pair)
    notes.note_cut(record.where, len(prompt) + longest)
  return rows, notes.finish(len(rows))


def tokenize_prompts(
    prompts: Iterable[formats.PromptOnly],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: LongPrompts = 'error',
) -> tuple[list[TokenizedPrompt], Fitted]:
  """Prompts of at most `max_length` tokens, numbered as they were read."""
  rows, notes = [], _Notes(max_length, long_prompts, room=0)
  for prompt_id, record in enumerate(prompts):
    tokens = _prompt(record, tokenizer, plain)
    tokens = notes.fit(record.where, tokens, 0, tokenizer.bos_id)
    if tokens is not None:
      rows.append(TokenizedPrompt(np.asarray(tokens, np.int32), prompt_id))
  return rows, notes.finish(len(rows))


def pack_documents(
    documents: Iterable[Sequence[int]], length: int
) -> list[TokenizedResponse]:
  """Rows for pretraining: a document each, split where it is too long.

  Every token but the row's first bears loss, as the first has nothing before
  it. A piece of one token is left out, because nothing in it can be learnt.

  Args:
    documents: Ids of one document each, BOS and EOS included if wanted.
    length: The most tokens a row may have, at least 2.

  Returns:
    Rows whose `prompt_length` is 1, in the documents' order.
  """
  if length < 2:
    raise types.InputError(
        f'length={length} leaves no token to predict; use 2 or more.'
    )
  rows = []
  for document in documents:
    tokens = np.asarray(document, np.int32)
    for start in range(0, len(tokens), length):
      piece = tokens[start : start + length]
      if len(piece) > 1:
        rows.append(TokenizedResponse(piece, 1))
  return rows


def tokenize_documents(
    texts: Iterable[str], tokenizer: Tokenizer, *, max_length: int
) -> list[TokenizedResponse]:
  """Rows `BOS text EOS` for pretraining; see `pack_documents`."""
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  return pack_documents(
      (bos + list(tokenizer.encode(text)) + [tokenizer.eos_id]
       for text in texts),
      max_length,
  )


class _Notes:
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
      _check_room(where, len(prompt), self.max_length, room=self.room)
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


def _prompt(record, tokenizer: Tokenizer, plain: bool) -> list[int]:
  return list(tokenizer.prompt_tokens(record.prompt, plain=plain))


def _response(where: str, text: str, tokenizer: Tokenizer) -> list[int]:
  tokens = list(tokenizer.response_tokens(text))
  if tokenizer.eos_id in tokens[:-1]:
    at = tokens.index(tokenizer.eos_id)
    raise types.InputError(
        f"{where}: the response holds the tokenizer's end-of-sequence token at"
        f' its token {at} of {len(tokens)}; a response ends once; take that'
        ' token out of the text.'
    )
  return tokens


def _join(
    prompt: list[int], response: list[int], max_length: int
) -> TokenizedResponse:
  tokens = np.asarray((prompt + response)[:max_length], np.int32)
  return TokenizedResponse(tokens, len(prompt))


def _check_room(where: str, prompt_length: int, max_length: int, *, room: int):
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
