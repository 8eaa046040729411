"""Claims about duplicates, contradictions and leaks into the test set."""

import hypothesis
from hypothesis import strategies as st
import pytest

from alignjax import data
from alignjax.data import dedup
from alignjax.data import formats


def demonstration(prompt, response, line):
  return data.Demonstration(prompt, response, f'f:{line}')


def pair(prompt, chosen, rejected, line, **kwargs):
  return data.Preference(prompt, chosen, rejected, f'f:{line}', **kwargs)


def chat(*contents):
  roles = ('user', 'assistant')
  return tuple({'role': roles[i % 2], 'content': text}
               for i, text in enumerate(contents))


@pytest.mark.parametrize(('text', 'due'), [
    (' A \t b\r\n\nC ', 'a b c'),
    ('Cafe\u0301', 'caf\u00e9'),
    ('STRASSE straße', 'strasse strasse'),
    ('a\u00a0b\u3000c', 'a b c'),
    ('x = 1', 'x = 1'),
    ('', ''),
])
def test_texts_are_compared_as_they_read(text, due):
  assert dedup.normalize(text) == due


def test_the_first_of_equals_stays():
  rows = [demonstration('p', 'r', 1), demonstration('q', 'r', 2),
          demonstration(' P', 'R\n', 3), demonstration('p', 's', 4),
          demonstration('q', 'r', 5)]
  kept, dropped = data.without_duplicates(rows)
  assert [row.where for row in kept] == ['f:1', 'f:2', 'f:4']
  assert dropped == (('duplicate', 'f:3'), ('duplicate', 'f:5'))
  assert kept[0] is rows[0]


def test_a_prompt_as_text_and_as_a_message_is_one():
  rows = [demonstration('p', 'r', 1), demonstration(chat('p'), 'r', 2)]
  assert data.without_duplicates(rows)[1] == (('duplicate', 'f:2'),)


@pytest.mark.parametrize('other', [
    chat('a', 'b', 'c'),
    chat('a b', 'c'),
    chat('a', 'b c'),
    'aassistantb',
    ({'role': 'system', 'content': 'a'}, {'role': 'user', 'content': 'b'}),
])
def test_where_turns_end_and_whose_they_are_tells_prompts_apart(other):
  rows = [demonstration(chat('a', 'b'), 'r', 1), demonstration(other, 'r', 2)]
  assert not data.without_duplicates(rows)[1]


def test_of_a_pair_and_its_reverse_none_stays():
  rows = [pair('p', 'a', 'b', 1), pair('p', 'a', 'c', 2),
          pair('p', 'B', 'A', 3), pair('p', 'a', 'b', 4),
          pair('q', 'b', 'a', 5)]
  kept, dropped = data.without_duplicates(rows)
  assert [row.where for row in kept] == ['f:2', 'f:5']
  assert dropped == tuple(('reversed pair', f'f:{i}') for i in (1, 3, 4))


def test_a_pair_repeated_is_a_duplicate_whatever_its_strength():
  rows = [pair('p', 'a', 'b', 1), pair('p', 'a', 'b', 2, strength=3)]
  assert data.without_duplicates(rows)[1] == (('duplicate', 'f:2'),)


def test_labels_are_part_of_an_unpaired_row():
  rows = [data.Unpaired('p', 'r', desirable, f'f:{i}')
          for i, desirable in enumerate((True, False, True))]
  assert data.without_duplicates(rows)[1] == (('duplicate', 'f:2'),)


def test_rankings_are_equal_if_they_order_responses_alike():
  ranking = lambda texts, ranks, line: data.Ranking(
      'p', tuple(texts), ranks, f'f:{line}')
  rows = [ranking('abc', (0, 1, 2), 1), ranking('cba', (9, 4, 2), 2),
          ranking('abc', (2, 1, 0), 3), ranking('abc', (0, 1, 1), 4),
          ranking('ab', (0, 1), 5), ranking('ab', (1, 0), 6),
          ranking('xy', (1, 1), 7)]
  kept, dropped = data.without_duplicates(rows)
  assert dropped == (('duplicate', 'f:2'), ('reversed pair', 'f:5'),
                     ('reversed pair', 'f:6'))
  assert [row.where for row in kept] == ['f:1', 'f:3', 'f:4', 'f:7']


def test_a_tie_is_not_its_own_reverse():
  rows = [data.Ranking('p', ('x', 'y'), (1, 1), 'f:1'),
          data.Ranking('p', ('y', 'x'), (0, 0), 'f:2'),
          data.Ranking('p', ('x', 'y'), (0, 1), 'f:3'),
          data.Ranking('q', ('x', 'y'), (1, 1), 'f:4'),
          data.Ranking('q', ('x', 'y'), (1, 0), 'f:5')]
  assert data.without_duplicates(rows)[1] == (('duplicate', 'f:2'),)


