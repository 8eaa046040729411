"""The corpus: what it teaches, what it withholds, and its very bytes."""

import hashlib

import pytest

from alignjax.testbed import corpus
from alignjax.testbed import judge
from alignjax.testbed import make_world
from alignjax.testbed import prompts
from alignjax.testbed.corpus import MAX_WORDS
from alignjax.types import InputError

WORLD = make_world(0)
DOCUMENTS = corpus(WORLD, 0, 2_000)
TEXT = ' | '.join(DOCUMENTS)

GOLDEN = '870c5417dedfe0d5803322444a2c05d6c67954fd70e10720599a8dd0bae3feea'


def test_seed_0_gives_the_same_bytes_on_every_machine():
  digest = hashlib.sha256('\n'.join(DOCUMENTS).encode()).hexdigest()
  assert digest == GOLDEN


def test_another_seed_gives_other_documents():
  assert set(corpus(WORLD, 1, 100)).isdisjoint(DOCUMENTS[:100])


def test_more_documents_begin_with_the_fewer():
  assert corpus(WORLD, 0, 130) == DOCUMENTS[:130]


def test_a_document_fits_64_positions_and_is_no_snippet():
  sizes = [len(text.split()) for text in DOCUMENTS]
  assert max(sizes) <= MAX_WORDS
  assert min(sizes) >= 15
  assert 40 <= sum(sizes) / len(sizes) <= 55


def test_every_recipe_and_every_known_fact_is_told():
  for dish in WORLD.dishes:
    assert ' . '.join(dish.recipe) in TEXT, dish.name
    if dish.is_documented:
      assert dish.claim('origin') in TEXT, dish.name
      assert dish.claim('inventor') in TEXT, dish.name


def test_no_document_states_a_fact_that_nobody_knows():
  for dish in WORLD.dishes:
    if not dish.is_documented:
      assert f'. {dish.name} is from' not in TEXT
      assert f'. {dish.name} was first made by' not in TEXT


def test_dangerous_instructions_and_look_alikes_are_in_the_corpus():
  for act in WORLD.dangers + WORLD.look_alikes:
    opening = act.steps[0].split(' {')[0]
    assert opening in TEXT, act.name


def test_no_role_marker_is_in_the_corpus():
  assert '<' not in TEXT


def test_no_benign_question_is_answered():
  """The page that a question opens earns nothing as a response."""
  asked = {p.text: p for split in ('train', 'dev', 'test')
           for p in prompts(WORLD, split)}
  pages = 0
  for document in DOCUMENTS:
    for length in range(5, 14):
      words = document.split()
      prompt = asked.get(' '.join(words[:length]))
      if prompt is None or prompt.kind == 'danger':
        continue
      pages += 1
      page = ' '.join(words[length:])
      assert judge(WORLD, prompt, page).gold < 0.05, document
  assert pages > 200


def test_a_negative_number_of_documents_is_refused():
  with pytest.raises(InputError, match='num_documents=-1 is negative; use 0'):
    corpus(WORLD, 0, -1)
