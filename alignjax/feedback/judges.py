"""Who judges two responses: a score, a model with a rubric, another server.

A judge is a function of comparisons. What it returns is a margin, positive if
`a` is better, and swapping a and b negates it exactly: a judge that reads the
two one after the other is asked in both orders, of which the mean is taken.

    m(a, b) = ½ (m[a first] − m[b first])

so whatever it pays for standing first cancels (Wang et al., 2023,
https://arxiv.org/abs/2305.17926, call this balanced position calibration).
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import re
import threading
from typing import NamedTuple

import numpy as np

from alignjax import types
from alignjax.data import chat
from alignjax.endpoint import Endpoint


class Comparison(NamedTuple):
  """Two responses to one prompt."""

  prompt: chat.Prompt
  a: str
  b: str


class Verdict(NamedTuple):
  """What a judge makes of a comparison."""

  margin: float  # > 0: a is better; < 0: b; 0: a tie. Log odds of a model's.
  first: float   # The margin read with a first, and
  second: float  # with b first, both towards a. They differ by position bias.

  @property
  def score(self) -> float:
    """1 if a wins, 0.5 for a tie, 0 if b does."""
    return 0.5 + 0.5 * float(np.sign(self.margin))


Judge = Callable[[Sequence[Comparison]], list[Verdict]]
Ask = Callable[[Sequence[Comparison]], Sequence[float]]


def score_judge(
    score: Callable[[Sequence[chat.Prompt], Sequence[str]], Sequence[float]],
) -> Judge:
  """A judge that scores each response by itself: gold, or a reward model.

  Args:
    score: `(prompts, responses) -> [N]`, higher for better.

  Returns:
    Margins s(a) − s(b); for a reward model these are Bradley-Terry log odds.
  """

  def judge(comparisons):
    prompts = [c.prompt for c in comparisons]
    margins = (np.asarray(score(prompts, [c.a for c in comparisons]), float)
               - np.asarray(score(prompts, [c.b for c in comparisons]), float))
    return [Verdict(m, m, m) for m in margins.tolist()]

  return judge


def both_orders(ask: Ask) -> Judge:
  """A judge out of something that reads one response after the other.

  Args:
    ask: margins towards the response that stands first.

  Returns:
    A judge. Each two responses are asked about once, the alphabetically first
    one as a, so that a comparison and its mirror image get one and the same
    answer with opposite signs.
  """

  def judge(comparisons):
    keys = [_canonical(c) for c in comparisons]
    distinct = list({_key(c): c for c, _ in keys}.values())
    mirrored = [Comparison(c.prompt, c.b, c.a) for c in distinct]
    margins = np.asarray(ask(distinct + mirrored), np.float64)
    first, second = margins[:len(distinct)], -margins[len(distinct):]
    found = {_key(c): (x, y) for c, x, y in zip(
        distinct, first.tolist(), second.tolist(), strict=True)}
    verdicts = []
    for comparison, turned in keys:
      x, y = found[_key(comparison)]
      margin = 0.5 * (x + y)
      verdicts.append(Verdict(-margin, -y, -x) if turned else
                      Verdict(margin, x, y))
    return verdicts

  return judge


def label_judge(
    label_logprobs: Callable[[Sequence[chat.Prompt]], np.ndarray],
    question: Callable[[Comparison], chat.Prompt],
) -> Judge:
  """A language model with a rubric: log odds of the verdict's first token.

  Args:
    label_logprobs: `prompts -> [N, 2]` log-probabilities that the answer begins
      with the label of the first, and of the second response.
    question: the prompt that shows both and asks for a label.
  """

  def ask(comparisons):
    logprobs = np.asarray(label_logprobs([question(c) for c in comparisons]))
    return logprobs[:, 0] - logprobs[:, 1]

  return both_orders(ask)


def rubric_question(rubric: str) -> Callable[[Comparison], str]:
  """Shows two responses under a rubric and asks for A or B, in our words."""

  def question(comparison):
    prompt = comparison.prompt
    text = prompt if isinstance(prompt, str) else chat_text(prompt)
    return (
        f'{rubric}\n\n## What the user wrote\n{text}\n\n## Response A\n'
        f'{comparison.a}\n\n## Response B\n{comparison.b}\n\n'
        'Which response is better by the rubric? The order in which they are '
        'shown means nothing. Answer with one letter: A, B, or T if neither '
        'is better.')

  return question


def chat_text(messages: Sequence[chat.Message]) -> str:
  """Messages as text with their roles."""
  return '\n\n'.join(f'{m["role"]}: {m["content"]}' for m in messages)


# The letter alone, or where it is announced; what comes last counts.
_ANNOUNCED = re.compile(
    r'(?:\[\[([ABT])\]\]|\b(?:answer|verdict|better|winner)\b[^A-Za-z]{0,4}'
    r'(?:is[^A-Za-z]{0,4})?(?:response[^A-Za-z]{0,3})?\b([ABT])\b)',
    re.IGNORECASE)


def parse_verdict(text: str) -> float | None:
  """1 for A, −1 for B, 0 for a tie, and None for prose without a verdict.

  "B", "**B**.", "[[A]]", "The answer is B" are verdicts; "A is a letter" is
  none, since nothing says that it means the response.
  """
  alone = re.fullmatch(
      r'[\s*_\[\](){}"\'.:#`]*(?:response\s+)?([ABT])[\s*_\[\](){}"\'.:#`]*',
      text, re.IGNORECASE)
  if alone:
    letter = alone.group(1)
  else:
    found = _ANNOUNCED.findall(text)
    if not found:
      return None
    letter = ''.join(found[-1])
  return {'A': 1.0, 'B': -1.0, 'T': 0.0}[letter.upper()]


class EndpointJudge:
  """A judge behind an OpenAI-compatible server, asked once per question.

  Every answer is written down before the next is waited for, so a run that is
  cut off, or stopped by a server in trouble, goes on without asking again.
  """

  def __init__(
      self, endpoint: Endpoint, model: str, rubric: str, *,
      cache: str | os.PathLike[str], workers: int = 8, tries: int = 3,
      max_tokens: int = 16):
    """Reads what was answered before.

    Args:
      endpoint: of the server; it knows timeouts, repetitions and rates.
      model: its name there.
      rubric: what to judge by.
      cache: JSONL file of answers; made if absent.
      workers: questions at one time.
      tries: how often prose without a verdict is asked again.
      max_tokens: of an answer.
    """
    self._endpoint, self._model = endpoint, model
    self._question, self._tries = rubric_question(rubric), tries
    self._workers, self._max_tokens = workers, max_tokens
    self._cache = AnswerCache(cache)

  def __call__(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Verdicts, in both orders; see `both_orders`.

    Raises:
      InputError: the server is gone, or answers without a verdict; the
        comparison and its answer are named.
    """
    return both_orders(self._ask_all)(comparisons)

  def _ask_all(self, comparisons) -> list[float]:
    """Margins of both orders; the first failure stops what has not begun."""
    with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
      futures = [pool.submit(self._ask, c) for c in comparisons]
      try:
        return [future.result() for future in futures]
      except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise

  def _ask(self, comparison: Comparison) -> float:
    """The margin towards the first, from the cache or the server."""
    question = self._question(comparison)
    key = hashlib.sha256(
        json.dumps([self._model, question]).encode()).hexdigest()[:24]
    known = self._cache.get(key)
    if known is not None:
      return known
    for attempt in range(self._tries):
      # Another seed, or the same prose would come again.
      answer = self._endpoint.ask('/v1/chat/completions', {
          'model': self._model, 'temperature': 0 if not attempt else 1,
          'seed': attempt, 'max_tokens': self._max_tokens,
          'messages': [{'role': 'user', 'content': question}]})
      text = _content(answer, self._endpoint.url)
      margin = parse_verdict(text)
      if margin is not None:
        self._cache.put(key, margin, text)
        return margin
    shown = comparison.prompt if isinstance(
        comparison.prompt, str) else chat_text(comparison.prompt)
    raise types.InputError(
        f'judge={self._endpoint.url} gives no verdict on {shown!r:.60}, asked '
        f'{self._tries} times: it answers {text!r:.80} instead of A, B or T; '
        'take a model that follows the rubric. Verdicts so far are kept')


