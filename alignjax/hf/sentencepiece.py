"""A sentencepiece model (`tokenizer.model`) as the text of a `tokenizer.json`.

The model is a protocol buffer, of which twenty lines read the dozen fields that
say how text becomes ids. So neither protobuf nor sentencepiece, which would run
a second engine beside `tokenizers`, is needed to load one.

What becomes of a piece:

  normal        a word of the vocabulary; BPE merges pairs by its score
  unknown       one for all that has no piece, unless bytes spell it
  control       a special token, never found in text
  user-defined  found whole in text, before anything is merged
  byte          spells what has no piece, in UTF-8
  unused        never found
"""

from collections.abc import Mapping, Sequence
import re
import struct
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors

from alignjax.types import InputError

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED = 1, 2, 3, 4, 5  # And 6: a byte.
_UNIGRAM, _BPE = 1, 2
_SPACE = '▁'
# Gemma has its turns marked by pieces that its model calls user-defined.
_SPECIAL = ('<start_of_turn>', '<end_of_turn>')
_NEVER = '\U0010FFFF'  # No character: no text holds it.


class Piece(NamedTuple):
  """A word of a model."""

  text: str
  score: float
  kind: int


class Model(NamedTuple):
  """What a model file says about how text becomes ids."""

  pieces: Sequence[Piece]
  kind: int
  ids: Mapping[str, int]  # Of 'unk', 'bos', 'eos' and 'pad'; -1 for none.
  byte_fallback: bool
  charsmap: bytes
  dummy_prefix: bool      # Text is encoded as if a space stood before it.
  one_space: bool         # Spaces at the ends go, and all but one in a row.
  marks_spaces: bool      # A space is '▁' in the pieces.


def read_model(content: bytes, where: str) -> Model:
  """The model in a file's content.

  Raises:
    InputError: if it is no sentencepiece model, or of a kind that no model of
      language uses.
  """
  try:
    fields = _fields(content)
    trainer, normalizer = (_fields(fields.get(i, [b''])[-1]) for i in (2, 3))
    pieces = [_piece(_fields(piece)) for piece in fields[1]]
  except (AttributeError, IndexError, KeyError, TypeError, ValueError,
          struct.error):
    raise InputError(
        f'{where} is not a sentencepiece model (the tokenizer.model of Llama 3 '
        'is not one either); copy it again, or take the tokenizer.json of the '
        'same model') from None
  last = lambda message, field, otherwise: message.get(field, [otherwise])[-1]
  signed = lambda i: i - (1 << 64) if i >= 1 << 63 else i
  ids = {
      name: signed(last(trainer, *field)) for name, *field in
      (('unk', 40, 0), ('bos', 41, 1), ('eos', 42, 2), ('pad', 43, -1))}
  kind = last(trainer, 3, _UNIGRAM)
  if kind not in (_UNIGRAM, _BPE) or last(trainer, 24, 0):
    raise InputError(
        f'{where}: this sentencepiece model splits text by words or characters,'
        ' or writes spaces behind words; take the tokenizer.json of a model of '
        'type BPE or unigram')
  return Model(
      pieces, kind, ids,
      byte_fallback=bool(last(trainer, 35, 0)),
      charsmap=last(normalizer, 2, b''),
      dummy_prefix=bool(last(normalizer, 3, 1)),
      one_space=bool(last(normalizer, 4, 1)),
      marks_spaces=bool(last(normalizer, 5, 1)))


def to_tokenizer_json(
    model: Model, config: Mapping[str, Any], where: str
) -> str:
  """The text of the `tokenizer.json` that encodes as the model does.

  Args:
    model: from `read_model`.
    config: of `tokenizer_config.json`. It says whether BOS (yes, unless
      `add_bos_token` is false) and EOS (no) stand around a plain text; which
      tokens the model has besides its pieces (`added_tokens_decoder`); and
      whether each text between two special tokens has a space of its own
      before it (`legacy`), or only the first.
    where: names the folder in errors.

  Raises:
    InputError: if added tokens leave a gap behind the pieces.
  """
  added = {int(i): token for i, token in
           config.get('added_tokens_decoder', {}).items()}
  pieces = [piece._replace(text=added[i]['content']) if i in added else piece
            for i, piece in enumerate(model.pieces)]
  engine = tokenizers.Tokenizer(
      _bpe(model, pieces) if model.kind == _BPE else _unigram(model, pieces))
  prefix = model.dummy_prefix and config.get('add_prefix_space') is not False
  found = [piece.text for piece in pieces if piece.kind == _USER]
  engine.normalizer = normalizers.Sequence(
      _normalizers(model, found, prefix, bool(config.get('legacy'))))
  if prefix and not config.get('legacy'):
    engine.pre_tokenizer = _first_space(model)
  engine.decoder = decoders.Sequence([
      decoders.Replace(_SPACE, ' '), decoders.ByteFallback(), decoders.Fuse(),
      *([decoders.Strip(' ', 1, 0)] if prefix else [])])
  _add_tokens(engine, pieces, added, where)
  _add_ends(engine, model, pieces, config)
  return engine.to_str()


def _bpe(model: Model, pieces: Sequence[Piece]) -> models.BPE:
  """Merges any two neighbours that make a piece, the best piece first."""
  normal = {piece.text: (-piece.score, i) for i, piece in enumerate(pieces)
            if piece.kind == _NORMAL}
  merges = []
  for text, rank in normal.items():
    for i in range(1, len(text)):
      if text[:i] in normal and text[i:] in normal:
        merges.append((rank, normal[text[:i]][1], text[:i], text[i:]))
  merges.sort()
  return models.BPE(
      vocab={piece.text: i for i, piece in enumerate(pieces)},
      merges=[(left, right) for _, _, left, right in merges],
      unk_token=pieces[model.ids['unk']].text, fuse_unk=True,
      byte_fallback=model.byte_fallback)


