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

Where all turns of a conversation are responses, P is what comes before the
first of them, and the last that fits is cut.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from alignjax import types
from alignjax.data import encoding
from alignjax.data import fitting
from alignjax.data import formats

Tokenizer = encoding.Tokenizer
Turns = Literal['last', 'all']  # The assistant's turns that bear loss.


class TokenizedResponse(NamedTuple):
  """A prompt and a response to it, one after the other."""

  tokens: np.ndarray  # [T] int32
  prompt_length: int  # The (last) response is tokens[prompt_length:].
  weight: float = 1.0  # Of the row's tokens in the mean.
  loss_mask: np.ndarray | None = None  # [T] bool; None for that response.
  # [T] float32 nats, what a reference says of it, where it was asked before.
  ref_logprobs: np.ndarray | None = None


class TokenizedPair(NamedTuple):
  """Two responses to one prompt."""

  chosen: TokenizedResponse
  rejected: TokenizedResponse
  strength: int = 0  # 0 (unsure) to 3 (sure).


class TokenizedLabel(NamedTuple):
  """A response that is desirable or not."""

  row: TokenizedResponse
  desirable: bool


class TokenizedRanking(NamedTuple):
  """K responses to one prompt, ranked."""

  rows: tuple[TokenizedResponse, ...]
  ranks: tuple[int, ...]


class TokenizedPrompt(NamedTuple):
  """A prompt to sample from."""

  tokens: np.ndarray  # [P] int32
  prompt_id: int      # Its place among the prompts it was read with.


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
  (_, prompt, (response,)), = _encoded_responses(
      [demonstration], tokenizer, plain)
  fitting.check_room(demonstration.where, len(prompt), max_length, room=1)
  return _join(prompt, response, max_length)


