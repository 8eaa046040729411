"""Moments in the host's memory: the same run, up to the order of rounding."""

import dataclasses
import itertools

import jax
import numpy as np
import optax
import pytest

from alignjax import adapters
from alignjax import objectives
from alignjax import rollout
from alignjax import sharding
from alignjax import train

MESH = 'fsdp:4,tensor:2'


def kinds(state):
  """Where the moments are, and where all else is."""
  of = lambda tree: {x.sharding.memory_kind for x in jax.tree.leaves(tree)}
  moments = [optax.tree.get(state.opt_state, name) for name in ('mu', 'nu')]
  return of(moments), of((state.params, state.step))


def step_of(tiny, mesh, offload, **changes):
  model = dataclasses.replace(
      tiny.model, config=dataclasses.replace(tiny.model.config, **changes))
  optimizer = train.make_optimizer(
      1e-2, 4, weight_decay=0.1, offload=offload)
  state, shardings = train.init_state(
      model.init(jax.random.key(0)), model.axes(), optimizer, mesh=mesh, seed=0)
  step = train.make_train_step(
      objectives.sft(model), optimizer, shardings=shardings, mesh=mesh)
  return state, shardings, step


@pytest.mark.parametrize('changes', [
    {}, dict(scan_layers=True, num_layers=3)], ids=['apart', 'stacked'])
def test_a_step_is_the_same_and_moments_stay_where_they_are(
    changes, tiny, mesh_of, num_compiled, assert_close):
  mesh, ends = mesh_of(MESH), []
  rows = sharding.batch_sharding(mesh)
  for offload in (False, True):
    state, _, step = step_of(tiny, mesh, offload, **changes)
    compiled = []
    for seed in range(3):
      if offload:
        assert kinds(state) == ({'pinned_host'}, {'device'})
      before = num_compiled()
      state, metrics = step(state, sharding.put(tiny.tokens(seed), rows))
      compiled.append(num_compiled() - before)
    assert compiled == [1, 0, 0]
    ends.append(jax.device_get((state.params, state.opt_state, metrics)))
  assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('first, then', [(True, True), (True, False),
                                         (False, True)])
def test_a_run_resumes_with_and_without(
    first, then, tiny, mesh_of, tmp_path, assert_close):
  """A checkpoint knows nothing of where its moments lay."""
  mesh = mesh_of(MESH)

  def run_to(num_steps, folder, offload):
    state, shardings, step = step_of(tiny, mesh, offload)
    stage = train.Stage('sft', tmp_path / folder, mesh, num_steps, seed=0)
    end = train.run_stage(
        stage, step, state, shardings,
        lambda start: map(tiny.tokens, itertools.count(start)))
    assert kinds(end)[0] == {'pinned_host' if offload else 'device'}
    return jax.device_get((end.params, end.opt_state))

  whole = run_to(3, 'whole', first)
  run_to(2, 'stopped', first)
  resumed = run_to(3, 'stopped', then)
  assert_close(resumed, whole, rtol=1e-5, atol=1e-6)
  if first == then:
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_ppo_fetches_the_moments_of_both_in_every_minibatch(
    tiny, mesh_of, assert_close):
  mesh, ends = mesh_of(MESH), []
  policy = adapters.full(tiny.model, tiny.params, '')
  value = adapters.full(tiny.scalar, tiny.scalar_params, '')
  config = train.PPOConfig(max_new_tokens=5, num_epochs=1)
  of_scalar = sharding.tree_shardings(
      mesh, tiny.scalar.axes(), tiny.scalar_params)
  reward = rollout.make_reward_fn(
      tiny.scalar, sharding.put(tiny.scalar_params, of_scalar), mesh=mesh,
      param_shardings=of_scalar)
  for offload in (False, True):
    optimizers = [train.make_optimizer(1e-2, 8, offload=offload)] * 2
    state, shardings = train.init_ppo_state(
        policy, value, *optimizers, config, mesh=mesh, seed=0)
    iterate = train.make_ppo_iteration(
        policy, value, reward, *optimizers, config, shardings=shardings,
        mesh=mesh, prompt_length=tiny.prompt_length, eos_id=tiny.eos_id)
    for step in range(2):
      state, _ = iterate(state, sharding.put(
          tiny.prompts(step), sharding.batch_sharding(mesh)))
    wanted = {'pinned_host' if offload else 'device'}
    assert kinds(state.policy)[0] == kinds(state.value)[0] == wanted
    ends.append((state.policy.params, state.value.params))
  assert_close(*ends, rtol=1e-4, atol=1e-5)