def _unigram(model: Model, pieces: Sequence[Piece]) -> models.Unigram:
  """Splits text into the pieces whose scores have the greatest sum."""
  names = [_NEVER + piece.text if piece.kind == _UNUSED else piece.text
           for piece in pieces]
  return models.Unigram(
      [(name, piece.score) for name, piece in zip(names, pieces, strict=True)],
      unk_id=model.ids['unk'], byte_fallback=model.byte_fallback)


def _normalizers(
    model: Model, found: Sequence[str], prefix: bool, every: bool
) -> list[normalizers.Normalizer]:
  """The model's own normalisation, in its order, up to a space before all."""
  steps = []
  regex = tokenizers.Regex
  if model.charsmap:
    steps.append(normalizers.Precompiled(model.charsmap))
  if model.one_space:
    # Before the first text, a space that is there will do for `prefix`.
    ends = r' +\z' if prefix and not every else r'\A +| +\z'
    steps += [normalizers.Replace(regex(ends), ''),
              normalizers.Replace(regex(' {2,}'), ' ')]
  if model.marks_spaces:
    steps.append(normalizers.Replace(' ', _SPACE))
  if prefix and every:
    # What is found in text is normalized too, and must stay as it is.
    but = '|'.join(map(re.escape, found)) or '(?!)'
    steps.append(normalizers.Replace(regex(rf'\A(?!(?:{but})\z)'), _SPACE))
  return steps


def _first_space(model: Model) -> pre_tokenizers.PreTokenizer:
  """Puts a space before the first text, and before no text behind a token."""
  space = lambda char, scheme: pre_tokenizers.Metaspace(
      char, prepend_scheme=scheme, split=False)
  if model.one_space:
    return space(_SPACE, 'first')
  # '▁' is put before no text that begins with one, but ' ' is.
  return pre_tokenizers.Sequence(
      [space(' ', 'first'), space(_SPACE, 'never')])


def _add_tokens(
    engine: tokenizers.Tokenizer, pieces: Sequence[Piece],
    added: Mapping[int, Mapping[str, Any]], where: str,
) -> None:
  """Adds the tokens that are found in text before it is split."""
  tokens = {
      i: tokenizers.AddedToken(
          piece.text, normalized=piece.kind == _USER,
          special=piece.kind in (_UNKNOWN, _CONTROL))
      for i, piece in enumerate(pieces)
      if piece.kind in (_UNKNOWN, _CONTROL, _USER)}
  tokens |= {i: tokenizers.AddedToken(
      piece.text, normalized=False, special=True)
      for i, piece in enumerate(pieces) if piece.text in _SPECIAL}
  flags = ('lstrip', 'normalized', 'rstrip', 'single_word', 'special')
  tokens |= {
      i: tokenizers.AddedToken(
          token['content'],
          **{flag: token[flag] for flag in flags if flag in token})
      for i, token in added.items()}
  for i, token in sorted(tokens.items()):
    engine.add_tokens([token])
    if engine.token_to_id(token.content) != i:
      raise InputError(
          f'{where}: added_tokens_decoder gives {token.content!r} the id {i}, '
          f'and {engine.token_to_id(token.content)} is the next that is free; '
          'name the tokens between them')


def _add_ends(
    engine: tokenizers.Tokenizer, model: Model, pieces: Sequence[Piece],
    config: Mapping[str, Any],
) -> None:
  """Puts BOS, and EOS where that is asked for, around a plain text."""
  names = {}
  for end, default in (('bos', True), ('eos', False)):
    i = model.ids[end]
    name = config.get(
        f'{end}_token', pieces[i].text if 0 <= i < len(pieces) else None)
    name = name.get('content') if isinstance(name, Mapping) else name
    if name is not None and config.get(f'add_{end}_token', default):
      names[end] = name
  if names:
    engine.post_processor = processors.TemplateProcessing(
        single=[*([names['bos']] if 'bos' in names else []), '$A',
                *([names['eos']] if 'eos' in names else [])],
        special_tokens=[
            (name, engine.token_to_id(name)) for name in names.values()])


def _piece(fields: Mapping[int, list]) -> Piece:
  """A `ModelProto.SentencePiece`."""
  (score,) = struct.unpack('<f', fields.get(2, [b'\0\0\0\0'])[-1])
  return Piece(fields[1][-1].decode(), score, fields.get(3, [_NORMAL])[-1])


def _fields(message: bytes) -> dict[int, list]:
  """{number: values} of a message; numbers as ints, all else as bytes."""
  fields, at = {}, 0
  while at < len(message):
    key, at = _varint(message, at)
    number, wire = key >> 3, key & 7
    if wire == 0:
      value, at = _varint(message, at)
    else:
      if wire == 2:
        size, at = _varint(message, at)
      else:
        size = {1: 8, 5: 4}[wire]
      value, at = message[at:at + size], at + size
      if at > len(message):
        raise ValueError('a field ends behind its message')
    fields.setdefault(number, []).append(value)
  return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
  """An int of seven bits a byte, and where it ends."""
  value = shift = 0
  while True:
    byte = message[at]
    at += 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value & (1 << 64) - 1, at
