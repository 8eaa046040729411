"""A row of tokens as text, with the tokens that bear loss marked."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import rich.console
import rich.text

from alignjax import data
from alignjax import hf

_LOSS, _SPECIAL, _BOTH = 'bold green', 'dim cyan', 'bold magenta'


class Piece(NamedTuple):
  """Text that is marked alike."""

  text: str
  bears_loss: bool
  is_special: bool  # One token, which no text can write.


def row_pieces(
    row: data.TokenizedResponse | data.TokenizedPrompt,
    tokenizer: hf.Tokenizer, special: Mapping[int, str],
) -> list[Piece]:
  """The pieces of a row; together they are its text, special tokens shown."""
  tokens, mask = [int(t) for t in row.tokens], loss_mask(row)
  keys = [(bool(bears), t in special) for t, bears in zip(
      tokens, mask, strict=True)]
  pieces, start = [], 0
  for end in range(1, len(tokens) + 1):
    if end < len(tokens) and keys[end] == keys[start] and not keys[start][1]:
      continue
    bears, is_special = keys[start]
    text = special[tokens[start]] if is_special else _text(
        tokens, start, end, tokenizer)
    pieces.append(Piece(text, bears, is_special))
    start = end
  return pieces


def loss_mask(
    row: data.TokenizedResponse | data.TokenizedPrompt
) -> np.ndarray:
  """[T] bool: the tokens that bear loss."""
  if isinstance(row, data.TokenizedPrompt):
    return np.zeros(len(row.tokens), bool)
  if row.loss_mask is not None:
    return row.loss_mask
  return np.arange(len(row.tokens)) >= row.prompt_length


def _text(
    tokens: Sequence[int], start: int, end: int, tokenizer: hf.Tokenizer
) -> str:
  """The text that tokens add to those before them.

  Decoded alone, they would lose the space that many tokenizers put first.
  """
  before = tokenizer.decode(tokens[:start])
  both = tokenizer.decode(tokens[:end])
  if both.startswith(before):
    return both[len(before):]
  return tokenizer.decode(tokens[start:end])


def plain(pieces: Sequence[Piece]) -> str:
  """The text with [[...]] around what bears loss."""
  text, inside = '', False
  for piece in pieces:
    if piece.bears_loss != inside:
      text += '[[' if piece.bears_loss else ']]'
      inside = piece.bears_loss
    text += visible(piece.text)
  return text + (']]' if inside else '')


def show(pieces: Sequence[Piece], console: rich.console.Console | None) -> str:
  """The text with marks, or in colour if there is a console for it."""
  if console is None:
    return plain(pieces)
  text = rich.text.Text()
  for piece in pieces:
    style = (_BOTH if piece.is_special else _LOSS) if piece.bears_loss else (
        _SPECIAL if piece.is_special else '')
    text.append(visible(piece.text), style)
  with console.capture() as captured:
    console.print(text, end='', soft_wrap=True)
  return captured.get()


def visible(text: str) -> str:
  """Data must not steer the terminal: control characters are spelled out."""
  return ''.join(c if c in '\n\t' or c.isprintable() else
                 c.encode('unicode_escape').decode() for c in text)
