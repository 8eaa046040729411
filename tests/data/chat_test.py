"""Claims about turns: roles, transcripts, where the response begins."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from alignjax import types
from alignjax.data import chat

turns = st.lists(
    st.tuples(st.sampled_from(['Human', 'Assistant']),
              st.text('ab \n:', max_size=6).map(str.strip)),
    max_size=4,
)


def user(text):
  return {'role': 'user', 'content': text}


def assistant(text):
  return {'role': 'assistant', 'content': text}


def fails(function, *args) -> str:
  with pytest.raises(types.InputError) as caught:
    function(*args, 'f', 'x.jsonl:7')
  assert str(caught.value).startswith("x.jsonl:7: field 'f")
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_a_transcript_becomes_turns():
  text = '\n\nHuman: hi\n\nAssistant: what?\n\nHuman: bye\n\nAssistant:'
  assert chat.transcript_to_messages(text, 'f', 'w') == (
      user('hi'), assistant('what?'), user('bye'), assistant(''))


def test_a_speaker_named_inside_a_line_starts_no_turn():
  text = '\n\nHuman: say Assistant: x\nHuman: y\n\nAssistant: no'
  assert chat.transcript_to_messages(text, 'f', 'w') == (
      user('say Assistant: x\nHuman: y'), assistant('no'))


@given(turns)
def test_a_transcript_keeps_every_turn_and_all_text(turns):
  turns = [('Human', 'start')] + turns
  text = ''.join(f'\n\n{speaker}: {words}' for speaker, words in turns)
  messages = chat.transcript_to_messages(text, 'f', 'w')
  assert [(m['role'], m['content']) for m in messages] == [
      (chat.ROLES[speaker.lower()], words) for speaker, words in turns]


def test_text_that_is_no_transcript_is_refused():
  assert "starts with 'Human:'" in fails(chat.transcript_to_messages, 'hello')


@pytest.mark.parametrize(
    ('role', 'name'),
    [('human', 'user'), ('prompter', 'user'), ('user', 'user'),
     ('gpt', 'assistant'), ('assistant', 'assistant'), ('system', 'system'),
     ('User', 'user'), ('chatgpt', 'assistant'), ('bard', 'assistant'),
     ('model', 'assistant')],
)
def test_roles_get_our_names(role, name):
  for message in ({'role': role, 'content': 'x'}, {'from': role, 'value': 'x'}):
    assert chat.read_messages([message], 'f', 'w') == (
        {'role': name, 'content': 'x'},)


@pytest.mark.parametrize(
    ('value', 'fragment'),
    [
        ('text', 'is "text"; it must be a list'),
        ([], 'is []; it must be a list'),
        (None, 'is null; it must be a list'),
        (['hi'], "'f[0]' is \"hi\"; a message must be an object"),
        ([user('a'), {'role': 'user'}], "'f[1].content' is missing"),
        ([user(None)], "'f[0].content' is null; it must be text"),
        ([user([{'type': 'text'}])], "'f[0].content' is [{"),
        ([{'role': 'usr', 'content': 'x'}],
         "'f[0].role' is \"usr\"; a role is"),
        ([{'from': 'gtp', 'value': 'x'}], "'f[0].from' is \"gtp\"; a role is"),
        ([{'content': 'x'}], "'f[0].role' is missing"),
    ],
)
def test_bad_messages_are_refused(value, fragment):
  assert fragment in fails(chat.read_messages, value)


def test_nulls_beside_a_message_are_as_if_they_were_not_there():
  """As tables have them, where rows differ in their fields."""
  message = {'role': 'user', 'content': 'x', 'from': None, 'value': None,
             'name': None}
  assert chat.read_messages([message], 'f', 'w') == (user('x'),)
  message = {'role': None, 'content': None, 'from': 'human', 'value': 'x'}
  assert chat.read_messages([message], 'f', 'w') == (user('x'),)


def test_texts_by_turns_are_a_conversation():
  assert chat.read_turns(['a', 'b', 'c'], 'f', 'w') == (
      user('a'), assistant('b'), user('c'))
  for value in ([], None, 'a', ['a', None], [['a']]):
    assert 'must be a list of texts' in fails(chat.read_turns, value)


def test_the_last_turn_is_the_response():
  turns = [user('a'), assistant('b'), user('c'), assistant('d')]
  assert chat.split_response(turns, 'f', 'w') == (tuple(turns[:-1]), 'd')


@pytest.mark.parametrize(
    ('messages', 'fragment'),
    [
        ([user('a')], 'has no assistant turn'),
        ([{'role': 'system', 'content': 'a'}], 'has no assistant turn'),
        ([user('a'), assistant('b'), user('c')], "ends with the user's turn"),
        ([assistant('b')], 'has no user turn'),
    ],
)
def test_a_conversation_without_a_response_is_refused(messages, fragment):
  assert fragment in fails(chat.split_response, messages)


def test_a_prompt_ends_before_the_trailing_assistant_turns():
  turns = [user('a'), assistant('b'), user('c'), assistant('d'), assistant('')]
  assert chat.drop_response(turns, 'f', 'w') == tuple(turns[:3])
  assert chat.drop_response(turns[:3], 'f', 'w') == tuple(turns[:3])
  assert 'has no user turn' in fails(chat.drop_response, [assistant('b')])
