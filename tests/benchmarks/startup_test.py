"""Starts are timed to the first line of metrics, and ended."""

import json

import pytest

from alignjax.errors import InputError
from benchmarks import startup

RUN = '''
import os, pathlib, sys, time
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if flags.get('--fails'):
  sys.exit('error: no such thing')
rows = len(open(flags['--data']).readlines())
cache = pathlib.Path(os.environ['JAX_COMPILATION_CACHE_DIR'])
cache.mkdir(exist_ok=True)
(cache / 'program').touch()
workdir = pathlib.Path(flags['--workdir'])
workdir.mkdir()
(workdir / 'metrics.jsonl').write_text(str(rows))
print(len(list(cache.iterdir())), rows)
time.sleep(60)
'''


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
  """A run that takes one step at once, and then goes on for a minute."""
  (tmp_path / 'made_up_run.py').write_text(RUN)
  (tmp_path / 'rows.jsonl').write_text('{"text": "a"}\n{"text": "b"}\n')
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  return 'made_up_run'


def test_a_start_of_each_size_with_an_empty_cache_and_a_warm_one(
    module, tmp_path, capsys):
  path = tmp_path / 'starts.json'
  startup.main(startup.Config(rows=(1, 10), json=str(path)),
               [module, '--data', str(tmp_path / 'rows.jsonl')])
  starts = json.loads(path.read_text())['starts']
  assert [(s['rows'], s['cache']) for s in starts] == [
      (1, 'empty'), (1, 'warm'), (10, 'empty'), (10, 'warm')]
  for s in starts:
    assert 0 < s['seconds'] < 30 and s['rss_gib'] > 0.001
  assert 'first step' in capsys.readouterr().out


def test_rows_are_repeated_in_a_file_of_their_own(module, tmp_path):
  (tmp_path / 'more').mkdir()
  command = startup.repeated(
      [module, '--data', str(tmp_path / 'rows.jsonl'), '--x', '1'], 3,
      tmp_path / 'more')
  path = tmp_path / 'more' / 'rows.jsonl'
  assert command == [module, '--data', str(path), '--x', '1']
  assert path.read_text() == '{"text": "a"}\n' * 3 + '{"text": "b"}\n' * 3


def test_a_run_that_ends_early_is_told_with_what_it_said(module, tmp_path):
  with pytest.raises(
      InputError, match=r'status 1 and no step .* no such thing'):
    startup.main(startup.Config(), [module, '--fails', 'yes'])


@pytest.mark.parametrize('rows, command', [((1,), []), ((1, 10), ['module'])])
def test_nothing_to_start_is_refused(rows, command):
  with pytest.raises(InputError, match='must stand behind --'):
    startup.main(startup.Config(rows=rows), command)
