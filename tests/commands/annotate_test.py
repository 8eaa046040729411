"""`alignjax annotate`, `aggregate` and `export-items`: files in, files out."""

import json

import pytest

from alignjax import commands
from alignjax.commands import aggregate
from alignjax.commands import annotate
from alignjax.types import InputError


def write(path, records):
  path.write_text(''.join(json.dumps(r) + '\n' for r in records))
  return str(path)


@pytest.fixture
def files(tmp_path):
  items = write(tmp_path / 'items.jsonl', [
      {'id': 'c', 'prompt': 'control', 'responses': ['x', 'y'],
       'known': [0, 1]},
      {'id': 'a', 'prompt': 'p', 'responses': ['x', 'y', 'z']},
      {'id': 'b', 'prompt': 'q', 'responses': ['u', 'v']}])
  answers = write(tmp_path / 'answers.jsonl', [
      {'item': item, 'annotator': name, 'ranks': ranks}
      for name, all_ranks in {
          'ann': ([0, 1], [0, 1, 2], [0, 1]),
          'bea': ([0, 1], [0, 2, 1], [0, 1]),
          'cyd': ([1, 0], [2, 1, 0], [1, 0])}.items()
      for item, ranks in zip('cab', all_ranks, strict=True)]
      + [{'item': 'b', 'annotator': 'dot', 'skip': True}])
  return items, answers, tmp_path


def settings(files, **more):
  items, answers, folder = files
  return aggregate.Aggregate(**dict(
      items=items, answers=(answers,), out=str(folder / 'out.jsonl')) | more)


def records_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_become_pairs_and_a_report(files):
  aggregate.aggregate(settings(files))
  out = files[2] / 'out.jsonl'
  pairs = [(r['prompt'], r['chosen'], r['rejected']) for r in records_of(out)]
  assert pairs == [('p', 'x', 'y'), ('p', 'x', 'z'), ('p', 'z', 'y'),
                   ('q', 'u', 'v')]  # And none of the control.
  report = json.loads((files[2] / 'out.jsonl.report.json').read_text())
  assert report['annotators']['dot']['skips'] == 1
  assert report['annotators']['cyd']['on_controls'] == 0
  assert report['cohen']['ann bea'] is not None
  assert len(report['alpha']) == 3


def test_who_fails_the_controls_is_left_out_by_name(files, capsys):
  many = [{'id': f'c{n}', 'prompt': f'control {n}', 'responses': ['x', 'y'],
           'known': [0, 1]} for n in range(3)]
  items, answers, folder = files
  with open(items, 'a') as file:
    file.writelines(json.dumps(r) + '\n' for r in many)
  with open(answers, 'a') as file:
    file.writelines(json.dumps(
        {'item': r['id'], 'annotator': name, 'ranks': ranks}) + '\n'
        for r in many for name, ranks in (('ann', [0, 1]), ('cyd', [1, 0])))
  aggregate.aggregate(settings(files, min_agreement=0.75))
  assert 'cyd ordered 0% of the known pairs' in capsys.readouterr().err
  report = json.loads((folder / 'out.jsonl.report.json').read_text())
  assert 'cyd' not in report['annotators']


@pytest.mark.parametrize('tool', ['label_studio', 'argilla'])
def test_there_and_back_by_a_tool(files, tool):
  items, answers, folder = files
  exported = str(folder / 'tasks.json')
  aggregate.export_items(aggregate.ExportItems(
      items=items, answers=(answers,), tool=tool, out=exported))
  aggregate.aggregate(settings(files))
  aggregate.aggregate(settings(
      files, items='', tool=tool, answers=(exported,),
      out=str(folder / 'other.jsonl')))
  key = lambda r: json.dumps(r, sort_keys=True)
  assert sorted(records_of(folder / 'out.jsonl'), key=key) == sorted(
      records_of(folder / 'other.jsonl'), key=key)


def test_thumbs_become_rows_for_kto(tmp_path):
  items = write(tmp_path / 'i.jsonl', [
      {'id': 'a', 'prompt': 'p', 'response': 'r'}])
  answers = write(tmp_path / 'a.jsonl', [
      {'item': 'a', 'annotator': name, 'good': good}
      for name, good in (('x', True), ('y', True), ('z', False))])
  aggregate.aggregate(aggregate.Aggregate(
      items=items, answers=(answers,), out=str(tmp_path / 'o.jsonl')))
  assert records_of(tmp_path / 'o.jsonl') == [
      {'prompt': 'p', 'response': 'r', 'label': True, 'good': 2, 'bad': 1}]


@pytest.mark.parametrize('change, says', [
    (dict(items=''), 'items is missing'),
    (dict(min_agreement=0.4), 'min_agreement=0.4'),
    (dict(answers=('no/where.jsonl',)), 'no/where.jsonl'),
    (dict(tool='argilla'), 'not JSON')])
def test_what_cannot_be_aggregated_is_named(files, change, says):
  with pytest.raises(InputError, match=says):
    aggregate.aggregate(settings(files, **change))
  assert not (files[2] / 'out.jsonl').exists()


def test_nothing_is_written_over(files):
  out = files[2] / 'out.jsonl'
  out.write_text('mine')
  with pytest.raises(InputError, match='--overwrite'):
    aggregate.aggregate(settings(files))
  assert out.read_text() == 'mine'


def test_answers_that_amount_to_nothing_are_said_to(files):
  answers = write(files[2] / 's.jsonl', [
      {'item': 'b', 'annotator': 'x', 'ranks': [0, 0]},
      {'item': 'b', 'annotator': 'y', 'skip': True}])
  with pytest.raises(InputError, match='skips, ties'):
    aggregate.aggregate(settings(files, answers=(answers,)))


@pytest.mark.parametrize('task, says', [
    ('pair', '3 responses, and a pair is of 2'), ('thumb', 'a thumb is of 1')])
def test_items_of_another_task_are_refused(files, task, says):
  rubric = files[2] / 'r.toml'
  rubric.write_text(f'name="n"\ntask="{task}"\ninstructions="x"\n')
  pytest.importorskip('uvicorn')
  with pytest.raises(InputError, match=says):
    annotate.annotate(annotate.Annotate(
        items=files[0], answers=str(files[2] / 'new.jsonl'),
        rubric=str(rubric), port=0))
  assert not (files[2] / 'new.jsonl').exists()


def test_a_port_that_is_taken_is_named(files):
  pytest.importorskip('uvicorn')
  import socket
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(InputError, match=f'port={port}'):
      annotate.annotate(annotate.Annotate(
          items=files[0], answers=str(files[2] / 'new.jsonl'), port=port))


def test_the_commands_are_listed():
  assert {'annotate', 'aggregate', 'export-items'} <= set(commands.COMMANDS)
