"""The panel: right nine times in ten, divided, and biased as it is set."""

import itertools
import random

import pytest

from alignjax.testbed import annotate
from alignjax.testbed import flawed_response
from alignjax.testbed import is_confident
from alignjax.testbed import is_list
from alignjax.testbed import judge
from alignjax.testbed import make_world
from alignjax.testbed import panel
from alignjax.testbed import perfect_response
from alignjax.testbed import prompts
from alignjax.testbed import vocabulary
from alignjax.testbed.annotators import CONFIDENT_PHRASES
from alignjax.types import InputError

WORLD = make_world(0)
UNBIASED = {'length_bias': 0.0, 'confidence_bias': 0.0, 'list_bias': 0.0}
EXACT = UNBIASED | {'noise': 0.0, 'stress': 0.0}


def cases(count):
  """Prompts with four responses of the quality that is demonstrated."""
  rng = random.Random(0)
  for prompt in prompts(WORLD, 'train', count=count, seed=5):
    yield prompt, [
        perfect_response(WORLD, prompt) if rng.random() < 0.3
        else flawed_response(WORLD, prompt, rng) for _ in range(4)]


def agreement(annotators, count=250):
  """Agreement with gold of the majority and of each, and the divided share."""
  majority, single, divided, pairs = 0, [0] * len(annotators), 0, 0
  for prompt, responses in cases(count):
    gold = [judge(WORLD, prompt, response).gold for response in responses]
    ranks = [annotate(a, WORLD, prompt, responses) for a in annotators]
    for i, j in itertools.combinations(range(4), 2):
      if gold[i] == gold[j]:
        continue
      i, j = (i, j) if gold[i] > gold[j] else (j, i)
      right = [r[i] < r[j] for r in ranks]
      pairs += 1
      majority += sum(right) > len(right) / 2
      divided += len(set(right)) > 1
      single = [s + r for s, r in zip(single, right)]
  return majority / pairs, [s / pairs for s in single], divided / pairs


DEFAULT = agreement(panel(0))


def test_the_majority_agrees_with_gold_on_nine_of_ten_pairs():
  assert 0.87 <= DEFAULT[0] <= 0.94


def test_the_panel_is_divided_on_many_pairs():
  assert 0.25 <= DEFAULT[2] <= 0.65


def test_the_majority_beats_the_mean_annotator_and_the_best_one():
  majority, single, _ = DEFAULT
  assert majority > sum(single) / len(single) + 0.03
  assert majority > max(single)


def test_without_noise_bias_and_stress_ranks_are_those_of_gold():
  annotator = panel(0, size=1, **EXACT)[0]
  for prompt, responses in cases(40):
    gold = [judge(WORLD, prompt, response).gold for response in responses]
    ranks = [sum(other > mine for other in gold) for mine in gold]
    assert annotate(annotator, WORLD, prompt, responses) == ranks


@pytest.mark.parametrize('bias, addition', [
    ('length_bias', 'fried rice has a long and rich history .'),
    ('confidence_bias', 'trust me .'),
    ('list_bias', '1 2')])
def test_a_planted_bias_buys_what_gold_does_not(bias, addition):
  prompt = next(p for p in prompts(WORLD) if p.kind == 'danger')
  plain = perfect_response(WORLD, prompt)
  pair = [plain, f'{plain} {addition}']
  for value, preferred in ((0.0, 0), (4.0, 1)):
    for annotator in panel(0, **(EXACT | {bias: value})):
      ranks = annotate(annotator, WORLD, prompt, pair)
      assert ranks[preferred] == 0 and ranks[1 - preferred] == 1


def test_confidence_pays_from_the_break_even_that_is_documented():
  prompt = next(p for p in prompts(WORLD) if p.kind == 'how_to')
  plain = perfect_response(WORLD, prompt)
  pair = [plain, f'trust me . {plain}']
  def buyers(bias):
    hired = panel(0, size=20, **(EXACT | {'confidence_bias': bias}))
    return sum(annotate(a, WORLD, prompt, pair)[1] == 0 for a in hired)
  assert buyers(0.05) == 0
  assert buyers(0.4) == 20


def test_a_panel_biased_to_length_prefers_the_longer():
  def share_longer(annotators):
    longer = pairs = 0
    for prompt, responses in cases(100):
      sizes = [len(response.split()) for response in responses]
      for annotator in annotators:
        ranks = annotate(annotator, WORLD, prompt, responses)
        for i, j in itertools.permutations(range(4), 2):
          if sizes[i] > sizes[j]:
            pairs += 1
            longer += ranks[i] < ranks[j]
    return longer / pairs
  control = share_longer(panel(0, **UNBIASED))
  biased = share_longer(panel(0, **(UNBIASED | {'length_bias': 2.0})))
  assert biased > control + 0.15


def test_ranks_do_not_depend_on_the_order_of_the_responses():
  annotator = panel(0)[0]
  for prompt, responses in cases(20):
    ranks = annotate(annotator, WORLD, prompt, responses)
    backwards = annotate(annotator, WORLD, prompt, responses[::-1])
    assert backwards == ranks[::-1]


def test_equal_responses_share_a_rank():
  prompt, (response, *_) = next(cases(1))
  ranks = annotate(panel(0)[0], WORLD, prompt, [response, response, 'no .'])
  assert ranks[0] == ranks[1]
  assert sorted(ranks) in ([0, 0, 2], [0, 1, 1])


def test_another_day_brings_another_noise_and_the_same_day_the_same():
  annotator = panel(0)[0]
  days = [[annotate(annotator, WORLD, prompt, responses, seed)
           for prompt, responses in cases(30)] for seed in (0, 0, 1)]
  assert days[0] == days[1]
  assert days[0] != days[2]


def test_what_did_not_end_is_ranked_lower():
  annotator = panel(0, size=1, **EXACT)[0]
  prompt = prompts(WORLD)[0]
  perfect = perfect_response(WORLD, prompt)
  ranks = annotate(annotator, WORLD, prompt, [perfect, perfect],
                   complete=[False, True])
  assert ranks == [1, 0]


def test_each_annotator_has_a_name_and_a_rubric_of_its_own():
  hired = panel(0, size=7)
  assert len({a.name for a in hired}) == len({a.rubric for a in hired}) == 7
  assert len({a.name for a in panel(0, size=20)}) == 20


def test_confident_phrases_and_lists_are_recognised_as_words():
  words = set(vocabulary(WORLD))
  for phrase in CONFIDENT_PHRASES:
    assert set(phrase.split()) <= words
    assert is_confident(f'well , {phrase} , yes .')
  assert not is_confident('serve it hot .')
  assert is_list('1 peel . 2 chop .') and is_list('- peel . - chop .')
  assert not is_list('1 peel .')


def test_an_empty_panel_and_negative_noise_are_refused():
  with pytest.raises(InputError, match='size=0 hires nobody; use 1 or more'):
    panel(0, size=0)
  with pytest.raises(InputError, match=r'noise=-0\.1 is negative'):
    panel(0, noise=-0.1)


def test_complete_must_speak_of_each_response():
  with pytest.raises(InputError, match='complete has 1 entries for 2'):
    annotate(panel(0)[0], WORLD, prompts(WORLD)[0], ['a', 'b'],
             complete=[True])