def test_prompts_are_equal_by_their_text():
  rows = [data.PromptOnly('p', 'f:1'), data.PromptOnly('P ', 'f:2')]
  assert data.without_duplicates(rows)[1] == (('duplicate', 'f:2'),)


TEST = [pair('p', 'a', 'b', 1), pair(chat('x', 'y', 'z'), 'a', 'b', 2)]


def test_a_prompt_of_the_test_is_not_trained_on():
  rows = [demonstration('P', 'new', 1), demonstration('q', 'a', 2),
          demonstration(chat('x', 'y', ' z'), 'c', 3),
          demonstration(chat('x', 'y'), 'c', 4)]
  kept, dropped = data.without_test_prompts(rows, TEST)
  assert [row.where for row in kept] == ['f:2', 'f:4']
  assert dropped == (('also in test', 'f:1'), ('also in test', 'f:3'))


def test_a_response_of_the_test_is_not_trained_on():
  rows = [demonstration('P', 'new', 1), demonstration('p', 'B', 2),
          pair('p', 'c', 'a', 3), pair('q', 'a', 'b', 4)]
  kept, dropped = data.without_test_rows(rows, TEST)
  assert [row.where for row in kept] == ['f:1', 'f:4']
  assert dropped == (('also in test', 'f:2'), ('also in test', 'f:3'))


def test_the_test_may_be_of_another_kind():
  rows = [pair('p', 'a', 'b', 1), pair('q', 'a', 'b', 2)]
  prompts = [data.PromptOnly(chat('q'), 't:1')]
  assert data.without_test_prompts(rows, prompts)[1] == (
      ('also in test', 'f:2'),)
  assert not data.without_test_rows(rows, prompts)[1]


_TEXTS = st.sampled_from(['a', 'A ', 'b', 'c'])


@hypothesis.given(st.lists(st.tuples(_TEXTS, _TEXTS, _TEXTS)))
def test_rows_are_kept_or_dropped_and_a_second_call_drops_nothing(texts):
  rows = [pair(*t, line) for line, t in enumerate(texts)
          if dedup.normalize(t[1]) != dedup.normalize(t[2])]
  kept, dropped = data.without_duplicates(rows)
  wheres = [row.where for row in kept] + [where for _, where in dropped]
  assert sorted(wheres) == sorted(row.where for row in rows)
  assert data.without_duplicates(kept) == (kept, ())


def test_a_reading_tells_of_rows_dropped_later(write):
  path = write([{'prompt': p, 'response': 'r'} for p in 'aabA'])
  rows, reading = data.demonstrations(path)
  rows, dropped = data.without_duplicates(rows)
  reading = data.add_dropped(reading, dropped)
  rows, dropped = data.without_test_prompts(rows, [data.PromptOnly('b', 't:1')])
  reading = data.add_dropped(reading, dropped)
  assert str(reading) == (
      '1 demonstrations from rows.jsonl (prompt/response); dropped 3:'
      ' 2 duplicate (lines 2, 4), 1 also in test (line 3)')


def test_real_pairs_hold_no_duplicate_and_few_prompts_twice(real_data):
  path = real_data / 'hh_harmless.jsonl.gz'
  pairs, _ = data.preferences(path)
  assert data.without_duplicates(pairs) == (pairs, ())
  assert data.without_test_rows(pairs[:1_000], pairs[1_000:])[1] == ()
  leaked = data.without_test_prompts(pairs[:1_000], pairs[1_000:])[1]
  assert len(leaked) == 1
  prompts, _ = data.prompts(path)
  kept, dropped = data.without_duplicates(prompts)
  assert (len(kept), len(dropped)) == (1_498, 2)


def test_real_pairs_put_into_a_file_again_are_found(real_data, write):
  records = [record for _, record in data.read_jsonl(
      real_data / 'hh_harmless.jsonl.gz')]
  again = [{side: text.replace(' ', '  ').upper().replace('HUMAN:', 'Human:')
            .replace('ASSISTANT:', 'Assistant:') for side, text in r.items()}
           for r in records[:40]]
  turned = [{'chosen': r['rejected'], 'rejected': r['chosen']}
            for r in records[100:110]]
  rows, _ = formats.preferences(write(records + again + turned))
  _, dropped = data.without_duplicates(rows)
  reasons = [reason for reason, _ in dropped]
  assert reasons.count('reversed pair') == 20
  assert reasons.count('duplicate') == 40


def test_real_problems_and_tasks_hold_no_duplicate(real_data):
  for name in ('gsm8k_train.jsonl.gz', 'seed_tasks.jsonl'):
    rows, _ = data.demonstrations(real_data / name)
    assert data.without_duplicates(rows) == (rows, ())
