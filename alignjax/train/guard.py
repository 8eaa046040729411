"""Numbers that must not be learnt from: losses, gradients and rewards.

A step whose loss or gradient is no number leaves parameters and optimizer bit
for bit as they were, on the device, and says so in the metric `skipped`; an
iteration with such a reward keeps its whole state and says `bad_rewards`.
The host looks at both where it reads the metrics, which is before a checkpoint
of that step would be written.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from alignjax.train.offload import Offloaded
from alignjax.types import InputError
from alignjax.types import Trajectory


def select(is_good: jax.Array, new, old):
  """The tree `new`, or `old` bit for bit where `is_good` does not hold."""
  return jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, old)


def update_if(
    is_good: jax.Array, optimizer: optax.GradientTransformation, grads, state,
    params, *, loss: jax.Array,
):
  """(updates, state) of an optimizer, the state as it was unless `is_good`.

  The optimizer is given the loss too, if it takes more than gradients.
  """
  if isinstance(optimizer, Offloaded):
    return optimizer.update(grads, state, params, is_good=is_good, loss=loss)
  updates, new = optax.with_extra_args_support(optimizer).update(
      grads, state, params, loss=loss)
  return updates, select(is_good, new, state)


def count_bad(trajectory: Trajectory) -> jax.Array:
  """[] float32, how many real responses have a reward of NaN or ±∞."""
  is_bad = ~jnp.isfinite(trajectory.reward) & (trajectory.weight > 0)
  return jnp.sum(is_bad, dtype=jnp.float32)


def unless_bad(update: Callable, state, trajectory: Trajectory, *rest):
  """`update(state, trajectory, *rest)`, or the state as it was.

  Returns:
    The state and the metrics; the metrics are means of nothing where a real
    response's reward is not finite.
  """

  def keep(state, *args):
    shapes = jax.eval_shape(update, state, *args)[1]
    return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  return jax.lax.cond(
      count_bad(trajectory) == 0, update, keep, state, trajectory, *rest)


def make_check(
    *, reward: str, max_decode_gap: float, min_ended: float,
    max_new_tokens: int,
) -> Callable[[int, Mapping[str, float]], None]:
  """Returns `check(step, values)`, which refuses an iteration by its metrics.

  Args:
    reward: what gave the rewards, for the message.
    max_decode_gap: nats by which sampler and training forward may disagree on
      a token.
    min_ended: share of the FIRST iteration's responses that must have ended
      by themselves. Later a policy may unlearn it, and is penalised for it.
    max_new_tokens: the longest response, for the message.
  """

  def check(step, values):
    if values['bad_rewards']:
      raise InputError(
          f'iteration {step}: {values["bad_rewards"]:.0f} rewards of {reward} '
          'are NaN or infinite; nothing was learnt from this iteration and '
          'nothing saved; look at what it scores, and use --resume then')
    if not values['decode_gap'] <= max_decode_gap:
      raise InputError(
          f'iteration {step}: sampler and training forward disagree by '
          f'{values["decode_gap"]:.3g} nats on a token, more than '
          f'max_decode_gap={max_decode_gap:g}; they do not run the same model '
          'at the same temperature, or allow more')
    if step == 1 and not values['ended'] >= min_ended:
      raise InputError(
          f'iteration 1: {values["ended"]:.1%} of the responses end by '
          f'themselves in max_new_tokens={max_new_tokens}, fewer than '
          f'min_ended={min_ended:g}; start from a model that was taught to '
          'end (SFT), allow longer responses, or use min_ended=0')

  return check
