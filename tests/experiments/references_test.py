"""A reference that was asked before says what it says when asked beside."""

import gc

import jax
import numpy as np
import pytest

from alignjax import data
from alignjax import rollout
from alignjax import sources
from alignjax import train
from alignjax.errors import InputError
from experiments import dpo
from experiments import references
from experiments import simpo


@pytest.fixture
def fit(foreign, left, tmp_path, monkeypatch):
  """Runs DPO on a folder's model; what it left, and batches that were asked."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  asked, make = [], rollout.make_reference

  def counted(*args, **settings):
    annotate = make(*args, **settings)

    def count(params, batch):
      asked.append(batch.weight.shape)
      return annotate(params, batch)

    return count

  monkeypatch.setattr(rollout, 'make_reference', counted)

  def fit(name, **settings):
    before = len(asked)
    dpo.stage(dpo.Config(**dict(
        workdir=str(tmp_path / name), model=foreign.model, data=foreign.pairs,
        num_steps=4, batch_size=8, max_length=48, num_held_out=8)
        | settings))
    return left(tmp_path / name), len(asked) - before

  return fit


def losses_of(run):
  return [row['loss'] for row in run.rows('dpo')]


def test_the_first_pass_learns_the_same_to_the_bit_and_later_ones_nearly(fit):
  beside, asked = fit('beside', num_steps=8)
  before, asked_before = fit('before', num_steps=8, precompute_reference=True)
  # Of 40 pairs 8 are held out: 4 batches, read twice, and then all measured.
  assert asked == 8 + 1 + 1 and asked_before == 4 + 1
  assert losses_of(before)[:4] == losses_of(beside)[:4]
  np.testing.assert_allclose(
      losses_of(before), losses_of(beside), rtol=0, atol=1e-5)
  assert losses_of(before)[7] < losses_of(before)[0]
  for which in ('held_out', 'trained'):
    np.testing.assert_allclose(
        before.summary[which]['loss'], beside.summary[which]['loss'], atol=1e-5)


def test_another_run_of_the_same_pairs_asks_nothing(fit, foreign, tmp_path):
  known = dict(precompute_reference=True)
  first, asked = fit('a', **known)
  again, asked_again = fit('b', **known)
  assert (asked, asked_again) == (5, 0)
  assert again.weights == first.weights
  assert fit('other_beta', beta=0.7, **known)[1] == 0
  assert fit('shorter', num_steps=2, **known)[1] == 2
  assert fit('not_kept', reuse_rows=False, **known)[1] == 5
  assert fit('chunked', chunk_size=8, **known)[1] == 5
  more = sources.write_jsonl(tmp_path / 'more.jsonl', [
      {'prompt': 'how do i bake bread', 'chosen': 'bake', 'rejected': 'no'}
  ] * 16)
  assert fit('other_rows', data=more, num_steps=1, **known)[1] == 1 + 1


def test_a_run_that_was_killed_while_asking_asks_the_rest(fit, monkeypatch):
  whole, asked = fit('whole', precompute_reference=True, reuse_rows=False)
  monkeypatch.setattr(references, '_PART', 1)
  tell = rollout.pairs_with_reference
  turns = iter(range(2))

  def cut(*args, **settings):
    if next(turns, None) is None:
      raise KeyboardInterrupt
    return tell(*args, **settings)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(rollout, 'pairs_with_reference', cut)
    fit('cut', precompute_reference=True)
  after, asked_after = fit('cut', precompute_reference=True)
  assert (asked, asked_after) == (5, 5 - 2)
  assert after.weights == whole.weights


def test_the_reference_is_gone_when_training_begins(fit, monkeypatch):
  held, begin = {}, train.train

  def look(stage, objective, params, *args, **settings):
    gc.collect()
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    held[bool(settings['annotate'])] = sum(
        x.nbytes for x in jax.live_arrays()) / size
    return begin(stage, objective, params, *args, **settings)

  monkeypatch.setattr(train, 'train', look)
  fit('before', precompute_reference=True)
  fit('beside')
  assert held[True] - held[False] > 0.9  # Copies of the model, on the mesh.


def test_what_has_no_reference_is_refused(foreign, tmp_path):
  settings = dict(workdir=str(tmp_path / 'w'), model=foreign.model,
                  data=foreign.pairs, precompute_reference=True)
  with pytest.raises(InputError, match='simpo has no reference to ask'):
    simpo.main(simpo.Config(**settings))
  with pytest.raises(InputError, match='precompute_reference=True'):
    dpo.main(dpo.Config(reference_free=True, **settings))
  assert not (tmp_path / 'w').exists()


def test_a_row_that_weighs_otherwise_is_another_row():
  row = data.TokenizedResponse(np.arange(5, dtype=np.int32), 2)
  name = lambda weight: references._digest(
      [[data.TokenizedPair(row, row._replace(weight=weight))]])
  assert name(1.0) == name(1.0) != name(0.5)
