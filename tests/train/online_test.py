"""The iteration without a critic: what rewards become, and that it learns.

The reward is a count of one token, so that every number can be worked again
from the trajectories, which `observe` brings here.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import optax
import pytest

from alignjax import adapters
from alignjax import advantages
from alignjax import data
from alignjax import losses
from alignjax import metrics as metrics_lib
from alignjax import objectives
from alignjax import scoring
from alignjax import sharding
from alignjax import train
from alignjax.models import lora
from alignjax.train import online
from alignjax.types import PreferenceBatch

LIKED, K = 5, 4
BASE = train.OnlineConfig(
    num_samples=K, num_epochs=2, num_minibatches=2, max_new_tokens=5,
    missing_eos_penalty=0.5)
FULL = 'data:2,fsdp:2,tensor:2'

group = train.grouped(advantages.group_advantages, K)
leave_one_out = train.grouped(
    advantages.leave_one_out_advantages, K, kl_coef=0.05)


def clip_surrogate(logprobs, old_logprobs, advantages, mask):
  del mask
  return losses.ppo_clip_loss(logprobs, old_logprobs, advantages)


# (advantages, aggregate or none for pairs, KL in the loss) of each method.
METHODS = {
    'grpo': (group, objectives.sequence_mean, 0.05),
    'rloo': (leave_one_out, objectives.sequence_mean, 0.0),
    'reinforce_pp': (train.to_go(kl_coef=0.05, scale=True),
                     objectives.token_mean, 0.0),
    'online_dpo': (group, None, 0.0),
}


@dataclasses.dataclass
class Setup:
  """An iteration, how to begin it, and the trajectories that it saw."""

  iterate: Any
  start: Any      # () -> TrainState
  shardings: Any
  mesh: Any
  seen: list
  policy: adapters.Trainee


@pytest.fixture(scope='module')
def make_setup(tiny, mesh_of):
  """`(method, config, mesh, rank) -> Setup`; equal ones share their programs.
  """

  @functools.cache
  def make(method='grpo', config=BASE, spec='one', lora_rank=0):
    mesh, seen, optimizer = mesh_of(spec), [], optax.adam(2e-2)
    policy = adapters.full(tiny.model, tiny.params, '')
    if lora_rank:
      _, base, _ = policy.reference(mesh)
      policy = adapters.adapted(
          tiny.model, base, lora.Lora(rank=lora_rank), '', mesh=mesh,
          key=jax.random.key(3))
    start = lambda: train.init_state(
        policy.params, policy.axes, optimizer, mesh=mesh, seed=0)
    shardings = start()[1]
    estimate, aggregate, kl_coef = METHODS[method]
    if aggregate is None:
      objective = objectives.dpo(policy.model, beta=0.5)
    else:
      objective = objectives.policy_gradient(
          policy.model, clip_surrogate, prompt_length=tiny.prompt_length,
          aggregate=aggregate, kl_coef=kl_coef)

    def reward_fn(trajectory):
      tokens, mask = jax.device_get(
          (trajectory.tokens, trajectory.response_mask))
      return ((tokens == LIKED) & mask).sum(axis=1).astype(np.float32)

    def observe(trajectory):
      seen.append(jax.device_get(trajectory))
      return {'liked': np.mean(trajectory.tokens == LIKED)}

    iterate = train.make_online_iteration(
        policy, reward_fn, objective, estimate, optimizer, config,
        shardings=shardings, mesh=mesh, prompt_length=tiny.prompt_length,
        eos_id=tiny.eos_id, observe=observe,
        make_rows=None if aggregate else train.best_and_worst(K))
    return Setup(iterate, lambda: start()[0], shardings, mesh, seen, policy)

  return make


def make_prompts(tiny, step):
  """Seven groups of K responses, and one of filler."""
  prompts = tiny.prompts(step, 8)
  prompts = jax.tree.map(lambda x: np.repeat(x, K, axis=0), prompts)
  sample_id = np.tile(np.arange(K, dtype=np.int32), 8) + K * step
  return prompts.replace(sample_id=sample_id)


def run(setup, tiny, num_iterations, num_compiled=lambda: 0,
        plan=lambda prompts: prompts):
  """States, metrics, trajectories and programs compiled, per iteration."""
  setup.seen.clear()
  state, states, metrics, compiled = setup.start(), [], [], []
  rows = sharding.batch_sharding(setup.mesh)
  for i in range(num_iterations):
    prompts = sharding.put(plan(make_prompts(tiny, i)), rows)
    before = num_compiled()
    state, measured = setup.iterate(state, prompts)
    compiled.append(num_compiled() - before)
    states.append(jax.device_get(state.replace(key=None)))
    metrics.append(jax.device_get(measured))
  return states, metrics, list(setup.seen), compiled


@pytest.fixture(scope='module')
def history(make_setup, tiny, num_compiled):
  """`history(method)`: eight iterations on one device, run once."""
  return functools.cache(
      lambda method: run(make_setup(method), tiny, 8, num_compiled))


def mean_of(metrics, name):
  return metrics_lib.to_floats(metrics)[name]


# --- What rewards become.


MASK = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 1, 1, 0]], bool)
KL = np.array([[9, .1, .3, 9], [9, .2, 9, 9], [9, -.1, 0, .1], [9, .5, .5, 9]],
              np.float32)


def test_a_group_that_scores_the_same_has_no_advantage():
  reward = np.array([1, 1, 0, 2], np.float32)
  for estimate, scaled in (
      (train.grouped(advantages.group_advantages, 2), np.sqrt(0.5)),
      (train.grouped(advantages.leave_one_out_advantages, 2), 2.0)):
    got = np.asarray(estimate(reward, KL, MASK))
    assert not got[:2].any()  # And no rounding, scaled to unit deviation.
    np.testing.assert_allclose(
        got[2:], MASK[2:] * np.array([[-scaled], [scaled]]), rtol=1e-3)


def test_a_responses_kl_comes_off_its_reward_before_it_is_compared():
  reward = np.array([1, 1, 0, 2], np.float32)
  got = train.grouped(
      advantages.leave_one_out_advantages, 2, kl_coef=0.5)(reward, KL, MASK)
  # Rewards less half of .4, .2, 0 and 1, where the mask is on.
  of_row = [-0.1, 0.1, -1.5, 1.5]
  np.testing.assert_allclose(got, MASK * np.array(of_row)[:, None], atol=1e-6)


@pytest.mark.parametrize('scale', [False, True])
def test_to_go_is_what_a_token_still_earns_less_the_batchs_mean(scale):
  reward = np.array([1, 1, 0, 2], np.float32)
  got = np.asarray(train.to_go(kl_coef=0.5, gamma=0.5, scale=scale)(
      reward, KL, MASK))
  # r = −.05, 1 − .15; 1 − .1; .05, 0, −.05; −.25, 2 − .25.
  returns = np.array([
      [0, -0.05 + 0.425, 0.85, 0], [0, 0.9, 0, 0],
      [0, 0.05 + 0.25 * -0.05, -0.025, -0.05],
      [0, -0.25 + 0.875, 1.75, 0]])
  kept = returns[MASK]
  due = kept - kept.mean()
  if scale:
    due /= kept.std(ddof=1)
  np.testing.assert_allclose(got[MASK], due, rtol=1e-5)
  assert not got[~MASK].any()


def test_equal_returns_leave_no_advantage_on_any_token():
  for scale in (False, True):
    got = train.to_go(kl_coef=0.0, scale=scale)(
        np.ones(4, np.float32), KL, MASK)
    np.testing.assert_allclose(got, 0, atol=1e-6)


def test_the_best_and_the_worst_of_a_group_are_its_pair(tiny):
  sampled = tiny.trajectory(0, 16)
  reward = np.array([1, 3, -2, 3, 0, 0, 0, 0, 5, 4, 3, 2, 9, 9, 8, 7],
                    np.float32)
  weight = np.repeat(np.array([1, 1, 1, 0], np.float32), K)
  pairs = train.best_and_worst(K)(sampled.replace(
      ref_logprobs=sampled.logprobs, reward=reward, weight=weight))
  rows = np.array([[1, 2], [4, 4], [8, 11], [12, 12]])
  # A tie says nothing, and filler is neither the best nor the worst.
  np.testing.assert_array_equal(pairs.weight, [1, 0, 1, 0])
  for i in (0, 2):
    for name, source in (
        ('tokens', sampled.tokens), ('loss_mask', sampled.response_mask),
        ('attention_mask', sampled.attention_mask),
        ('ref_logprobs', sampled.logprobs)):
      np.testing.assert_array_equal(
          getattr(pairs, name)[i], source[rows[i]], err_msg=name)
  assert isinstance(pairs, PreferenceBatch)
  assert pairs.tokens.shape == (4, 2, sampled.tokens.shape[1])


def test_a_filler_response_of_a_real_group_is_never_picked(tiny):
  sampled = tiny.trajectory(0, 8)
  pairs = train.best_and_worst(K)(sampled.replace(
      ref_logprobs=sampled.logprobs,
      reward=np.array([0, 1, 7, -7, 2, 1, 7, 7], np.float32),
      weight=np.array([1, 1, 0, 0, 1, 0, 0, 0], np.float32)))
  np.testing.assert_array_equal(pairs.tokens[0], sampled.tokens[[1, 0]])
  np.testing.assert_array_equal(pairs.weight, [1, 0])


# --- What is measured.


def test_a_reward_is_penalised_without_eos_but_logged_as_it_was(tiny):
  annotate = jax.jit(online.make_online_annotate(
      tiny.model, BASE, group, prompt_length=tiny.prompt_length,
      eos_id=tiny.eos_id))
  sampled = tiny.trajectory(0)
  tokens = np.where(sampled.tokens == tiny.eos_id, 9, sampled.tokens)
  ended = np.array([1, 0, 1, 0, 0, 1, 1, 0], bool)
  tokens[ended, tiny.prompt_length] = tiny.eos_id
  tokens[1, 0] = tiny.eos_id  # In the prompt it ends nothing.
  sampled, real = sampled.replace(tokens=tokens), sampled.weight > 0
  ref = jax.tree.map(lambda x: x * 1.1, tiny.params)
  reward = np.arange(8, dtype=np.float32) ** 2
  t, measured = annotate(tiny.params, ref, sampled, reward)
  penalised = reward - 0.5 * ~ended
  np.testing.assert_allclose(t.reward, penalised)
  np.testing.assert_allclose(measured['reward'].compute(),
                             reward[real].mean(), rtol=1e-6)
  kl = np.sum(t.logprobs - t.ref_logprobs, axis=1, where=sampled.response_mask)
  np.testing.assert_allclose(measured['kl'].compute(), kl[real].mean(),
                             rtol=1e-4)
  assert np.abs(kl).min() > 1e-4
  np.testing.assert_allclose(
      measured['reward_spread'].compute(),
      penalised.reshape(2, K).std(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_the_kl_is_exactly_zero_at_the_reference(method, history):
  _, metrics, seen, _ = history(method)
  assert metrics[0]['kl'].total == 0 != metrics[1]['kl'].total
  np.testing.assert_array_equal(seen[0].logprobs, seen[0].ref_logprobs)
  assert metrics[0]['reward'].weight == 28
  assert not seen[0].response_mask[28:].any()
  assert max(mean_of(m, 'decode_gap') for m in metrics) < 1e-4


@pytest.mark.parametrize('method, estimate', [
    (name, METHODS[name][0]) for name in ('grpo', 'rloo', 'reinforce_pp')])
def test_advantages_are_those_of_the_real_rows(method, estimate, history):
  for t in history(method)[2]:
    due = estimate(t.reward, t.logprobs - t.ref_logprobs, t.response_mask)
    np.testing.assert_allclose(t.advantages, due, atol=1e-4)
    assert np.abs(t.advantages).max() > 0.5


def test_every_epoch_takes_each_response_or_pair_once(history):
  states, metrics, seen, _ = history('grpo')
  for i, (state, measured) in enumerate(zip(states, metrics, strict=True), 1):
    assert measured['loss'].weight == BASE.num_epochs * 28
    assert state.step == 4 * i
  _, metrics, seen, _ = history('online_dpo')
  counts = set()
  for measured, t in zip(metrics, seen, strict=True):
    groups = t.reward.reshape(-1, K)[:7]
    num_pairs = np.sum(groups.max(1) > groups.min(1))
    assert measured['loss'].weight == BASE.num_epochs * num_pairs
    counts.add(num_pairs)
  assert len(counts) > 2  # Where all tokens are liked, none is left.


def test_the_ratio_is_one_on_the_first_minibatch(make_setup, tiny, history):
  """But for an ulp or two: annotation and update are two programs."""
  config = dataclasses.replace(BASE, num_epochs=1, num_minibatches=1)
  _, (measured,), _, _ = run(make_setup('grpo', config), tiny, 1)
  np.testing.assert_allclose(mean_of(measured, 'ratio'), 1, atol=1e-6)
  assert 0 <= mean_of(measured, 'approx_kl') < 1e-11
  assert mean_of(history('grpo')[1][0], 'approx_kl') > 1e-4


# --- What the result may not depend on.


@pytest.mark.parametrize('method', METHODS)
def test_an_iteration_compiles_each_program_once(method, history):
  compiled = history(method)[3]
  assert compiled[0] > 0
  assert not any(compiled[1:])


@pytest.mark.parametrize('method', ['grpo', 'online_dpo'])
def test_four_microbatches_equal_one(
    method, make_setup, tiny, assert_close):
  config = dataclasses.replace(BASE, num_minibatches=1, num_microbatches=1)
  cut = dataclasses.replace(config, num_microbatches=4)
  (state,), (metrics,), _, _ = run(make_setup(method, config), tiny, 1)
  (cut_state,), (cut_metrics,), _, _ = run(make_setup(method, cut), tiny, 1)
  assert_close(cut_state, state, atol=1e-5)
  assert_close(off_noise(cut_metrics), off_noise(metrics), rtol=1e-4, atol=1e-4)
  assert_moved(tiny, state)


@pytest.mark.parametrize('method', [
    'grpo', pytest.param('online_dpo', marks=pytest.mark.slow)])
def test_a_prompt_that_is_read_once_equals_one_read_with_each_sample(
    method, make_setup, tiny, assert_close):
  config = dataclasses.replace(BASE, num_minibatches=1, num_microbatches=1)
  shared = dataclasses.replace(config, layout='branched')
  (state,), (metrics,), (seen,), _ = run(make_setup(method, config), tiny, 1)
  (got,), (got_metrics,), (got_seen,), _ = run(
      make_setup(method, shared), tiny, 1)
  np.testing.assert_array_equal(got_seen.tokens, seen.tokens)
  assert seen.rows is None
  # A row for each of 8 prompts: one less than P, and K responses with one more.
  assert got_seen.rows.tokens.shape == (8, 1, 2 + K * (5 + 1))
  real = seen.response_mask
  for name in ('logprobs', 'ref_logprobs'):
    np.testing.assert_allclose(getattr(got_seen, name)[real],
                               getattr(seen, name)[real], atol=1e-5)
  assert_close(got, state, atol=1e-5)
  assert_close(off_noise(got_metrics), off_noise(metrics), rtol=1e-4, atol=1e-4)
  assert_moved(tiny, state)


@pytest.mark.parametrize('method, spec, parts', [
    ('grpo', FULL, 4), pytest.param('grpo', 'one', 1, marks=pytest.mark.slow),
    pytest.param('online_dpo', 'one', 2, marks=pytest.mark.slow)])
def test_prompts_that_share_rows_equal_prompts_in_rows_of_their_own(
    method, spec, parts, make_setup, tiny, assert_close):
  """Over devices, and in microbatches: a cell for each part."""
  config = dataclasses.replace(BASE, num_minibatches=1, num_microbatches=1)
  (state,), (metrics,), (seen,), _ = run(make_setup(method, config), tiny, 1)
  setup = make_setup(method, dataclasses.replace(
      config, layout='packed', num_microbatches=2 if parts == 2 else 1), spec)
  plan = data.make_prompt_layout(
      'packed', max_new_tokens=5, num_samples=K, num_cells=parts)
  (got,), (got_metrics,), (got_seen,), _ = run(setup, tiny, 1, plan=plan)
  np.testing.assert_array_equal(got_seen.tokens, seen.tokens)
  assert got_seen.rows.index.shape == (parts, 8 * K // parts, 3 + 5)
  assert_close(got, state, atol=1e-5)
  assert_close(off_noise(got_metrics), off_noise(metrics), rtol=1e-3, atol=1e-3)
  assert_moved(tiny, state)


@pytest.mark.slow
def test_branches_are_cut_and_spread_by_whole_groups(
    make_setup, tiny, assert_close):
  config = dataclasses.replace(BASE, num_minibatches=1, layout='branched')
  cut = dataclasses.replace(config, num_microbatches=2)
  (state,), _, _, _ = run(make_setup('grpo', config), tiny, 1)
  (far,), _, _, _ = run(make_setup('grpo', cut, FULL), tiny, 1)
  assert_close(far.params, state.params, atol=1e-5)


@pytest.mark.parametrize('method, spec', [
    ('grpo', 'one'), pytest.param('grpo', FULL, marks=pytest.mark.slow),
    pytest.param('online_dpo', 'one', marks=pytest.mark.slow)])
def test_adapters_learn_over_a_base_that_is_the_reference(
    method, spec, make_setup, tiny):
  setup = make_setup(method, BASE, spec, 2)
  base = jax.device_get(setup.policy.base)
  states, metrics, seen, _ = run(setup, tiny, 2)
  jax.tree.map(np.testing.assert_array_equal, setup.policy.base, base)
  assert lora.split(states[0].params)[0] == {}  # All that is trained.
  # New adapters change nothing, so that the first rollout is the reference's.
  assert mean_of(metrics[0], 'kl') == 0.0 != mean_of(metrics[1], 'kl')
  np.testing.assert_array_equal(seen[0].logprobs, seen[0].ref_logprobs)
  whole = setup.policy.whole(states[1].params)
  said = scoring.token_logprobs(
      setup.policy.model, whole, seen[1].tokens, seen[1].attention_mask)
  assert np.abs(said - seen[1].logprobs)[seen[1].response_mask].max() > 1e-3


@pytest.mark.parametrize('method', ['rloo', 'online_dpo'])
def test_eight_devices_equal_one(
    method, make_setup, tiny, history, assert_close):
  """Data, fsdp and tensor axes are all in use."""
  states, metrics, seen, _ = (x[:1] for x in history(method))
  far_states, far_metrics, far_seen, _ = run(
      make_setup(method, BASE, FULL), tiny, 1)
  for name in ('tokens', 'response_mask', 'reward'):
    np.testing.assert_array_equal(getattr(far_seen[0], name),
                                  getattr(seen[0], name), err_msg=name)
  np.testing.assert_allclose(
      far_seen[0].advantages, seen[0].advantages, atol=1e-5)
  assert_close(far_states[0].params, states[0].params, atol=1e-5)
  assert_close(off_noise(far_metrics[0]), off_noise(metrics[0]), rtol=1e-3,
               atol=1e-3)
  assert_moved(tiny, states[0])


def off_noise(metrics):
  """All but the accuracy, which at the reference is rounding's sign."""
  return {k: v for k, v in metrics.items() if k != 'accuracy'}


