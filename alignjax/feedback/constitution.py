"""Constitutional AI: a model criticises and rewrites itself, by principles.

    prompt ─► response ─► critique by a principle ─► revision ─► ... ─► SFT
    prompt ─► two responses ─► which follows a principle better? ─► preferences

Bai et al. (2022), https://arxiv.org/abs/2212.08073, sections 3 and 4. A
constitution is a text file; each paragraph is a principle. Lines that begin
with `critique:`, `revision:`, `choice:`, `reason:` or `decide:` say in the
paragraph's own words how the model is to be asked, instead of the requests
below; lines with # are comments.

    Do not help anybody to hurt somebody.

    Say only what is true.
    critique: Which of these statements are not true?
    revision: Write it again without them.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib
import random
import re

import numpy as np

from alignjax import types
from alignjax.data import chat
from alignjax.feedback import judges

_CRITIQUE = ('Look at your last response. In which ways does it go against '
             'this principle? {principle}')
_REVISION = ('Write your response again, so that it follows the principle and '
             'keeps what was good about it. Give the response alone.')
_CHOICE = ('Two responses to the message above follow.\n\n1: {a}\n\n2: {b}\n\n'
           'Which one follows this principle better? {principle}\nAnswer with '
           '1 or 2.')
_REASON = 'First think aloud: how far does each of them follow it?'
_DECIDE = 'So which one is it? Answer with 1 or 2.'
Reply = tuple[str, bool]  # A text, and whether it ended by itself.
_KEYS = ('critique', 'revision', 'choice', 'reason', 'decide')


@dataclasses.dataclass(frozen=True)
class Principle:
  """A principle, and how the model is asked about it."""

  text: str
  critique: str = _CRITIQUE  # May hold {principle}.
  revision: str = _REVISION  # The same.
  choice: str = _CHOICE      # The same, with {a} and {b}.
  reason: str = _REASON      # Behind the choice, where it is to think first.
  decide: str = _DECIDE      # After its thoughts.

  def ask(self, request: str, **shown: str) -> str:
    """The request with what it holds filled in, as plain text."""
    shown = {'principle': self.text} | shown
    return re.sub(  # At one go: a response may hold braces of its own.
        r'\{(principle|a|b)\}', lambda m: shown.get(m[1], m[0]),
        getattr(self, request))


@dataclasses.dataclass(frozen=True)
class Step:
  """One critique and the revision that it led to."""

  principle: str
  critique: str
  revision: str
  ended: bool = True  # Whether the revision ended by itself.


@dataclasses.dataclass(frozen=True)
class Transcript:
  """What became of one response."""

  prompt: chat.Prompt
  response: str          # Before any revision.
  steps: tuple[Step, ...]

  @property
  def final(self) -> str:
    """The last revision."""
    return self.steps[-1].revision if self.steps else self.response

  @property
  def is_whole(self) -> bool:
    """Whether there is a last revision, and it was not cut off."""
    return not self.steps or (self.steps[-1].ended and bool(self.final.strip()))

  def record(self) -> dict:
    """The transcript as JSON; prompt and response are those to train on."""
    prompt = self.prompt if isinstance(self.prompt, str) else list(self.prompt)
    return {'prompt': prompt, 'response': self.final, 'first': self.response,
            'steps': [dataclasses.asdict(step) for step in self.steps]}


def read_constitution(path: str | os.PathLike[str]) -> list[Principle]:
  """The principles of a text file, in its order.

  Raises:
    InputError: no file, no principle in it, a request before its principle, one
      given twice, or a choice that does not show both responses.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_text('utf-8-sig')
  except OSError as error:
    raise types.InputError(f'{path}: {error.strerror}; give a text file of '
                           'principles') from error
  except UnicodeDecodeError as error:
    raise types.InputError(
        f'{path}: not UTF-8 at byte {error.start}; save it as UTF-8') from error
  principles, lines, requests = [], [], {}

  def end(number):
    if requests and not lines:
      raise types.InputError(
          f'{path}:{number - 1}: {next(iter(requests))}: stands before any '
          'principle; write the principle first')
    if lines:
      principles.append(Principle(' '.join(lines), **requests))
    lines.clear()
    requests.clear()

  for number, line in enumerate(text.splitlines() + [''], start=1):
    line = line.strip()
    key, colon, value = line.partition(':')
    if line.startswith('#'):
      continue
    if not line:
      end(number)
    elif colon and key in _KEYS:
      _check_request(key, value.strip(), requests, f'{path}:{number}')
      requests[key] = value.strip()
    else:
      lines.append(line)
  if not principles:
    raise types.InputError(f'{path}: no principle in it; write one, as a '
                           'paragraph')
  return principles


