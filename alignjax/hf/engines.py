"""Compiled tokenizers, and chats in which control tokens are text.

A chat is encoded as one text, as it was when its model was trained: what a
tokenizer makes of a word may depend on what stands before it. So where someone
has written a control token into a message, two kinds of characters that mean
nothing keep what is text and what is control apart:

  written           <s> [INST] hi </s> you [/INST]    the second </s> is text
  to the template   hi U you                          U stands in for the text
  it writes         <s> [INST] hi U you [/INST]
  to the engine     C [INST] hi </s> you [/INST]      C stands in for control

The engine takes C for a control token and no longer knows any other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
import functools
import json
import re
from typing import NamedTuple

import tokenizers

from alignjax.types import InputError

# Planes 15 and 16 are for private use: no text assigns them a meaning.
_PRIVATE = range(0xF0000, 0x110000 - 2)


class Encoded(NamedTuple):
  """Ids, and which characters of the text each one stands for."""

  ids: list[int]
  offsets: list[tuple[int, int]]  # [start, end); some tokens share one.


class Hidden(NamedTuple):
  """Messages in which stand-ins hide all control tokens."""

  messages: list[dict[str, str]]
  first: int | None  # The first stand-in; None if there was nothing to hide.


def any_of(texts: Iterable[str]) -> re.Pattern:
  """Matches the longest of the texts; nothing, if there are none."""
  return _any_of(tuple(texts))


@functools.lru_cache(maxsize=64)
def _any_of(texts: tuple[str, ...]) -> re.Pattern:
  longest_first = sorted(texts, key=len, reverse=True)
  return re.compile('|'.join(map(re.escape, longest_first)) or '(?!)')


@functools.lru_cache(maxsize=16)
def engine(tokenizer_json: str) -> tokenizers.Tokenizer:
  """The compiled tokenizer."""
  made = tokenizers.Tokenizer.from_str(tokenizer_json)
  made.no_truncation()  # A folder may carry the settings of its last use.
  made.no_padding()
  return made


@functools.lru_cache(maxsize=16)
def literal_engine(tokenizer_json: str) -> tokenizers.Tokenizer:
  """The compiled tokenizer, which spells control tokens out."""
  made = engine(_without_control_pieces(tokenizer_json))
  made = tokenizers.Tokenizer.from_str(made.to_str())
  made.encode_special_tokens = True
  return made


def encode_all(
    made: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
  """The ids of each text, no special token added.

  The engine's own threads share the texts and hold no lock of Python's, so that
  another thread may write the next ones meanwhile.
  """
  if not all(isinstance(text, str) for text in texts):
    raise TypeError  # The engine would take a tuple for two texts.
  found = made.encode_batch_fast(list(texts), add_special_tokens=False)
  return [each.ids for each in found]


def hide(
    messages: list[dict[str, str]], controls: Mapping[str, int]
) -> Hidden:
  """The messages with a private character for each control token in them.

  Raises:
    InputError: if the messages use up the private characters themselves.
  """
  pattern = any_of(controls)
  texts = [text for message in messages for text in message.values()]
  if not any(map(pattern.search, texts)):
    return Hidden(messages, None)
  used = {ord(char) for char in set().union(*texts) if char >= '\U000F0000'}
  step = 2 * len(controls)
  for first in range(_PRIVATE.start, _PRIVATE.stop - step, step):
    if used.isdisjoint(range(first, first + step)):
      break
  else:
    raise InputError(
        'the messages hold control tokens and private characters from all of '
        'planes 15 and 16 of Unicode; take one or the other out')
  stand_in = {text: chr(first + i) for i, text in enumerate(controls)}
  replace = lambda text: pattern.sub(lambda m: stand_in[m.group()], text)
  return Hidden(
      [{k: replace(v) for k, v in m.items()} for m in messages], first)


def encode_chat(
    tokenizer_json: str, text: str, controls: Mapping[str, int],
    forbidden: Collection[int], first: int | None,
) -> Encoded:
  """The ids of a rendered chat; its template's control tokens are control.

  Args:
    tokenizer_json: of the tokenizer.
    text: as the template wrote it, from `Hidden.messages`.
    controls: the control tokens and their ids.
    forbidden: the ids that no message may produce.
    first: `Hidden.first`.

  Returns:
    The ids, and where they stand in `text`. No message has made a control id.
  """
  if first is None:
    found = engine(tokenizer_json).encode(text, add_special_tokens=False)
    return Encoded(found.ids, found.offsets)
  names = list(controls)
  written = {chr(first + i): name for i, name in enumerate(names)}
  written |= {name: chr(first + len(names) + i) for i, name in enumerate(names)}
  parts, starts, ends = [], [], []
  for part in re.split(f'({any_of(written).pattern})', text):
    at = ends[-1] if ends else 0
    parts.append(written.get(part, part))
    if part in written:
      starts += [at] * len(parts[-1])
      ends += [at + len(part)] * len(parts[-1])
    else:
      starts += range(at, at + len(part))
      ends += range(at + 1, at + 1 + len(part))
  marked, id_of = _marked_engine(
      tokenizer_json, first + len(names), tuple(controls.items()))
  found = marked.encode(''.join(parts), add_special_tokens=False)
  kept = [i for i, token in enumerate(found.ids) if token not in forbidden]
  return Encoded(
      [id_of.get(found.ids[i], found.ids[i]) for i in kept],
      [(starts[a], ends[b - 1]) if a < b else (0, 0)
       for a, b in (found.offsets[i] for i in kept)])


def unknown_id(tokenizer_json: str) -> int | None:
  """The id of the unknown word, which text may well produce."""
  made = engine(tokenizer_json)
  name = getattr(made.model, 'unk_token', None)
  return None if name is None else made.token_to_id(name)


@functools.lru_cache(maxsize=16)
def _marked_engine(
    tokenizer_json: str, first: int, controls: tuple[tuple[str, int], ...]
) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
  """An engine that knows control tokens by private characters only.

  They are matched as the tokens that they stand in for are, and called normal
  ones, for an engine that spells out special ones would spell them out too.
  """
  marked = tokenizers.Tokenizer.from_str(
      literal_engine(tokenizer_json).to_str())
  marked.encode_special_tokens = True
  known = engine(tokenizer_json).get_added_tokens_decoder()
  id_of = {}
  for i, (_, token_id) in enumerate(controls):
    like = known.get(token_id)
    flags = {} if like is None else {
        flag: getattr(like, flag)
        for flag in ('lstrip', 'rstrip', 'single_word', 'normalized')}
    char = chr(first + i)
    marked.add_tokens([tokenizers.AddedToken(
        char, special=False, **({'normalized': False} | flags))])
    id_of[marked.token_to_id(char)] = token_id
  return marked, id_of


def _without_control_pieces(tokenizer_json: str) -> str:
  """The tokenizer, in whose Unigram model no text is a control token.

  Of all models only that one finds words by their names, those of control
  tokens too, so that they must be named as no text is.
  """
  if not isinstance(
      engine(tokenizer_json).model, tokenizers.models.Unigram):
    return tokenizer_json
  fields = json.loads(tokenizer_json)
  vocab = fields['model']['vocab']
  special = [t for t in fields['added_tokens'] if t['special']]
  for token in special:
    if token['id'] < len(vocab):
      vocab[token['id']][0] = '\U0010FFFF' + token['content']
  fields['added_tokens'] = [
      t for t in fields['added_tokens'] if not t['special']]
  return json.dumps(fields)
