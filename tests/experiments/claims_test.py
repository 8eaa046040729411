"""The claims: said before, measured once, told as they came out."""

import importlib
import json

import pytest

from alignjax.types import InputError
from experiments.claims import __main__ as claims
from experiments.claims import lab as lab_lib


@pytest.mark.parametrize('name', claims.NAMES)
def test_each_claim_says_what_would_refute_it(name):
  claim = importlib.import_module(f'experiments.claims.{name}').CLAIM
  assert claim.claim.endswith('.') and claim.prediction and claim.refuted_by


@pytest.fixture
def measured(monkeypatch):
  """Claims that are measured by nothing; how often each was."""
  counts = {}
  for name, figure, interval in (
      ('penalty', 0.3, (0.2, 0.4)), ('direct', -0.1, (-0.2, -0.05)),
      ('mixed', 0.1, (-0.1, 0.3))):
    module = importlib.import_module(f'experiments.claims.{name}')

    def measure(lab, name=name, figure=figure, interval=interval):
      counts[name] = counts.get(name, 0) + 1
      return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                             {'models': {}})

    monkeypatch.setattr(module, 'CLAIM', module.CLAIM._replace(measure=measure))
  return counts


def config(tmp_path, **more):
  return claims.Config(workdir=str(tmp_path / 'c'),
                       only=('penalty', 'direct', 'mixed'), **more)


def test_all_verdicts_are_told_refuted_included(measured, tmp_path):
  claims.main(config(tmp_path))
  found = json.loads((tmp_path / 'c' / 'claims.json').read_text())
  assert [f['verdict'] for f in found] == ['confirmed', 'refuted', 'undecided']
  for finding in found:
    assert {'claim', 'prediction', 'figure', 'interval',
            'verdict'} <= finding.keys()
  table = (tmp_path / 'c' / 'table.md').read_text()
  assert table.count('\n') == 5 and 'refuted' in table
  assert 'Claims' in (tmp_path / 'c' / 'report.html').read_text()


def test_a_claim_is_measured_once(measured, tmp_path):
  claims.main(config(tmp_path))
  (tmp_path / 'c' / 'findings' / 'direct.json').unlink()
  (tmp_path / 'c' / 'summary.json').unlink()
  claims.main(config(tmp_path, resume=True))
  assert measured == {'penalty': 1, 'direct': 2, 'mixed': 1}


@pytest.mark.parametrize('settings, says', [
    (dict(only=('penalty', 'magic')), 'only=magic'), (dict(only=()), 'only='),
    (dict(data='x.jsonl'), 'leave both out')])
def test_what_is_no_claim_is_named(settings, says, tmp_path):
  with pytest.raises(InputError, match=says):
    claims.main(claims.Config(workdir=str(tmp_path / 'c'), **settings))
  assert not (tmp_path / 'c').exists()


def test_an_interval_decides():
  assert lab_lib.above((0.1, 0.2), 0.0) == 'confirmed'
  assert lab_lib.above((-0.2, -0.1), 0.0) == 'refuted'
  assert lab_lib.above((-0.1, 0.1), 0.0) == 'undecided'
