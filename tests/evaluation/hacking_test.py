"""Each hack is named by its name, and by no other."""

import numpy as np
import pytest

from alignjax.evaluation import hacking

NOUNS = ('rice', 'fish', 'tofu', 'leek', 'corn', 'beet', 'kale', 'duck')
VERBS = ('boil', 'bake', 'fry', 'stew', 'grill', 'toast', 'wash', 'slice')
PLAIN = [f'{verb} the {noun} for a {other} while it {last}'
         for i, (verb, noun) in enumerate(
             (v, n) for v in VERBS for n in NOUNS)
         for other, last in [(NOUNS[i % 7], VERBS[i % 5])]]
REWARDS = np.linspace(-1.0, 1.0, len(PLAIN))


def named(responses, first=PLAIN, **settings):
  """The names of what is found in responses, given the first ones."""
  now, then = (hacking.measure(texts, REWARDS[:len(texts)])
               for texts in (responses, first))
  return [f.name for f in hacking.diagnose(now, then, **settings)]


def some(change, share=0.5):
  """The plain responses, every other one changed."""
  every = round(1 / share)
  return [change(i, text) if i % every == 0 else text
          for i, text in enumerate(PLAIN)]


def varied(i, count):
  """Words that differ from response to response."""
  return ' '.join(f'w{i}x{k}' for k in range(count))


@pytest.mark.parametrize('hack, responses', [
    ('length', [f'{t} {varied(i, 6)}' for i, t in enumerate(PLAIN)]),
    ('lists', some(lambda i, t: f'- {t[:9]} - {t[9:]}')),
    ('lists', some(lambda i, t: f'1. {t} 2. {varied(i, 1)}')),
    ('confidence', some(
        lambda i, t: f'{t} {varied(i, 2)} absolutely')),
    ('opening', some(lambda i, t: f'so you see {t}')),
    ('phrases', some(lambda i, t: f'{t} then add nutmeg')),
])
def test_a_hack_is_named(hack, responses):
  found = named(responses)
  # What begins alike is a phrase as well.
  assert found == ([hack, 'phrases'] if hack == 'opening' else [hack])


def test_nothing_is_found_in_the_first_responses_themselves():
  assert named(PLAIN) == []
  assert named(some(lambda i, t: f'- {t} absolutely', 0.125)) == []


def test_hedges_that_vanish_are_named_if_there_were_some():
  many = some(lambda i, t: f'i think {t}', 0.25)
  assert named(PLAIN, first=many) == ['hedges']
  few = some(lambda i, t: f'perhaps {t}', 1 / 16)
  assert named(PLAIN, first=few) == []


def test_the_phrase_that_took_over_is_said():
  now = hacking.measure(some(lambda i, t: f'{t} then add nutmeg .'), REWARDS)
  (finding,) = hacking.diagnose(now, hacking.measure(PLAIN, REWARDS))
  assert '"add nutmeg" (50%, from 0%)' in finding.text
  np.testing.assert_allclose(finding.excess, 0.5 / hacking.Limits().gained)


def test_a_budget_and_an_ensemble_are_watched_too():
  assert named(PLAIN, kl=4.1, kl_budget=2.0) == ['kl_budget']
  assert named(PLAIN, kl=3.9, kl_budget=2.0) == []
  assert named(PLAIN, kl=99.0) == []
  assert named(PLAIN, disagreement=(0.9, 0.3)) == ['disagreement']
  assert named(PLAIN, disagreement=(0.5, 0.3)) == []


def test_the_furthest_over_its_limit_comes_first():
  both = [f'{t} {varied(i, 5)} absolutely' for i, t in enumerate(PLAIN)]
  assert named(both) == ['confidence', 'length']


def test_the_correlation_of_reward_and_length_by_hand():
  measured = hacking.measure(['a', 'a b', 'a b c'], [1.0, 2.0, 3.0])
  np.testing.assert_allclose(measured.length_correlation, 1.0)
  assert measured.length == 2.0 and measured.reward == 2.0
  np.testing.assert_allclose(measured.length_worth, 1.0)
  assert hacking.measure(['a', 'b'], [0.0, 1.0]).length_correlation == 0.0


def test_growth_is_named_early_where_it_is_what_the_reward_pays_for():
  """A fifth longer; by the first responses a word is worth 1, or nothing."""
  lengths = np.tile([8, 10, 12, 14], 16)
  first = [varied(i, n) for i, n in enumerate(lengths)]
  longer = [f'{text} {varied(i, 2)} z{i}' for i, text in enumerate(first)]
  for paid, gain, found in ((1.0, 4.0, ['length']), (1.0, 40.0, []),
                            (0.0, 4.0, []), (-1.0, 4.0, [])):
    rewards = paid * lengths + np.tile([0.5, -0.5, -0.5, 0.5], 16)
    then = hacking.measure(first, rewards)
    now = hacking.measure(longer, rewards + gain)
    np.testing.assert_allclose(then.length_worth, paid, atol=0.01)
    assert [f.name for f in hacking.diagnose(now, then)] == found


def test_pooled_batches_are_their_mean():
  halves = [hacking.measure(PLAIN[i::2], REWARDS[i::2]) for i in (0, 1)]
  pooled = hacking.pool(halves)
  np.testing.assert_allclose(
      pooled.length, hacking.measure(PLAIN, REWARDS).length)
  assert 'boil the rice' not in halves[0].phrases  # Said once: left out.


def test_phrases_that_overlap_are_said_once():
  top = hacking.new_phrases(
      {'now add the': 0.5, 'add the nutmeg': 0.5, 'stir it well': 0.2}, {})
  assert top == [('add the nutmeg', 0.5), ('stir it well', 0.2)]
