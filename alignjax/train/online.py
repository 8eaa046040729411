"""Training on what the policy samples, without a critic.

    prompts ─► generate ─► reward ─► annotate ─► update ─► state
               policy      frozen    policy and  epochs × minibatches
                           model or  reference   of ONE objective
                           rule

The same loop as PPO's (train/ppo.py), for one model: GRPO, RLOO and REINFORCE
turn rewards into advantages, online DPO turns them into preference pairs. K
responses to a prompt lie side by side, so that [B] seen as [B / K, K] is a
group per line. With `layout='branched'` all models but the sampler read a group
as branches of one row, its prompt once; minibatches then hold whole groups. If
'packed', a row holds several groups, and minibatches hold whole cells.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from alignjax import adapters
from alignjax import advantages as advantages_lib
from alignjax import losses
from alignjax import masked
from alignjax import partitioning
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax.adapters import Trainee
from alignjax.models import CausalLM
from alignjax.train import guard
from alignjax.train.state import TrainState
from alignjax.train.step import make_update
from alignjax.train.step import Metrics
from alignjax.train.step import Objective
from alignjax.types import Mean
from alignjax.types import PreferenceBatch
from alignjax.types import PromptBatch
from alignjax.types import split_cells
from alignjax.types import Trajectory

_SHUFFLE = 1  # Folded into the key that orders the minibatches.

# (reward [B], kl [B, T], mask [B, T]) to advantages [B, T].
Estimator = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# From an annotated trajectory to the rows that the objective is trained on.
MakeRows = Callable[[Trajectory], object]


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
  """Settings of the iteration."""

  num_samples: int = 4        # K, responses to each prompt.
  num_epochs: int = 1         # Passes over each rollout.
  num_minibatches: int = 1    # Optimizer steps in each pass.
  num_microbatches: int = 1   # Parts of a minibatch, to save memory.
  skip_above: float = math.inf  # Gradients longer than this are not learnt.
  skip_spikes: float = math.inf  # Nor those that stand out; deviations.
  missing_eos_penalty: float = 1.0  # Off the reward of a response cut short.
  temperature: float = 1.0    # Of sampling, and of every logprob taken.
  max_new_tokens: int = 32    # Longest response, EOS included.
  num_slots: int = 0          # Responses sampled at one time; 0: all.
  # What models read.
  layout: Literal['padded', 'packed', 'branched'] = 'padded'


def grouped(
    reward_advantages: Callable[[jax.Array], jax.Array], num_samples: int, *,
    kl_coef: float = 0.0,
) -> Estimator:
  """Compares a response with the others to its prompt: GRPO, RLOO.

  Args:
    reward_advantages: [G, K] to [G, K]; `advantages.group_advantages` or
      `leave_one_out_advantages`.
    num_samples: K.
    kl_coef: nats of a response's KL (k1, summed) cost this much reward.
  """

  def estimate(reward, kl, mask):
    penalised = reward - kl_coef * masked.masked_sum(kl, mask, axis=1)
    groups = reward_advantages(penalised.reshape(-1, num_samples))
    return jnp.where(mask, groups.reshape(-1)[:, None], 0.0)

  return estimate


def to_go(*, kl_coef: float, gamma: float = 1.0, scale: bool) -> Estimator:
  """What a token still earns, less the batch's mean: REINFORCE.

  Args:
    kl_coef: nats of a token's KL (k1) cost this much reward.
    gamma: γ, the discount per token.
    scale: whether to divide by the batch's deviation too: REINFORCE++.
  """

  def estimate(reward, kl, mask):
    rewards = advantages_lib.token_rewards(reward, kl, mask, kl_coef=kl_coef)
    returns = advantages_lib.returns_to_go(rewards, mask, gamma=gamma)
    if scale:
      return masked.whiten(returns, mask)
    return jnp.where(mask, returns - masked.masked_mean(returns, mask), 0.0)

  return estimate


def best_and_worst(num_samples: int) -> MakeRows:
  """The pair that each group's rewards imply: online DPO.

  A group whose responses all score the same has weight 0.
  """

  def make_pairs(trajectory: Trajectory) -> PreferenceBatch:
    reward = trajectory.reward.reshape(-1, num_samples)
    weight = trajectory.weight.reshape(-1, num_samples)
    groups = jnp.arange(reward.shape[0])[:, None]
    # A filler response is never the best, nor the worst.
    is_real = weight > 0
    best = jnp.argmax(jnp.where(is_real, reward, -jnp.inf), axis=1)
    worst = jnp.argmin(jnp.where(is_real, reward, jnp.inf), axis=1)
    pair = jnp.stack([best, worst], axis=1)
    pick = lambda x: x.reshape(-1, num_samples, *x.shape[1:])[groups, pair]
    differs = reward[groups, pair][:, 0] > reward[groups, pair][:, 1]
    pairs = PreferenceBatch(
        tokens=pick(trajectory.tokens),
        attention_mask=pick(trajectory.attention_mask),
        loss_mask=pick(trajectory.response_mask),
        ref_logprobs=pick(trajectory.ref_logprobs),
        weight=jnp.max(weight, axis=1) * differs)
    rows = trajectory.rows
    if rows is None:
      return pairs
    if rows.start:  # Responses begin in one column.
      return pairs.replace(rows=rollout.branch_rows(
          pairs, num_samples=2, prompt_length=rows.start))
    # Packed rows stay as they are; of each group two responses are looked at.
    index = pick(rows.index.reshape(trajectory.tokens.shape))
    return pairs.replace(rows=rows.replace(
        index=index.reshape(len(rows.index), -1, *index.shape[1:])))

  return make_pairs


def make_online_annotate(
    model: CausalLM, config: OnlineConfig, estimate: Estimator | None, *,
    prompt_length: int, eos_id: int, ref_model: CausalLM | None = None,
    chunk_size: int | None = None,
):
  """Returns the pure function that fills a trajectory in and measures it.

  `annotate(policy, ref, trajectory, reward)` recomputes the logprobs by the
  training forward, as PPO's does.

  Args:
    model: the policy.
    config: the iteration's settings.
    estimate: gives the advantages; None for rows that need none.
    prompt_length: column at which responses begin, P.
    eos_id: the token that ends a response.
    ref_model: the reference; the policy's own model if None.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def logprobs_of(model, params, trajectory):
    return scoring.token_logprobs(
        model, params, trajectory.tokens, trajectory.attention_mask,
        rows=trajectory.rows, start=prompt_length, chunk_size=chunk_size,
        temperature=config.temperature)

  def annotate(policy, ref, trajectory, reward):
    mask = trajectory.response_mask & (trajectory.weight > 0)[:, None]
    logprobs = logprobs_of(model, policy, trajectory)
    ref_logprobs = logprobs_of(ref_model or model, ref, trajectory)
    ended = rollout.has_ended(trajectory, eos_id=eos_id)
    penalised = reward - config.missing_eos_penalty * ~ended
    kl = losses.kl_k1(logprobs, ref_logprobs)
    trajectory = trajectory.replace(
        logprobs=logprobs, ref_logprobs=ref_logprobs, reward=penalised,
        advantages=estimate(penalised, kl, mask) if estimate else None)
    gap = jnp.abs(logprobs - trajectory.sampler_logprobs)
    groups = penalised.reshape(-1, config.num_samples)
    mean = lambda x: Mean.of(x, trajectory.weight)
    return trajectory, {
        'reward': mean(reward),
        'reward_spread': Mean.of(
            jnp.std(groups, axis=1),
            trajectory.weight.reshape(groups.shape)[:, 0]),
        'kl': mean(jnp.sum(kl, axis=1, where=mask)),
        'length': mean(jnp.sum(mask, axis=1)),
        'ended': mean(ended),
        'entropy': Mean.of(-logprobs, mask),
        'decode_gap': Mean(
            jnp.max(gap, where=mask, initial=0.0), jnp.ones(())),
        'bad_rewards': Mean(guard.count_bad(trajectory), jnp.ones(())),
    }

  return annotate


