"""What a file of rows holds, and what training would make of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import numpy as np

from alignjax import data
from alignjax import hf
from alignjax.commands import marks
from alignjax.commands import models
from alignjax.data import rows as data_rows
from alignjax.data import rules as data_rules
from alignjax.data import shapes
from alignjax.types import InputError

Facts = dict[str, Any]  # What JSON can hold.

_PERCENTS = 5, 50, 95, 99
_NO_LIMIT = 2**31


class Kind(NamedTuple):
  """What rows are read as."""

  name: str
  read: Callable
  tokenize: Callable
  responses: Callable[[Any], dict[str, list[str]]]  # By what they are.
  rows: Callable[[Any], dict[str, Any]]  # Of tokens, by the same names.


# Tried in this order: the first that can use the shape.
_KINDS = (
    Kind('preference pairs', data.preferences, data.tokenize_preferences,
         lambda item: {'chosen': [item.chosen], 'rejected': [item.rejected]},
         lambda pair: {'chosen': pair.chosen, 'rejected': pair.rejected}),
    Kind('labelled responses', data.unpaired, data.tokenize_unpaired,
         lambda item: {_label(item): [item.response]},
         lambda label: {_label(label): label.row}),
    Kind('rankings', data.rankings, data.tokenize_rankings,
         lambda item: {'response': list(item.responses)},
         lambda ranking: {
             f'response {i}, rank {rank}': row for i, (row, rank) in enumerate(
                 zip(ranking.rows, ranking.ranks, strict=True), start=1)}),
    Kind('demonstrations', data.demonstrations, data.tokenize_demonstrations,
         lambda item: {'response': [item.response]},
         lambda row: {'response': row}),
    Kind('prompts', data.prompts, data.tokenize_prompts,
         lambda item: {}, lambda row: {'prompt': row}),
)


def _label(item) -> str:
  return 'desirable' if item.desirable else 'undesirable'


class _Remembering:
  """A tokenizer that encodes each text once; the rules run more than once."""

  def __init__(self, tokenizer: hf.Tokenizer):
    self.bos_id, self.eos_id = tokenizer.bos_id, tokenizer.eos_id
    self.pad_id, self.encode = tokenizer.pad_id, tokenizer.encode
    self._tokenizer, self._known = tokenizer, {}

  def all_prompt_tokens(self, prompts, *, plain=False) -> list[list[int]]:
    keys = [('prompt', plain, prompt if isinstance(prompt, str) else tuple(
        (turn['role'], turn['content']) for turn in prompt))
            for prompt in prompts]
    return self._get(keys, prompts, lambda new: (
        self._tokenizer.all_prompt_tokens(new, plain=plain)))

  def all_response_tokens(self, responses) -> list[list[int]]:
    keys = [('response', response) for response in responses]
    return self._get(keys, responses, self._tokenizer.all_response_tokens)

  def prompt_tokens(self, prompt, *, plain=False) -> list[int]:
    return self.all_prompt_tokens([prompt], plain=plain)[0]

  def response_tokens(self, response) -> list[int]:
    return self.all_response_tokens([response])[0]

  def conversation_tokens(self, messages, *, add_generation_prompt=False):
    return self._tokenizer.conversation_tokens(
        messages, add_generation_prompt=add_generation_prompt)

  def _get(self, keys, texts, encode) -> list[list[int]]:
    new = {key: text for key, text in zip(keys, texts, strict=True)
           if key not in self._known}
    self._known |= {key: np.asarray(ids, np.int32) for key, ids in zip(
        new, encode(list(new.values())), strict=True)}
    return [self._known[key].tolist() for key in keys]


def read(path: str | os.PathLike, split: str) -> tuple[Kind, list, Any]:
  """(kind, items, reading) of a file, by the first reader that can use it."""
  for kind in _KINDS:
    try:
      # Everything may be dropped here: this is where one looks why.
      items, reading = kind.read(path, split=split, max_dropped=1.0)
    except data_rules.WrongShape:
      continue
    if kind.name == 'preference pairs' and reading.format in shapes.RANKINGS:
      continue  # Pairs of them can be had, but K ranked is what they are.
    return kind, items, reading
  raise InputError(
      f'{path}: the rows hold texts alone, which only pretraining reads; there '
      'is nothing to show of prompts and responses')


def describe_data(
    path: str | os.PathLike, *, split: str, tokenizer: hf.Tokenizer | None,
    max_length: int | None, plain: bool, turns: data.Turns, row: int | None,
) -> Facts:
  """Facts of a file, or of a folder that a TFDS builder wrote.

  Args:
    path: of the file.
    split: of a TFDS folder.
    tokenizer: counts in its tokens; None counts characters and words.
    max_length: tokens that a row may have; needs a tokenizer.
    plain: leave the chat template out.
    turns: which of the assistant's turns bear loss in demonstrations.
    row: the line to show; None shows the first that is kept.
  """
  kind, items, reading = read(path, split)
  if kind.tokenize is data.tokenize_demonstrations and tokenizer:
    # A transcript ends no turn but its last.
    turns = turns if tokenizer.chat_template else 'last'
    kind = kind._replace(
        tokenize=functools.partial(kind.tokenize, turns=turns))
  num_rows = len({item.where for item in items}) + len(reading.dropped)
  facts: Facts = {
      'kind': kind.name, 'path': str(path), 'schema': reading.format.value,
      'rows': num_rows, 'items': len(items),
      'dropped': _by_reason(reading.dropped)} | _repeats(items)
  facts['numbers'] = _numbers(items)
  facts |= _balance(kind, items)
  remembering = tokenizer and _Remembering(tokenizer)
  if tokenizer is None:
    facts['lengths'] = {
        unit: _text_lengths(kind, items, size) for unit, size in (
            ('characters', len), ('words', lambda text: len(text.split())))}
  else:
    rows, _ = kind.tokenize(items, remembering, max_length=_NO_LIMIT,
                            plain=plain)
    facts['lengths'] = {'tokens': _token_lengths(kind, rows)}
    if max_length is not None:
      facts['fit'] = _fit(kind, items, remembering, max_length, plain)
  item = _pick(items, reading.dropped, row, path)
  facts['example'] = _example(kind, item, tokenizer, max_length, plain)
  return facts


def _by_reason(dropped: Iterable[tuple[str, str]]) -> list[Facts]:
  """Each reason with its count and its first lines, the most common first."""
  lines = {}
  for reason, where in dropped:
    lines.setdefault(reason, []).append(where.rpartition(':')[2])
  return [{'reason': reason, 'count': len(found), 'lines': found[:5]}
          for reason, found in sorted(
              lines.items(), key=lambda pair: -len(pair[1]))]


def _repeats(items: Sequence) -> Facts:
  """Rows that say again what another says, and prompts asked again."""
  prompts = [data.PromptOnly(item.prompt, item.where) for item in items]
  _, again = data.without_duplicates(prompts)
  _, rows = data.without_duplicates(items)
  return {'duplicate_prompts': len(again), 'duplicates': _by_reason(rows)}


def _numbers(items: Sequence) -> Facts:
  """Whatever numbers the rows carry, such as a preference's strength."""
  found = {}
  for field in dataclasses.fields(items[0]):
    values = [getattr(item, field.name) for item in items]
    values = [v for v in values
              if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if values and any(values):
      found[field.name] = {
          'rows': len(values), 'min': min(values),
          'median': float(np.median(values)), 'max': max(values),
          'zero': sum(v == 0 for v in values)}
  return found


def _balance(kind: Kind, items: Sequence) -> Facts:
  """Labels, ties, and whether the better response is the longer one."""
  match items[0]:
    case data.Unpaired():
      return {'labels': dict(Counter(map(_label, items)))}
    case data.Preference():
      longer = [len(item.chosen) - len(item.rejected) for item in items]
      return {'chosen_longer': sum(d > 0 for d in longer),
              'equally_long': sum(d == 0 for d in longer)}
    case data.Ranking():
      return {'ranked': dict(sorted(Counter(
          len(item.responses) for item in items).items())),
              'with_ties': sum(len(set(item.ranks)) < len(item.ranks)
                               for item in items)}
  return {}


def _text_lengths(kind: Kind, items: Sequence, size: Callable) -> Facts:
  """Percentiles of the texts' sizes."""
  found = {'prompt': []}
  for item in items:
    prompt = sum(size(turn['content'])
                 for turn in data_rows.as_turns(item.prompt))
    found['prompt'].append(prompt)
    longest = 0
    for name, texts in kind.responses(item).items():
      found.setdefault(name, []).extend(map(size, texts))
      longest = max(longest, *map(size, texts))
    found.setdefault('total', []).append(prompt + longest)
  return _percentiles(found)


def _token_lengths(kind: Kind, rows: Sequence) -> Facts:
  """Percentiles in tokens: BOS, template and EOS included."""
  found = {'prompt': []}
  for row in rows:
    sides = kind.rows(row)
    starts = [getattr(side, 'prompt_length', len(side.tokens))
              for side in sides.values()]
    found['prompt'].append(starts[0])
    for name, side in sides.items():
      if name != 'prompt':
        found.setdefault(name.partition(' ')[0], []).append(
            len(side.tokens) - starts[0])
    found.setdefault('total', []).append(
        max(len(side.tokens) for side in sides.values()))
  return _percentiles(found)


def _percentiles(found: dict[str, list[int]]) -> Facts:
  """Of each list: lengths that occur in it, the longest last; total last."""
  if len(found) == 2:  # Prompts alone are their own total.
    found.pop('total')
  total = found.pop('total', None)
  found |= {} if total is None else {'total': total}
  return {name: {**{f'p{p}': int(np.percentile(
      values, p, method='inverted_cdf')) for p in _PERCENTS},
                 'max': max(values)} for name, values in found.items()}


def _fit(kind: Kind, items, tokenizer, max_length: int, plain: bool) -> Facts:
  """What is cut and what is dropped at a length."""
  fit = lambda rule: kind.tokenize(
      items, tokenizer, max_length=max_length, plain=plain,
      long_prompts=rule)[1]
  facts: Facts = {'max_length': max_length}
  try:
    fitted = fit('auto')
  except InputError as error:  # More is dropped than a run puts up with.
    facts['refused'] = str(error)
    try:
      fitted = fit('drop')
    except InputError as nothing:
      return facts | {'kept': 0, 'refused': str(nothing), 'cut': [],
                      'dropped': []}
  return facts | {'kept': fitted.num_rows,
          'cut': _by_reason([('response loses its end', where)
                             for where in fitted.cut_responses]),
          'dropped': _by_reason(fitted.dropped)}


def _pick(items: Sequence, dropped, row: int | None, path):
  """The item of a line, or the first."""
  if row is None:
    return items[0]
  where = f'{path}:{row}'
  for item in items:
    if item.where == where:
      return item
  for reason, at in dropped:
    if at == where:
      raise InputError(f'{where}: the row is dropped ({reason}); choose '
                       'another --row')
  raise InputError(f'row={row}: {path} has no row on that line; choose another '
                   '--row')


def _example(
    kind: Kind, item, tokenizer: hf.Tokenizer | None, max_length: int | None,
    plain: bool,
) -> Facts:
  """A row's sides in pieces, cut as training would cut them."""
  facts: Facts = {'where': item.where}
  if tokenizer is None:
    prompt = '\n'.join(f'{turn["role"]}: {turn["content"]}'
                       for turn in data_rows.as_turns(item.prompt)) + '\n'
    sides = {name: [marks.Piece(prompt, False, False),
                    marks.Piece(text, True, False)]
             for name, text in _texts(kind, item).items()}
    sides = sides or {'prompt': [marks.Piece(prompt, False, False)]}
  else:
    try:
      rows, _ = kind.tokenize([item], tokenizer, plain=plain,
                              max_length=max_length or _NO_LIMIT,
                              long_prompts='drop')
    except InputError as error:
      facts['problem'] = f'dropped by training, shown whole: {error}'
      rows, _ = kind.tokenize([item], tokenizer, max_length=_NO_LIMIT,
                              plain=plain)
    special = models.special_texts(tokenizer)
    sides = {name: marks.row_pieces(side, tokenizer, special)
             for name, side in kind.rows(rows[0]).items()}
  return facts | {'sides': {
      name: [piece._asdict() for piece in pieces]
      for name, pieces in sides.items()}}


def _texts(kind: Kind, item) -> dict[str, str]:
  """A row's responses, each under a name of its own."""
  named = {}
  for name, texts in kind.responses(item).items():
    for i, text in enumerate(texts, start=1):
      named[name if len(texts) == 1 else f'{name} {i}'] = text
  return named
