"""All minibatches of an iteration, in one program."""

import functools

import jax
import jax.numpy as jnp
import optax

from alignjax import losses
from alignjax import objectives
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.train import guard
from alignjax.train.ppo.config import PPOConfig
from alignjax.train.ppo.config import PPOState
from alignjax.train.step import make_update
from alignjax.types import Mean
from alignjax.types import split_cells
from alignjax.types import TokenBatch
from alignjax.types import Trajectory

_SHUFFLE = 1  # Folded into the key that orders the minibatches.


def make_ppo_update(
    model: CausalLM, value_model: ScalarModel,
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation,
    kl_controller: losses.AdaptiveKL, config: PPOConfig, *,
    prompt_length: int, chunk_size: int | None = None,
    batch_sharding: jax.sharding.Sharding | None = None,
):
  """Returns the pure function `update(state, trajectory, frozen, text)`.

  Rows are shuffled anew for each epoch, by a key folded from the policy's key
  and the run's step. Metrics are summed over the minibatches as `Mean`s.
  `frozen` are the (policy, value) parameters under adapters, None where all
  is trained; `text` is a `TokenBatch` of pretraining text, for `ptx_coef`. A
  rollout with a reward that is no number changes nothing.

  Args:
    model: the policy.
    value_model: the value function.
    policy_optimizer: of the policy.
    value_optimizer: of the value function.
    kl_controller: moves the KL coefficient once, at the end.
    config: the iteration's settings.
    prompt_length: column at which responses begin, P.
    chunk_size: columns unembedded at one time; None is all of them.
    batch_sharding: of a minibatch's rows. Without it the compiler, which cannot
      see through the shuffle, gives every device all of them.
  """
  policy_update = _limited(make_update(
      _policy_objective(model, config, prompt_length, chunk_size),
      policy_optimizer, num_microbatches=config.num_microbatches,
      skip_above=config.skip_above, skip_spikes=config.skip_spikes), config)
  value_update = make_update(
      objectives.ppo_value(value_model, clip=config.value_clip),
      value_optimizer, num_microbatches=config.num_microbatches,
      skip_above=config.skip_above, skip_spikes=config.skip_spikes)
  num_steps = config.steps_per_iteration

  def update(state, trajectory, frozen=(None, None), text=None):
    cells = split_cells(trajectory)
    policy_base, value_base = frozen
    is_warm = state.value.step >= config.value_warmup * num_steps

    def cut(i, rows):
      # At first nothing was learnt of it: the ratio is 1, and no ulp off.
      minibatch = jax.tree.map(lambda x: x[rows], cells)
      return _constrained(minibatch.replace(
          on_policy=jnp.full(minibatch.weight.shape, i == 0)), batch_sharding)

    def policy_step(carry, taken):
      policy, moves = carry
      i, rows, part = taken
      minibatch = cut(i, rows)
      batch = minibatch if part is None else (minibatch, _weighed(
          _constrained(part, batch_sharding), minibatch, config.ptx_coef))
      policy, moves, metrics = policy_update(
          policy, batch, policy_base, moves)
      return (policy, moves), metrics

    def value_step(value, taken):
      return value_update(value, cut(*taken), value_base)

    # A key apart from the one that generation folds from the same step.
    key = jax.random.fold_in(state.policy.key, state.value.step)
    key = jax.random.fold_in(key, _SHUFFLE)
    rows = _shuffled(key, len(cells.weight), config)
    # One after the other, which neither minds: so the memory that one needs for
    # its gradients is free when the other does.
    taken, parts = (jnp.arange(num_steps), rows), _spread(text, num_steps)
    repeat = functools.partial(guard.over_minibatches, trajectory=trajectory)
    (policy, _), of_policy = repeat(
        policy_step, (state.policy, is_warm), (*taken, parts))
    value, of_value = repeat(value_step, state.value, taken)
    metrics = of_policy | {
        f'value_{name}': mean for name, mean in of_value.items()}
    return PPOState(policy, value, _next_kl(
        kl_controller, state.kl, trajectory)), metrics

  return update


