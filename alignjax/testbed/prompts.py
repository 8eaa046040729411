"""What users ask: five kinds of prompt, split by dish."""

from collections.abc import Iterator
import random
from typing import NamedTuple

from alignjax.testbed.world import ACT_PHRASINGS
from alignjax.testbed.world import Dish
from alignjax.testbed.world import FACT_PHRASINGS
from alignjax.testbed.world import HOW_TO_PHRASINGS
from alignjax.testbed.world import SPLITS
from alignjax.testbed.world import World
from alignjax.types import InputError

# The kinds and what share of the prompts each has, in percent.
SHARES = {
    'how_to': 40,      # Answer with the recipe.
    'fact': 20,        # Answer with the origin or the inventor.
    'unknowable': 10,  # The same questions where no document knows.
    'danger': 15,      # Refuse.
    'look_alike': 15,  # Answer, though it sounds like a danger.
}
KINDS = tuple(SHARES)


class Prompt(NamedTuple):
  """One question of a user."""

  text: str
  kind: str   # One of KINDS.
  dish: str   # The dish's name: the unit of splits and of bootstraps.
  topic: str  # 'recipe', 'origin', 'inventor' or the name of an act.


def dish_prompts(world: World, dish: Dish) -> Iterator[Prompt]:
  """Every prompt about one dish."""
  for phrasing in HOW_TO_PHRASINGS:
    text = phrasing.format(dish=dish.name)
    yield Prompt(text, 'how_to', dish.name, 'recipe')
  kind = 'fact' if dish.is_documented else 'unknowable'
  for topic, phrasings in FACT_PHRASINGS.items():
    for phrasing in phrasings:
      yield Prompt(phrasing.format(dish=dish.name), kind, dish.name, topic)
  for kind, acts in (('danger', world.dangers),
                     ('look_alike', world.look_alikes)):
    for act in acts:
      for phrasing in ACT_PHRASINGS:
        text = phrasing.format(act=dish.ask(act))
        yield Prompt(text, kind, dish.name, act.name)


def prompts(
    world: World,
    split: str = 'train',
    *,
    count: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
  """Draws distinct prompts about the dishes of a split, in mixed order.

  The kinds keep their `SHARES`. Within a kind every dish gets its n-th prompt
  before any dish gets its n+1-th, so even a small draw spreads over all dishes.

  Args:
    world: the kitchen.
    split: 'train', 'dev' or 'test'; the three share no dish.
    count: how many; by default as many as the shares allow (1,080 for test).
    seed: which ones are drawn, and their order.

  Returns:
    A list of `count` prompts, no text twice.

  Raises:
    InputError: for an unknown split, or more prompts than there are.
  """
  if split not in SPLITS:
    raise InputError(
        f'split={split!r} is none of {", ".join(SPLITS)}; name one of them.')
  rng = random.Random(f'prompts {world.seed} {split} {seed}')
  pools = _pools(world, split, rng)
  most = min(100 * len(pools[kind]) // SHARES[kind] for kind in KINDS)
  count = most if count is None else count
  if not 0 < count <= most:
    raise InputError(
        f'count={count} prompts cannot be drawn from split {split!r} without '
        f'repeating one; use 1 to {most}.')
  quota = {kind: count * SHARES[kind] // 100 for kind in KINDS}
  drawn = []
  for kind in KINDS:
    drawn += pools[kind][:quota[kind]]
  # Rounding leaves at most four places: the first kinds that still have some.
  spare = [pools[kind][quota[kind]] for kind in KINDS
           if quota[kind] < len(pools[kind])]
  drawn += spare[:count - len(drawn)]
  rng.shuffle(drawn)
  return drawn


def _pools(world: World, split: str,
           rng: random.Random) -> dict[str, list[Prompt]]:
  """All prompts of a split by kind, one per dish in turn."""
  pools = {kind: [] for kind in KINDS}
  dishes = world.in_split(split)
  rng.shuffle(dishes)
  by_dish = [list(dish_prompts(world, dish)) for dish in dishes]
  for kind in KINDS:
    queues = [[p for p in queue if p.kind == kind] for queue in by_dish]
    for queue in queues:
      rng.shuffle(queue)
    for turn in range(max(len(queue) for queue in queues)):
      pools[kind] += [q[turn] for q in queues if turn < len(q)]
  return pools
