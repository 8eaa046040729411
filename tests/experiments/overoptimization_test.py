"""The study of hacking, at its smallest; and what its summary promises."""

import pathlib

import pytest

from alignjax.types import InputError
from experiments import overoptimization


@pytest.fixture(scope='module')
def study(base, tmp_path_factory):
  """The config of a whole study that has been run, one iteration a run."""
  cfg = overoptimization.Config(
      workdir=str(tmp_path_factory.mktemp('study') / 'run'), model=base,
      preference_prompts=32, reward_steps=2, dpo_steps=1, num_steps=2,
      batch_size=16, kl_coefs=(0.0, 0.3), sizes=(0.25,), betas=(1.0, 0.1),
      num_samples=4, num_prompts=16, parts=('kl', 'best_of_n', 'dpo', 'sizes'))
  overoptimization.main(cfg)
  return cfg


@pytest.mark.slow
def test_a_study_leaves_curves_fits_and_alarms(study, left):
  summary = left(study.workdir).summary
  curves = summary['curves']
  assert list(curves)[:4] == ['kl_coef=0', 'kl_coef=0.3', 'best_of_n', 'dpo']
  assert any(name.startswith('kl_coef=0, pairs=') for name in curves)
  for curve in curves.values():
    assert curve.keys() == {'kl', 'proxy', 'gold'}
    assert len({len(values) for values in curve.values()}) == 1
  assert summary['alarms'].keys() == curves.keys() - {
      'best_of_n', 'dpo'}
  assert curves['best_of_n']['kl'][0] == 0.0
  assert len(curves['best_of_n']['kl']) == 3  # Of 1, 2 and 4.
  assert summary['fits']['best_of_n']['form'] == 'best_of_n'
  assert len(curves['dpo']['kl']) == 3  # The SFT model and two betas.
  report = pathlib.Path(study.workdir, 'report.html').read_text()
  assert '<svg' in report and 'Gao et al.' in report


@pytest.mark.slow
def test_a_study_that_is_done_is_not_done_again(study):
  summary = overoptimization.main(
      overoptimization.Config(**vars(study) | {'resume': True}))
  assert 'curves' in summary


def test_the_alarms_of_a_run_are_named_in_their_order():
  points = [{'kl': float(k), 'proxy': k, 'gold': 1.0 - k} for k in range(3)]
  alarms = [{'name': 'phrases', 'step': 9, 'text': ''},
            {'name': 'length', 'step': 11, 'text': ''}]
  summary = overoptimization.summarize({
      'kl_coef=0': {'form': 'rl', 'points': points, 'alarms': alarms},
      'dpo': {'form': 'rl', 'points': points}})
  assert summary['alarms'] == {'kl_coef=0': ['phrases', 'length']}
  assert summary['curves']['dpo']['kl'] == [0.0, 1.0, 2.0]
  assert summary['fits'].keys() == {'kl_coef=0', 'dpo'}


@pytest.mark.parametrize('settings, said', [
    (dict(sizes=(1.5,)), 'sizes='), (dict(betas=(0.0,)), 'betas='),
    (dict(kl_coefs=(-1.0,)), 'kl_coefs='), (dict(parts=()), 'parts=')])
def test_what_cannot_be_measured_is_refused(settings, said):
  cfg = overoptimization.Config(workdir='w', **settings)
  with pytest.raises(InputError, match=said):
    overoptimization.check(cfg)


def test_gold_must_be_known(tmp_path):
  with pytest.raises(InputError, match='gold is known on the testbed alone'):
    overoptimization.check(overoptimization.Config(
        workdir='w', model=str(tmp_path), data='rows.jsonl'))
