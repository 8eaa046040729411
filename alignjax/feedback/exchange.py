"""Items and answers as Label Studio and Argilla write them.

Label Studio: a JSON array of tasks. Of an item we make a task for its `Ranker`
(K responses), `Pairwise` (two) or `Choices` (a thumb) tag; of an export we read
the annotations with these results.

    {"id": 1, "data": {"id": ..., "prompt": ..., "items": [{"id": "0", "body":
     ...}, ...]}, "annotations": [{"completed_by": 7, "was_cancelled": false,
     "result": [{"type": "ranker", "value": {"ranker": {"rank": ["2", "0"]}}}]
     }]}

Argilla: records with text fields prompt, response_1 ... response_K, and a
ranking question `ranking` (or a label question `thumb`), as its `to_json` of
version 2 writes them; responses in the shape of version 1 are read too.

    {"id": ..., "fields": {...}, "responses": {"ranking": [{"user_id": ...,
     "value": ["response_2", "response_1"]}]}}
"""

from collections.abc import Iterator, Sequence
import json
import os
import pathlib
from typing import Any, Literal

from alignjax import types
from alignjax.data import records
from alignjax.feedback import answers as answers_lib

Tool = Literal['label_studio', 'argilla']
_GOOD, _BAD = ('good', 'up', 'yes', 'true'), ('bad', 'down', 'no', 'false')


def export_items(
    items: Sequence[answers_lib.Item], tool: Tool,
    answers: Sequence[answers_lib.Answer] = (),
) -> list[dict[str, Any]]:
  """The records to import into a tool, with answers that there are already.

  Returns:
    One record per item; `import_answers` gives the same answers back.
  """
  by_item = {}
  for answer in answers:
    by_item.setdefault(answer.item, []).append(answer)
  export = {'label_studio': _to_label_studio, 'argilla': _to_argilla}[tool]
  return [export(item, by_item.get(item.id, [])) for item in items]


def import_answers(
    path: str | os.PathLike[str], tool: Tool,
) -> tuple[list[answers_lib.Item], list[answers_lib.Answer]]:
  """The items of a tool's export, and what was answered.

  Drafts are no answers; cancelled and discarded ones are skips.

  Raises:
    InputError: the file is no such export, or an answer of it is none.
  """
  path = pathlib.Path(path)
  try:
    tasks = json.loads(path.read_bytes())
  except OSError as error:
    raise types.InputError(f'{path}: {error.strerror}; give an export') from (
        error)
  except (ValueError, RecursionError) as error:
    raise types.InputError(f'{path}: not JSON ({error}); export it as JSON '
                           'again') from error
  if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
    raise types.InputError(f'{path}: an export is a JSON array of records; '
                           f'this is {records.show(tasks)}')
  read = {'label_studio': _of_label_studio, 'argilla': _of_argilla}[tool]
  items, answers = [], []
  for number, task in enumerate(tasks, start=1):
    where = f'{path}:{number}'
    try:
      item, found = read(task, where)
    except types.InputError:
      raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError,
            RecursionError, StopIteration) as error:
      raise types.InputError(
          f'{where}: this is no record of {tool} with prompt and responses '
          f'({type(error).__name__}: {error!s:.80}); see docs/annotation.md'
          ) from error
    items.append(item)
    answers += [answers_lib.parse_answer(answer, {item.id: item}, where)
                for answer in found]
  return items, answers


def _to_label_studio(item, answers) -> dict:
  """A task, and what was answered to it."""
  bodies = [{'id': str(i), 'title': f'Response {i + 1}', 'body': text}
            for i, text in enumerate(item.responses)]
  data = {'id': item.id, 'prompt': _shown(item.prompt), 'items': bodies}
  if not isinstance(item.prompt, str):
    data['messages'] = list(item.prompt)
  if len(item.responses) == 2:
    data |= {'text1': item.responses[0], 'text2': item.responses[1]}
  if item.known is not None:
    data['known'] = list(item.known)
  return {'data': data, 'annotations': [
      {'completed_by': answer.annotator,
       'was_cancelled': answer.ranks is None and answer.good is None,
       'result': _result(answer)} for answer in answers]}


def _result(answer) -> list[dict]:
  """What the tags of a labelling configuration would have written."""
  if answer.good is not None:
    value = {'choices': ['good' if answer.good else 'bad']}
    return [{'from_name': 'thumb', 'to_name': 'prompt', 'type': 'choices',
             'value': value}]
  if answer.ranks is None:
    return []
  # Ties, which a ranker has not, are a bucket of their own ranks.
  value = {'ranker': {'rank': [
      str(i) for i in sorted(range(len(answer.ranks)),
                             key=answer.ranks.__getitem__)]}}
  if len(set(answer.ranks)) < len(answer.ranks):
    value['ranks'] = list(answer.ranks)
  return [{'from_name': 'ranking', 'to_name': 'items', 'type': 'ranker',
           'value': value}]


