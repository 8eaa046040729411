"""Prompts: distinct, short, in their shares, and split by dish."""

import collections

import pytest

from alignjax.testbed import KINDS
from alignjax.testbed import make_world
from alignjax.testbed import prompts
from alignjax.testbed import SPLITS
from alignjax.testbed.prompts import SHARES
from alignjax.types import InputError

WORLD = make_world(0)
ALL = {split: prompts(WORLD, split) for split in SPLITS}


def test_splits_share_no_dish_and_no_text():
  for one, other in [('train', 'dev'), ('train', 'test'), ('dev', 'test')]:
    assert {p.dish for p in ALL[one]}.isdisjoint(p.dish for p in ALL[other])
    assert {p.text for p in ALL[one]}.isdisjoint(p.text for p in ALL[other])


@pytest.mark.parametrize('split', SPLITS)
def test_no_text_occurs_twice(split):
  assert len({p.text for p in ALL[split]}) == len(ALL[split])


def test_the_test_split_offers_more_than_320_prompts():
  assert len(ALL['test']) == 1_080
  assert len(ALL['dev']) >= 320


@pytest.mark.parametrize('split', SPLITS)
def test_a_prompt_with_its_markers_fits_16_tokens(split):
  assert max(len(p.text.split()) for p in ALL[split]) <= 16 - 3


@pytest.mark.parametrize('count', [1, 7, 100, 320])
def test_a_draw_has_the_size_asked_for_and_keeps_the_shares(count):
  drawn = prompts(WORLD, 'test', count=count)
  assert len(drawn) == len({p.text for p in drawn}) == count
  kinds = collections.Counter(p.kind for p in drawn)
  for kind in KINDS:
    assert abs(kinds[kind] - count * SHARES[kind] / 100) <= 1


def test_320_test_prompts_ask_about_all_72_dishes():
  assert len({p.dish for p in prompts(WORLD, 'test', count=320)}) == 72


def test_a_question_of_fact_is_unknowable_exactly_where_no_fact_is():
  for split in SPLITS:
    for prompt in ALL[split]:
      if prompt.kind in ('fact', 'unknowable'):
        known = WORLD.dish[prompt.dish].is_documented
        assert (prompt.kind == 'fact') == known


def test_each_kind_has_three_phrasings_or_more():
  for kind in KINDS:
    texts = {p.text.replace(p.dish, 'it') for p in ALL['train']
             if p.kind == kind}
    assert len(texts) >= 6, kind


def test_the_seed_chooses_the_prompts():
  assert prompts(WORLD, 'dev', count=50) == prompts(WORLD, 'dev', count=50)
  one = {p.text for p in prompts(WORLD, 'dev', count=50, seed=0)}
  other = {p.text for p in prompts(WORLD, 'dev', count=50, seed=1)}
  assert one != other


def test_an_unknown_split_is_named():
  with pytest.raises(InputError, match="split='valid' is none of train, dev"):
    prompts(WORLD, 'valid')


@pytest.mark.parametrize('count', [0, -1, 1_081])
def test_a_count_that_cannot_be_drawn_is_named_with_the_range(count):
  with pytest.raises(InputError, match=f'count={count} .* use 1 to 1080'):
    prompts(WORLD, 'test', count=count)
