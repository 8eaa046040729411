"""Claims about what a file of each shape is read as."""

import pytest

from alignjax import types
from alignjax.data import formats
from alignjax.data.formats import Format


def user(text):
  return {'role': 'user', 'content': text}


def assistant(text):
  return {'role': 'assistant', 'content': text}


def hh(*turns):
  """A transcript: Human, Assistant, Human, ..."""
  speakers = ('Human', 'Assistant')
  return ''.join(
      f'\n\n{speakers[i % 2]}: {text}' for i, text in enumerate(turns))


def pair(prompt='q', chosen='good', rejected='bad'):
  return {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}


def ranked(responses=('a', 'b', 'c'), ranks=(1, 0, 1)):
  return {'prompt': 'q', 'responses': responses, 'ranks': ranks}


def error_of(reader, path, **settings) -> str:
  with pytest.raises(types.InputError) as caught:
    reader(path, **settings)
  assert '\n' not in str(caught.value)
  return str(caught.value)


CHAT = (user('q'),)
RESPONSES = {
    Format.RESPONSE: ({'prompt': 'q', 'response': 'r'}, 'q'),
    Format.COMPLETION: ({'prompt': 'q', 'completion': 'r'}, 'q'),
    Format.MESSAGES: ({'prompt': 'q', 'messages': [user('q'), assistant('r')]},
                      CHAT),
    Format.SHAREGPT: ({'conversations': [{'from': 'human', 'value': 'q'},
                                         {'from': 'gpt', 'value': 'r'}]}, CHAT),
    Format.ALPACA: ({'instruction': 'i', 'input': 'x', 'output': 'r'},
                    'i\n\nx'),
    Format.DOLLY: ({'instruction': 'q', 'context': '', 'response': 'r'}, 'q'),
    Format.SELF_INSTRUCT: ({'instruction': 'i', 'instances': [
        {'input': 'x', 'output': 'r'}]}, 'i\n\nx'),
    Format.QUESTION: ({'question': 'q', 'answer': 'r'}, 'q'),
}
PREFERENCES = {
    'prompt apart': (Format.PREFERENCE, pair(), 'q'),
    'transcripts': (Format.HH, {'chosen': hh('q', 'good'),
                                'rejected': hh('q', 'bad')}, CHAT),
    'turns, prompt inside': (
        Format.CHAT_PREFERENCE,
        {'chosen': [user('q'), assistant('good')],
         'rejected': [user('q'), assistant('bad')]}, CHAT),
    'turns, prompt text repeated': (
        Format.CHAT_PREFERENCE,
        pair('q', [user('q'), assistant('good')],
             [user('q'), assistant('bad')]),
        CHAT),
    'turns, prompt text apart': (
        Format.CHAT_PREFERENCE,
        pair('q', [assistant('good')], [assistant('bad')]), CHAT),
    'turns, prompt turns apart': (
        Format.CHAT_PREFERENCE,
        pair([user('q')], [assistant('good')], [assistant('bad')]), CHAT),
    'turns, prompt turns repeated': (
        Format.CHAT_PREFERENCE,
        pair([user('q')], [user('q'), assistant('good')],
             [user('q'), assistant('bad')]), CHAT),
}


@pytest.mark.parametrize('shape', RESPONSES, ids=lambda shape: shape.name)
def test_each_shape_gives_its_demonstration(write, shape):
  record, prompt = RESPONSES[shape]
  path = write([record])
  rows, reading = formats.demonstrations(path)
  assert rows == [formats.Demonstration(prompt, 'r', f'{path}:1')]
  assert reading.format == shape


@pytest.mark.parametrize('shape', RESPONSES, ids=lambda shape: shape.name)
def test_each_shape_gives_its_prompt(write, shape):
  record, prompt = RESPONSES[shape]
  path = write([record])
  assert formats.prompts(path)[0] == [formats.PromptOnly(prompt, f'{path}:1')]


@pytest.mark.parametrize('name', PREFERENCES)
def test_each_way_to_write_a_pair_gives_the_same_pair(write, name):
  shape, record, prompt = PREFERENCES[name]
  path = write([record])
  where = f'{path}:1'
  rows, reading = formats.preferences(path)
  assert rows == [formats.Preference(prompt, 'good', 'bad', where)]
  assert reading.format == shape
  assert formats.demonstrations(path)[0] == [
      formats.Demonstration(prompt, 'good', where)]
  assert formats.prompts(path)[0] == [formats.PromptOnly(prompt, where)]
  assert formats.unpaired(path)[0] == [
      formats.Unpaired(prompt, 'good', True, where),
      formats.Unpaired(prompt, 'bad', False, where)]
  assert formats.rankings(path)[0] == [
      formats.Ranking(prompt, ('good', 'bad'), (0, 1), where)]


