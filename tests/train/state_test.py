"""The state: a copy, laid out like its parameters, with a key that stays."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import optax
import pytest

from alignjax import models
from alignjax import sharding
from alignjax import train


@pytest.fixture(scope='module')
def made(tiny, mesh_of):
  optimizer = train.make_optimizer(1e-3, 10)
  return train.init_state(tiny.params, tiny.model.axes(), optimizer,
                          mesh=mesh_of('data:2,fsdp:2,tensor:2'), seed=3)


def test_a_fresh_state_holds_the_parameters_step_zero_and_the_key(
    tiny, made, assert_close):
  state, _ = made
  assert_close(state.params, tiny.params, rtol=0)
  assert state.step.dtype == jnp.int32 and state.step == 0
  np.testing.assert_array_equal(jax.random.key_data(state.key),
                                jax.random.key_data(jax.random.key(3)))


def test_every_leaf_lies_as_its_sharding_says(made):
  state, shardings = made
  jax.tree.map(
      lambda x, s: np.testing.assert_(x.sharding.is_equivalent_to(s, x.ndim)),
      state, shardings)


def test_moments_lie_as_their_parameters(made):
  _, shardings = made
  params = shardings.params
  assert params['embed'].spec == PartitionSpec('tensor', 'fsdp')
  for moment in ('mu', 'nu'):
    assert optax.tree.get(shardings.opt_state, moment) == params
  adam = optax.tree.get(shardings.opt_state, 'ScaleByAdamState')
  assert adam.count.spec == PartitionSpec()


@pytest.mark.parametrize('on_device', [False, True])
def test_donating_the_state_leaves_the_arrays_it_came_from_usable(
    tiny, mesh_of, on_device):
  mesh = mesh_of('one')
  optimizer = optax.sgd(0.1)
  params = jax.tree.map(np.array, tiny.params)
  if on_device:
    params = sharding.put(params, sharding.replicated(mesh))
  state, shardings = train.init_state(
      params, tiny.model.axes(), optimizer, mesh=mesh, seed=0)
  overwrite = jax.jit(
      lambda s: s.replace(params=jax.tree.map(lambda x: x + 1.0, s.params)),
      donate_argnums=0, in_shardings=(shardings,), out_shardings=shardings)
  after = overwrite(state)
  assert state.params['embed'].is_deleted()
  np.testing.assert_array_equal(params['embed'], tiny.params['embed'])
  np.testing.assert_array_equal(after.params['embed'],
                                tiny.params['embed'] + 1.0)


def test_two_states_from_the_same_arrays_share_nothing(tiny, mesh_of):
  mesh = mesh_of('one')
  params = sharding.put(tiny.params, sharding.replicated(mesh))
  states = [train.init_state(params, tiny.model.axes(), optax.sgd(0.1),
                             mesh=mesh, seed=0)[0] for _ in range(2)]
  pointers = [x['embed'].unsafe_buffer_pointer()
              for x in (params, *(s.params for s in states))]
  assert len(set(pointers)) == 3


def test_shaped_describes_the_state_with_its_shardings(made):
  state, shardings = made
  shapes = train.shaped(state, shardings)
  jax.tree.map(
      lambda x, shape: np.testing.assert_equal(
          (x.shape, x.dtype, x.sharding),
          (shape.shape, shape.dtype, shape.sharding)), state, shapes)


def test_stacked_layers_and_scalar_heads_have_states_too(tiny, mesh_of):
  mesh = mesh_of('data:2,fsdp:2,tensor:2')
  config = models.ModelConfig(**(vars(tiny.model.config) | {
      'scan_layers': True, 'num_layers': 2}))
  model = models.ScalarModel(config)
  params = jax.jit(model.init)(jax.random.key(0))
  state, shardings = train.init_state(
      params, model.axes(), train.make_optimizer(1e-3, 10), mesh=mesh, seed=0)
  gate = optax.tree.get(shardings.opt_state, 'mu')['backbone']['layers']['gate']
  assert gate.spec == PartitionSpec(None, 'fsdp', 'tensor')
  assert state.params['head'].sharding.is_fully_replicated
