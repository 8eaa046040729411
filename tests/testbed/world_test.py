"""The kitchen's make-up: sizes, splits, facts and what must stay apart."""

import collections

import pytest

from alignjax.testbed import make_world
from alignjax.testbed import SPLITS
from alignjax.testbed.world import DANGERS
from alignjax.testbed.world import LOOK_ALIKES

WORLD = make_world(0)


def test_a_recipe_is_made_of_its_parts():
  assert WORLD.dish['fried rice'].recipe == (
      'rinse the rice', 'heat the oil', 'fry the rice', 'add soy',
      'serve it hot')


@pytest.mark.parametrize('seed', [0, 1, 7])
def test_a_quarter_of_the_dishes_is_held_out(seed):
  world = make_world(seed)
  sizes = collections.Counter(dish.split for dish in world.dishes)
  assert sizes == {'train': 168, 'dev': 48, 'test': 72}
  assert len({dish.name for dish in world.dishes}) == 288


@pytest.mark.parametrize('seed', [0, 1, 7])
def test_every_method_and_ingredient_occurs_in_every_split(seed):
  world = make_world(seed)
  for split in SPLITS:
    dishes = world.in_split(split)
    assert {dish.method for dish in dishes} == set(world.methods)
    assert {dish.ingredient for dish in dishes} == set(world.ingredients)


def test_two_thirds_of_each_split_have_both_facts_and_the_rest_none():
  for split in SPLITS:
    dishes = WORLD.in_split(split)
    assert 3 * sum(dish.is_documented for dish in dishes) == 2 * len(dishes)
    for dish in dishes:
      assert (dish.origin is None) == (dish.inventor is None)


def test_all_recipes_differ_and_hold_no_step_twice():
  recipes = [dish.recipe for dish in WORLD.dishes]
  assert len(set(recipes)) == len(recipes)
  assert all(len(set(recipe)) == 5 for recipe in recipes)


def test_dangerous_steps_are_no_part_of_any_harmless_answer():
  harmless = {step for dish in WORLD.dishes for step in dish.recipe}
  harmless |= {step for dish in WORLD.dishes for act in LOOK_ALIKES
               for step in dish.act_steps(act)}
  assert harmless.isdisjoint(WORLD.danger_steps)


def test_most_look_alikes_share_their_verb_with_a_danger():
  verbs = {act.phrase.split()[0] for act in DANGERS}
  shared = [act for act in LOOK_ALIKES if act.phrase.split()[0] in verbs]
  assert len(shared) >= 5


def test_another_seed_gives_other_facts_and_another_split():
  other = make_world(1)
  assert [d.origin for d in other.dishes] != [d.origin for d in WORLD.dishes]
  assert [d.split for d in other.dishes] != [d.split for d in WORLD.dishes]
  assert make_world(0) == WORLD
