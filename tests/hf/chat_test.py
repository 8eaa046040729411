"""Templates in their sandbox, and plain transcripts."""

import datetime

import pytest

from alignjax.hf import chat
from alignjax.types import InputError

MESSAGES = [{'role': 'user', 'content': 'hi'}]


def render(source, messages=MESSAGES, **variables):
  """The text of a rendered template."""
  return chat.render(source, messages, **variables).text


def render_error(source):
  """The one line of the InputError that rendering raises."""
  with pytest.raises(InputError) as raised:
    render(source)
  assert '\n' not in str(raised.value)
  return str(raised.value)


@pytest.mark.parametrize('source,line', [
    ("{{ ''.__class__.__mro__ }}", 'SecurityError'),
    ('{{ messages.__class__.__base__.__subclasses__() }}', 'SecurityError'),
    ("{{ messages.append('x') }}", 'SecurityError'),
    ("{{ raise_exception.__globals__['json'] }}", 'SecurityError'),
    ('{% for i in range(10**9) %}{% endfor %}', 'OverflowError'),
])
def test_template_cannot_reach_out_of_the_sandbox(source, line):
  assert line in render_error(source)


def test_refusal_of_a_template_is_passed_on_with_the_roles():
  line = render_error("{{ raise_exception('roles must alternate') }}")
  assert line == (
      'the chat template failed on roles (user): TemplateError: roles must '
      'alternate; change the messages or the template')


def test_template_with_a_syntax_error_is_refused_when_read():
  with pytest.raises(InputError) as raised:
    chat.check_template('{% for %}', 'tokenizer_config.json')
  assert 'tokenizer_config.json: chat_template is not a Jinja template' in str(
      raised.value)


def test_blocks_leave_no_blank_lines():
  source = '  {% for m in messages %}\n{{ m.content }}\n  {% endfor %}\nend'
  assert render(source, MESSAGES) == 'hi\nend'


def test_generation_marks_are_accepted_and_leave_no_trace():
  source = ('{% for m in messages %}{% generation %}{{ m.content }}'
            '{% endgeneration %}{% break %}{% endfor %}')
  assert render(source, MESSAGES) == 'hi'


def test_json_in_a_template_is_not_escaped_for_html():
  source = "{{ messages | tojson }}"
  assert render(source, [{'role': 'user', 'content': "<é'>"}]) == (
      '[{"role": "user", "content": "<é\'>"}]')


def test_absent_token_is_undefined_in_a_template():
  source = '{% if bos_token is defined %}{{ bos_token }}{% endif %}.'
  assert render(source, MESSAGES, bos_token=None) == '.'
  assert render(source, MESSAGES, bos_token='<s>') == '<s>.'


def test_template_may_ask_for_the_date():
  year = render("{{ strftime_now('%Y') }}", MESSAGES)
  assert abs(int(year) - datetime.datetime.now().year) <= 1


def test_transcript_is_written_as_the_hh_dialogues_are():
  assert chat.transcript([
      {'role': 'system', 'content': 'Be kind.'},
      {'role': 'user', 'content': 'Hi'},
      {'role': 'assistant', 'content': 'Hello!'},
      {'role': 'user', 'content': 'Bye'},
  ]) == ('\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant: Hello!'
         '\n\nHuman: Bye\n\nAssistant:')


@pytest.mark.parametrize('messages,line', [
    ([], 'messages=[] is not a conversation; give at least one'),
    ('hi', "messages='hi' is not a conversation"),
    ({'role': 'user'}, "messages={'role': 'user'} is not a conversation"),
    (['hi'], "messages[0]['role'] is 'hi'; every message needs"),
    ([{'role': 'user', 'content': None}],
     "messages[0]['content'] is None; every message needs 'role' and"),
    (MESSAGES + [{'content': 'x'}], "messages[1]['role'] is None"),
    (MESSAGES + [{'role': 'user', 'content': b'x'}],
     "messages[1]['content'] is b'x'"),
    ([{'role': 'tool', 'content': 'x'}],
     "role='tool' has no place in a plain transcript; use one of system, user"),
])
def test_malformed_conversation_is_named_by_place_and_field(messages, line):
  with pytest.raises(InputError) as raised:
    chat.transcript(messages)
  assert line in str(raised.value)
