"""Claims about OpenAssistant's messages: joined, left out, turned to rows."""

import random

import pytest

from alignjax import types
from alignjax.data import formats
from alignjax.data import trees


def message(name, parent=None, rank=None):
  """A message; names of odd length are the prompter's."""
  role = 'prompter' if len(name) % 2 else 'assistant'
  return {'message_id': name, 'parent_id': parent, 'role': role,
          'text': name, 'rank': rank}


def flat(*names, **ranks):
  """Messages whose names tell their parents: 'ab' answers 'a'."""
  return [message(name, name[:-1] or None, ranks.get(name)) for name in names]


def nest(rows):
  """The same as trees of replies."""
  by_id = {row['message_id']: row | {'replies': []} for row in rows}
  for row in by_id.values():
    if row['parent_id'] in by_id:
      by_id[row['parent_id']]['replies'].append(row)
  return [{'message_tree_id': name, 'tree_state': 'ready_for_export',
           'prompt': row} for name, row in by_id.items()
          if row['parent_id'] is None]


def read(path, reader='demonstrations', **settings):
  rows, reading = getattr(formats, reader)(path, **settings)
  assert reading.num_records == reading.num_kept + len(reading.dropped)
  return rows, reading


def reasons(reading):
  return {where.rpartition(':')[2]: reason
          for reason, where in reading.dropped}


def error_of(path, **settings) -> str:
  with pytest.raises(types.InputError) as caught:
    formats.prompts(path, **settings)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_messages_are_joined_in_whatever_order_they_stand(write):
  rows = flat('a', 'ab', 'abc', 'abcd', 'ac', 'x', 'xy', ab=0, ac=1)
  seen = []
  for seed in range(4):
    random.Random(seed).shuffle(rows)
    got, _ = read(write(rows))
    seen.append({(str(row.prompt), row.response) for row in got})
  assert seen[0] == seen[1] == seen[2] == seen[3]
  assert {response for _, response in seen[0]} == {'ab', 'abcd', 'xy'}


@pytest.mark.parametrize('reader', [
    'demonstrations', 'preferences', 'rankings', 'prompts'])
def test_both_shapes_give_the_same_rows(write, reader):
  rows = flat('a', 'ab', 'ac', 'ad', 'abe', 'abef', 'abeg', ab=1, ac=0, ad=2,
              abef=0, abeg=1)
  as_rows, _ = read(write(rows), reader)
  as_trees, _ = read(write(nest(rows), 'trees.jsonl'), reader)
  strip = lambda row: str(row).partition(', where=')[0]
  assert sorted(map(strip, as_rows)) == sorted(map(strip, as_trees))


def test_where_no_reply_is_ranked_all_are_imitated(write):
  rows, _ = read(write(flat('a', 'ab', 'ac')))
  assert [row.response for row in rows] == ['ab', 'ac']
  rows, reading = read(write(flat('a', 'ab', 'ac', 'ad', ac=3)))
  assert [row.response for row in rows] == ['ac']
  assert reasons(reading) == {'2': 'unused message', '4': 'unused message'}


def test_replies_of_equal_rank_or_of_one_text_make_no_pair(write):
  rows = flat('a', 'ab', 'ac', 'ad', ab=0, ac=0, ad=1)
  pairs, _ = read(write(rows), 'preferences')
  assert [(row.chosen, row.rejected) for row in pairs] == [
      ('ab', 'ad'), ('ac', 'ad')]
  rows[3]['text'] = 'ab'  # The first and the last reply are one text.
  rows[2]['rank'] = 2
  (pair,), _ = read(write(rows), 'preferences')
  assert (pair.chosen, pair.rejected) == ('ab', 'ac')


@pytest.mark.parametrize('rank', [2.0, 2])
def test_a_rank_may_come_from_a_table(write, rank):
  rows = flat('a', 'ab', 'ac', ab=0, ac=rank)
  assert read(write(rows), 'rankings')[0][0].ranks == (0, 2)


@pytest.mark.parametrize(('more', 'reason'), [
    ({'deleted': True}, 'deleted'), ({'review_result': False}, 'failed review'),
    ({'text': ''}, 'empty response'), ({'text': ' \n'}, 'empty response')])