def tokenize_preference(
    preference: formats.Preference,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
) -> TokenizedPair:
  """One prompt and its two responses as ids; see `tokenize_demonstration`."""
  (_, prompt, (chosen, rejected)), = _encoded_pairs(
      [preference], tokenizer, plain)
  fitting.check_room(preference.where, len(prompt), max_length, room=1)
  return TokenizedPair(
      _join(prompt, chosen, max_length), _join(prompt, rejected, max_length),
      preference.strength,
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
  (_, tokens, _), = encoding.encoded([prompt], tokenizer, plain=plain)
  fitting.check_room(prompt.where, len(tokens), max_length, room=0)
  return TokenizedPrompt(np.asarray(tokens, np.int32), prompt_id)


def tokenize_demonstrations(
    demonstrations: Iterable[formats.Demonstration],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: fitting.LongPrompts = 'error',
    turns: Turns = 'last',
) -> tuple[list[TokenizedResponse], fitting.Fitted]:
  """Rows of ids, and what did not fit.

  Args:
    demonstrations: The records.
    tokenizer: Gives the ids.
    max_length: The most tokens a row may have, prompt and response together.
    plain: True leaves the tokenizer's chat template out.
    long_prompts: What happens to a prompt with no room behind it.
    turns: 'all' puts loss on every assistant turn of a conversation, 'last' on
      the response alone. The ids are the same. A plain transcript has no token
      to end a turn, so that only its response bears loss.

  Returns:
    The rows in the records' order, and what was cut and dropped.

  Raises:
    InputError: A long prompt under 'error', no row is left, or the chat
      template does not let `turns='all'` find the tokens of a turn.
  """
  if turns not in ('last', 'all'):
    raise types.InputError(
        f"turns={turns!r} is not known; use 'last' or 'all'.")
  rows, notes = [], fitting.Notes(max_length, long_prompts)
  for record, prompt, (response,) in _encoded_responses(
      demonstrations, tokenizer, plain):
    earlier = [False] * len(prompt)
    if turns == 'all' and not plain:
      prompt, earlier = _conversation(record, prompt, tokenizer)
    if not any(earlier[1:max_length]):
      prompt = notes.fit(record.where, prompt, len(response), tokenizer.bos_id)
      if prompt is None:
        continue
      earlier = earlier[len(earlier) - len(prompt):]
    row = _join(prompt, response, max_length)
    if any(earlier[1:]):  # What a row begins with has nothing before it.
      mask = np.array([False, *earlier[1:], *[True] * len(response)])
      row = row._replace(
          prompt_length=min(len(prompt), len(row.tokens)),
          loss_mask=mask[:max_length])
    rows.append(row)
    notes.note_cut(record.where, len(prompt) + len(response))
  return rows, notes.finish(len(rows))


def tokenize_preferences(
    preferences: Iterable[formats.Preference],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: fitting.LongPrompts = 'error',
) -> tuple[list[TokenizedPair], fitting.Fitted]:
  """Pairs of rows, and what did not fit; see `tokenize_demonstrations`.

  A pair whose responses are the same tokens once cut says nothing, and is
  dropped by the name 'equal once cut'.
  """
  rows, notes = [], fitting.Notes(max_length, long_prompts)
  for record, prompt, (chosen, rejected) in _encoded_pairs(
      preferences, tokenizer, plain):
    longest = max(len(chosen), len(rejected))
    prompt = notes.fit(record.where, prompt, longest, tokenizer.bos_id)
    if prompt is None:
      continue
    pair = TokenizedPair(
        _join(prompt, chosen, max_length), _join(prompt, rejected, max_length),
        record.strength)
    if np.array_equal(pair.chosen.tokens, pair.rejected.tokens):
      notes.dropped.append(('equal once cut', record.where))
      continue
    rows.append(pair)
    notes.note_cut(record.where, len(prompt) + longest)
  return rows, notes.finish(len(rows))


def tokenize_unpaired(
    unpaired: Iterable[formats.Unpaired],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: fitting.LongPrompts = 'error',
) -> tuple[list[TokenizedLabel], fitting.Fitted]:
  """Labelled rows, and what did not fit; see `tokenize_demonstrations`.

  A pair whose responses are the same tokens once cut gives neither label: both
  are dropped by the name 'equal once cut'.
  """
  rows, wheres, notes = [], [], fitting.Notes(max_length, long_prompts)
  for record, prompt, (response,) in _encoded_responses(
      unpaired, tokenizer, plain):
    prompt = notes.fit(record.where, prompt, len(response), tokenizer.bos_id)
    if prompt is not None:
      rows.append(TokenizedLabel(
          _join(prompt, response, max_length), record.desirable))
      wheres.append(record.where)
      notes.note_cut(record.where, len(prompt) + len(response))
  labels = {}
  keys = [(where, row.row.tokens.tobytes())
          for where, row in zip(wheres, rows, strict=True)]
  for key, row in zip(keys, rows, strict=True):
    labels.setdefault(key, set()).add(row.desirable)
  notes.dropped += [('equal once cut', key[0]) for key in labels
                    if len(labels[key]) > 1]
  rows = [row for key, row in zip(keys, rows, strict=True)
          if len(labels[key]) == 1]
  return rows, notes.finish(len(rows))


def tokenize_rankings(
    rankings: Iterable[formats.Ranking],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: fitting.LongPrompts = 'error',
) -> tuple[list[TokenizedRanking], fitting.Fitted]:
  """Ranked rows, and what did not fit; see `tokenize_demonstrations`.

  A ranking that puts the same tokens, once cut, on two ranks is dropped by the
  name 'equal once cut'.
  """
  rows, notes = [], fitting.Notes(max_length, long_prompts)
  for record, prompt, responses in encoding.encoded(
      rankings, tokenizer, plain=plain,
      responses=lambda record: record.responses):
    longest = max(map(len, responses))
    prompt = notes.fit(record.where, prompt, longest, tokenizer.bos_id)
    if prompt is None:
      continue
    cut = tuple(_join(prompt, r, max_length) for r in responses)
    rank_of = {}
    if any(rank_of.setdefault(row.tokens.tobytes(), rank) != rank
           for row, rank in zip(cut, record.ranks, strict=True)):
      notes.dropped.append(('equal once cut', record.where))
      continue
    rows.append(TokenizedRanking(cut, record.ranks))
    notes.note_cut(record.where, len(prompt) + longest)
  return rows, notes.finish(len(rows))


def tokenize_prompts(
    prompts: Iterable[formats.PromptOnly],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    plain: bool = False,
    long_prompts: fitting.LongPrompts = 'error',
) -> tuple[list[TokenizedPrompt], fitting.Fitted]:
  """Prompts of at most `max_length` tokens, numbered as they were read."""
  rows, notes = [], fitting.Notes(max_length, long_prompts, room=0)
  for prompt_id, (record, tokens, _) in enumerate(
      encoding.encoded(prompts, tokenizer, plain=plain)):
    tokens = notes.fit(record.where, tokens, 0, tokenizer.bos_id)
    if tokens is not None:
      rows.append(TokenizedPrompt(np.asarray(tokens, np.int32), prompt_id))
  return rows, notes.finish(len(rows))


def _encoded_responses(records, tokenizer: Tokenizer, plain: bool):
  """Records of one response, and their ids."""
  return encoding.encoded(
      records, tokenizer, plain=plain,
      responses=lambda record: (record.response,))


def _encoded_pairs(records, tokenizer: Tokenizer, plain: bool):
  """Records of a chosen and a rejected response, and their ids."""
  return encoding.encoded(
      records, tokenizer, plain=plain,
      responses=lambda record: (record.chosen, record.rejected))


def _conversation(
    record: formats.Demonstration, prompt: list[int], tokenizer: Tokenizer,
) -> tuple[list[int], list[bool]]:
  """The ids of a prompt, and which of them are earlier responses."""
  if isinstance(record.prompt, str) or not any(
      message['role'] == 'assistant' for message in record.prompt):
    return prompt, [False] * len(prompt)
  try:
    return tokenizer.conversation_tokens(
        record.prompt, add_generation_prompt=True)
  except types.InputError as error:
    raise types.InputError(f'{record.where}: {error}') from error


def _join(
    prompt: list[int], response: list[int], max_length: int
) -> TokenizedResponse:
  tokens = np.asarray((prompt + response)[:max_length], np.int32)
  return TokenizedResponse(tokens, len(prompt))