def assert_moved(tiny, state):
  """Each parameter moved by far more than two runs may differ by."""
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params,
                       tiny.params)
  assert min(jax.tree.leaves(moved)) > 1e-3


def test_an_interrupted_run_equals_one_that_was_not(
    make_setup, tiny, tmp_path):
  setup = make_setup()
  batches = lambda start: (
      make_prompts(tiny, i) for i in itertools.count(start))

  def run_to(folder, num_steps):
    stage = train.Stage(
        'grpo', tmp_path / folder, setup.mesh, num_steps, seed=0)
    return train.run_stage(
        stage, setup.iterate, setup.start(), setup.shardings, batches)

  whole = run_to('whole', 3)
  run_to('stopped', 1)
  resumed = run_to('stopped', 3)
  assert resumed.step == 12
  for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole),
                  strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)
  files = [(tmp_path / folder / 'metrics.jsonl').read_bytes()
           for folder in ('whole', 'stopped')]
  assert files[0] == files[1] and files[0].count(b'\n') == 3


# --- That it learns.


@pytest.mark.parametrize('method', METHODS)
def test_a_liked_token_is_written_more_and_more(method, history):
  rewards = [mean_of(m, 'reward') for m in history(method)[1]]
  assert rewards[0] < 0.8  # Before the first update.
  assert np.mean(rewards[-2:]) > rewards[0] + 0.5, rewards