def test_what_hangs_on_a_message_that_is_left_out_is_left_out_too(
    write, more, reason):
  rows = flat('a', 'ab', 'abc', 'abcd', 'ac')
  rows[1] |= more
  got, reading = read(write(rows), max_dropped=0.2)
  assert [row.response for row in got] == ['ac']
  below = 'below a dropped message'
  assert reasons(reading) == {'2': reason, '3': below, '4': below}


def test_marks_of_the_dataset_do_not_count_against_the_limit(write):
  rows = flat('a', 'ab', 'ac')
  rows[2] |= {'deleted': True}
  assert len(read(write(rows), max_dropped=0.0)[0]) == 1
  rows[2] |= {'deleted': None, 'text': ''}
  assert "field 'text' is \"\"; a response needs text; 1 of 3 rows" in error_of(
      write(rows), max_dropped=0.0)


@pytest.mark.parametrize(('change', 'line', 'words'), [
    ({'message_id': 'a'}, 3, ['"a", as at', ':1']),
    ({'parent_id': 'q'}, 3, ["'parent_id' is \"q\"", 'not in the file']),
    ({'parent_id': 'abc'}, 2, ['leads round in a circle']),
    ({'parent_id': None}, 2, ["'role' is \"assistant\" in a first message"]),
    ({'parent_id': 3}, 2, ["'parent_id' is 3"]),
    ({'role': 'robot'}, 2, ["'role' is \"robot\"", 'prompter']),
    ({'rank': 1.5}, 2, ["'rank' is 1.5", '0 for the best']),
    ({'rank': -1}, 2, ["'rank' is -1"]),
    ({'rank': True}, 2, ["'rank' is true"]),
    ({'text': None}, 2, ["'text' is null"]),
])
def test_a_message_that_fits_nowhere_stops_the_run_or_is_dropped(
    write, change, line, words):
  rows = flat('a', 'ab', 'abc')
  rows[1 if line == 2 else 2] |= change
  path = write(rows)
  message = error_of(path)
  assert message.startswith(f'{path}:{line}: ')
  assert all(word in message for word in words)
  rows, reading = read(
      path, 'prompts', on_bad_record='skip', max_dropped=1.0)
  assert [row.prompt[0]['content'] for row in rows] == ['a']
  assert any(where == f'{path}:{line}' for _, where in reading.dropped)


@pytest.mark.parametrize(('tree', 'words'), [
    ({'prompt': None}, "field 'prompt' is null"),
    ({'prompt': 'q'}, "field 'prompt' is \"q\""),
    ({'prompt': message('a') | {'replies': {}}}, "'prompt.replies' is {}"),
    ({'prompt': message('a') | {'replies': ['x']}}, "'prompt.replies[0]' is"),
    ({'prompt': message('a') | {'replies': [{'text': 'x'}]}},
     "'prompt.replies[0].message_id' is missing"),
])
def test_a_tree_that_is_none_stops_the_run(write, tree, words):
  good = nest(flat('x', 'xy'))[0]
  path = write([good, {'message_tree_id': 'a'} | tree])
  message = error_of(path)
  assert message.startswith(f'{path}:2: ') and words in message


def test_a_thread_may_be_longer_than_python_recurses():
  root = message('0')
  node = root
  for i in range(1, 3_000):
    node['replies'] = [message(str(i)) | {
        'role': ('prompter', 'assistant')[i % 2]}]
    (node,) = node['replies']
  read = trees.read_tree({'prompt': root}, 'f:1')
  kept, left_out = trees.join(read)
  assert (len(kept), left_out) == (3_000, [])
  assert len(kept[-1].thread()) == 3_000


def test_a_pair_of_replies_is_where_its_chosen_reply_is(write):
  """Of equal replies, the best ranked, in whatever order they stand."""
  rows = flat('a', 'ab', 'ac', 'ad', ab=0, ac=1, ad=2)
  for row in rows[2:]:
    row['role'] = 'assistant'
  rows[1]['text'] = rows[2]['text'] = 'same'
  for order in (0, 1, 2, 3), (0, 2, 1, 3):
    path = write([rows[i] for i in order])
    (pair,), _ = read(path, 'preferences')
    assert (pair.chosen, pair.rejected) == ('same', 'ad')
    assert pair.where == f'{path}:{order.index(1) + 1}'
