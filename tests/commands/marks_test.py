"""Tokens as text: nothing is lost, and what bears loss is what is marked."""

import numpy as np
import rich.console

from alignjax import data
from alignjax.commands import marks
from alignjax.commands import models
from tests.commands import tiny

SPECIAL = models.special_texts(tiny.TOKENIZER)


def pieces_of(row):
  return marks.row_pieces(row, tiny.TOKENIZER, SPECIAL)


def row_of(prompt, response):
  return data.tokenize_demonstration(
      data.Demonstration(prompt, response, 'x:1'), tiny.TOKENIZER,
      max_length=99)


def test_response_and_its_eos_are_marked_and_the_prompt_is_not():
  text = marks.plain(pieces_of(row_of('a b', 'c d')))
  assert text.split('[[') == ['<s><user>a b<assistant>', ' c d</s>]]']


def test_each_special_token_is_a_piece():
  row = data.TokenizedResponse(np.array([2, 2, 6]), 3)
  assert [piece.text for piece in pieces_of(row)][:2] == ['</s>', '</s>']


def test_mask_of_the_row_decides_where_there_is_one():
  tokens = np.array([1, 6, 7, 8, 2, 9])
  row = data.TokenizedResponse(
      tokens, 1, loss_mask=np.array([0, 0, 1, 0, 1, 0], bool))
  assert marks.plain(pieces_of(row)) == '<s>a[[ b]] c[[</s>]] d'
  assert marks.plain(pieces_of(row._replace(loss_mask=None))) == (
      '<s>[[a b c</s> d]]')


def test_prompt_alone_bears_no_loss():
  row = data.tokenize_prompt(data.PromptOnly('a', 'x:1'), tiny.TOKENIZER,
                             max_length=9)
  assert not marks.loss_mask(row).any()
  assert '[[' not in marks.plain(pieces_of(row))


def test_pieces_put_together_are_the_decoded_text():
  row = row_of('a b c', 'd e f')
  text = ''.join(p.text for p in pieces_of(row) if not p.is_special)
  assert ' '.join(text.split()) == tiny.TOKENIZER.decode(row.tokens)


def test_colours_leave_the_text_as_it_is():
  console = rich.console.Console(force_terminal=True, color_system='standard',
                                 width=10)
  pieces = [marks.Piece('a [red] ' * 9, False, False),
            marks.Piece('b\n', True, False), marks.Piece('</s>', True, True)]
  shown = marks.show(pieces, console)
  assert shown.startswith('a [red] ' * 9 + '\x1b[1;32mb')
  assert '\x1b[1;35m</s>\x1b[0m' in shown
  assert marks.show(pieces, None) == marks.plain(pieces)


def test_control_characters_are_spelled_out():
  assert marks.plain([marks.Piece('\x1b[2J\r\n\tä\u202e', True, False)]) == (
      '[[\\x1b[2J\\r\n\tä\\u202e]]')
