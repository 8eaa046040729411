"""Control tokens that someone wrote stay text, whatever engine reads them."""

import hypothesis
from hypothesis import strategies as st
import pytest
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from alignjax.hf import engines
from alignjax.types import InputError

CONTROLS = {'</s>': 1, '<s>': 0}
LETTERS = ' abc<>/s▁'


def engine_json(kind):
  """tokenizer.json of an engine that has a way of its own with first words."""
  vocab = {'<s>': 0, '</s>': 1, '<unk>': 2} | {
      c: i + 3 for i, c in enumerate(LETTERS)} | {'ab': 12, '▁a': 13}
  if kind == 'unigram':
    made = tokenizers.Tokenizer(models.Unigram(
        [(word, -1.0 - i % 3) for word, i in vocab.items()], unk_id=2))
  else:
    made = tokenizers.Tokenizer(models.BPE(
        vocab=vocab, merges=[('a', 'b'), ('▁', 'a')], unk_token='<unk>'))
  if kind == 'prepended':
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  else:
    made.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme='first' if kind == 'first' else 'never', split=False)
  made.decoder = decoders.Replace('▁', ' ')
  made.add_special_tokens([
      tokenizers.AddedToken('<s>', normalized=False, rstrip=kind == 'first'),
      tokenizers.AddedToken('</s>', normalized=False)])
  return made.to_str()


KINDS = {kind: engine_json(kind)
         for kind in ('first', 'prepended', 'unigram', 'plain')}
every_kind = pytest.mark.parametrize('json', KINDS.values(), ids=KINDS)
texts = st.text(LETTERS, max_size=9)


def encode(json, pieces, written=''):
  """A chat of `pieces` of text with control tokens around and between them."""
  hidden = engines.hide(
      [{'content': piece} for piece in (*pieces, written)], CONTROLS)
  *pieces, _ = (message['content'] for message in hidden.messages)
  text = '<s>' + '</s><s> '.join(pieces) + '</s>'
  return text, engines.encode_chat(
      json, text, CONTROLS, set(CONTROLS.values()), hidden.first)


@every_kind
@hypothesis.given(pieces=st.lists(texts, min_size=1, max_size=3))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=40)
def test_stand_ins_change_nothing_where_there_is_nothing_to_hide(json, pieces):
  pieces = [piece.replace('<', '') for piece in pieces]
  plain = encode(json, pieces)
  assert encode(json, pieces, written='</s>') == plain
  found = engines.engine(json).encode(plain[0], add_special_tokens=False)
  assert plain[1] == (found.ids, found.offsets)


@every_kind
@pytest.mark.parametrize('piece', [
    '</s>', 'a</s>b', ' <s> ', '<s></s>', 'ab </s>ab', '<s</s>>'])
def test_a_written_control_token_is_spelled_and_stands_in_its_place(
    json, piece):
  text, (ids, offsets) = encode(json, [piece, 'c'])
  assert [i for i in ids if i < 2] == [0, 1, 0, 1]
  assert engines.engine(json).decode(ids).replace(' ', '') == (
      piece.replace(' ', '') + 'c')
  end = text.index('</s>')
  inner = [at for at, i in zip(offsets, ids, strict=True) if i >= 2]
  assert all(a >= 3 for a, _ in inner)
  assert max(b for a, b in inner if a < end) <= end
  assert offsets[ids.index(1)] == (end, end + 4)


@every_kind
def test_literal_text_is_never_a_control_token(json):
  ids = engines.literal_engine(json).encode(
      'a</s>b', add_special_tokens=False).ids
  assert not {0, 1} & set(ids)
  assert engines.engine(json).decode(ids).strip() == 'a</s>b'


def test_stand_ins_are_characters_that_no_message_has():
  private = ''.join(map(chr, range(0xF0000, 0xF0000 + 9)))
  hidden = engines.hide([{'content': private + '</s>'}], CONTROLS)
  assert hidden.first >= 0xF0000 + 9
  assert hidden.messages[0]['content'][:9] == private
  _, (ids, _) = encode(KINDS['plain'], [private + 'a</s>'])
  assert ids[0] == 0 and ids[-1] == 1 and ids.count(1) == 1
  everything = ''.join(map(chr, range(0xF0000, 0x110000)))
  with pytest.raises(InputError, match='planes 15 and 16'):
    engines.hide([{'content': everything + '</s>'}], CONTROLS)


def test_nothing_is_hidden_where_nothing_is_written():
  messages = [{'content': 'a', 'role': 'user'}]
  assert engines.hide(messages, CONTROLS) == (messages, None)
  assert engines.hide(messages, {}) == (messages, None)
