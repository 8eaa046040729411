"""Three hundred records are broken in every way; none passes unsaid.

A valid record of every shape is mutated at a place drawn in it, among valid
ones, and its file is read by every reader that takes the shape. Each time one
of three things happens, and nothing else: an InputError in one line with the
record's place, a value and a repair; a drop under a name of docs/data.md; or
rows that are whole. No record is unaccounted for, and no other is touched.
"""

import collections
import copy
import json
import math
import re

from hypothesis import assume
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

from alignjax import types
from alignjax.data import formats
from alignjax.data import rules
from tests.data.schemas_test import FILES
from tests.data.schemas_test import READERS
from tests.data.schemas_test import SHAPES

NUM_RECORDS = 300
TREES = ('oasst_messages', 'oasst_trees')

VALUES = [
    None, True, False, 0, 1, -3, 2.5, math.nan, math.inf, 10**400, '', ' \n\t',
    'x', 'true', 'FALSE', 'system', 'usr', 'gpt', 'Human:',
    '\n\nHuman: a\n\nAssistant: b', '\ud83d', 'a\udc00b', '\x00', '\u2028',
    '</s><|im_end|>', "b'bytes'", 'x' * 5_000, [], {}, [[]], [{}], ['x', None],
    [{'role': 'assistant', 'content': 'x'}], {'role': 'user', 'content': 'x'},
    [{'role': 'system', 'content': 'x'}],
]
LINES = [
    b'', b'null', b'[]', b'"text"', b'{}', b'{"a": NaN}', b'\xff\xfe',
    b'\xef\xbb\xbf{}', b'{"prompt": "x"}', b'}{', b'{"a": ' + b'[' * 5_000,
    b'{"prompt": "x", "response": "y"}\r', b'# a comment', b'\x00',
    b'{"text": "x"}', b'{"messages": 1}', b'{"\\ud800": 1}',
    b'{"chosen": "x", "rejected": "y"}',
]


def places(value, path=()):
  """Every place in a record, as the keys that lead there."""
  yield path
  if isinstance(value, dict):
    for key, item in value.items():
      yield from places(item, (*path, key))
  elif isinstance(value, list):
    for i, item in enumerate(value):
      yield from places(item, (*path, i))


def change(record, path, how, value):
  """A copy with something done to what stands at a place."""
  record = copy.deepcopy(record)
  holder = record
  for key in path[:-1]:
    holder = holder[key]
  key, old = path[-1], holder[path[-1]]
  if how == 'delete':
    del holder[key]
  elif how == 'replace':
    holder[key] = value
  elif how == 'wrap in a list':
    holder[key] = [old]
  elif how == 'wrap in an object':
    holder[key] = {'value': old}
  elif how == 'unwrap':
    holder[key] = next(iter(
        old.values() if isinstance(old, dict) else old or [None]), None
    ) if isinstance(old, (dict, list)) else old
  elif how == 'reverse' and isinstance(old, (str, list)):
    holder[key] = old[::-1]
  elif how == 'double' and isinstance(old, (str, list)):
    holder[key] = old + old
  elif how == 'cut' and isinstance(old, (str, list)):
    holder[key] = old[:-1]
  elif how == 'add' and isinstance(old, dict):
    old['label'] = value
  elif how == 'swap' and isinstance(holder, dict):
    other = sorted(holder)[0]
    holder[key], holder[other] = holder[other], old
  elif how == 'rename' and isinstance(holder, dict):
    holder[str(key) + '_'] = holder.pop(key)
  return record


HOWS = ('delete', 'replace', 'replace', 'replace', 'wrap in a list',
        'wrap in an object', 'unwrap', 'reverse', 'double', 'cut', 'add',
        'swap', 'rename')


@st.composite
def mutants(draw):
  """(dataset, valid lines before, the mutant's bytes, valid lines after)."""
  name = draw(st.sampled_from(sorted(SHAPES)))
  valid = [json.loads(line) for line in (
      FILES / f'{name}.jsonl').read_text('utf-8').splitlines()]
  at = draw(st.integers(0, len(valid) - 1))
  record = valid[at]
  kind = draw(st.integers(0, 9))
  if kind == 0:
    line = draw(st.sampled_from(LINES))
  else:
    for _ in range(draw(st.integers(1, 2))):
      paths = [path for path in places(record) if path]
      if paths:
        record = change(record, draw(st.sampled_from(paths)),
                        draw(st.sampled_from(HOWS)),
                        draw(st.sampled_from(VALUES)))
    line = json.dumps(record).encode()
    if kind == 1:
      line = line[:draw(st.integers(1, len(line) - 1))]
    elif kind == 2:
      place = draw(st.integers(0, len(line)))
      line = line[:place] + draw(st.sampled_from(
          [b'\xff', b'\x00', b'\\', b'"', b',', b'\xc3'])) + line[place:]
  # Of OpenAssistant's messages each is one of a tree; of others some copies.
  rest = valid[:at] + valid[at + 1:] if name in TREES else valid * 2
  if name == 'oasst_trees':
    rest = [json.loads(re.sub(
        r'"(m\d)"', rf'"{i}\1"', json.dumps(valid[0]))) for i in range(2)]
  before = draw(st.integers(0, len(rest)))
  lines = [json.dumps(each).encode() for each in rest]
  return name, lines[:before], line, lines[before:]


