"""A folder of the tiny model, and `alignjax ...` called in this process."""

import pytest

from alignjax import cli
from alignjax import hf
from tests.commands import tiny


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """A model folder of tiny.PARAMS."""
  path = tmp_path_factory.mktemp('model')
  hf.save_model(path, tiny.CONFIG, tiny.PARAMS, tokenizer=tiny.TOKENIZER)
  return str(path)


@pytest.fixture
def call(monkeypatch, capsys):
  """Calls `alignjax ...` in this process: (status, stdout, stderr)."""

  def run(*args):
    monkeypatch.setattr('sys.argv', ['alignjax', *map(str, args)])
    status = 0
    try:
      cli.main()
    except SystemExit as stop:
      status = stop.code
    return status, *capsys.readouterr()

  return run
