"""Names of dimensions, and over which axes of a mesh they are split.

Parameters and batches say what their dimensions are (`embed`, `heads`, `batch`
...); one table of rules says where each lies. Inside a program, `constrain`
pins an activation, and `whole` gathers a weight for its matmul and scatters its
gradient back:

    weight, f32  [embed / fsdp, mlp / tensor]      on every chip its part
      └─ cast ─ whole ─► bf16 [embed, mlp / tensor]   one layer at a time
    gradient  ◄─ reduce-scatter ─ [embed, mlp / tensor]

Both do nothing unless the program was built by `jit`, which knows the mesh.
"""

from collections.abc import Callable
import contextlib
import contextvars
import functools
import math

import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

# Logical axis → mesh axes, first come first served: a mesh axis already taken
# by an earlier dimension of the array is skipped.
RULES: dict[str, tuple[str, ...]] = {
    'batch': ('data', 'fsdp'),
    'vocab': ('tensor',),
    'heads': ('tensor',),
    'kv_heads': ('tensor',),
    'mlp': ('tensor',),
    'embed': ('fsdp', 'sequence'),
    'head_dim': (),
    'layers': (),
    'positions': (),
    'rank': (),
    'norm': (),
    # Of activations alone.
    'length': ('sequence',),         # Of a row; its keys are whole.
    'rows': ('data',),               # Whose dimension of features is split.
    # Logits, split as far as they go.
    'vocab_shard': ('tensor', 'fsdp', 'sequence'),
}

# A table [V, D] for logits: by the vocabulary, or by D where that does not
# divide.
UNEMBEDDING = 'vocab_shard', 'embed'

_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar(
    'mesh', default=None)


def current_mesh() -> Mesh | None:
  """The mesh of the program that is being traced; None outside of `jit`'s."""
  return _mesh.get()


def platform() -> str:
  """What the program that is being traced is compiled for: 'cpu', 'tpu' ..."""
  mesh = current_mesh()
  return (jax.default_backend() if mesh is None
          else mesh.devices.flat[0].platform)


@contextlib.contextmanager
def over(mesh: Mesh | None):
  """What is traced inside lies over `mesh`."""
  token = _mesh.set(mesh)
  try:
    yield
  finally:
    _mesh.reset(token)


def jit(function: Callable, mesh: Mesh | None, **settings) -> Callable:
  """`jax.jit` of a function that is traced `over` a mesh."""

  @functools.wraps(function)
  def over_mesh(*args, **kwargs):
    with over(mesh):
      return function(*args, **kwargs)

  return jax.jit(over_mesh, **settings)


def spec(names, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """Mesh axes of one array: none twice, of one device, or that do not divide.

  Args:
    names: a logical axis for each dimension; None is not split.
    shape: of the array.
    mesh: whose axes they are.
  """
  taken, dimensions = set(), []
  for name, size in zip(names, shape, strict=True):
    chosen = tuple(a for a in RULES[name] if a not in taken
                   and mesh.shape[a] > 1) if name else ()
    if size % math.prod(mesh.shape[a] for a in chosen):
      chosen = ()  # Three heads over two devices: each holds all three.
    taken.update(chosen)
    dimensions.append(chosen[0] if len(chosen) == 1 else chosen or None)
  return PartitionSpec(*dimensions)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """`x`, pinned to where its dimensions' names lie; its gradient as well."""
  mesh = current_mesh()
  if mesh is None or mesh.size == 1:
    return x
  return _pinned(x, mesh, names)


def num_shards(name: str) -> int:
  """Into how many parts the mesh splits a dimension of this name."""
  mesh = current_mesh()
  return 1 if mesh is None else math.prod(
      mesh.shape[axis] for axis in RULES[name])


def splits_weights() -> bool:
  """Whether devices hold parts of the weights, of one program's rows."""
  return num_shards('embed') > 1


def divides(name: str, size: int) -> bool:
  """Whether a dimension of this name and size is split evenly."""
  return size % num_shards(name) == 0


def whole(weight: jax.Array, dtype, *names: str | None) -> jax.Array:
  """A weight in the dtype of its matmul, split over nothing but tensor.

  It is cast before it travels; its gradient is summed over devices in `dtype`,
  too, and split again.

  Args:
    weight: of any shape. Use it inside a remat, so that the gathered copy is
      not held.
    dtype: of the activations that it meets.
    *names: its logical axes.
  """
  if not splits_weights():
    return weight.astype(dtype)
  gathered = tuple(
      None if name and set(RULES['embed']) & set(RULES[name]) else name
      for name in names)
  return reshard(weight.astype(dtype), gathered, names)


def reshard(
    x: jax.Array, names: tuple[str | None, ...],
    back: tuple[str | None, ...],
) -> jax.Array:
  """`x` laid out by `names`, and its gradient by `back`."""
  mesh = current_mesh()
  if mesh is None or mesh.size == 1:
    return x

  @jax.custom_vjp
  def moved(x):
    return _pinned(x, mesh, names)

  moved.defvjp(lambda x: (moved(x), None),
               lambda _, g: (_pinned(g, mesh, back),))
  return moved(x)


def _pinned(x, mesh, names):
  return jax.lax.with_sharding_constraint(
      x, NamedSharding(mesh, spec(names, x.shape, mesh)))