def check_message(message, path, line, is_anywhere):
  """One line: where, what, the rule and a repair."""
  assert len(message.splitlines()) == 1 and message.isprintable(), message
  assert len(message) < len(str(path)) + 700, message
  match = re.match(
      re.escape(str(path)) + r'(?::(\d+)(?:\[\d+\])?)?: (.+); (.+)\.$', message)
  assert match, message
  number, what, repair = match.groups()
  assert re.search(r'field|row|line|JSON|UTF-8|empty|message', what), message
  assert len(repair.split()) >= 2, message
  if number and not is_anywhere:
    assert int(number) == line, message


def check_rows(rows):
  """Every text is text, says something and can be encoded."""
  for row in rows:
    texts = [getattr(row, name) for name in (
        'response', 'chosen', 'rejected', 'text') if hasattr(row, name)]
    texts += getattr(row, 'responses', ())
    prompt = getattr(row, 'prompt', 'x')
    texts += ([prompt] if isinstance(prompt, str)
              else [prompt[-1]['content']])
    for text in texts:
      assert text.strip() and text.encode()
    if hasattr(row, 'desirable'):
      assert row.desirable in (True, False)
    if hasattr(row, 'ranks'):
      assert len(row.ranks) == len(row.responses) and len(set(row.ranks)) > 1


def check_account(name, rows, reading, path, data):
  """Every record gave rows or was dropped by a name; none did both."""
  known = set(rules.BAD + rules.DROPPED + rules.LEFT_OUT)
  assert {reason for reason, _ in reading.dropped} <= known
  assert {what for what, _ in reading.repaired} <= set(rules.REPAIRED)
  assert reading.num_rows == len(rows) > 0
  assert reading.num_records == reading.num_kept + len(reading.dropped)
  assert (sum(each['count'] for each in reading.summary()['dropped'].values())
          == len(reading.dropped))
  lines = {f'{path}:{i}' for i, line in enumerate(data.split(b'\n'), start=1)
           if line.removeprefix(b'\xef\xbb\xbf' if i == 1 else b'').strip()}
  kept = {row.where for row in rows}
  dropped = [where for _, where in reading.dropped]
  if name in TREES:
    assert kept | set(dropped) <= lines
    return
  assert len(kept) == reading.num_kept
  assert len(set(dropped)) == len(dropped) and kept.isdisjoint(dropped)
  whole = lambda where: where.partition('[')[0]
  assert {whole(where) for where in kept | set(dropped)} == {
      whole(where) for where in lines}
  if name != 'self_instruct':
    assert reading.num_records == len(lines)


def test_three_hundred_broken_records_and_not_one_passes_unsaid(
    tmp_path_factory):
  folder = tmp_path_factory.mktemp('broken')
  path, clean = folder / 'rows.jsonl', folder / 'clean.jsonl'
  tally = collections.Counter()

  def read_all(name, before, line, after, data, on_bad_record):
    outcomes = set()
    for reader, count in zip(READERS, SHAPES[name][2], strict=True):
      if count is None:
        continue
      read = getattr(formats, reader)
      try:
        rows, reading = read(
            path, max_dropped=1.0, on_bad_record=on_bad_record)
      except types.InputError as error:
        # Where a message is gone, its replies are at fault.
        check_message(str(error), path, len(before) + 1,
                      not before or name == 'oasst_messages')
        outcomes.add('message')
        continue
      check_rows(rows)
      check_account(name, rows, reading, path, data)
      outcomes.add('dropped' if any(
          where.startswith(f'{path}:{len(before) + 1}')
          for _, where in reading.dropped) else 'read')
      if name not in TREES and before:
        # The same file with a blank line where the mutant stands.
        clean.write_bytes(b'\n'.join([*before, b'', *after]) + b'\n')
        others, _ = read(clean, max_dropped=1.0)
        here = f'{path}:{len(before) + 1}'
        got = [str(row).replace(str(path), '') for row in rows
               if row.where.partition('[')[0] != here]
        assert got == [str(row).replace(str(clean), '') for row in others]
    return outcomes

  @settings(max_examples=NUM_RECORDS, derandomize=True, deadline=None,
            database=None, suppress_health_check=list(HealthCheck))
  @given(mutants())
  def check(mutant):
    _, before, line, after = mutant
    data = b'\n'.join([*before, line, *after]) + b'\n'
    path.write_bytes(data)
    tally['records'] += 1
    tally.update(read_all(*mutant, data, 'error'))
    tally.update(f'skip: {outcome}' for outcome in read_all(
        *mutant, data, 'skip'))

  check()
  assert tally['records'] >= NUM_RECORDS
  # Each outcome is common, or the test would show little.
  for outcome in ('message', 'dropped', 'read', 'skip: dropped'):
    assert tally[outcome] >= NUM_RECORDS // 30, tally


def test_three_hundred_records_that_are_of_no_use_get_a_message_each(
    tmp_path_factory):
  """With nothing allowed to be dropped, what is not read whole stops the run.
  """
  path = tmp_path_factory.mktemp('useless') / 'rows.jsonl'
  messages = []

  @settings(max_examples=NUM_RECORDS, derandomize=True, deadline=None,
            database=None, suppress_health_check=list(HealthCheck))
  @given(mutants())
  def check(mutant):
    name, before, line, after = mutant
    path.write_bytes(b'\n'.join([*before, line, *after]) + b'\n')
    reader = next(r for r, count in zip(
        READERS, SHAPES[name][2], strict=True) if count is not None)
    try:
      getattr(formats, reader)(path, max_dropped=0.0)
    except types.InputError as error:
      check_message(str(error), path, len(before) + 1,
                    not before or name == 'oasst_messages')
      messages.append(str(error))
    else:
      assume(False)  # The mutation did no harm, or is the dataset's own mark.

  check()
  assert len(messages) == NUM_RECORDS
  assert len(set(messages)) > NUM_RECORDS // 3  # Not one message for all.