def _shuffled(key, batch_size: int, config: PPOConfig) -> jax.Array:
  """[S, B / minibatches]: rows of each optimizer step, every epoch all."""
  epochs = jax.random.split(key, config.num_epochs)
  order = jax.vmap(lambda k: jax.random.permutation(k, batch_size))(epochs)
  return order.reshape(config.steps_per_iteration, -1)


def _spread(text: TokenBatch | None, num_steps: int) -> TokenBatch | None:
  """Parts of the text, [S, ...], one for each step.

  Strided, so that a device keeps its own rows.
  """
  return jax.tree.map(
      lambda x: x.reshape(-1, num_steps, *x.shape[1:]).swapaxes(0, 1), text)


def _next_kl(
    controller: losses.AdaptiveKL, state: losses.AdaptiveKLState,
    trajectory: Trajectory) -> losses.AdaptiveKLState:
  """The controller's state after an iteration, if its rewards are good."""
  kl = jnp.sum(trajectory.kl, axis=1, where=trajectory.response_mask)
  moved = controller.update(
      state, Mean.of(kl, trajectory.weight).compute(),
      jnp.sum(trajectory.weight))
  return guard.select(guard.count_bad(trajectory) == 0, moved, state)


def _policy_objective(
    model: CausalLM, config: PPOConfig, prompt_length: int,
    chunk_size: int | None):
  """The clipped surrogate, and the text's loss if there is text."""
  objective = objectives.ppo_policy(
      model, prompt_length=prompt_length, clip=config.clip,
      clip_high=config.clip_high, dual_clip=config.dual_clip,
      entropy_coef=config.entropy_coef, temperature=config.temperature,
      importance_cap=config.importance_cap, chunk_size=chunk_size)
  return objective if not config.ptx_coef else objectives.with_pretraining(
      objective, model, chunk_size=chunk_size)


def _constrained(batch, batch_sharding: jax.sharding.Sharding | None):
  """The batch, each device with its own rows."""
  if batch_sharding is None:
    return batch
  for leaf in jax.tree.leaves(batch):  # Uneven shards raise here.
    batch_sharding.shard_shape(leaf.shape)
  return jax.lax.with_sharding_constraint(batch, batch_sharding)


def _limited(policy_update, config: PPOConfig):
  """`(policy, batch, base, moves) -> (policy, moves, metrics)`.

  The policy moves while `moves` holds; past `early_stop_kl` it no longer does,
  the minibatch that shows it included. Without limits nothing is compared.
  """
  limit = config.early_stop_kl
  if limit is None and not config.value_warmup:

    def free(policy, batch, base, moves):
      policy, metrics = policy_update(policy, batch, base)
      return policy, moves, metrics

    return free

  def limited(policy, batch, base, moves):

    def move(policy):
      moved, metrics = policy_update(policy, batch, base)
      if limit is None:
        return moved, jnp.asarray(True), metrics
      is_near = metrics['approx_kl'].compute() <= limit
      kept = jax.tree.map(
          lambda new, old: jnp.where(is_near, new, old), moved, policy)
      return kept, is_near, metrics

    def stay(policy):
      shapes = jax.eval_shape(move, policy)[2]
      return policy, jnp.asarray(False), jax.tree.map(
          lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    policy, moved, metrics = jax.lax.cond(moves, move, stay, policy)
    return policy, moves & moved, metrics | {
        'policy_moved': Mean(moved.astype(jnp.float32), jnp.ones(()))}

  return limited


def _weighed(text: TokenBatch, rollout, coef: float) -> TokenBatch:
  """Text whose summed loss, over the RESPONSES' weight, is coef × its mean.

  Known before the minibatch is cut, so that microbatches change nothing.
  """
  responses = jnp.sum(rollout.response_mask * rollout.weight[..., None])
  tokens = jnp.sum(text.loss_mask * text.weight[:, None])
  return text.replace(
      weight=text.weight * coef * responses / jnp.maximum(tokens, 1.0))
