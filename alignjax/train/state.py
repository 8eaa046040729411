"""The immutable train state, and how it comes to lie on a mesh."""

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from alignjax import sharding
from alignjax.train.offload import Offloaded

_HOST = 'pinned_host'


@flax.struct.dataclass
class TrainState:
  """All that a run must remember, and nothing that it can rebuild."""

  step: jax.Array  # [] int32, optimizer steps taken.
  params: chex.ArrayTree
  opt_state: optax.OptState
  key: jax.Array   # PRNG key of the run; never split, only folded by step.


def _new_state(params, optimizer, key) -> TrainState:
  return TrainState(step=jnp.zeros((), jnp.int32), params=params,
                    opt_state=optimizer.init(params), key=key)


def state_shardings(
    params, axes, optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> TrainState:
  """A `TrainState` of shardings: moments lie as the parameters they are of.

  Those of an `Offloaded` optimizer lie in the host's memory.

  Args:
    params: tree of arrays or ShapeDtypeStructs.
    axes: the same tree of logical axis names (`CausalLM.axes()`).
    optimizer: whose state is to be laid out.
    mesh: where.
  """
  whole = sharding.replicated(mesh)
  of_params = sharding.tree_shardings(mesh, axes, params)
  shapes = jax.eval_shape(lambda p: _new_state(p, optimizer, jax.random.key(0)),
                          params)
  place = lambda s: s.with_memory_kind(_HOST) if isinstance(
      optimizer, Offloaded) else s
  of_moments = optax.tree_map_params(
      optimizer, lambda _, s: place(s), shapes.opt_state, of_params,
      transform_non_params=lambda _: whole)
  return TrainState(step=whole, params=of_params, opt_state=of_moments,
                    key=whole)


def abstract_state(
    params, axes, optimizer: optax.GradientTransformation, *,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, TrainState]:
  """(shapes with their shardings, shardings) of a state that is not made."""
  shardings = state_shardings(params, axes, optimizer, mesh)
  shapes = jax.eval_shape(
      lambda p: _new_state(p, optimizer, jax.random.key(0)), params)
  return shaped(shapes, shardings), shardings


def init_state(
    params, axes, optimizer: optax.GradientTransformation, *,
    mesh: jax.sharding.Mesh, seed: int,
) -> tuple[TrainState, TrainState]:
  """A fresh state on the mesh, from a COPY of `params`.

  A copy, because the train step donates its state: the arrays passed in stay
  usable, as a frozen reference for instance.

  Args:
    params: tree of arrays, on the host or on devices.
    axes: the same tree of logical axis names.
    optimizer: its state starts here.
    mesh: where the state is to lie.
    seed: of the run's key.

  Returns:
    The state, and the `TrainState` of shardings that it has.
  """
  shardings = state_shardings(params, axes, optimizer, mesh)
  # Straight to its shards: whole, it may not fit on one device. The copy is
  # made by `make`, which donates nothing.
  params = sharding.put(params, shardings.params)
  make = jax.jit(lambda p, key: _new_state(p, optimizer, key),
                 in_shardings=(shardings.params, shardings.key),
                 out_shardings=shardings)
  key = sharding.put(jax.random.key(seed), shardings.key)
  return make(params, key), shardings


def shaped(state, shardings):
  """The state's shapes with their shardings: what a restore must produce."""
  return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      jax.eval_shape(lambda s: s, state), shardings)