def make_online_update(
    objective: Objective, optimizer: optax.GradientTransformation,
    config: OnlineConfig, *, make_rows: MakeRows | None = None,
    batch_sharding: jax.sharding.Sharding | None = None,
):
  """Returns the pure function `update(state, trajectory, base)`.

  It takes all minibatches; `base` are the parameters under adapters, None where
  all is trained. Rows are shuffled anew for each epoch; metrics are summed over
  minibatches. A rollout with a reward that is no number changes nothing.

  Args:
    objective: over the rows; the trajectory's own, or `make_rows`'s.
    optimizer: one step of it per minibatch.
    config: the iteration's settings.
    make_rows: turns the annotated trajectory into other rows.
    batch_sharding: of a minibatch's rows; without it the compiler, which
      cannot see through the shuffle, gives every device all of them.
  """
  step = make_update(
      objective, optimizer, num_microbatches=config.num_microbatches,
      skip_above=config.skip_above, skip_spikes=config.skip_spikes)

  def update(state, trajectory, base=None):
    rows = split_cells(make_rows(trajectory) if make_rows else trajectory)

    def minibatch_step(state, chosen):
      minibatch = jax.tree.map(lambda x: x[chosen], rows)
      if batch_sharding is not None:
        minibatch = jax.lax.with_sharding_constraint(minibatch, batch_sharding)
      return step(state, minibatch, base)

    # A key apart from the one that generation folds from the same step.
    key = jax.random.fold_in(state.key, state.step)
    keys = jax.random.split(
        jax.random.fold_in(key, _SHUFFLE), config.num_epochs)
    order = jax.vmap(
        lambda k: jax.random.permutation(k, rows.weight.shape[0]))(keys)
    return guard.over_minibatches(
        minibatch_step, state,
        order.reshape(config.num_epochs * config.num_minibatches, -1),
        trajectory=trajectory)

  return update