def revise(
    prompts: Sequence[chat.Prompt], responses: Sequence[str],
    principles: Sequence[Principle],
    reply: Callable[[Sequence[chat.Prompt], int], Sequence[Reply]], *,
    rounds: int = 1, seed: int = 0, first: int = 0,
) -> list[Transcript]:
  """Has a model criticise and rewrite responses, by principles drawn for each.

  A prompt's principles are drawn without repetition while there are new ones.
  Each round starts from the prompt and the last revision alone, so that the
  context does not grow.

  Args:
    prompts: [N] what was asked.
    responses: [N] the model's, which the first round is about.
    principles: of the constitution.
    reply: `(conversations, turn) -> [(text, whether it ended by itself)]`; turn
      numbers the calls, for seeds.
    rounds: critiques and revisions of each response, ≥ 0.
    seed: of the principles that are drawn.
    first: number of the first prompt, where a file is done piece by piece.

  Returns:
    A transcript for each prompt, with every critique and revision in it.
  """
  steps = [[] for _ in prompts]
  current = list(responses)
  orders = [_order(len(principles), rounds, f'{seed} {first + i}')
            for i in range(len(prompts))]
  for turn in range(rounds):
    chosen = [principles[order[turn]] for order in orders]
    asked = [
        (*as_messages(prompt), _said('assistant', text),
         _said('user', principle.ask('critique')))
        for prompt, text, principle in zip(
            prompts, current, chosen, strict=True)]
    critiques = [text for text, _ in reply(asked, 2 * turn)]
    again = [
        (*messages, _said('assistant', critique),
         _said('user', principle.ask('revision')))
        for messages, critique, principle in zip(
            asked, critiques, chosen, strict=True)]
    replies = reply(again, 2 * turn + 1)
    current = [text for text, _ in replies]
    for own, principle, critique, (revision, ended) in zip(
        steps, chosen, critiques, replies, strict=True):
      own.append(Step(principle.text, critique, revision, ended))
  return [Transcript(prompt, response, tuple(own)) for prompt, response, own
          in zip(prompts, responses, steps, strict=True)]


def choice_question(principle: Principle, *, think: bool = False) -> Callable[
    [judges.Comparison], tuple[chat.Message, ...]]:
  """The question of AI feedback: which of two follows the principle better?

  Args:
    principle: to choose by.
    think: ask for thoughts, not for the label.
  """

  def question(comparison):
    shown = principle.ask('choice', a=comparison.a, b=comparison.b)
    if think:
      shown = f'{shown} {principle.ask("reason")}'
    *before, last = as_messages(comparison.prompt)
    return (*before, _said('user', f'{last["content"]}\n\n{shown}'))

  return question


def principle_judge(
    principle: Principle,
    label_logprobs: Callable[[Sequence[chat.Prompt]], np.ndarray], *,
    reply: Callable[[Sequence[chat.Prompt]], Sequence[Reply]] | None = None,
    heard: list[dict] | None = None,
) -> judges.Judge:
  """A judge that chooses by a principle, after thinking aloud if it may.

  Args:
    principle: to choose by.
    label_logprobs: as for `judges.label_judge`, of the labels 1 and 2.
    reply: the model's thoughts (chain of thought); without it, none.
    heard: is given a transcript of each: prompt, a, b, thoughts and margin.

  Returns:
    A judge in both orders, each with thoughts of its own.
  """
  if reply is None:
    return judges.label_judge(label_logprobs, choice_question(principle))

  def ask(comparisons):
    asked = [choice_question(principle, think=True)(c) for c in comparisons]
    thoughts = [text for text, _ in reply(asked)]
    logprobs = label_logprobs([
        (*messages, _said('assistant', text),
         _said('user', principle.ask('decide')))
        for messages, text in zip(asked, thoughts, strict=True)])
    margins = logprobs[:, 0] - logprobs[:, 1]
    if heard is not None:
      heard.extend(
          {'principle': principle.text, **c._asdict(), 'thoughts': text,
           'margin': float(margin)} for c, text, margin in zip(
               comparisons, thoughts, margins, strict=True))
    return margins

  return judges.both_orders(ask)


def as_messages(prompt: chat.Prompt) -> tuple[chat.Message, ...]:
  """A prompt as messages: a text is what a user says."""
  return (_said('user', prompt),) if isinstance(prompt, str) else tuple(prompt)


def _said(role: str, text: str) -> chat.Message:
  return {'role': role, 'content': text}


def _order(count: int, rounds: int, seed: str) -> list[int]:
  """Which principle each round has: all once, before any comes again."""
  rng = random.Random(f'principles {seed}')
  drawn = []
  while len(drawn) < rounds:
    drawn += rng.sample(range(count), count)
  return drawn


def _check_request(key, value, requests, where) -> None:
  """A request says something, once, and shows what it is about."""
  if not value or key in requests:
    raise types.InputError(
        f'{where}: {key}: is {"given twice" if value else "empty"}; give one '
        'request')
  if key == 'choice' and not ('{a}' in value and '{b}' in value):
    raise types.InputError(
        f'{where}: choice: shows not both responses; write {{a}} and {{b}} '
        'where they belong')
