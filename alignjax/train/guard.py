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


def over_minibatches(
    step: Callable, carry, minibatches, *, trajectory: Trajectory):
  """Scans `step(carry, minibatch) -> (carry, metrics)`, if rewards are good.

  One loop, of no steps where a real response's reward is not finite: beside a
  condition the compiler would hold the carry, a run's whole state, twice.

  Args:
    step: one optimizer step.
    carry: what it changes.
    minibatches: a tree of [N, ...]; None is nobody's leaf.
    trajectory: what they are made from.

  Returns:
    The carry, and the metrics' sums: of nothing where no step was taken.
  """
  count = len(jax.tree.leaves(minibatches)[0])
  taken = lambda i: jax.tree.map(lambda x: x[i], minibatches)

  def body(i, state):
    carry, sums = state
    carry, metrics = step(carry, taken(i))
    return carry, jax.tree.map(jnp.add, sums, metrics)

  shapes = jax.eval_shape(lambda c: step(c, taken(0))[1], carry)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.fori_loop(
      0, jnp.where(count_bad(trajectory) == 0, count, 0), body, (carry, zeros))


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
