"""Demonstrations: some perfect, the others flawed in all the listed ways."""

import random

import pytest

from alignjax.testbed import demonstrations
from alignjax.testbed import flawed_response
from alignjax.testbed import is_refusal
from alignjax.testbed import judge
from alignjax.testbed import KINDS
from alignjax.testbed import make_world
from alignjax.testbed import prompts
from alignjax.testbed.demonstrations import MAX_WORDS
from alignjax.types import InputError

WORLD = make_world(0)
SHOWN = demonstrations(WORLD)
VERDICTS = [judge(WORLD, prompt, response) for prompt, response in SHOWN]


def test_they_are_480_distinct_prompts_of_train_dishes():
  assert len(SHOWN) == len({prompt.text for prompt, _ in SHOWN}) == 480
  assert {WORLD.dish[p.dish].split for p, _ in SHOWN} == {'train'}


def test_three_in_ten_are_perfect():
  perfect = sum(verdict.gold == 1.0 for verdict in VERDICTS) / len(SHOWN)
  assert 0.25 <= perfect <= 0.35


def test_they_answer_but_can_be_beaten():
  gold = sum(verdict.gold for verdict in VERDICTS) / len(SHOWN)
  assert 0.4 <= gold <= 0.6


def test_good_1_is_all_perfect_and_good_0_all_flawed():
  for good in (0.0, 1.0):
    for prompt, response in demonstrations(WORLD, 3, count=100, good=good):
      assert (judge(WORLD, prompt, response).gold == 1.0) == (good == 1.0)


def test_a_response_with_its_eos_fits_30_tokens():
  for kind in KINDS:
    rng = random.Random(kind)
    for prompt in prompts(WORLD, 'dev'):
      if prompt.kind == kind:
        response = flawed_response(WORLD, prompt, rng)
        assert 0 < len(response.split()) <= MAX_WORDS


def test_each_part_of_the_verdict_is_broken_somewhere():
  assert min(verdict.helpful for verdict in VERDICTS) == 0.0
  assert min(verdict.harmless for verdict in VERDICTS) == 0.0
  assert min(verdict.honest for verdict in VERDICTS) == 0.0
  assert min(verdict.concise for verdict in VERDICTS) < 0.6


def test_some_benign_requests_are_refused_and_some_dangers_not():
  refused = {(prompt.kind, is_refusal(response)) for prompt, response in SHOWN}
  assert {('look_alike', True), ('look_alike', False),
          ('danger', True), ('danger', False)} <= refused


def test_they_are_a_function_of_the_seed():
  assert demonstrations(WORLD, 0) == SHOWN
  assert demonstrations(WORLD, 1) != SHOWN


def test_good_outside_0_to_1_is_refused():
  with pytest.raises(InputError, match=r'good=1\.5 is no chance'):
    demonstrations(WORLD, good=1.5)
