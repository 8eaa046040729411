"""requirements/ pins what setup.cfg asks for, each file by its hash."""

import configparser
import pathlib
import re
import tomllib

from packaging import requirements
import pytest

_ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((_ROOT / 'requirements').glob('test-py*.txt'))


def pins(path):
  """{name: (version, hashes)}."""
  text = path.read_text().replace('\\\n', ' ')
  found = {}
  for line in text.splitlines():
    if match := re.match(r'([\w.-]+)==(\S+)(.*)', line):
      found[_plain(match[1])] = (
          match[2], re.findall(r'--hash=sha256:([0-9a-f]{64})', match[3]))
    else:
      assert not line or line.lstrip().startswith('#'), line
  return found


def _plain(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def _asked():
  setup = configparser.ConfigParser()
  setup.read(_ROOT / 'setup.cfg', 'utf-8')
  text = (setup['options']['install_requires']
          + setup['options.extras_require']['test'])
  lines = [line.partition('#')[0].strip() for line in text.splitlines()]
  return [requirements.Requirement(line) for line in lines if line]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_everything_is_pinned_as_asked_and_has_a_hash(path):
  found = pins(path)
  assert len(found) > 50
  assert all(hashes for _, hashes in found.values())
  for asked in _asked():
    version, _ = found[_plain(asked.name)]
    assert asked.specifier.contains(version), asked


def test_what_builds_it_is_pinned_as_asked_and_has_a_hash():
  project = tomllib.loads((_ROOT / 'pyproject.toml').read_text())
  found = pins(_ROOT / 'requirements' / 'build.txt')
  assert len(found) == len(project['build-system']['requires'])
  for line in project['build-system']['requires']:
    asked = requirements.Requirement(line)
    version, hashes = found[_plain(asked.name)]
    assert asked.specifier.contains(version) and hashes, asked


def test_both_pythons_have_one():
  assert len(FILES) == 2
