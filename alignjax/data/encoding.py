"""Texts of records become ids, some records ahead of whoever asks for them.

  this thread   takes records, and what `encoded` gave        in their order
  two others    prompts and responses of a chunk of records   `Tokenizer`

A tokenizer's engine lets Python go on while it works. So one thread writes a
chunk's prompts by the chat template where the engine has the other's chunk.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
import itertools
from typing import Any, NamedTuple, Protocol

from alignjax import types

_CHUNK = 128   # Records that are encoded at once.
_AHEAD = 2     # Chunks, and threads.


class Tokenizer(Protocol):
  """What this floor needs to know of a tokenizer.

  One that has `all_prompt_tokens` and `all_response_tokens`, the same of many
  at once, is asked by those, on two threads; else it is asked for one text at a
  time, in the records' order, by whoever takes the rows.
  """

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

  def conversation_tokens(
      self,
      messages: Sequence[Mapping[str, str]],
      *,
      add_generation_prompt: bool = False,
  ) -> tuple[list[int], list[bool]]:
    """The ids of a chat, and whether the assistant wrote them."""


class Encoded(NamedTuple):
  """A record, and the ids of what it holds."""

  record: Any
  prompt: list[int]
  responses: list[list[int]]  # Each ends in EOS, and has no other.


def encoded(
    records: Iterable,
    tokenizer: Tokenizer,
    *,
    plain: bool = False,
    responses: Callable[[Any], Sequence[str]] = lambda record: (),
) -> Iterator[Encoded]:
  """Each record with its ids, in their order.

  Args:
    records: with a `prompt`, and a `where` to call them by.
    tokenizer: Gives the ids.
    plain: True leaves the tokenizer's chat template out.
    responses: Those of a record.

  Raises:
    InputError: A text cannot be encoded, or a response holds EOS before its
      end: when all records before that one were yielded.
  """
  def encode(record: Any) -> Encoded:
    return Encoded(
        record, list(tokenizer.prompt_tokens(record.prompt, plain=plain)),
        [list(tokenizer.response_tokens(text)) for text in responses(record)])

  def encode_all(chunk: Sequence) -> list[Encoded]:
    texts = [list(responses(record)) for record in chunk]
    prompts = tokenizer.all_prompt_tokens(
        [record.prompt for record in chunk], plain=plain)
    flat = iter(tokenizer.all_response_tokens(
        [text for own in texts for text in own]))
    return [
        Encoded(record, prompt, list(itertools.islice(flat, len(own))))
        for record, prompt, own in zip(chunk, prompts, texts, strict=True)]

  is_for_many = all(hasattr(tokenizer, f'all_{name}_tokens')
                    for name in ('prompt', 'response'))
  found = (_ahead(encode_all, encode, records) if is_for_many
           else map(encode, records))
  for one in found:
    for tokens in one.responses:
      _check_ends_once(one.record.where, tokens, tokenizer.eos_id)
    yield one


def _ahead(encode_all: Callable, encode: Callable, records: Iterable
           ) -> Iterator[Encoded]:
  """Chunk by chunk, the next ones on threads, up to what cannot be encoded."""

  def taken(chunk: Sequence, future: futures.Future) -> Iterable[Encoded]:
    try:
      return future.result()
    except types.InputError:  # One by one, to get as far as one can.
      return map(encode, chunk)

  with futures.ThreadPoolExecutor(_AHEAD) as pool:
    waiting = collections.deque()
    for chunk in _chunks(records):
      waiting.append((chunk, pool.submit(encode_all, chunk)))
      if len(waiting) > _AHEAD:
        yield from taken(*waiting.popleft())
    while waiting:
      yield from taken(*waiting.popleft())


def _chunks(records: Iterable) -> Iterator[list]:
  left = iter(records)
  while chunk := list(itertools.islice(left, _CHUNK)):
    yield chunk


def _check_ends_once(where: str, response: Sequence[int], eos_id: int) -> None:
  """InputError if there is an EOS before the response's last token."""
  if eos_id in response[:-1]:
    raise types.InputError(
        f"{where}: the response holds the tokenizer's end-of-sequence token at"
        f' its token {response.index(eos_id)} of {len(response)}; a response'
        ' ends once; take that token out of the text.'
    )