def test_earlier_turns_belong_to_the_prompt(write):
  path = write([{'chosen': hh('a', 'b', 'c', 'good'),
                 'rejected': hh('a', 'b', 'c', 'bad')}])
  (row,), _ = formats.preferences(path)
  assert row.prompt == (user('a'), assistant('b'), user('c'))


def test_prompts_alone_may_be_text_or_turns(write):
  path = write([{'key': 1, 'prompt': 'q'}, {'prompt': [user('q')]}])
  rows, reading = formats.prompts(path)
  assert [row.prompt for row in rows] == ['q', CHAT]
  assert reading.format == Format.PROMPT


def test_a_prompt_may_end_with_the_users_turn(write):
  path = write([{'messages': [user('a'), assistant('b'), user('c')]}])
  assert formats.prompts(path)[0][0].prompt == (
      user('a'), assistant('b'), user('c'))


@pytest.mark.parametrize('completion', ['r', [assistant('r')]])
def test_a_chat_prompt_takes_either_kind_of_completion(write, completion):
  path = write([{'prompt': [user('q')], 'completion': completion}])
  (row,), _ = formats.demonstrations(path)
  assert (row.prompt, row.response) == (CHAT, 'r')


@pytest.mark.parametrize('label', [True, False, 0, 1])
def test_labels_are_read(write, label):
  path = write([{'prompt': 'q', 'completion': 'r', 'label': label}])
  (row,), reading = formats.unpaired(path)
  assert row.desirable is bool(label)
  assert reading.format == Format.LABELED_COMPLETION


@pytest.mark.parametrize('label', [
    'yes', '1', '', None, 2, 1.0, [True]])
def test_other_labels_are_refused(write, label):
  path = write([{'prompt': 'q', 'response': 'r', 'label': label}])
  message = error_of(formats.unpaired, path)
  assert message.startswith(f"{path}:1: field 'label' is ")
  assert 'must be true or false' in message


def test_labels_stay_with_their_responses_in_the_files_order(write):
  path = write([{'prompt': p, 'response': r, 'label': label}
                for p, r, label in (('x', 'a', 1), ('x', 'b', 0),
                                    ('y', 'c', True))])
  rows, reading = formats.unpaired(path)
  assert [(r.prompt, r.response, r.desirable) for r in rows] == [
      ('x', 'a', True), ('x', 'b', False), ('y', 'c', True)]
  assert str(reading) == (
      '3 labeled responses from rows.jsonl (prompt/response/label)')


@pytest.mark.parametrize('prompt', ['q', [user('q')]])
def test_rankings_are_read_with_their_ties(write, prompt):
  path = write([ranked() | {'prompt': prompt}, ranked(('a', 'b'), (7, 3))])
  rows, reading = formats.rankings(path)
  due = 'q' if prompt == 'q' else CHAT
  assert rows == [
      formats.Ranking(due, ('a', 'b', 'c'), (1, 0, 1), f'{path}:1'),
      formats.Ranking('q', ('a', 'b'), (7, 3), f'{path}:2')]
  assert reading.format == Format.RANKING
  more = '' if prompt == 'q' else ', conversational'
  assert str(reading) == (
      f'2 rankings from rows.jsonl (prompt/responses/ranks{more})')
  assert formats.prompts(path)[0][0] == formats.PromptOnly(due, f'{path}:1')


@pytest.mark.parametrize(('record', 'fragment'), [
    (ranked('a b'), "field 'responses' is \"a b\"; it must be a list of two"),
    (ranked(('a',), (0,)), "field 'responses' is [\"a\"]"),
    (ranked(('a', 1)), "field 'responses' is [\"a\", 1]"),
    (ranked(ranks=(0, 1)), "field 'ranks' is [0, 1]; it must be a list of 3"),
    (ranked(ranks=2), "field 'ranks' is 2; it must be a list of 3"),
    (ranked(ranks=(0, 1, -1)), "field 'ranks' is [0, 1, -1]"),
    (ranked(ranks=(0, 1, 2.0)), "field 'ranks' is [0, 1, 2.0]"),
    (ranked(ranks=(0, 1, True)), "field 'ranks' is [0, 1, true]"),
    (ranked(ranks=(0, 1, None)), "field 'ranks' is [0, 1, null]"),
    ({'prompt': 'q', 'responses': ['a', 'b']}, "field 'ranks' is missing"),
])
def test_a_ranking_that_is_none_stops_the_run(write, record, fragment):
  path = write([ranked()] * 400 + [record])
  message = error_of(formats.rankings, path)
  assert message.startswith(f'{path}:401: {fragment}')


