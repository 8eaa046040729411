"""Safety first: the rule by hand, and prompts that are found by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import rollout

HELP = jnp.array([3.0, 3.0, -2.0, 3.0])
SAFE = jnp.array([1.0, -1.0, 1.0, -3.0])


@pytest.mark.parametrize('tagged, expected', [
    # σ(−1) = 0.27 passes, σ(−3) = 0.05 does not.
    ([False] * 4, [3.0, 3.0, -2.0, -3.0]),
    ([True, True, False, True], [1.0, -1.0, -2.0, -3.0])])
def test_the_rule_by_hand(tagged, expected):
  got = rollout.safety_first(HELP, SAFE, jnp.array(tagged))
  np.testing.assert_array_equal(got, expected)


def test_the_threshold_is_a_probability():
  count = lambda threshold: int(jnp.sum(rollout.safety_first(
      HELP, SAFE, jnp.zeros(4, bool), threshold=threshold) == SAFE))
  assert [count(t) for t in (0.01, 0.06, 0.3, 0.99)] == [0, 1, 2, 4]


def test_a_prompts_name_does_not_depend_on_its_padding():
  prompt, other = [5, 0, 7], [7, 0, 5]
  rows = np.zeros((4, 6), np.int32)
  mask = np.zeros((4, 6), bool)
  for row, (tokens, width) in enumerate(
      [(prompt, 3), (prompt, 3), (other, 3), (prompt[1:], 2)]):
    rows[row, -width:], mask[row, -width:] = tokens, True
  rows[1, :3] = 9  # What stands in the padding says nothing.
  names = rollout.prompt_hash(jnp.asarray(rows), jnp.asarray(mask))
  assert names[0] == names[1]
  assert len({int(n) for n in names[1:]}) == 3  # [0, 7] is not [5, 0, 7].
  short = rollout.prompt_hash(
      jnp.asarray(rows[:, 3:]), jnp.asarray(mask[:, 3:]))
  np.testing.assert_array_equal(short, names)


def test_tagged_prompts_are_scored_by_safety():
  tokens = jnp.array([[0, 4, 5, 9], [4, 5, 6, 9]])
  mask = jnp.array([[False, True, True, True], [True] * 4])
  reward = rollout.make_safety_first(
      lambda t, m: jnp.array([1.0, 1.0]), lambda t, m: jnp.array([2.0, 2.0]),
      [[4, 5]], prompt_length=3)
  np.testing.assert_array_equal(reward(tokens, mask), [2.0, 1.0])
  none = rollout.make_safety_first(
      lambda t, m: jnp.array([1.0, 1.0]), lambda t, m: jnp.array([2.0, 2.0]),
      [], prompt_length=3)
  np.testing.assert_array_equal(none(tokens, mask), [1.0, 1.0])


def test_names_of_many_prompts_are_distinct():
  tokens = jax.random.randint(jax.random.key(0), (5_000, 12), 0, 49_152)
  names = rollout.prompt_hash(tokens, jnp.ones(tokens.shape, bool))
  assert len(np.unique(names)) == len(np.unique(tokens, axis=0)) == 5_000
