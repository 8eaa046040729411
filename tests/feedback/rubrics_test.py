"""Rubric and constitution files: what is in them, and what is wrong."""

import pytest

from alignjax import feedback
from alignjax import testbed
from alignjax.commands import annotate
from alignjax.types import InputError
from experiments import revisions

GOOD = 'name = "n"\ntask = "pair"\ninstructions = "Choose."\n'


def test_our_own_files_are_read():
  assert feedback.read_rubric(annotate.RUBRIC).task == 'ranking'
  assert len(feedback.read_constitution(revisions.CONSTITUTION)) == 4


def test_the_text_has_a_line_for_each_criterion(tmp_path):
  path = tmp_path / 'r.toml'
  path.write_text(GOOD + '[[criteria]]\nname = "a"\nquestion = "Is it a?"\n')
  assert feedback.read_rubric(path).text() == 'Choose.\n1. a: Is it a?'


@pytest.mark.parametrize('text, says', [
    ('name = ', 'not TOML'), (GOOD + 'x = 1', "'x' is unknown"),
    (GOOD.replace('pair', 'essay'), "'task' is 'essay'"),
    (GOOD.replace('Choose.', ' '), "'instructions'"),
    ('name = "n"\ntask = "pair"\n', 'missing'),
    (GOOD + 'criteria = 3', 'list of tables'),
    (GOOD + '[[criteria]]\nname = "a"\n', r"'criteria\[0\]\.question'"),
    (GOOD + '[[criteria]]\nname = "a"\nquestion = "q"\n' * 2, 'two criteria')])
def test_a_malformed_rubric_is_named(text, says, tmp_path):
  path = tmp_path / 'r.toml'
  path.write_text(text)
  with pytest.raises(InputError, match=says) as caught:
    feedback.read_rubric(path)
  assert str(path) in str(caught.value)


def test_paragraphs_are_principles_and_lines_may_say_how_to_ask(tmp_path):
  path = tmp_path / 'c.txt'
  path.write_text('# comment\nDo no\nharm.\n\nBe true.\ncritique: Is it?\n'
                  'choice: {a} or {b}?\n')
  first, second = feedback.read_constitution(path)
  assert first.text == 'Do no harm.' and 'Do no harm.' in first.ask('critique')
  assert second.ask('critique') == 'Is it?'
  assert second.ask('choice', a='{b}', b='x') == '{b} or x?'


def test_the_testbed_s_constitution_is_made_of_its_words(tmp_path):
  path = tmp_path / 'c.txt'
  path.write_text(testbed.constitution())
  assert [p.text for p in feedback.read_constitution(path)] == list(
      testbed.PRINCIPLES)


@pytest.mark.parametrize('text, says', [
    ('# nothing', 'no principle'), ('critique: x\n\nBe.', 'before any'),
    ('Be.\ncritique:\n', 'empty'), ('Be.\ndecide: x\ndecide: y', 'twice'),
    ('Be.\nchoice: {a}', 'both')])
def test_a_malformed_constitution_is_named(text, says, tmp_path):
  path = tmp_path / 'c.txt'
  path.write_text(text)
  with pytest.raises(InputError, match=says):
    feedback.read_constitution(path)