@pytest.mark.parametrize(('record', 'reason', 'detail'), [
    (ranked(ranks=(2, 2, 2)), 'all tied',
     "field 'ranks' is [2, 2, 2], all equal; one response must be better"),
    (ranked(('a', ' ', 'c')), 'empty response',
     "field 'responses[1]' has an empty response"),
])
def test_rankings_that_teach_nothing_are_dropped_by_name(
    write, record, reason, detail):
  path = write([ranked(), record])
  rows, reading = formats.rankings(path, max_dropped=0.5)
  assert len(rows) == 1 and reading.dropped == ((reason, f'{path}:2'),)
  message = error_of(formats.rankings, path)
  assert message.startswith(f'{path}:2: ') and detail in message


def test_special_tokens_in_text_stay_text(write):
  text = 'a </s> <|im_end|> [INST] b'
  (row,), _ = formats.preferences(write([pair(text, text + ' 1', text)]))
  assert (row.prompt, row.chosen, row.rejected) == (text, text + ' 1', text)


def test_white_space_around_a_response_stays(write):
  (row,), _ = formats.demonstrations(
      write([{'prompt': 'q', 'response': ' r\n'}]))
  assert row.response == ' r\n'


@pytest.mark.parametrize(
    ('reader', 'record', 'fragments'),
    [
        ('preferences', {'prompt': 'q', 'chosen': 'a'},
         ["field 'rejected' is missing", 'add it']),
        ('preferences', pair(rejected=None),
         ["field 'rejected' is null", 'must be text']),
        ('preferences', pair(chosen=3), ["field 'chosen' is 3"]),
        ('preferences', pair(prompt={'a': 1}), ["field 'prompt' is {"]),
        ('preferences', pair(rejected=[assistant('b')]),
         ["field 'rejected' is [", 'must be text']),
        ('demonstrations', pair(chosen=None), ["field 'chosen' is null"]),
        ('prompts', pair(prompt=None), ["field 'prompt' is null"]),
    ],
)
def test_a_row_that_breaks_the_shape_stops_the_run(
    write, reader, record, fragments):
  path = write([pair()] * 400 + [record])
  message = error_of(getattr(formats, reader), path)
  assert message.startswith(f'{path}:401: ')
  for fragment in fragments:
    assert fragment in message


@pytest.mark.parametrize(
    ('chosen', 'fragment'),
    [
        (hh('q'), "field 'chosen' has no assistant turn"),
        (hh('q', 'a', 'more'), "field 'chosen' ends with the user's turn"),
        ('q and a', "field 'chosen' is \"q and a\"; a transcript starts with"),
        ([user('q'), assistant('a')], "field 'chosen' is ["),
    ],
)
def test_a_transcript_without_a_response_stops_the_run(
    write, chosen, fragment):
  good = {'chosen': hh('q', 'a'), 'rejected': hh('q', 'b')}
  path = write([good] * 400 + [{'chosen': chosen, 'rejected': hh('q', 'b')}])
  message = error_of(formats.preferences, path)
  assert message.startswith(f'{path}:401: {fragment}')


@pytest.mark.parametrize(
    ('record', 'reason', 'detail'),
    [
        (pair(chosen=''), 'empty response',
         "field 'chosen' has an empty response (\"\"); a response needs text"),
        (pair(rejected=' \n'), 'empty response',
         "field 'rejected' has an empty response"),
        (pair(chosen='x', rejected='x '), 'equal responses',
         "field 'rejected' is \"x \", the same as 'chosen'"),
        (pair(prompt='  '), 'empty prompt', 'has an empty prompt ("  ")'),
    ],
)
def test_rows_that_teach_nothing_are_dropped_by_name_while_few(
    write, record, reason, detail):
  path = write([pair()] * 99 + [record])
  rows, reading = formats.preferences(path)
  assert len(rows) == reading.num_rows == 99
  assert reading.dropped == ((reason, f'{path}:100'),)
  assert str(reading) == (
      '99 pairs from rows.jsonl (prompt/chosen/rejected); dropped 1:'
      f' {reason} (line 100)')

  path = write([pair()] * 9 + [record])
  message = error_of(formats.preferences, path)
  assert message.startswith(f'{path}:10: ')
  assert detail in message
  assert '1 of 10 rows would be dropped, more than max_dropped=0.01' in message
  assert len(formats.preferences(path, max_dropped=0.1)[0]) == 9


