"""Numbers that must not be learnt from: rewards that are no numbers.

An iteration that meets one leaves its state bit for bit as it was, on the
device, and says so in the metric `bad_rewards`. `check_iteration` turns that
into an error when the host reads the metrics, which is before a checkpoint of
that iteration would be written.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from alignjax.types import InputError
from alignjax.types import Trajectory


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
