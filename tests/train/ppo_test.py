"""PPO's iteration: what it measures, what it may depend on, and that it learns.

The reward is a count of one token, so that every number can be worked again
from the trajectories, which `observe` brings here.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignjax import adapters
from alignjax import data
from alignjax import metrics as metrics_lib
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax import train
from alignjax.train import ppo

LIKED = 5  # The token that the toy reward counts.
BASE = train.PPOConfig(
    kl_coef=0.1, kl_target=0.2, kl_horizon=20.0, num_epochs=2,
    num_minibatches=2, max_new_tokens=5, missing_eos_penalty=0.5)


@dataclasses.dataclass
class Setup:
  """An iteration, how to begin it, and the trajectories that it saw."""

  iterate: Any
  start: Any      # () -> PPOState
  shardings: Any
  mesh: Any
  reward_fn: Any
  seen: list


@pytest.fixture(scope='module')
def make_setup(tiny, mesh_of):
  """`(config, mesh, is_toy) -> Setup`; equal ones share their programs."""

  @functools.cache
  def make(config=BASE, spec='one', is_toy=True):
    mesh, seen = mesh_of(spec), []
    optimizers = optax.adam(2e-2), optax.adam(2e-2)
    policy = adapters.full(tiny.model, tiny.params, '')
    value = adapters.full(tiny.scalar, tiny.scalar_params, '')
    start = lambda: train.init_ppo_state(
        policy, value, *optimizers, config, mesh=mesh, seed=0)
    shardings = start()[1]
    rows = sharding.batch_sharding(mesh)
    if is_toy:
      columns = jnp.arange(tiny.prompt_length + config.max_new_tokens)
      reward_fn = jax.jit(
          lambda tokens, mask: jnp.sum(
              (tokens == LIKED) & mask & (columns >= tiny.prompt_length),
              axis=1, dtype=jnp.float32),
          in_shardings=(rows, rows), out_shardings=rows)
    else:
      of_value = shardings.value.params
      reward_fn = rollout.make_reward_fn(
          tiny.scalar, sharding.put(tiny.scalar_params, of_value), mesh=mesh,
          param_shardings=of_value)

    def observe(trajectory):
      seen.append(jax.device_get(trajectory))
      return {'liked': np.mean(trajectory.tokens == LIKED)}

    iterate = train.make_ppo_iteration(
        policy, value, reward_fn, *optimizers, config, shardings=shardings,
        mesh=mesh, prompt_length=tiny.prompt_length, eos_id=tiny.eos_id,
        observe=observe)
    return Setup(iterate, lambda: start()[0], shardings, mesh, reward_fn, seen)

  return make


def run(setup, tiny, num_iterations, num_compiled=lambda: 0):
  """States, metrics, trajectories and programs compiled, per iteration."""
  setup.seen.clear()
  state, states, metrics, compiled = setup.start(), [], [], []
  rows = sharding.batch_sharding(setup.mesh)
  for i in range(num_iterations):
    prompts = sharding.put(tiny.prompts(i), rows)
    before = num_compiled()
    state, measured = setup.iterate(state, prompts)
    compiled.append(num_compiled() - before)
    states.append(jax.device_get(state._replace(
        policy=state.policy.replace(key=None),
        value=state.value.replace(key=None))))
    metrics.append(jax.device_get(measured))
  return states, metrics, list(setup.seen), compiled


@pytest.fixture(scope='module')
def history(make_setup, tiny, num_compiled):
  """Twenty iterations of the toy problem on one device."""
  return run(make_setup(), tiny, 20, num_compiled)


def mean_of(metrics, name):
  return metrics_lib.to_floats(metrics)[name]


# --- What is measured.


def test_kl_is_exactly_zero_at_the_reference(history):
  _, metrics, seen, _ = history
  assert metrics[0]['kl'].total == 0
  np.testing.assert_array_equal(seen[0].logprobs, seen[0].ref_logprobs)
  assert metrics[1]['kl'].total != 0  # And not after a step away from it.


def test_the_decoder_agrees_with_the_training_forward(history):
  gaps = [mean_of(m, 'decode_gap') for m in history[1]]
  assert max(gaps) < 1e-4
  for t, gap in zip(history[2], gaps):
    off = np.abs(t.logprobs - t.sampler_logprobs)[t.response_mask]
    np.testing.assert_allclose(gap, off.max(), rtol=1e-5)


def test_metrics_are_those_of_the_real_rows(tiny, history):
  for measured, t in zip(history[1], history[2]):
    got = metrics_lib.to_floats(measured)
    liked = (t.tokens == LIKED) & t.response_mask
    np.testing.assert_allclose(got['reward'], liked[:7].sum() / 7, rtol=1e-6)
    np.testing.assert_allclose(got['length'], t.response_mask[:7].sum() / 7,
                               rtol=1e-6)
    ended = ((t.tokens == tiny.eos_id) & t.response_mask).any(axis=1)
    np.testing.assert_allclose(got['ended'], ended[:7].mean(), rtol=1e-6)
    kl = (t.logprobs - t.ref_logprobs).sum(axis=1, where=t.response_mask)
    np.testing.assert_allclose(got['kl'], kl[:7].mean(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got['liked'], (t.tokens == LIKED).mean(),
                               rtol=1e-5)
    assert measured['reward'].weight == 7 and not t.response_mask[7].any()
  lengths = np.concatenate([t.response_mask.sum(axis=1) for t in history[2]])
  assert len(set(lengths)) > 3  # The facts above were not of one kind.


def test_advantages_are_whitened_over_the_response_tokens(history):
  for t in history[2]:
    kept = t.advantages[t.response_mask]
    np.testing.assert_allclose(kept.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(kept.var(ddof=1), 1, rtol=1e-4)
    assert not t.advantages[~t.response_mask].any()


def test_every_epoch_takes_each_token_once(history):
  states, metrics, seen, _ = history
  for i, (state, measured, t) in enumerate(zip(states, metrics, seen), 1):
    num_tokens = t.response_mask.sum()
    assert measured['loss'].weight == BASE.num_epochs * num_tokens
    assert measured['value_loss'].weight == BASE.num_epochs * num_tokens
    assert state.policy.step == state.value.step == 4 * i


def test_the_ratio_is_exactly_one_on_the_first_minibatch(
    make_setup, tiny, history):
  config = dataclasses.replace(BASE, num_epochs=1, num_minibatches=1)
  _, (measured,), (t,), _ = run(make_setup(config), tiny, 1)
  assert mean_of(measured, 'ratio') == 1.0
  assert mean_of(measured, 'approx_kl') == 0.0
  assert measured['clipped'].total == 0
  # Nor do advantages depend on how the rollout is used.
  np.testing.assert_array_equal(t.advantages, history[2][0].advantages)
  assert mean_of(history[1][0], 'approx_kl') > 1e-3


# --- The controller.


def test_the_kl_coefficient_moves_once_an_iteration_towards_the_target(
    history):
  states, metrics, _, _ = history
  coef, directions = BASE.kl_coef, set()
  for state, measured in zip(states, metrics):
    np.testing.assert_allclose(measured['kl_coef'].compute(), coef, rtol=1e-6)
    error = np.clip(mean_of(measured, 'kl') / BASE.kl_target - 1, -0.2, 0.2)
    coef = coef * (1 + error * 7 / BASE.kl_horizon)
    np.testing.assert_allclose(state.kl.coef, coef, rtol=1e-5)
    coef = state.kl.coef
    directions.add(np.sign(error))
  assert directions == {-1, 1}


def test_without_a_penalty_there_is_nothing_to_control():
  controller = train.make_kl_controller(
      dataclasses.replace(BASE, kl_coef=0.0))
  state = jax.jit(controller.update)(
      controller.init(), jnp.float32(100.0), jnp.float32(8))
  assert state.coef == 0 and state.coef.dtype == jnp.float32


def test_an_infinite_horizon_keeps_the_coefficient():
  controller = train.make_kl_controller(
      dataclasses.replace(BASE, kl_horizon=float('inf')))
  state = controller.update(controller.init(), jnp.float32(100.0), 8)
  np.testing.assert_allclose(state.coef, BASE.kl_coef)


# --- Rewards.


def test_the_reward_sits_on_the_last_token_less_kl_and_missing_eos(tiny):
  """With γ = 0 the returns are the token rewards themselves."""
  config = dataclasses.replace(BASE, gamma=0.0)
  annotate = jax.jit(ppo.make_annotate(
      tiny.model, tiny.scalar, config, prompt_length=tiny.prompt_length,
      eos_id=tiny.eos_id))
  sampled = tiny.trajectory(0)
  tokens = np.where(sampled.tokens == tiny.eos_id, 9, sampled.tokens)
  last = sampled.response_mask.shape[1] - 1 - np.argmax(
      sampled.response_mask[:, ::-1], axis=1)
  has_eos = np.array([1, 0, 1, 0, 0, 1, 1, 0], bool)
  tokens[has_eos, last[has_eos]] = tiny.eos_id
  tokens[1, 0] = tiny.eos_id  # In the prompt it ends nothing.
  # A reference that is off the policy, so that the KL is not 0.
  ref = jax.tree.map(lambda x: x * 1.1, tiny.params)
  reward = np.arange(8, dtype=np.float32)
  t, measured = annotate(
      tiny.params, ref, tiny.scalar_params, jnp.float32(0.1),
      sampled.replace(tokens=tokens), reward)
  is_real = sampled.weight > 0
  expected = -0.1 * np.asarray(t.logprobs - t.ref_logprobs)
  assert np.abs(expected[sampled.response_mask]).min() > 1e-6
  expected[np.arange(8), last] += reward - 0.5 * ~has_eos
  is_loss = sampled.response_mask & is_real[:, None]
  np.testing.assert_allclose(t.returns, np.where(is_loss, expected, 0),
                             atol=1e-5)
  np.testing.assert_array_equal(t.reward, reward)  # Logged as it was given.
  np.testing.assert_allclose(measured['ended'].compute(),
                             has_eos[is_real].mean(), rtol=1e-6)
  np.testing.assert_allclose(measured['reward'].compute(),
                             reward[is_real].mean(), rtol=1e-6)


def test_values_are_those_of_the_value_function_before_each_token(
    tiny, history):
  first = history[2][0]
  values = jax.jit(scoring.token_values, static_argnums=0)(
      tiny.scalar, tiny.scalar_params, first.tokens, first.attention_mask)
  np.testing.assert_allclose(first.values, values, atol=1e-5)


# --- What the result may not depend on.


def test_an_iteration_compiles_each_program_once(history):
  assert history[3][0] > 0
  assert not any(history[3][1:])


def test_four_microbatches_equal_one(make_setup, tiny, history, assert_close):
  config = dataclasses.replace(BASE, num_microbatches=4)
  states, metrics, seen, _ = run(make_setup(config), tiny, 1)
  np.testing.assert_array_equal(seen[0].advantages, history[2][0].advantages)
  assert_close(states[0], history[0][0], atol=1e-5)
  assert_close(metrics[0], history[1][0], rtol=1e-4, atol=1e-4)


def test_a_prompt_that_is_read_once_equals_one_read_with_each_sample(
    make_setup, tiny, assert_close):
  """Four samples each of two prompts, by all four models.

  Of the first batch, one weight's gradient is 0 up to rounding, which Adam's
  first step turns into a step of any size: so it is the second.
  """
  config = dataclasses.replace(BASE, num_minibatches=1, num_samples=4)
  prompts = jax.tree.map(lambda x: np.repeat(x[:2], 4, axis=0), tiny.prompts(1))
  prompts = prompts.replace(sample_id=np.arange(8, dtype=np.int32))
  states, seen = [], []
  for layout in ('padded', 'branched', 'packed'):
    setup = make_setup(
        dataclasses.replace(config, layout=layout), 'one', False)
    plan = data.make_prompt_layout(layout, max_new_tokens=5, num_samples=4)
    state, _ = setup.iterate(setup.start(), sharding.put(
        plan(prompts), sharding.batch_sharding(setup.mesh)))
    states.append((state.policy.params, state.value.params, state.kl))
    seen += setup.seen
  assert seen[1].rows.tokens.shape == (2, 1, 2 + 4 * (5 + 1))
  assert seen[2].rows.index.shape == (1, 8, 3 + 5)  # One cell for all.
  real = seen[0].response_mask
  for got, state in zip(seen[1:], states[1:], strict=True):
    np.testing.assert_array_equal(got.tokens, seen[0].tokens)
    for name in ('logprobs', 'values', 'returns'):
      np.testing.assert_allclose(getattr(got, name)[real],
                                 getattr(seen[0], name)[real], atol=1e-5)
    np.testing.assert_allclose(got.reward, seen[0].reward, atol=1e-5)
    assert_close(state, states[0], atol=1e-5)


@pytest.mark.parametrize('spec', [
    'data:2,fsdp:2,tensor:2', 'data:2,sequence:2,tensor:2'])
def test_eight_devices_equal_one(
    spec, make_setup, tiny, num_compiled, assert_close):
  """With a reward model; all four axes of a mesh are in use."""
  here, far = make_setup(BASE, 'one', False), make_setup(
      BASE, spec, False)
  states, metrics, seen, _ = run(here, tiny, 1)
  far_states, far_metrics, far_seen, compiled = run(far, tiny, 3, num_compiled)
  for name in ('tokens', 'response_mask', 'attention_mask'):
    np.testing.assert_array_equal(getattr(far_seen[0], name),
                                  getattr(seen[0], name), err_msg=name)
  for name in ('reward', 'logprobs', 'values', 'advantages', 'returns'):
    np.testing.assert_allclose(
        getattr(far_seen[0], name), getattr(seen[0], name), atol=1e-5,
        err_msg=name)
  assert_close(far_states[0].policy.params, states[0].policy.params, atol=1e-5)
  assert_close(far_states[0].value.params, states[0].value.params, atol=1e-5)
  assert_close(far_metrics[0], metrics[0], rtol=1e-3, atol=1e-3)
  assert compiled[0] > 0 and compiled[1:] == [0, 0]
  assert far.reward_fn.jitted._cache_size() == 1


def test_an_interrupted_run_equals_one_that_was_not(
    make_setup, tiny, tmp_path):
  setup = make_setup()
  batches = lambda start: map(tiny.prompts, itertools.count(start))

  def run_to(folder, num_steps):
    stage = train.Stage('ppo', tmp_path / folder, setup.mesh, num_steps, seed=0)
    return train.run_stage(
        stage, setup.iterate, setup.start(), setup.shardings, batches)

  whole = run_to('whole', 3)
  run_to('stopped', 1)
  resumed = run_to('stopped', 3)
  assert resumed.policy.step == 12
  for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole),
                  strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)
  files = [(tmp_path / folder / 'metrics.jsonl').read_bytes()
           for folder in ('whole', 'stopped')]
  assert files[0] == files[1] and files[0].count(b'\n') == 3


# --- That it learns.


def test_a_liked_token_is_written_more_and_more(history):
  rewards = [mean_of(m, 'reward') for m in history[1]]
  assert rewards[0] < 1.0  # Before the first update.
  assert np.mean(rewards[-4:]) > rewards[0] + 1.0
