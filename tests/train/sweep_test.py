"""A sweep's member is the run that it would have been alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import objectives
from alignjax import train

BETAS = [0.1, 0.1, 1.0, 1.0, 3.0, 3.0, 5.0, 5.0]
SEEDS = np.array([0, 1] * 4)


@pytest.fixture(scope='module')
def optimizer():
  return train.make_optimizer(1e-2, 3)


@pytest.fixture(scope='module')
def swept(tiny, mesh_of, optimizer, num_compiled):
  """Three steps of eight members: (parameters, losses, compiles by step)."""
  init, step = train.make_sweep(
      functools.partial(objectives.dpo, tiny.model), optimizer,
      mesh=mesh_of('data:2,fsdp:2,tensor:2'))
  state, losses, compiles = init(tiny.params, SEEDS), [], []
  for i in range(3):
    each = [tiny.pairs(10 * seed + i) for seed in SEEDS]
    batch = jax.tree.map(lambda *x: np.stack(x), *each)
    before = num_compiled()
    state, metrics = step(state, batch, {'beta': jnp.array(BETAS)})
    compiles.append(num_compiled() - before)
    losses.append(metrics['loss'].compute())
  return state.params, np.stack(losses), compiles


def alone(tiny, mesh, optimizer, beta, seed):
  """The same three steps of one member, by the ordinary step."""
  state, shardings = train.init_state(
      tiny.params, tiny.model.axes(), optimizer, mesh=mesh, seed=int(seed))
  step = train.make_train_step(
      objectives.dpo(tiny.model, beta=beta), optimizer, shardings=shardings,
      mesh=mesh)
  losses = []
  for i in range(3):
    state, metrics = step(state, tiny.pairs(10 * int(seed) + i))
    losses.append(metrics['loss'].compute())
  return state.params, np.stack(losses)


@pytest.mark.parametrize('member', [1, 6])
def test_a_member_is_its_run_alone(
    tiny, mesh_of, optimizer, swept, assert_close, member):
  params, losses, _ = swept
  own, own_losses = alone(
      tiny, mesh_of('one'), optimizer, BETAS[member], SEEDS[member])
  np.testing.assert_allclose(losses[:, member], own_losses, rtol=1e-5)
  assert_close(jax.tree.map(lambda x: x[member], params), own,
               rtol=1e-4, atol=1e-5)


def test_members_of_other_settings_part(swept):
  _, losses, _ = swept
  assert len({round(float(x), 6) for x in losses[2]}) == len(BETAS)


def test_a_sweep_compiles_once(swept):
  assert swept[2][1:] == [0, 0]
