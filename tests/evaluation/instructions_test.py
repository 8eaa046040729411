"""IFEval's instructions: each is passed by one text and failed by another."""

import pytest

from alignjax import evaluation
from alignjax.evaluation import instructions
from alignjax.types import InputError

CASES = {
    'keywords:existence': ({'keywords': ['tea', 'cup']}, 'A cup of Tea', 'tea'),
    'keywords:frequency': (
        {'keyword': 'tea', 'frequency': 2, 'relation': 'at least'},
        'tea, tea', 'tea'),
    'keywords:forbidden_words': (
        {'forbidden_words': ['tea']}, 'a teapot', 'some Tea.'),
    'keywords:letter_frequency': (
        {'letter': 'q', 'let_frequency': 2, 'let_relation': 'less than'},
        'Quick', 'quick Q'),
    'length_constraints:number_sentences': (
        {'num_sentences': 2, 'relation': 'at least'}, 'One. Two!', 'Just one.'),
    'length_constraints:number_paragraphs': (
        {'num_paragraphs': 2}, 'a\n\n***\n\nb', 'a\n\nb'),
    'length_constraints:number_words': (
        {'num_words': 3, 'relation': 'less than'}, 'two words', 'it is three'),
    'length_constraints:nth_paragraph_first_word': (
        {'num_paragraphs': 2, 'nth_paragraph': 2, 'first_word': 'tea'},
        'x\n\nTea is hot', 'tea\n\nx'),
    'detectable_content:number_placeholders': (
        {'num_placeholders': 2}, '[name] at [place]', '[name]'),
    'detectable_content:postscript': (
        {'postscript_marker': 'P.S.'}, 'x\nP.S. y', 'x y'),
    'detectable_format:number_bullet_lists': (
        {'num_bullets': 2}, '* a\n- b', '* a'),
    'detectable_format:constrained_response': (
        {}, 'My answer is no.', 'No.'),
    'detectable_format:number_highlighted_sections': (
        {'num_highlights': 2}, '*a* and **b**', '*a*'),
    'detectable_format:multiple_sections': (
        {'section_spliter': 'Section', 'num_sections': 2},
        'Section 1\nx\nSection 2\ny', 'Section 1'),
    'detectable_format:json_format': (
        {}, '```json\n{"a": 1}\n```', 'a: 1'),
    'detectable_format:title': ({}, '<<tea>>\nx', '<< >>'),
    'combination:two_responses': ({}, 'a ****** b', 'a ****** a'),
    'combination:repeat_prompt': (
        {'prompt_to_repeat': 'Say it'}, 'say it. Yes', 'yes: say it'),
    'startend:end_checker': (
        {'end_phrase': 'The end.'}, 'x. the end.', 'the end. x'),
    'startend:quotation': ({}, '"x"', 'x'),
    'change_case:capital_word_frequency': (
        {'capital_frequency': 2, 'capital_relation': 'at least'},
        'HOT TEA', 'HOT tea'),
    'change_case:english_capital': ({}, 'TEA!', 'Tea'),
    'change_case:english_lowercase': ({}, 'tea!', 'Tea'),
    'punctuation:no_comma': ({}, 'tea', 'tea, hot'),
}


def test_every_instruction_has_a_case():
  assert set(CASES) == set(instructions.CHECKS)


@pytest.mark.parametrize('name', CASES)
def test_an_instruction_is_followed_or_not(name):
  settings, good, bad = CASES[name]
  assert instructions.is_followed(name, good, settings | {'unused': None})
  assert not instructions.is_followed(name, bad, settings)
  assert not instructions.is_followed(name, ' ', settings)


def test_the_four_accuracies_of_a_worked_example():
  rows = [
      {'prompt': 'p', 'instruction_id_list': [
          'punctuation:no_comma', 'change_case:english_lowercase'],
       'kwargs': [{}, {}]},
      {'prompt': 'q', 'instruction_id_list': [
          'startend:quotation', 'language:response_language'],
       'kwargs': [{}, {'language': 'en'}]}]
  found = evaluation.following(rows, ['hot, tea', 'Sure:\n"tea"'])
  assert found.prompt_strict == 0 and found.instruction_strict == 1 / 3
  assert found.prompt_loose == 1 / 2 and found.instruction_loose == 2 / 3
  assert (found.num_prompts, found.num_instructions, found.unchecked) == (
      2, 3, 1)


@pytest.mark.parametrize('name, settings', [
    ('keywords:nothing', {}), ('keywords:existence', {}),
    ('length_constraints:number_words', {'num_words': 3, 'relation': 'about'})])
def test_an_unknown_instruction_or_setting_is_named(name, settings):
  with pytest.raises(InputError, match=name):
    instructions.is_followed(name, 'text', settings)