@pytest.mark.parametrize(
    ('record', 'detail'),
    [
        ({'chosen': hh('q', 'a', 'b', 'c'), 'rejected': hh('q', 'd')},
         "has 1 turns before its response and 'chosen' 3"),
        ({'chosen': hh('q', 'a'), 'rejected': hh('p', 'a')},
         "has \"p\" as turn 1 where 'chosen' has \"q\""),
        (pair('z', [user('q'), assistant('a')], [user('q'), assistant('b')]),
         "field 'prompt' is \"z\"; both must be one"),
    ],
)
def test_pairs_of_different_prompts_are_dropped_by_name(
    write, record, detail):
  good = ({'chosen': hh('q', 'a'), 'rejected': hh('q', 'b')}
          if isinstance(record['chosen'], str)
          else pair('q', [assistant('a')], [assistant('b')]))
  path = write([good, record])
  rows, reading = formats.preferences(path, max_dropped=0.5)
  assert len(rows) == 1
  assert reading.dropped == (('prompts differ', f'{path}:2'),)
  assert detail in error_of(formats.preferences, path)


def test_a_demonstration_does_not_mind_what_was_rejected(write):
  path = write([pair(rejected=''), pair(rejected='good')])
  rows, reading = formats.demonstrations(path)
  assert [row.response for row in rows] == ['good', 'good']
  assert not reading.dropped


def test_the_summary_counts_each_reason():
  dropped = [('empty response', f'a:b.jsonl:{i}') for i in (3, 1, 7, 9)]
  dropped.insert(2, ('prompts differ', 'a:b.jsonl:4'))
  assert formats.summarize_dropped(dropped) == (
      'dropped 5: 4 empty response (lines 3, 1, 7, ...), 1 prompts differ'
      ' (line 4)')


def test_a_file_with_nothing_left_is_refused(write):
  path = write([{'prompt': 'q', 'response': ''}])
  message = error_of(formats.demonstrations, path, max_dropped=1.0)
  assert message.startswith(f'{path}: all 1 rows were dropped')


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_max_dropped_is_a_share(write, share):
  message = error_of(formats.preferences, write([pair()]), max_dropped=share)
  assert f'max_dropped={share} is not a share' in message


def test_unknown_fields_are_refused_with_what_is_known(write):
  path = write([{'foo': 1, 'bar': 2}])
  message = error_of(formats.prompts, path)
  assert message.startswith(f"{path}:1: the fields ('foo', 'bar') fit no known")
  assert 'prompt/response' in message and 'rename the fields' in message


@pytest.mark.parametrize(
    ('reader', 'record', 'need'),
    [
        ('preferences', {'prompt': 'q', 'response': 'r'},
         "no fields 'chosen' and 'rejected'"),
        ('demonstrations', {'prompt': 'q'}, "no field 'response'"),
        ('unpaired', {'prompt': 'q', 'response': 'r'}, "no field 'label'"),
        ('unpaired', ranked(), "no field 'label'"),
        ('rankings', {'prompt': 'q', 'response': 'r'},
         "no fields 'responses' and 'ranks'"),
        ('demonstrations', {'prompt': 'q', 'response': 'r', 'label': True},
         "remove the field 'label'"),
    ],
)
def test_a_file_of_another_kind_is_refused(write, reader, record, need):
  path = write([record])
  message = error_of(getattr(formats, reader), path)
  assert message.startswith(f'{path}:1: ')
  assert need in message


def test_turns_with_only_a_system_turn_are_no_prompt(write):
  path = write([{'prompt': [{'role': 'system', 'content': 'be good'}]}])
  assert 'has no user turn' in error_of(formats.prompts, path)


def test_real_transcripts_are_read_but_for_the_few_that_say_nothing(real_data):
  pairs, reading = formats.preferences(real_data / 'hh_harmless.jsonl.gz')
  assert reading.format == Format.HH
  reasons = [reason for reason, _ in reading.dropped]
  assert len(pairs) + len(reasons) == 1_500
  assert reasons.count('empty response') == 4
  assert reasons.count('prompts differ') == 1
  assert all(row.prompt[-1]['role'] == 'user' for row in pairs)
  assert not any('\n\nHuman:' in row.chosen for row in pairs)


def test_real_problems_and_tasks_are_read_whole(real_data):
  rows, reading = formats.demonstrations(real_data / 'gsm8k_train.jsonl.gz')
  assert str(reading) == (
      '7,473 demonstrations from gsm8k_train.jsonl.gz (question/answer)')
  assert all('####' in row.response for row in rows)
  rows, _ = formats.demonstrations(real_data / 'seed_tasks.jsonl')
  assert len(rows) == 175
