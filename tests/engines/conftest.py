"""A folder of the tiny model, and `alignjax serve` in a process of its own."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from alignjax import hf
from tests.commands import tiny

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """A model folder of tiny.PARAMS."""
  path = tmp_path_factory.mktemp('model')
  hf.save_model(path, tiny.CONFIG, tiny.PARAMS, tokenizer=tiny.TOKENIZER)
  return str(path)


@pytest.fixture(scope='session')
def start_server():
  """`start_server(folder)` gives the URL of a server of it."""
  started = []

  def start(folder):
    process = subprocess.Popen(
        [sys.executable, '-m', 'alignjax', 'serve', '--model', folder,
         '--port', '0'], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {'XLA_FLAGS': ''})
    started.append(process)
    for line in process.stderr:
      if found := re.search(r'http://[\d.]+:\d+', line):
        return found.group()
    raise AssertionError(f'alignjax serve ended with {process.wait()}')

  yield start
  for process in started:
    process.kill()
    process.wait()


@pytest.fixture(scope='session')
def server(folder, start_server):
  """The URL of a server of the tiny model."""
  return start_server(folder)
