"""A class's name in the chat template is that name in the first user turn."""

import dataclasses

import pytest

from alignjax import hf
from alignjax import sources
from alignjax.types import InputError

ASKED = 'where is fried rice from ?'


@pytest.fixture(scope='module')
def plain():
  return sources.testbed_tokenizer()


@pytest.fixture(scope='module')
def conditioned(plain):
  return hf.condition(plain, 'experts ')


def test_a_prompt_begins_with_the_class(plain, conditioned):
  assert conditioned.prompt_tokens(ASKED) == plain.prompt_tokens(
      f'experts {ASKED}')
  assert conditioned.prompt_tokens(ASKED) != plain.prompt_tokens(ASKED)


def test_only_the_first_user_turn_is_changed(plain, conditioned):
  chat = [{'role': 'user', 'content': ASKED},
          {'role': 'assistant', 'content': 'china .'},
          {'role': 'user', 'content': 'who made it first ?'}]
  expected = [chat[0] | {'content': f'experts {ASKED}'}, *chat[1:]]
  assert conditioned.prompt_tokens(chat) == plain.prompt_tokens(expected)
  assert chat[0]['content'] == ASKED


def test_the_class_is_not_the_assistants_and_turns_are_found_behind_it(
    plain, conditioned):
  chat = [{'role': 'user', 'content': ASKED},
          {'role': 'assistant', 'content': 'china .'},
          {'role': 'user', 'content': 'who made it first ?'},
          {'role': 'assistant', 'content': 'china .'}]
  ids, mask = conditioned.conversation_tokens(chat)
  named = [chat[0] | {'content': f'experts {ASKED}'}, *chat[1:]]
  assert (ids, mask) == plain.conversation_tokens(named)
  said = [i for i, m in zip(ids, mask, strict=True) if m]
  assert plain.decode(said) == 'china . china .'
  assert said.count(plain.eos_id) == 2


def test_survives_a_folder(conditioned, tmp_path):
  conditioned.save(tmp_path)
  again = hf.load_tokenizer(tmp_path)
  assert again.prompt_tokens(ASKED) == conditioned.prompt_tokens(ASKED)


def test_quotes_in_a_class_stay_text(plain):
  odd = hf.condition(plain, '"}} {{ 1 + 1 }} ')
  rendered = odd.render(
      [{'role': 'user', 'content': 'x'}], add_generation_prompt=False)
  assert '"}} {{ 1 + 1 }} x' in rendered


def test_a_tokenizer_without_a_template_is_refused(plain):
  with pytest.raises(InputError, match='chat_template=None'):
    hf.condition(dataclasses.replace(plain, chat_template=None), 'experts ')
