"""A large file's rows are read again only if anything about them changed."""

import dataclasses
import io
import json
import os
import time

import pytest

from alignjax import data
from alignjax import metrics
from alignjax import row_cache
from alignjax import runs
from alignjax import sources

TOKENIZER = sources.testbed_tokenizer()
PAIRS = [{'prompt': 'how do i bake bread', 'chosen': 'bake the bread',
          'rejected': 'no'},
         {'prompt': 'how do i bake rice', 'chosen': 'bake the rice',
          'rejected': 'no ' * 9}]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of a run that reads."""

  workdir: str = 'w'
  max_length: int = 48


@pytest.fixture
def read(tmp_path, monkeypatch):
  """Reads a file of pairs; its rows, what was said, how often it was read."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(row_cache, 'LEAST_BYTES', 1)
  asked, preferences = [], data.preferences

  def counted(*args, **settings):
    asked.append(args)
    return preferences(*args, **settings)

  counted.__name__ = 'preferences'
  monkeypatch.setattr(data, 'preferences', counted)
  with runs.start(Config(workdir=str(tmp_path / 'run')), 'dpo') as run:

    def read(path, tokenizer=TOKENIZER, **settings):
      said = io.StringIO()
      own = dataclasses.replace(
          run, console=metrics.Console(stream=said), readings=[])
      before = len(asked)
      rows = sources.preference_rows(
          own, Config(**settings), tokenizer, str(path))
      return [row.chosen.tokens.tolist() for row in rows], (
          said.getvalue(), own.readings), len(asked) - before

    yield read


def write(path, records):
  sources.write_jsonl(path, records)
  return path


def test_a_file_is_read_once_and_the_same_is_said_of_it(read, tmp_path):
  path = write(tmp_path / 'a.jsonl', PAIRS)
  rows, (said, told), times = read(path)
  again, (said_again, told_again), times_again = read(path)
  assert (times, times_again) == (1, 0)
  assert again == rows and len(rows) == 2
  assert told_again == json.loads(json.dumps(told))
  first, rest = said_again.split('\n', 1)
  assert 'read and tokenized before' in first and rest == said


def test_whatever_the_rows_depend_on_finds_no_old_ones(
    read, tmp_path, monkeypatch):
  path = write(tmp_path / 'a.jsonl', PAIRS)
  assert read(path)[2] == 1
  assert read(path, max_length=16)[2] == 1
  assert read(path, duplicates='drop')[2] == 1
  assert read(path, on_bad_record='skip')[2] == 1
  assert read(path, plain=True)[2] == 1
  other = dataclasses.replace(TOKENIZER, chat_template=None)
  assert read(path, tokenizer=other)[2] == 1
  assert read(write(tmp_path / 'b.jsonl', PAIRS))[2] == 1
  with monkeypatch.context() as changed:
    changed.setattr(row_cache, 'code', lambda *places: 'another')
    assert read(path)[2] == 1
  assert read(path)[2] == 0
  write(path, PAIRS[:1])
  rows, _, times = read(path)
  assert times == 1 and len(rows) == 1


def test_nothing_is_kept_of_small_files_or_if_not_wanted(
    read, tmp_path, monkeypatch):
  path = write(tmp_path / 'a.jsonl', PAIRS)
  assert [read(path, reuse_rows=False)[2] for _ in range(2)] == [1, 1]
  assert not row_cache.root().exists()
  monkeypatch.setattr(row_cache, 'LEAST_BYTES', path.stat().st_size + 1)
  assert [read(path)[2] for _ in range(2)] == [1, 1]
  assert not row_cache.root().exists()


def test_rows_that_cannot_be_kept_are_there_and_that_is_said(
    read, tmp_path):
  (tmp_path / 'cache').write_text('a file where a folder should be')
  rows, (said, _), times = read(write(tmp_path / 'a.jsonl', PAIRS))
  assert times == 1 and len(rows) == 2
  assert 'could not be kept for the next run' in said


def test_what_was_not_used_for_long_goes(read, tmp_path):
  read(write(tmp_path / 'a.jsonl', PAIRS))
  old, = row_cache.root().iterdir()
  long_ago = time.time() - 31 * 24 * 3600
  os.utime(old, (long_ago, long_ago))
  read(write(tmp_path / 'b.jsonl', PAIRS))
  assert not old.exists()
  assert len(list(row_cache.root().iterdir())) == 1
