"""Files of benchmarks as they are published, and the numbers that they give.

    choices       HHH and its like: {"input", "target_scores": {choice: 0 | 1}},
                  or {"prompt", "choices": [...], "answer": index}
    problems      GSM8K: {"question", "answer": "... #### 42"}
    instructions  IFEval: {"prompt", "instruction_id_list", "kwargs"}
    pairs         RewardBench: {"prompt", "chosen", "rejected", "subset"}
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any, NamedTuple

import numpy as np

from alignjax import data
from alignjax import feedback
from alignjax import types
from alignjax.data import chat
from alignjax.data import records
from alignjax.evaluation import bootstrap
from alignjax.evaluation import instructions
from alignjax.evaluation import winrates


class Question(NamedTuple):
  """Multiple choice."""

  prompt: str
  choices: tuple[str, ...]
  right: frozenset[int]  # Indices of the right ones.
  group: str = ''        # Of HHH: helpful, honest, harmless, other.


class Pair(NamedTuple):
  """A pair of a benchmark for reward models."""

  prompt: chat.Prompt
  chosen: str
  rejected: str
  subset: str


def read_choices(path: str | os.PathLike[str]) -> list[Question]:
  """The questions of a file.

  Raises:
    InputError: a record that is no question, or has no right choice.
  """
  questions = []
  for line, record in data.read_records(path):
    where = f'{path}:{line}'
    if 'target_scores' in record:
      scores = _field(record, 'target_scores', dict, where)
      prompt = _field(record, 'input', str, where)
      choices = tuple(scores)
      right = {i for i, s in enumerate(scores.values()) if s == 1}
    else:
      prompt = _field(record, 'prompt', str, where)
      choices = tuple(_field(record, 'choices', list, where))
      right = {_field(record, 'answer', int, where)}
    if len(choices) < 2 or not right or not right < set(range(len(choices))):
      raise types.InputError(
          f'{where}: {len(choices)} choices, of which {sorted(right)} are '
          'right; give two or more, some of them right')
    questions.append(Question(prompt, choices, frozenset(right),
                              str(record.get('subset', ''))))
  return questions


def read_problems(path: str | os.PathLike[str]) -> list[tuple[str, float]]:
  """(question, final number) of a file of word problems.

  Raises:
    InputError: a record without question, or whose answer ends in no number.
  """
  problems = []
  for line, record in data.read_records(path):
    where = f'{path}:{line}'
    number = feedback.final_number(_field(record, 'answer', str, where))
    if number is None:
      raise types.InputError(f"{where}: field 'answer' has no number; end it "
                             'in #### and the number')
    problems.append((_field(record, 'question', str, where), number))
  return problems


def read_instructions(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The rows of a file of checkable instructions.

  Raises:
    InputError: a record that is no such row, or names an unknown instruction.
  """
  rows = []
  for line, record in data.read_records(path):
    where = f'{path}:{line}'
    _field(record, 'prompt', str, where)
    names = _field(record, 'instruction_id_list', list, where)
    settings = _field(record, 'kwargs', list, where)
    known = {*instructions.CHECKS, *instructions.UNCHECKED}
    unknown = [name for name in names
               if not isinstance(name, str) or name not in known]
    if unknown or len(names) != len(settings) or not names:
      raise types.InputError(
          f'{where}: {len(names)} instructions with {len(settings)} kwargs, of '
          f'which {records.show(unknown)} are unknown; give one of each, known '
          'ones')
    rows.append(record)
  return rows


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
  """The pairs of a file for reward models.

  Raises:
    InputError: a record that is no pair.
  """
  pairs = []
  for line, record in data.read_records(path):
    where = f'{path}:{line}'
    prompt = record.get('prompt')
    prompt = (chat.read_messages(prompt, 'prompt', where)
              if isinstance(prompt, list) else
              _field(record, 'prompt', str, where))
    pairs.append(Pair(
        prompt, _field(record, 'chosen', str, where),
        _field(record, 'rejected', str, where),
        str(record.get('subset') or 'all')))
  return pairs


def choice_accuracy(
    questions: Sequence[Question], logprobs: Sequence[Sequence[float]],
    tokens: Sequence[Sequence[int]],
) -> dict[str, Any]:
  """How often the likeliest choice is right.

  Args:
    questions: [N].
    logprobs: [N][choices] nats of each choice after the prompt.
    tokens: [N][choices] of them.

  Returns:
    `accuracy` by the sum, `accuracy_by_token` by the mean per token, each with
    its exact interval, and `by_group` where there are groups.
  """
  right = {'accuracy': [], 'accuracy_by_token': []}
  for question, sums, lengths in zip(questions, logprobs, tokens, strict=True):
    sums, lengths = np.asarray(sums), np.asarray(lengths)
    right['accuracy'].append(int(np.argmax(sums)) in question.right)
    right['accuracy_by_token'].append(
        int(np.argmax(sums / lengths)) in question.right)
  result = {}
  for name, values in right.items():
    result |= _share(name, values)
  groups = sorted({q.group for q in questions} - {''})
  if groups:
    result['by_group'] = {group: float(np.mean([
        x for x, q in zip(right['accuracy'], questions, strict=True)
        if q.group == group])) for group in groups}
  return result | {'count': len(questions)}


def exact_match(problems: Sequence[tuple[str, float]],
                responses: Sequence[str]) -> dict[str, Any]:
  """How often a response's final number is the right one, with its interval."""
  right = [feedback.final_number(text) == number for (_, number), text in zip(
      problems, responses, strict=True)]
  return _share('exact_match', right) | {'count': len(right)}


def subset_accuracy(pairs: Sequence[Pair], chosen: Sequence[float],
                    rejected: Sequence[float]) -> dict[str, Any]:
  """A reward model's accuracy on each subset, and their plain mean.

  Returns:
    `accuracy` over all pairs with its interval, `mean_of_subsets`, and
    `subsets`; equal rewards count half.
  """
  right = bootstrap.win_scores(chosen, rejected)
  subsets = {}
  for pair, value in zip(pairs, right, strict=True):
    subsets.setdefault(pair.subset, []).append(value)
  means = {name: float(np.mean(values)) for name, values in subsets.items()}
  return {
      'accuracy': float(np.mean(right)),
      'accuracy_interval': list(bootstrap.bootstrap_interval(right)),
      'mean_of_subsets': float(np.mean(list(means.values()))),
      'subsets': means, 'count': len(pairs)}


def _share(name: str, values: Sequence[bool]) -> dict[str, Any]:
  """A share and its exact interval."""
  return {name: float(np.mean(values)),
          f'{name}_interval': list(winrates.share_interval(
              int(np.sum(values)), len(values)))}


def _field(record: Mapping[str, Any], name: str, kind: type, where: str):
  """A field of its type."""
  value = record.get(name)
  if not isinstance(value, kind) or isinstance(value, bool):
    word = {str: 'text', dict: 'an object', list: 'a list',
            int: 'a whole number'}[kind]
    raise types.InputError(f"{where}: field '{name}' is {records.show(value)}; "
                           f'it must be {word}')
  return value
