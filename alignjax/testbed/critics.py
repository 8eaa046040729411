"""Critiques and verdicts by principle, as demonstrations for a model.

Constitutional AI needs a model that can find fault with itself. In a paper's
world that comes from pretraining; here it is shown, by a few hundred
conversations in which somebody criticises a response by a principle, writes a
better one, or says which of two follows the principle better. What is right is
known.
"""

from collections.abc import Sequence
import random

from alignjax.testbed.demonstrations import flawed_response
from alignjax.testbed.judge import is_fabrication
from alignjax.testbed.judge import is_ignorance
from alignjax.testbed.judge import is_refusal
from alignjax.testbed.judge import judge
from alignjax.testbed.judge import perfect_response
from alignjax.testbed.prompts import Prompt
from alignjax.testbed.prompts import prompts
from alignjax.testbed.world import World

# Name, question, and the critique of a response that passes or fails. All are
# words of the kitchen.
PRINCIPLES = {
    'kind': ('is this kind to a guest ?', 'this is kind .',
             'this is not kind to a guest .'),
    'help': ('does this help ?', 'this helps .', 'this does not help .'),
    'true': ('is this what a book says ?', 'a book says this .',
             'no book says this .'),
}
REVISION = 'please write a better one .'
CHOICES = {
    'kind': 'which one is more kind to a guest ?',
    'help': 'which one helps more ?',
    'true': 'which one is what a book says ?',
}
FIRST, SECOND = '1', '2'
THINK = 'why ?'
DECIDE = 'so which one ?'


def constitution(names: Sequence[str] = tuple(PRINCIPLES)) -> str:
  """The text of a constitution file of these principles."""
  paragraphs = []
  for name in names:
    paragraphs.append('\n'.join([
        f'{name}', f'critique: {PRINCIPLES[name][0]}',
        f'revision: {REVISION}',
        f'choice: {FIRST} : {{a}} {SECOND} : {{b}} {CHOICES[name]}',
        f'reason: {THINK}', f'decide: {DECIDE}']))
  return '\n\n'.join(paragraphs) + '\n'


def passes(world: World, prompt: Prompt, response: str, principle: str) -> bool:
  """Whether a response keeps a principle, by the truth of the world.

  kind: it gives no step of any danger. help: it does not refuse, or say that it
  does not know, what could be answered. true: it states nothing false.
  """
  if principle == 'kind':
    return judge(world, prompt, response).harmless == 1.0
  if principle == 'help':
    evades = is_refusal(response) or is_ignorance(response)
    return not evades or prompt.kind in ('danger', 'unknowable')
  return not is_fabrication(world, prompt, response)


def critique(world: World, prompt: Prompt, response: str,
             principle: str) -> str:
  """What a good critic says."""
  _, good, bad = PRINCIPLES[principle]
  return good if passes(world, prompt, response, principle) else bad


def conversations(world: World, seed: int = 0, count: int = 400) -> list[dict]:
  """Critiques, revisions and verdicts on train prompts.

  Args:
    world: the kitchen.
    seed: which ones.
    count: of each of the three.

  Returns:
    `{'messages': [...]}` rows; the last turn is what is demonstrated.
  """
  rng = random.Random(f'critics {world.seed} {seed}')
  rows = []
  for prompt in prompts(world, 'train', count=count, seed=seed + 1):
    name = rng.choice(list(PRINCIPLES))
    response = _response(world, prompt, rng)
    said = critique(world, prompt, response, name)
    talk = [prompt.text, response, PRINCIPLES[name][0], said]
    rows.append(_messages(talk))
    rows.append(_messages([*talk, REVISION, perfect_response(world, prompt)]))
    rows += _choice(world, prompt, rng)
  return rows


def _choice(world: World, prompt: Prompt, rng: random.Random) -> list[dict]:
  """A verdict without reasons, and one with them; none where there is none."""
  for _ in range(8):
    name = rng.choice(list(PRINCIPLES))
    pair = [_response(world, prompt, rng) for _ in range(2)]
    kept = [passes(world, prompt, text, name) for text in pair]
    if kept[0] != kept[1]:
      break
  else:
    return []
  verdict = FIRST if kept[0] else SECOND
  asked = (f'{prompt.text} {FIRST} : {pair[0]} {SECOND} : {pair[1]} '
           f'{CHOICES[name]}')
  reasons = ' '.join(
      f'{label} : {critique(world, prompt, text, name)}'
      for label, text in zip((FIRST, SECOND), pair, strict=True))
  return [_messages([asked, verdict]),
          _messages([f'{asked} {THINK}', reasons]),
          _messages([f'{asked} {THINK}', reasons, DECIDE, verdict])]


def _response(world: World, prompt: Prompt, rng: random.Random) -> str:
  """A perfect response or, more often, a flawed one."""
  return (perfect_response(world, prompt) if rng.random() < 0.3 else
          flawed_response(world, prompt, rng))


def _messages(texts: Sequence[str]) -> dict:
  """A conversation of the user's and the assistant's texts by turns."""
  roles = 'user', 'assistant'
  return {'messages': [{'role': roles[i % 2], 'content': text}
                       for i, text in enumerate(texts)]}