def _of_label_studio(task: dict, where: str):
  """(item, answers as records) of a task."""
  data = task['data']
  prompt = data.get('messages', data['prompt'])
  if 'items' in data:
    names = [str(each['id']) for each in data['items']]
    texts = [each.get('body', each.get('title')) for each in data['items']]
  else:
    names = [name for name in ('text1', 'text2', 'response') if name in data]
    texts = [data[name] for name in names]
  record = {'prompt': prompt, 'responses': texts,
            'id': data.get('id', task.get('id'))}
  record = {k: v for k, v in record.items() if v is not None}
  if data.get('known') is not None:
    record['known'] = data['known']
  item = answers_lib.parse_item(record, where)
  answers = []
  for annotation in task.get('annotations', []):
    who = annotation.get('completed_by')
    who = who.get('email', who.get('id')) if isinstance(who, dict) else who
    answer = {'item': item.id, 'annotator': str(who)}
    if annotation.get('was_cancelled'):
      answers.append(answer | {'skip': True})
      continue
    for result in annotation['result']:
      said = _said(result, names, where)
      if said:
        answers.append(answer | said)
  return item, answers


def _said(result: dict, names: list[str], where: str) -> dict | None:
  """What a result of a tag says; None for tags of another kind."""
  kind, value = result['type'], result['value']
  if kind == 'ranker':
    if 'ranks' in value:
      return {'ranks': value['ranks']}
    ranker = value['ranker']
    order = ranker if isinstance(ranker, list) else (
        ranker.get('rank') or ranker.get('_') or next(iter(ranker.values())))
    return {'ranks': _ranks([str(x) for x in order], names, where)}
  if kind == 'pairwise':
    left = {'left': True, 'right': False}.get(value['selected'])
    if left is None or len(names) != 2:
      raise types.InputError(
          f"{where}: pairwise selected {records.show(value['selected'])} of "
          f'{len(names)} responses; it must be left or right of two')
    return {'ranks': [0, 1] if left else [1, 0]}
  if kind == 'choices':
    return {'good': _thumb(value['choices'][0], where)}
  return None


def _to_argilla(item, answers) -> dict:
  """A record, and what was answered to it."""
  names = _names(item.responses)
  fields = {'prompt': _shown(item.prompt)} | dict(
      zip(names, item.responses, strict=True))
  metadata = {} if isinstance(item.prompt, str) else {
      'messages': json.dumps(list(item.prompt), ensure_ascii=False)}
  if item.known is not None:
    metadata['known'] = json.dumps(list(item.known))
  responses = {}
  for answer in answers:
    each = {'user_id': answer.annotator, 'status': 'submitted'}
    if answer.good is not None:
      question, each['value'] = 'thumb', 'good' if answer.good else 'bad'
    elif answer.ranks is not None:
      question, each['value'] = 'ranking', [
          {'value': name, 'rank': rank}
          for name, rank in zip(names, answer.ranks, strict=True)]
    else:
      question, each['value'], each['status'] = 'ranking', None, 'discarded'
    responses.setdefault(question, []).append(each)
  return {'id': item.id, 'fields': fields, 'metadata': metadata,
          'responses': responses}


def _of_argilla(record: dict, where: str):
  """(item, answers as records) of a record."""
  fields, metadata = record['fields'], record.get('metadata') or {}
  names = sorted((name for name in fields if name.startswith('response')),
                 key=lambda name: (len(name), name))
  prompt = json.loads(metadata['messages']) if 'messages' in metadata else (
      fields['prompt'])
  made = {'prompt': prompt, 'responses': [fields[name] for name in names]}
  name = record.get('id', record.get('external_id'))
  if name is not None:
    made['id'] = name
  if 'known' in metadata:
    made['known'] = json.loads(metadata['known'])
  item = answers_lib.parse_item(made, where)
  answers = []
  for who, status, value in _argilla_responses(record.get('responses') or {}):
    answer = {'item': item.id, 'annotator': str(who)}
    if status == 'discarded':
      answers.append(answer | {'skip': True})
    elif status != 'draft':
      answers.append(answer | (
          {'ranks': _ranks(value, names, where)} if isinstance(value, list)
          else {'good': _thumb(value, where)}))
  return item, answers


def _argilla_responses(responses) -> Iterator[tuple[Any, str, Any]]:
  """(user, status, value) of each response, in either version's shape."""
  if isinstance(responses, dict):  # 2: by question.
    for found in responses.values():
      for each in found:
        yield each['user_id'], each.get('status', 'submitted'), each['value']
    return
  for each in responses:  # 1: by user.
    for value in (each.get('values') or {'': {'value': None}}).values():
      yield each.get('user_id'), each.get('status', 'submitted'), value['value']


def _ranks(order: list, names: list[str], where: str) -> list[float]:
  """Ranks in the responses' order, of a list of the best first or of ranks."""
  if order and isinstance(order[0], dict):
    rank = {each['value']: each['rank'] for each in order}
    lowest = min(rank.values(), default=0)
    rank = {name: value - lowest for name, value in rank.items()}
  else:
    rank = {name: place for place, name in enumerate(order)}
  if set(rank) != set(names):
    raise types.InputError(
        f'{where}: an answer ranks {records.show(list(rank))}; '
        f'the responses are {", ".join(names)}; rank each once')
  return [rank[name] for name in names]


def _thumb(value: Any, where: str) -> bool:
  """Whether a label means good."""
  text = str(value).strip().lower()
  if text not in _GOOD + _BAD:
    raise types.InputError(
        f'{where}: the label {records.show(value)} is neither good nor bad; '
        f'use one of {", ".join(_GOOD + _BAD)}')
  return text in _GOOD


def _names(responses) -> list[str]:
  return [f'response_{i + 1}' for i in range(len(responses))]


def _shown(prompt) -> str:
  """A prompt as text for people."""
  return prompt if isinstance(prompt, str) else '\n\n'.join(
      f'{turn["role"]}: {turn["content"]}' for turn in prompt)
