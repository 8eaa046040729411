"""Losses and gradients that stand out from those of the run before them.

The optimizer's state remembers the last that were learnt from; the step asks
before it learns. A run that is resumed judges as one that never stopped.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

WINDOW = 128  # Steps that are remembered.
LEAST = 32    # Steps before which nothing stands out.
_MIN_SHARE = 0.01  # Of the mean: a run that hardly varies rounds its numbers.
_MIN = 1e-6


class Recent(NamedTuple):
  """The last steps that were learnt from, in a ring."""

  loss: jax.Array   # [WINDOW] float32, means.
  norm: jax.Array   # [WINDOW] float32, of the gradients before any clipping.
  count: jax.Array  # [] int32, steps learnt from in all.


def remember() -> optax.GradientTransformationExtraArgs:
  """Passes gradients on as they are; the state is a `Recent`.

  Put it before a clip. Its update takes the loss, [] float32, by name.
  """

  def init(params):
    del params
    none = jnp.zeros(WINDOW, jnp.float32)
    return Recent(none, none, jnp.zeros((), jnp.int32))

  def update(grads, state, params=None, *, loss, **others):
    del params, others
    put = lambda ring, x: ring.at[state.count % WINDOW].set(x)
    return grads, Recent(put(state.loss, loss),
                         put(state.norm, optax.tree.norm(grads)),
                         state.count + 1)

  return optax.GradientTransformationExtraArgs(init, update)


def is_spike(
    opt_state: optax.OptState, loss: jax.Array, norm: jax.Array,
    deviations: float,
) -> jax.Array:
  """[] bool, whether a loss or a gradient stands out from the run's last.

  That is: it is above their mean by more than so many standard deviations. A
  deviation counts as at least 1% of the mean, and nothing stands out before
  32 steps were learnt from. Where all of those had a loss of 2, one of 2.11
  does not stand out by 6 deviations; one of 2.13 does.

  Args:
    opt_state: of an optimizer with `remember` in it.
    loss: [] float32, of the step that is asked about.
    norm: [] float32, of its gradient.
    deviations: how many; at infinity nothing stands out.

  Raises:
    ValueError: the optimizer remembers nothing.
  """
  if math.isinf(deviations):
    return jnp.asarray(False)
  found = [x for x in jax.tree.leaves(opt_state, is_leaf=_is_recent)
           if _is_recent(x)]
  if not found:
    raise ValueError('the optimizer remembers no steps; put `remember()` '
                     'first in its chain')
  recent = found[0]
  taken = jnp.arange(WINDOW) < recent.count

  def is_above(x, ring):
    mean = jnp.mean(ring, where=taken)
    least = jnp.maximum(_MIN_SHARE * jnp.abs(mean), _MIN)
    deviation = jnp.maximum(jnp.std(ring, where=taken), least)
    return x > mean + deviations * deviation

  return (recent.count >= LEAST) & (
      is_above(loss, recent.loss) | is_above(norm, recent.norm))


def _is_recent(x) -> bool:
  return isinstance(x, Recent)
