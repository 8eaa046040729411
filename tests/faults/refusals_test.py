"""What somebody who means harm might put into a model's folder."""

import json
import time

import pytest

from alignjax import hf
from alignjax.errors import InputError
from tests.faults import parsers


@pytest.fixture
def tokenizer_folder(tmp_path):
  parsers.PARSERS['tokenizer'].make(tmp_path)
  return tmp_path


@pytest.fixture
def model_folder(tmp_path):
  parsers.PARSERS['sharded model'].make(tmp_path)
  return tmp_path


def _set(path, **fields):
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _refused(read, *named):
  began = time.monotonic()
  with pytest.raises(InputError) as caught:
    read()
  assert time.monotonic() - began < 30  # A machine may be busy; no hang.
  assert len(str(caught.value).splitlines()) == 1
  for name in named:
    assert name in str(caught.value)


@pytest.mark.parametrize('template, named', [
    ("{{ ''.__class__ }}", "attribute '__class__' of a str"),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "'__class__'"),
    ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "'__init__'"),
    ('{% for i in range(10**9) %}x{% endfor %}', 'Range too big'),
    ("{{ 'x' * 10**10 }}", 'characters'),
])
def test_a_template_that_reaches_out_or_never_ends(
    tokenizer_folder, template, named):
  (tokenizer_folder / 'chat_template.jinja').write_text(template)
  tokenizer = hf.load_tokenizer(tokenizer_folder)
  _refused(lambda: tokenizer.prompt_tokens(
      [{'role': 'user', 'content': 'hi'}]), 'chat template', named)


def test_a_header_of_two_gigabytes(model_folder):
  shard = model_folder / 'model-00003-of-00013.safetensors'
  content = shard.read_bytes()
  shard.write_bytes((2 * 2**30).to_bytes(8, 'little') + content[8:])
  _refused(lambda: hf.load_model(model_folder), shard.name, 'header')


@pytest.mark.parametrize('name', [
    '../model.safetensors', '/etc/passwd', 'a/b.safetensors', '..', '', 7])
def test_a_shard_outside_of_the_folder(model_folder, name):
  path = model_folder / 'model.safetensors.index.json'
  shards = json.loads(path.read_text())['weight_map']
  _set(path, weight_map=shards | {next(iter(shards)): name})
  _refused(lambda: hf.load_model(model_folder), path.name, repr(name))


def test_a_tokenizer_whose_files_are_elsewhere(tokenizer_folder):
  path = tokenizer_folder / 'tokenizer_config.json'
  _set(path, tokenizer_file='/srv/cache/tokenizer.json')  # Nobody reads it.
  hf.load_tokenizer(tokenizer_folder)
  _set(path, tokenizer_file='../../etc/passwd')
  _refused(lambda: hf.load_tokenizer(tokenizer_folder),
           'tokenizer_config.json', "tokenizer_file='../../etc/passwd'")
