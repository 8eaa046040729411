"""Whose words are whose, in the formats that families of models write."""

import itertools

import pytest

from alignjax.hf import chat
from alignjax.hf import engines
from alignjax.hf import turns
from alignjax.types import InputError

TALK = [{'role': 'user', 'content': 'hi'},
        {'role': 'assistant', 'content': 'hello you'},
        {'role': 'user', 'content': 'and?'},
        {'role': 'assistant', 'content': 'bye'}]


def by_role(user, assistant, prompt, begin='', end=''):
  """A template that writes messages in its roles' formats."""
  part = lambda text: '{{ ' + '~'.join(
      'm.content' if piece == 'X' else repr(piece)
      for piece in text.partition('X')) + ' }}'
  return ''.join([
      part(begin), '{% for m in messages %}', "{% if m.role == 'assistant' %}",
      part(assistant), '{% else %}', part(user), '{% endif %}{% endfor %}',
      '{% if add_generation_prompt %}', part(prompt), '{% else %}', part(end),
      '{% endif %}'])


# Family: (template, its control tokens, what a model says in the first turn).
FAMILIES = {
    'Llama 2': (by_role('<s>[INST] X [/INST]', ' X </s>', ''),
                ['<s>', '</s>'], ' hello you </s>'),
    'Llama 3': (by_role(
        '<|start_header_id|>user<|end_header_id|>\n\nX<|eot_id|>',
        '<|start_header_id|>assistant<|end_header_id|>\n\nX<|eot_id|>',
        '<|start_header_id|>assistant<|end_header_id|>\n\n',
        begin='<|begin_of_text|>'),
                ['<|begin_of_text|>', '<|start_header_id|>', '<|eot_id|>',
                 '<|end_header_id|>'], 'hello you<|eot_id|>'),
    'Mistral 1': (by_role('[INST] X [/INST]', 'X</s>', '', begin='<s>'),
                  ['<s>', '</s>'], 'hello you</s>'),
    'Mistral 3': (by_role('[INST] X[/INST]', ' X</s>', '', begin='<s>'),
                  ['<s>', '</s>', '[INST]', '[/INST]'], ' hello you</s>'),
    'Tekken': (by_role('[INST]X[/INST]', 'X</s>', '', begin='<s>'),
               ['<s>', '</s>', '[INST]', '[/INST]'], 'hello you</s>'),
    'Qwen, SmolLM and ChatML': (by_role(
        '<|im_start|>user\nX<|im_end|>\n',
        '<|im_start|>assistant\nX<|im_end|>\n', '<|im_start|>assistant\n'),
              ['<|im_start|>', '<|im_end|>'], 'hello you<|im_end|>'),
    'Gemma': (by_role(
        '<start_of_turn>user\nX<end_of_turn>\n',
        '<start_of_turn>model\nX<end_of_turn>\n', '<start_of_turn>model\n',
        begin='<bos>'), ['<bos>', '<start_of_turn>', '<end_of_turn>'],
              'hello you<end_of_turn>'),
    'Phi-3': (by_role(
        '<|user|>\nX<|end|>\n', '<|assistant|>\nX<|end|>\n', '<|assistant|>\n',
        end='<|endoftext|>'), ['<|end|>', '<|endoftext|>', '<|user|>',
                               '<|assistant|>'], 'hello you<|end|>'),
    'Zephyr': (by_role(
        '<|user|>\nX</s>\n', '<|assistant|>\nX</s>\n', '<|assistant|>\n'),
               ['</s>'], 'hello you</s>'),
    'OLMo 2': (by_role(
        '<|user|>\nX\n', '<|assistant|>\nX<|endoftext|>\n', '<|assistant|>\n',
        begin='<|endoftext|>'), ['<|endoftext|>'], 'hello you<|endoftext|>'),
    'OpenChat': (by_role(
        'GPT4 Correct User: X<|end_of_turn|>',
        'GPT4 Correct Assistant: X<|end_of_turn|>', 'GPT4 Correct Assistant:',
        begin='<s>'), ['<s>', '<|end_of_turn|>'], ' hello you<|end_of_turn|>'),
}


def spans(template, messages, controls, add=False):
  """Text and the assistant's spans in it."""
  render = lambda some, add: chat.render(
      template, some, add_generation_prompt=add).text
  text = render(messages, add)
  return text, turns.assistant_spans(
      render, messages, text, engines.any_of(controls))


