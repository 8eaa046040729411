"""An optimizer whose moments lie in the host's memory between updates.

    host     mu, nu  [L, ...] ─ layer i ─┐             ┌─► layer i, in its place
    device                    gradient i ┴ update i ───┴─► parameters i

Stacked layers are fetched, updated and sent back one at a time, so that the
device holds the moments of a layer or two; what is not stacked comes whole.
"""

import jax
import jax.numpy as jnp
import optax

_DEVICE = jax.memory.Space.Device
_STACKED = "['layers']"  # In the path of parameters that lead with [L].


class Offloaded(optax.GradientTransformation):
  """An optimizer whose moments `state_shardings` places on the host."""


def offloaded(
    first: optax.GradientTransformation,
    elementwise: optax.GradientTransformation,
) -> Offloaded:
  """`optax.chain(first, elementwise)`, with moments wherever they are.

  Args:
    first: sees all gradients at one time; a clip by their norm.
    elementwise: whose update of an element needs that element only; AdamW.

  Returns:
    An optimizer with the chain's states and, up to rounding, its numbers.
    Moments that `update` is given in the host's memory are returned there;
    where `is_good`, a traced bool, does not hold, as they came.
  """

  def update(grads, states, params=None, *, is_good=None, **others):
    state, inner = states
    grads, new = optax.with_extra_args_support(first).update(
        grads, state, params, **others)
    if is_good is not None:
      new = jax.tree.map(lambda x, old: jnp.where(is_good, x, old), new, state)
    updates, inner = _in_parts(elementwise, grads, inner, params, is_good)
    return updates, (new, inner)

  return Offloaded(optax.chain(first, elementwise).init, update)


def _in_parts(optimizer, grads, state, params, is_good):
  """`optimizer.update`, of stacked layers one at a time."""
  paths = list(_by_path(grads))
  parts = {is_stacked: [p for p in paths if (_STACKED in p) == is_stacked]
           for is_stacked in (False, True)}
  updates, new = {}, {}
  for is_stacked, chosen in parts.items():
    if not chosen:
      continue
    those = lambda tree, chosen=chosen: {
        path: leaf for path, leaf in _by_path(tree).items() if path in chosen}
    run = _layer_by_layer if is_stacked else _at_once
    updates_of, new_of = run(
        optimizer, those(grads), _moments(those, state), those(params), is_good)
    updates |= updates_of
    new = _moments(lambda a, b: a | b, new, new_of) if new else new_of
  whole = lambda flat: jax.tree.unflatten(
      jax.tree.structure(grads), [flat[path] for path in paths])
  return whole(updates), _moments(whole, new)


def _at_once(optimizer, grads, state, params, is_good):
  """The update, its moments fetched and sent back."""
  here = jax.tree.map(lambda x: _to(x, _DEVICE), state)
  updates, new = optimizer.update(grads, here, params)
  if is_good is not None:  # Here, where both are; the host compares nothing.
    new = jax.tree.map(lambda x, old: jnp.where(is_good, x, old), new, here)
  return updates, jax.tree.map(
      lambda x, old: _to(x, jax.typeof(old).memory_space), new, state)


def _layer_by_layer(optimizer, grads, state, params, is_good):
  """The same, where all but the optimizer's counts lead with [L]."""
  num_layers = len(next(iter(grads.values())))
  repeated = _counts(
      lambda x: jnp.broadcast_to(x, (num_layers, *x.shape)), state)
  _, (updates, new) = jax.lax.scan(
      lambda _, layer: (None, _at_once(optimizer, *layer, is_good)), None,
      (grads, repeated, params))
  return updates, _counts(lambda x: x[0], new)


def _moments(function, state, *others):
  """The optimizer's state, with what is shaped as parameters are mapped."""
  return jax.tree.map(
      lambda x, *y: function(x, *y) if _is_moment(x) else x, state, *others,
      is_leaf=_is_moment)


def _counts(function, state):
  """The optimizer's state, with all else mapped."""
  return jax.tree.map(
      lambda x: x if _is_moment(x) else function(x), state, is_leaf=_is_moment)


def _is_moment(x) -> bool:
  return isinstance(x, dict)


def _by_path(tree) -> dict[str, jax.Array]:
  """{path: leaf}, in the tree's order."""
  return {jax.tree_util.keystr(path): leaf for path, leaf in
          jax.tree_util.tree_leaves_with_path(tree)}


def _to(x: jax.Array, place: jax.memory.Space) -> jax.Array:
  """`x` in that memory; nothing is done where it is there."""
  return x if jax.typeof(x).memory_space == place else jax.device_put(x, place)