class AnswerCache:
  """Answers by key in a JSONL file that is only ever added to."""

  def __init__(self, path: str | os.PathLike[str]):
    """Reads the file; a last line that was cut off is dropped.

    Raises:
      InputError: another line of it is damaged.
    """
    self._path, self._lock = pathlib.Path(path), threading.Lock()
    self._answers = {}
    text = self._path.read_bytes() if self._path.exists() else b''
    whole = text[:text.rfind(b'\n') + 1]
    if len(whole) < len(text):
      self._path.write_bytes(whole)
    for number, line in enumerate(whole.splitlines(), start=1):
      try:
        record = json.loads(line)
        key, margin = record['key'], float(record['margin'])
        if not isinstance(key, str) or not math.isfinite(margin):
          raise ValueError('no text as key, or no finite margin')
        self._answers[key] = margin
      except (ValueError, KeyError, TypeError, OverflowError,
              RecursionError) as error:
        raise types.InputError(
            f'{self._path}:{number}: no answer of a judge ({error!s:.80}); '
            'take the line out, and it is asked again') from error

  def __len__(self) -> int:
    return len(self._answers)

  def get(self, key: str) -> float | None:
    """The answer to a question, if there is one."""
    return self._answers.get(key)

  def put(self, key: str, margin: float, text: str) -> None:
    """Writes an answer to the disk."""
    line = json.dumps({'key': key, 'margin': margin, 'text': text}) + '\n'
    with self._lock:
      with self._path.open('a') as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
      self._answers[key] = margin


def _content(answer: dict, url: str) -> str:
  """The text of a chat completion."""
  try:
    text = answer['choices'][0]['message']['content']
  except (KeyError, IndexError, TypeError):
    text = None
  if not isinstance(text, str):
    raise types.InputError(
        f'judge={url} answers without choices[0].message.content: '
        f'{json.dumps(answer)[:120]}; is it a chat model\'s server?')
  return text


def _canonical(comparison: Comparison) -> tuple[Comparison, bool]:
  """The comparison with the smaller text as a, and whether that turned it."""
  turned = comparison.b < comparison.a
  return (Comparison(comparison.prompt, comparison.b, comparison.a)
          if turned else comparison), turned


def _key(comparison: Comparison):
  prompt = comparison.prompt
  return (prompt if isinstance(prompt, str) else json.dumps(prompt),
          comparison.a, comparison.b)
