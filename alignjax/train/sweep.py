"""Many small runs as one program: settings × seeds under `vmap`.

A testbed model leaves most of a device idle, and its compile takes longer than
its steps. S members with a state, a batch and settings each are one program:
compiled once, whatever S. On a mesh the members are split over all devices.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import optax

from alignjax import sharding
from alignjax.train.state import TrainState
from alignjax.train.step import make_update
from alignjax.train.step import Objective


def make_sweep(
    make_objective: Callable[..., Objective],
    optimizer: optax.GradientTransformation, *, mesh: jax.sharding.Mesh,
):
  """Returns `(init, step)` over S members; both are jitted.

  Args:
    make_objective: from settings, by name, to an objective; the settings are
      traced numbers.
    optimizer: every member's.
    mesh: over all of whose devices the members are split; S must be a multiple
      of their number.

  Returns:
    `init(params, seeds [S]) -> state` with a leading S on every leaf, from one
    tree of parameters; and `step(state, batches, settings) -> (state,
    metrics)`, where every leaf has a leading S and `state` is donated. A
    member's numbers are those of a run of its own.
  """
  members = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

  def new_member(params, seed):
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params,
        opt_state=optimizer.init(params), key=jax.random.key(seed))

  def update(state, batch, settings: Mapping[str, jax.Array]):
    return make_update(make_objective(**settings), optimizer)(state, batch)

  init = jax.jit(
      jax.vmap(new_member, in_axes=(None, 0)), out_shardings=members,
      in_shardings=(sharding.replicated(mesh), members))
  step = jax.jit(
      jax.vmap(update), donate_argnums=0,
      in_shardings=(members, members, members), out_shardings=members)
  return init, step
