"""Critiques and revisions by principle; choices in both orders."""

import numpy as np

from alignjax import feedback
from alignjax import sources
from alignjax import testbed

PRINCIPLES = [feedback.Principle(f'principle {n}') for n in range(3)]


def reply(talks, turn):
  """Says how often it was asked, and how long the talk was."""
  return [(f'turn {turn} of {len(talk)}', turn != 3) for talk in talks]


def test_each_round_criticises_the_last_revision_by_a_new_principle():
  found, = feedback.revise(['p'], ['r'], PRINCIPLES, reply, rounds=3)
  assert [s.critique for s in found.steps] == [
      'turn 0 of 3', 'turn 2 of 3', 'turn 4 of 3']
  assert [s.revision for s in found.steps] == [
      'turn 1 of 5', 'turn 3 of 5', 'turn 5 of 5']
  assert {s.principle for s in found.steps} == {p.text for p in PRINCIPLES}
  assert found.final == 'turn 5 of 5' and found.is_whole
  assert found.record()['first'] == 'r'


def test_a_revision_that_was_cut_off_is_not_whole():
  found, = feedback.revise(['p'], ['r'], PRINCIPLES, reply, rounds=2)
  assert not found.is_whole


def test_without_rounds_the_response_stays():
  found, = feedback.revise(['p'], ['r'], PRINCIPLES, reply, rounds=0)
  assert found.final == 'r' and not found.steps


def test_pieces_draw_the_principles_of_the_whole():
  prompts = [f'p{n}' for n in range(6)]
  whole = feedback.revise(prompts, prompts, PRINCIPLES, reply, seed=1)
  parts = [t for first in (0, 3) for t in feedback.revise(
      prompts[first:first + 3], prompts[first:first + 3], PRINCIPLES, reply,
      seed=1, first=first)]
  assert parts == whole


def test_the_judge_thinks_before_it_decides():
  seen = []

  def think(talks):
    seen.extend(talks)
    return [('well', True) for _ in talks]

  def label_logprobs(talks):
    assert all(talk[-2] == {'role': 'assistant', 'content': 'well'}
               for talk in talks)
    return np.array([[-0.1, -2.0] if '1: good' in talk[0]['content'] else
                     [-1.0, -0.5] for talk in talks])

  heard = []
  judge = feedback.principle_judge(
      PRINCIPLES[0], label_logprobs, reply=think, heard=heard)
  verdict, = judge([feedback.Comparison('p', 'good', 'bad')])
  assert verdict.margin == (1.9 + 0.5) / 2
  assert [(h['a'], h['thoughts']) for h in heard] == [
      ('bad', 'well'), ('good', 'well')]
  assert len(seen) == 2 and PRINCIPLES[0].reason in seen[0][-1]['content']


def test_conversations_end_in_what_is_right():
  known = {p.text: p for p in testbed.prompts(sources.WORLD, 'train', seed=1)}
  rows = testbed.conversations(sources.WORLD, 0, 60)
  words = set(testbed.vocabulary(sources.WORLD))
  critiques = 0
  for row in rows:
    texts = [m['content'] for m in row['messages']]
    assert all(set(text.split()) <= words for text in texts)
    prompt = known.get(texts[0])
    if prompt and len(texts) == 4:
      name = next(n for n, p in testbed.PRINCIPLES.items() if p[0] == texts[2])
      assert texts[3] == testbed.critique(
          sources.WORLD, prompt, texts[1], name)
      critiques += 1
    if prompt and len(texts) == 6:
      assert testbed.judge(sources.WORLD, prompt, texts[5]).gold == 1
  assert critiques == 60
  assert rows == testbed.conversations(sources.WORLD, 0, 60)
