"""A stage in its folder: stopped and resumed, it ends where it would have."""

import io
import itertools

import jax
import numpy as np
import pytest

from alignjax import checkpoints
from alignjax import metrics as metrics_lib
from alignjax import objectives
from alignjax import train
from alignjax.types import InputError


@pytest.fixture(scope='module')
def sft(tiny, mesh_of):
  """Runs an SFT stage in a folder; all runs share one compiled step."""
  mesh = mesh_of('data:2,fsdp:2,tensor:2')
  optimizer = train.make_optimizer(1e-2, 4)
  init = lambda: train.init_state(
      tiny.params, tiny.model.axes(), optimizer, mesh=mesh, seed=0)
  step = train.make_train_step(
      objectives.sft(tiny.model), optimizer, shardings=init()[1], mesh=mesh,
      num_microbatches=2)

  def run(workdir, num_steps, make_batches=None, **settings):
    stage = train.Stage('sft', workdir, mesh, num_steps, seed=0, **settings)
    make_batches = make_batches or (
        lambda start: map(tiny.tokens, itertools.count(start)))
    return train.run_stage(stage, step, *init(), make_batches)

  return run


@pytest.fixture(scope='module')
def whole(sft, tmp_path_factory):
  """Four steps without a stop: the folder and the state."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, sft(workdir, 4)


def assert_same_run(workdir, state, whole):
  expected_dir, expected = whole
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected),
                  strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)
  name = 'metrics.jsonl'
  assert (workdir / name).read_bytes() == (expected_dir / name).read_bytes()


def test_a_stage_writes_a_line_per_step_and_its_last_state(whole):
  workdir, state = whole
  rows = metrics_lib.read_jsonl(workdir / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3, 4]
  assert {row['stage'] for row in rows} == {'sft'}
  assert {'loss', 'grad_norm'} <= rows[0].keys()
  assert state.step == 4
  assert checkpoints.latest_step(workdir / 'checkpoints') == 4


@pytest.mark.parametrize('stop', [1, 3])
def test_a_stage_that_is_extended_equals_one_that_was_not_stopped(
    stop, sft, whole, tmp_path):
  sft(tmp_path, stop)
  assert_same_run(tmp_path, sft(tmp_path, 4), whole)


def test_a_stage_that_was_killed_resumes_from_its_checkpoint(
    tiny, sft, whole, tmp_path):
  """The batch of step 4 fails: step 3 is logged, but not saved."""

  def fail(start):
    yield from map(tiny.tokens, range(start, 3))
    raise OSError('disk gone')

  with pytest.raises(OSError, match='disk gone'):
    sft(tmp_path, 4, fail, save_every=2)
  assert checkpoints.latest_step(tmp_path / 'checkpoints') == 2
  rows = metrics_lib.read_jsonl(tmp_path / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3]
  starts = []

  def note_start(start):
    starts.append(start)
    return map(tiny.tokens, itertools.count(start))

  state = sft(tmp_path, 4, note_start, save_every=2)
  assert starts == [2]
  assert_same_run(tmp_path, state, whole)


def test_a_finished_stage_that_is_run_again_changes_nothing(
    sft, whole, tmp_path):
  sft(tmp_path, 4)
  stream = io.StringIO()
  state = sft(tmp_path, 4, console=metrics_lib.Console(stream=stream))
  assert 'sft: resumed after step 4' in stream.getvalue()
  assert 'compiling' not in stream.getvalue()
  assert_same_run(tmp_path, state, whole)


def test_a_resumed_state_lies_where_the_fresh_one_lay(sft, whole, tmp_path):
  sft(tmp_path, 1)
  resumed = sft(tmp_path, 1)  # No step is left to take.
  jax.tree.map(
      lambda a, b: np.testing.assert_(
          a.sharding.is_equivalent_to(b.sharding, a.ndim)), resumed, whole[1])


def test_train_annotates_every_batch_and_returns_the_parameters(
    tiny, mesh_of, tmp_path):
  seen = []

  def annotate(params, batch):
    seen.append(batch.ref_logprobs is None and params is not None)
    return batch.replace(ref_logprobs=jax.numpy.zeros(batch.tokens.shape))

  stage = train.Stage('dpo', tmp_path, mesh_of('one'), 2, seed=0)
  before = jax.tree.map(np.copy, tiny.params)
  params = train.train(
      stage, objectives.dpo(tiny.model), tiny.params, tiny.model.axes(),
      train.make_optimizer(1e-2, 2),
      lambda start: (tiny.pairs(seed).replace(ref_logprobs=None)
                     for seed in itertools.count(start)),
      annotate=annotate)
  assert seen == [True, True]
  assert np.abs(params['embed'] - before['embed']).max() > 1e-3
  jax.tree.map(np.testing.assert_array_equal, tiny.params, before)
  rows = metrics_lib.read_jsonl(tmp_path / 'metrics.jsonl')
  assert [row['stage'] for row in rows] == ['dpo', 'dpo']


@pytest.mark.parametrize('count', [1, 9])
def test_a_trace_of_some_steps_is_written_and_changes_nothing(
    count, sft, whole, tmp_path):
  """Of the third step, or of all from there to an end that comes first."""
  said = io.StringIO()
  state = sft(tmp_path, 4, profile=count,
              console=metrics_lib.Console(stream=said))
  assert_same_run(tmp_path, state, whole)
  traces = list((tmp_path / 'profile').rglob('*.xplane.pb'))
  assert len(traces) == 1 and traces[0].stat().st_size > 1_000
  assert f'profile: {tmp_path / "profile"}' in said.getvalue()
  assert not (whole[0] / 'profile').exists()


def test_the_best_checkpoint_is_kept_and_is_what_the_run_results_in(
    sft, tmp_path):
  state = sft(tmp_path / 'a', 4, save_every=1, keep_best='grad_norm')
  norms = [row['grad_norm'] for row in metrics_lib.read_jsonl(
      tmp_path / 'a' / 'metrics.jsonl')]
  best = 1 + norms.index(max(norms))
  assert best < 3  # Or it would be among the newest two anyway.
  assert int(state.step) == best
  folder = tmp_path / 'a' / 'checkpoints'
  assert {int(path.name[5:]) for path in folder.iterdir()} == {best, 3, 4}
  least = sft(tmp_path / 'b', 4, save_every=1, keep_best='loss')
  losses = [row['loss'] for row in metrics_lib.read_jsonl(
      tmp_path / 'b' / 'metrics.jsonl')]
  assert int(least.step) == 1 + losses.index(min(losses))


def test_what_is_best_is_told_by_all_steps_since_the_save_before(sft, tmp_path):
  state = sft(tmp_path, 4, save_every=2, keep_best='grad_norm')
  norms = [row['grad_norm'] for row in metrics_lib.read_jsonl(
      tmp_path / 'metrics.jsonl')]
  assert int(state.step) == (2 if sum(norms[:2]) > sum(norms[2:]) else 4)


def test_a_metric_that_is_not_there_is_refused_at_the_first_save(sft, tmp_path):
  with pytest.raises(InputError, match=r'keep_best=gold is no metric of '
                     r'sft; it has .*grad_norm.*loss'):
    sft(tmp_path, 4, save_every=1, keep_best='gold')
