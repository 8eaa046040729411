"""Facts as lines for people: a label, and what there is to say of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import rich.console

from alignjax.commands import marks

Facts = dict[str, Any]
_WIDTH = 16  # Of the labels.
_MOST = 12  # Numbers of a run that are shown.


def lines(facts: Facts, console: rich.console.Console | None) -> list[str]:
  """The lines of any facts; colours need a console."""
  match facts['kind']:
    case 'language model' | 'reward model':
      said = _model(facts)
    case 'adapter':
      said = _adapter(facts)
    case 'run':
      said = _run(facts)
    case _:
      said = _data(facts, console)
  return [f'{label:<{_WIDTH}}{line}'.rstrip()
          for label, text in said
          for label, line in _hang(label, text)]


def _hang(label: str, text: str) -> Iterator[tuple[str, str]]:
  """Only the first line of several has the label."""
  for line in text.split('\n'):
    yield label, line
    label = ''


def _model(facts: Facts) -> Iterator[tuple[str, str]]:
  named = ', '.join(facts['architectures'] or []) or 'no architecture named'
  yield facts['kind'], f'{facts["folder"]}: {facts["family"]} ({named})'
  if 'quantized' in facts:
    yield 'quantized', f'{facts["quantized"]}; such weights are not read'
  if 'shape' in facts:
    yield from _shape(facts['shape'])
  if 'weights' in facts:
    yield from _weights(facts['weights'])
  if 'tokenizer' in facts:
    yield from _tokenizer(facts['tokenizer'])
  yield 'stops at', ', '.join(map(str, facts['stops'])) or 'no id is named'
  yield from _problems(facts)


def _shape(shape: Facts) -> Iterator[tuple[str, str]]:
  heads = f'{shape["heads"]} heads of {shape["head_dim"]}'
  if shape['kv_heads'] != shape['heads']:
    heads += f' sharing {shape["kv_heads"]} keys and values'
  yield 'layers', (
      f'{shape["layers"]} of width {shape["hidden_size"]:,}, {heads}, '
      f'{"gated " if shape["gated_mlp"] else ""}MLP of '
      f'{shape["intermediate_size"]:,} ({shape["activation"]})')
  extras = [f'{shape["norm"]} norms {shape["norms"]}']
  if shape['qk_norm'] != 'none':
    extras.append('norms of queries and keys')
  if shape['attention_bias'] != 'none':
    extras.append(f'attention biases ({shape["attention_bias"]})')
  if shape['mlp_bias']:
    extras.append('MLP biases')
  yield '', ', '.join(extras)
  for kind in shape['attention']:
    yield 'attention', _attention(kind, shape['layers'])
  yield 'positions', f'{shape["max_positions"]:,}'
  tied = 'tied to' if shape['tied_embeddings'] else 'apart from'
  yield 'embedding', (f'{shape["vocab_size"]:,} ids of width '
                      f'{shape["hidden_size"]:,}, {tied} the unembedding')


def _attention(kind: Facts, num_layers: int) -> str:
  window, rope = kind['window'], kind['rope']
  text = 'all layers' if len(kind['layers']) == num_layers else (
      f'layers {_ranges(kind["layers"])}')
  text += f': the last {window:,} tokens' if window else ': all tokens so far'
  if rope is None:
    return text + ', no RoPE'
  text += f', RoPE θ={rope["theta"]:,.0f}'
  if rope['fraction'] < 1:
    text += f' on {rope["fraction"]:.0%} of a head'
  if rope['scaling']:
    numbers = ', '.join(f'{name}={value:g}' for name, value in
                        rope['scaling'].items() if name != 'kind')
    text += f', {rope["scaling"]["kind"]} ({numbers})'
  return text


def _ranges(numbers: Sequence[int]) -> str:
  """'0-3, 5' of 0, 1, 2, 3, 5."""
  parts, start = [], numbers[0]
  for number, after in zip(numbers, [*numbers[1:], None]):
    if after != number + 1:
      parts.append(f'{start}-{number}' if number > start else f'{start}')
      start = after
  return ', '.join(parts)


def _weights(weights: Facts) -> Iterator[tuple[str, str]]:
  total = weights['parameters']
  text = f'{total:,}'
  if weights['embedding_parameters']:
    text += f', of these {weights["embedding_parameters"]:,} embeddings'
  if sizes := weights['layer_parameters']:
    text += ', ' + (f'{sizes[0]:,}' if len(sizes) == 1 else
                    f'{sizes[0]:,} to {sizes[-1]:,}') + ' a layer'
  yield 'parameters', text
  dtypes = weights['dtypes']
  named = ', '.join(
      name if len(dtypes) == 1 else f'{name} ({count / total:.1%})'
      for name, count in dtypes.items())
  yield 'weights', (f'{named}; {_size(weights["bytes"])} in '
                    f'{_count(weights["files"], "file")}, '
                    f'{_count(weights["tensors"], "tensor")}')


def _tokenizer(facts: Facts) -> Iterator[tuple[str, str]]:
  size, model = facts['vocab_size'], facts['model_vocab_size']
  text = f'{size:,} ids'
  if model is not None and size > model:
    text += f', which is more than the model\'s {model:,}'
  elif model is not None and size < model:
    text += f', {model - size:,} fewer than the model has'
  yield 'tokenizer', text
  yield 'special', ', '.join(
      f'{name} {named["text"]} ({named["id"]})'
      for name, named in facts['named'].items())
  known = {named['id'] for named in facts['named'].values()}
  rest = [token for token in facts['special'] if token['id'] not in known]
  if rest:
    shown = ', '.join(f'{token["text"]} ({token["id"]})' for token in rest[:6])
    yield '', shown + (f', and {len(rest) - 6} more' if len(rest) > 6 else '')
  yield 'BOS', ('before a plain text' if facts['adds_bos'] else
                'not before a plain text') + (
                    '; a chat has what its template writes'
                    if facts['has_chat_template'] else '')
  if 'chat_problem' in facts:
    yield 'chat template', f'fails on a chat: {facts["chat_problem"]}'
  elif facts['has_chat_template']:
    yield 'chat template', _framed(facts['chat_example'])
  else:
    yield 'chat template', 'none; chats are written as plain transcripts'


def _framed(text: str) -> str:
  """Text of several lines, its line ends shown."""
  return marks.visible(text).replace('\n', '⏎\n')


def _adapter(facts: Facts) -> Iterator[tuple[str, str]]:
  yield 'adapter', f'{facts["folder"]}: {facts["peft_type"]}, {facts["task"]}'
  yield 'base', str(facts['base'])
  scale = 'alpha/√rank' if facts['rank_stabilised'] else 'alpha/rank'
  yield 'rank', (f'{facts["rank"]}, alpha {facts["alpha"]} '
                 f'(counts {scale} times)')
  targets = facts['targets']
  yield 'targets', targets if isinstance(targets, str) else ', '.join(
      targets or ['none named'])
  if facts['has_head']:
    yield 'head', 'of a reward model, saved whole'
  if 'weights' in facts:
    yield from _weights(facts['weights'])
  yield from _problems(facts)


def _problems(facts: Facts) -> Iterator[tuple[str, str]]:
  for problem in facts['problems']:
    yield 'problem', problem


def _run(facts: Facts) -> Iterator[tuple[str, str]]:
  yield 'run', f'{facts["folder"]}: {facts["experiment"]}'
  yield 'model', str(facts['model'])
  yield 'data', str(facts['data'])
  step = facts['last_checkpoint']
  saved = 'no checkpoint' if step is None else f'checkpoint of step {step:,}'
  yield 'state', ('done' if facts['is_done'] else
                  'not done; the same command with --resume goes on') + (
                      f', {saved}')
  for label, values in (('last step', facts['last_metrics'] or {}),
                        ('summary', facts['summary'])):
    said = [f'{name} {_number(value)}' for name, value in values.items()
            if name != 'stage']
    if said:
      more = len(said) - _MOST
      yield label, ', '.join(said[:_MOST]) + (
          f', and {more} more' if more > 0 else '')
  for folder in facts['folders']:
    yield 'inside', f'{folder} (alignjax inspect {folder})'


def _number(value) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _data(
    facts: Facts, console: rich.console.Console | None
) -> Iterator[tuple[str, str]]:
  yield 'rows', f'{facts["path"]}: {facts["schema"]}, read as {facts["kind"]}'
  yield 'count', f'{facts["rows"]:,} rows, {facts["items"]:,} {facts["kind"]}'
  yield 'dropped', _reasons(facts['dropped'])
  if 'refused' in facts:
    yield 'refused', facts['refused']
  again, items = facts['duplicate_prompts'], facts['items']
  yield 'repeated', (f'{again:,} prompts ({again / items:.1%}); rows: '
                     f'{_reasons(facts["duplicates"])}')
  if 'labels' in facts:
    yield 'labels', ', '.join(
        f'{count:,} {name} ({count / items:.1%})'
        for name, count in facts['labels'].items())
  if 'chosen_longer' in facts:
    yield 'chosen is', (
        f'longer in characters in {facts["chosen_longer"] / items:.1%} of the '
        f'pairs, equally long in {facts["equally_long"] / items:.1%}')
  if 'ranked' in facts:
    sizes = ', '.join(f'{count:,} of {k}' for k, count
                      in facts['ranked'].items())
    yield 'responses', f'{sizes}; {facts["with_ties"]:,} rankings have ties'
  for name, number in facts['numbers'].items():
    yield name, (
        f'from {number["min"]:g} to {number["max"]:g}, median '
        f'{number["median"]:g}, zero in {number["zero"]:,} of '
        f'{number["rows"]:,}')
  for unit, found in facts['lengths'].items():
    yield from _lengths(unit, found)
  if 'fit' in facts:
    yield from _fit(facts['fit'])
  yield from _example(facts['example'], console)


def _lengths(unit: str, found: Facts) -> Iterator[tuple[str, str]]:
  columns = list(next(iter(found.values())))
  yield unit, ''.join(f'{name:>9}' for name in columns)
  for name, values in found.items():
    yield f'  {name}', ''.join(f'{values[c]:>9,}' for c in columns)


def _fit(fit: Facts) -> Iterator[tuple[str, str]]:
  yield 'fit', f'{fit["kept"]:,} kept at max_length={fit["max_length"]:,}'
  if 'refused' in fit:
    yield '', f'a run refuses this: {fit["refused"]}'
  yield '  cut', _reasons(fit['cut'])
  yield '  dropped', _reasons(fit['dropped'])


def _reasons(reasons: Sequence[Facts]) -> str:
  """'4 empty response (lines 87, 517, 629, 1000)'; 'none' if none."""
  parts = []
  for reason in reasons:
    more = ', ...' if reason['count'] > len(reason['lines']) else ''
    word = 'line' if reason['count'] == 1 else 'lines'
    parts.append(f'{reason["count"]:,} {reason["reason"]} ({word} '
                 f'{", ".join(reason["lines"])}{more})')
  return '; '.join(parts) or 'none'


def _example(
    example: Facts, console: rich.console.Console | None
) -> Iterator[tuple[str, str]]:
  marked = 'in colour' if console else 'in [[...]]'
  yield 'example', f'{example["where"]}; what bears loss is {marked}'
  if 'problem' in example:
    yield '', example['problem']
  for name, side in example['sides'].items():
    yield f'  {name}', marks.show([marks.Piece(**p) for p in side], console)


def _size(count: int) -> str:
  """'269.1 MB'."""
  for power, unit in ((3, 'GB'), (2, 'MB'), (1, 'kB')):
    if count >= 1_000**power:
      return f'{count / 1_000**power:,.1f} {unit}'
  return _count(count, 'byte')


def _count(number: int, noun: str) -> str:
  return f'{number:,} {noun}{"" if number == 1 else "s"}'