@pytest.mark.parametrize(
    'template,controls,first', FAMILIES.values(), ids=FAMILIES)
def test_a_turn_is_what_the_model_writes_with_the_token_that_ends_it(
    template, controls, first):
  for count, add in itertools.product((2, 3, 4), (False, True)):
    text, found = spans(template, TALK[:count], controls, add)
    assert len(found) == count // 2
    words = [text[a:b] for a, b in found]
    if count == 2:  # Behind the last turn there may be more that ends it.
      assert words[0].startswith(first)
    else:
      assert words[0] == first
    if count == 4:
      assert words[1].startswith(first.replace('hello you', 'bye'))


def test_behind_the_last_turn_all_that_ends_it_is_the_assistants():
  """As Phi-3 has EOS behind its end of turn, but at the end of a chat only."""
  template, controls, _ = FAMILIES['Phi-3']
  text, found = spans(template, TALK, controls)
  assert [text[a:b] for a, b in found] == [
      'hello you<|end|>', 'bye<|end|>\n<|endoftext|>']


def test_an_answer_to_nobody_is_left_out():
  template, controls, _ = FAMILIES['Gemma']
  text, found = spans(template, TALK[1:], controls)
  assert [text[a:b] for a, b in found] == ['bye<end_of_turn>']


REWRITERS = {
    'thoughts that are dropped': (
        '{% for m in messages %}<{{ m.role }}>'
        "{% if loop.last and m.role == 'assistant' %}think{% endif %}"
        '{{ m.content }}</s>{% endfor %}'
        '{% if add_generation_prompt %}<assistant>{% endif %}'),
    'thoughts that are begun': (
        '{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}'
        '{% if add_generation_prompt %}<assistant>think{% endif %}'),
    'another end of turn': (
        '{% for m in messages %}<{{ m.role }}><c>{{ m.content }}'
        "{% if loop.last and m.role == 'assistant' %}</s>{% else %}<e>"
        '{% endif %}{% endfor %}'
        '{% if add_generation_prompt %}<assistant>{% endif %}'),
    'a beginning that counts the messages': (
        '{{ messages|length }}{% for m in messages %}<{{ m.role }}>'
        '{{ m.content }}</s>{% endfor %}'
        '{% if add_generation_prompt %}<assistant>{% endif %}'),
}


@pytest.mark.parametrize('template', REWRITERS.values(), ids=REWRITERS)
def test_a_template_that_rewrites_a_turn_is_refused(template):
  with pytest.raises(InputError) as raised:
    spans(template, TALK, ['</s>', '<c>', '<e>'])
  line = str(raised.value)
  assert 'messages[1]: the chat template writes this assistant turn other' in (
      line)
  assert "turns='last'" in line and '{% generation %}' in line


def test_a_template_that_ends_no_turn_is_refused():
  template = by_role('Q: X\n', 'A: X\n', 'A: ', begin='<s>')
  with pytest.raises(InputError) as raised:
    spans(template, TALK, ['<s>', '</s>'])
  assert 'messages[1]: the chat template ends this assistant turn with no' in (
      str(raised.value))


@pytest.mark.parametrize('offsets,found,mask', [
    ([(0, 2), (2, 4), (4, 6)], [(2, 4)], '.x.'),
    ([(0, 3), (3, 5)], [(2, 4)], 'xx'),
    ([(0, 2), (2, 2), (2, 4)], [(2, 4)], '..x'),
    ([(0, 1), (0, 1), (1, 2)], [(0, 1)], 'xx.'),
    ([(0, 1), (1, 2), (2, 3)], [(0, 1), (2, 3)], 'x.x'),
    ([(0, 2), (2, 3)], [(1, 1), (2, 3)], 'xx'),
    ([(0, 1)], [], '.'),
])
def test_a_token_is_the_assistants_if_any_of_its_characters_is(
    offsets, found, mask):
  assert turns.mask(offsets, found) == [c == 'x' for c in mask]


def test_a_chat_of_many_turns_is_read_turn_by_turn():
  template, controls, _ = FAMILIES['Gemma']
  text, found = spans(template, TALK * 15, controls)
  assert [text[a:b] for a, b in found] == [
      'hello you<end_of_turn>', 'bye<end_of_turn>'] * 15