def make_online_iteration(
    policy: Trainee,
    reward_fn: Callable[[Trajectory], jax.Array],
    objective: Objective, estimate: Estimator | None,
    optimizer: optax.GradientTransformation, config: OnlineConfig, *,
    shardings: TrainState, mesh: jax.sharding.Mesh, prompt_length: int,
    eos_id: int, make_rows: MakeRows | None = None,
    observe: Callable[[Trajectory], Metrics] | None = None,
    chunk_size: int | None = None,
) -> Callable[[TrainState, PromptBatch], tuple[TrainState, Metrics]]:
  """Returns `iterate(state, prompts) -> (state, metrics)`; state is donated.

  Args:
    policy: what is trained, and by it the frozen reference.
    reward_fn: from a trajectory to [B] rewards, on the device or the host.
    objective: what a minibatch is trained on.
    estimate: gives the advantages; `grouped` or `to_go`, or None.
    optimizer: of what is trained.
    config: the iteration's settings.
    shardings: of the state, as `init_state` returns them.
    mesh: whose batch axes split the rows.
    prompt_length: P, the width that all prompts are padded to.
    eos_id: the token that ends a response.
    make_rows: turns the annotated trajectory into the objective's rows.
    observe: looks at each annotated trajectory on the host.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  of_policy = policy.whole_shardings(shardings.params)
  ref_model, ref, of_ref = policy.reference(mesh)
  generate = rollout.make_generate(
      policy.model, max_new_tokens=config.max_new_tokens, eos_id=eos_id,
      temperature=config.temperature, num_samples=config.num_samples,
      num_slots=config.num_slots, mesh=mesh, param_shardings=of_policy)
  share = rollout.make_share(
      config.layout, num_samples=config.num_samples,
      prompt_length=prompt_length, mesh=mesh)
  annotate = partitioning.jit(
      make_online_annotate(
          policy.model, config, estimate, ref_model=ref_model,
          prompt_length=prompt_length, eos_id=eos_id, chunk_size=chunk_size),
      mesh, in_shardings=(of_policy, of_ref, rows, rows),
      out_shardings=(rows, whole))
  update = partitioning.jit(
      make_online_update(objective, optimizer, config, make_rows=make_rows,
                         batch_sharding=rows),
      mesh, donate_argnums=0,
      in_shardings=(shardings, rows, adapters.shardings_of(policy.base)),
      out_shardings=(shardings, whole))

  def iterate(state, prompts):
    key = jax.random.fold_in(state.key, state.step)
    params = policy.whole(state.params)
    trajectory = share(
        generate(params, prompts.replace(rows=None), key), prompts.rows)
    reward = sharding.put(reward_fn(trajectory), rows)
    trajectory, measured = annotate(params, ref, trajectory, reward)
    state, metrics = update(state, trajectory, policy.base)
    observed = observe(trajectory) if observe else {}
    return state, metrics | measured | observed

  iterate.programs = {'generate': generate, 'annotate': annotate,
                      'update': update}
  return iterate
