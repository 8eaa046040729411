"""Manifests: the same bytes for the same files, and changes are found."""

import json

import pytest

from alignjax import lineage
from alignjax.types import InputError


@pytest.fixture
def root(tmp_path):
  """A pipeline of a file and a folder."""
  (tmp_path / 'data.jsonl').write_text('{}\n')
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'weights').write_bytes(bytes(range(200)))
  (tmp_path / 'model' / 'config.json').write_text('{}')
  return tmp_path


def record(root, name='round 1', parents=()):
  """A manifest of both."""
  return lineage.record(
      root, root / name, name=name, parents=dict(parents),
      artifacts={'data': root / 'data.jsonl', 'model': root / 'model'},
      config={'seed': 0}, figures={'gold': 0.5})


def test_a_manifest_verifies_and_says_what_was_measured(root):
  manifest = lineage.verify(root, record(root))
  assert manifest['figures'] == {'gold': 0.5}
  assert manifest['artifacts']['model']['path'] == 'model'


def test_the_same_files_make_the_same_bytes_anywhere(root, tmp_path_factory):
  other = tmp_path_factory.mktemp('other')
  (other / 'model').mkdir()
  for name in ('model/config.json', 'model/weights', 'data.jsonl'):
    (other / name).write_bytes((root / name).read_bytes())
  assert record(root).read_bytes() == record(other).read_bytes()


@pytest.mark.parametrize('name, change', [
    ('model', lambda root: (root / 'model' / 'weights').write_bytes(b'x')),
    ('model', lambda root: (root / 'model' / 'more').write_bytes(b'')),
    ('model', lambda root: (root / 'model' / 'config.json').rename(
        root / 'model' / 'c.json')),
    ('data', lambda root: (root / 'data.jsonl').write_text('{} \n'))])
def test_a_change_is_found_and_named(root, name, change):
  path = record(root)
  change(root)
  with pytest.raises(InputError, match=f'is not the {name} that'):
    lineage.verify(root, path)


def test_what_is_missing_is_named(root):
  path = record(root)
  (root / 'data.jsonl').unlink()
  with pytest.raises(InputError, match='is not there, and is part of'):
    lineage.verify(root, path)


def test_a_parent_is_known_by_its_manifest(root):
  first = record(root)
  second = record(root, 'round 2', {'round 1': first})
  parent = json.loads(second.read_text())['parents']['round 1']
  assert parent == lineage.digest(first)
  first.write_text(first.read_text().replace('0.5', '0.6'))
  assert parent != lineage.digest(first)
