"""The vocabulary closes the world, and the tokenizer keeps every text."""

import jinja2
import pytest
import tokenizers

from alignjax.testbed import chat_template
from alignjax.testbed import corpus
from alignjax.testbed import demonstrations
from alignjax.testbed import make_world
from alignjax.testbed import perfect_response
from alignjax.testbed import prompts
from alignjax.testbed import SPECIALS
from alignjax.testbed import SPLITS
from alignjax.testbed import tokenizer_json
from alignjax.testbed import vocabulary

WORLD = make_world(0)
TOKENIZER = tokenizers.Tokenizer.from_str(tokenizer_json(WORLD))


def texts(world):
  for split in SPLITS:
    for prompt in prompts(world, split):
      yield prompt.text
      yield perfect_response(world, prompt)
  for _, response in demonstrations(world, count=2_000):
    yield response
  yield from corpus(world, 0, 2_000)


def test_it_begins_with_the_special_tokens_and_has_no_word_twice():
  words = vocabulary(WORLD)
  assert tuple(words[:6]) == SPECIALS == (
      '<pad>', '<bos>', '<eos>', '<user>', '<assistant>', '<unk>')
  assert len(set(words)) == len(words)
  assert 350 <= len(words) <= 480


@pytest.mark.parametrize('seed', [0, 1])
def test_it_is_exactly_what_the_world_says(seed):
  """No text has a word outside it, and it holds no word that is never used."""
  world = make_world(seed)
  used = {word for text in texts(world) for word in text.split()}
  assert used == set(vocabulary(world)) - set(SPECIALS)


def test_it_does_not_depend_on_the_seed():
  assert vocabulary(make_world(5)) == vocabulary(WORLD)


def test_texts_are_lower_case_words_and_single_spaces():
  for text in texts(WORLD):
    assert text == ' '.join(text.lower().split())


def test_encoding_and_decoding_give_the_text_back():
  batch = list(texts(WORLD))[::7]
  for text, encoding in zip(batch, TOKENIZER.encode_batch(batch)):
    assert len(encoding.ids) == len(text.split())
    assert SPECIALS.index('<unk>') not in encoding.ids
    assert TOKENIZER.decode(encoding.ids) == text


def test_ids_are_places_in_the_vocabulary():
  words = vocabulary(WORLD)
  assert TOKENIZER.get_vocab_size() == len(words)
  assert [TOKENIZER.id_to_token(i) for i in range(len(words))] == words


def test_an_unknown_word_becomes_unk():
  unk = SPECIALS.index('<unk>')
  assert TOKENIZER.encode('fried pizza').ids[1] == unk


def render(messages, add_generation_prompt):
  template = jinja2.Environment().from_string(chat_template())
  return template.render(
      messages=messages, add_generation_prompt=add_generation_prompt,
      bos_token='<bos>', eos_token='<eos>')


def test_the_template_renders_a_question_ready_to_be_answered():
  asked = [{'role': 'user', 'content': 'where is fried rice from ?'}]
  text = render(asked, True)
  assert text == '<bos> <user> where is fried rice from ? <assistant>'
  encoding = TOKENIZER.encode(text)
  assert [TOKENIZER.id_to_token(i) for i in encoding.ids] == text.split()
  assert TOKENIZER.decode(encoding.ids) == asked[0]['content']


def test_the_template_renders_a_conversation_that_begins_with_its_prompt():
  asked = [{'role': 'user', 'content': 'who first made baked fish ?'}]
  told = asked + [{'role': 'assistant', 'content': 'i do not know .'}]
  assert render(told, False) == (
      render(asked, True) + ' i do not know . <eos>')


def test_the_template_calls_out_an_unknown_role():
  with pytest.raises(jinja2.UndefinedError, match='raise_exception'):
    render([{'role': 'system', 'content': 'be kind'}], False)
