"""One PPO iteration: rollout → score → advantages → epochs × minibatches.

    prompts ─► generate ─► reward ─► annotate ─► update ─► state
               policy      frozen    policy,     policy and value, clipped,
                           model     reference,  epochs × minibatches in ONE
                                     value       program; then the KL controller

The iteration has the signature of a train step, `(state, prompts) -> (state,
metrics)`, so the same loop runs it. Each box is one jitted program.
"""

from collections.abc import Callable
import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alignjax import advantages as advantages_lib
from alignjax import losses
from alignjax import masked
from alignjax import objectives
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.train.state import init_state
from alignjax.train.state import TrainState
from alignjax.train.step import make_update
from alignjax.train.step import Metrics
from alignjax.types import Mean
from alignjax.types import PromptBatch
from alignjax.types import split_cells
from alignjax.types import Trajectory

_SHUFFLE = 1  # Folded into the key that orders the minibatches.


class PPOState(NamedTuple):
  """All that a PPO run must remember; a tree of arrays."""

  policy: TrainState
  value: TrainState
  kl: losses.AdaptiveKLState


@dataclasses.dataclass(frozen=True)
class PPOConfig:
  """Settings of the PPO iteration."""

  kl_coef: float = 0.1        # Where the KL penalty starts, 1/nats; 0 is none.
  kl_target: float = 6.0      # Nats per response the controller aims at.
  kl_horizon: float = 10_000.0  # Responses over which it reacts; inf: fixed.
  gamma: float = 1.0          # Discount per token.
  lam: float = 0.95           # GAE's λ.
  clip: float = 0.2           # PPO's ε on the probability ratio.
  clip_high: float | None = None  # How far it may rise; ε if None.
  dual_clip: float | None = None  # Ratio past which a bad token costs no more.
  entropy_coef: float = 0.0   # Weight of the entropy bonus.
  value_clip: float = 0.2     # The same for values, in units of reward.
  num_epochs: int = 2         # Passes over each rollout.
  num_minibatches: int = 2    # Optimizer steps in each pass.
  num_microbatches: int = 1   # Parts of a minibatch, to save memory.
  missing_eos_penalty: float = 1.0  # Off the reward of a response cut short.
  temperature: float = 1.0    # Of sampling, and of every logprob taken.
  max_new_tokens: int = 32    # Longest response, EOS included.
  num_samples: int = 1        # K, responses to each prompt, side by side.
  # What all models but the sampler read: a row for each response, or a prompt
  # once with its K responses behind it; minibatches then hold whole groups.
  layout: Literal['padded', 'branched'] = 'padded'


def make_annotate(
    model: CausalLM, value_model: ScalarModel, config: PPOConfig, *,
    prompt_length: int, eos_id: int, chunk_size: int | None = None,
):
  """Returns the pure function that fills a trajectory in and measures it.

  `annotate(policy, ref, value, kl_coef, trajectory, reward)` recomputes the
  logprobs by the training forward (the sampler's differ by rounding; the gap
  is the metric `decode_gap`, in nats), so that the first minibatch's ratio is
  1 up to an ulp.

  Args:
    model: the policy and the reference, by their parameters.
    value_model: the value function.
    config: the iteration's settings.
    prompt_length: column at which responses begin, P.
    eos_id: the token that ends a response.
    chunk_size: columns unembedded at one time; None is all of them.
  """

  def logprobs_of(params, trajectory):
    return scoring.token_logprobs(
        model, params, trajectory.tokens, trajectory.attention_mask,
        rows=trajectory.rows, start=prompt_length, chunk_size=chunk_size,
        temperature=config.temperature)

  def annotate(policy, ref, value, kl_coef, trajectory, reward):
    mask = trajectory.response_mask & (trajectory.weight > 0)[:, None]
    logprobs = logprobs_of(policy, trajectory)
    ref_logprobs = logprobs_of(ref, trajectory)
    values = scoring.token_values(
        value_model, value, trajectory.tokens, trajectory.attention_mask,
        rows=trajectory.rows)

    ended = rollout.has_ended(trajectory, eos_id=eos_id)
    penalised = reward - config.missing_eos_penalty * ~ended
    kl = losses.kl_k1(logprobs, ref_logprobs)
    token_rewards = advantages_lib.token_rewards(
        penalised, kl, mask, kl_coef=kl_coef)
    advantages, returns = advantages_lib.gae(
        token_rewards, values, mask, gamma=config.gamma, lam=config.lam)

    trajectory = trajectory.replace(
        logprobs=logprobs, ref_logprobs=ref_logprobs, values=values,
        reward=reward, returns=returns,
        advantages=masked.whiten(advantages, mask))
    gap = jnp.abs(logprobs - trajectory.sampler_logprobs)
    unexplained = masked.masked_var(returns - values, mask)
    mean = lambda x: Mean.of(x, trajectory.weight)
    one = lambda x: Mean(x, jnp.ones(()))
    return trajectory, {
        'reward': mean(reward),
        'kl': mean(jnp.sum(kl, axis=1, where=mask)),
        'kl_coef': one(kl_coef),
        'length': mean(jnp.sum(mask, axis=1)),
        'ended': mean(ended),
        'entropy': Mean.of(-logprobs, mask),
        'explained_variance': one(
            1.0 - unexplained / (masked.masked_var(returns, mask) + 1e-8)),
        'decode_gap': one(jnp.max(gap, where=mask, initial=0.0)),
    }

  return annotate


def make_ppo_update(
    model: CausalLM, value_model: ScalarModel,
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation,
    kl_controller: losses.AdaptiveKL, config: PPOConfig, *,
    prompt_length: int, chunk_size: int | None = None,
    batch_sharding: jax.sharding.Sharding | None = None,
):
  """Returns the pure function `update(state, trajectory)`: all minibatches.

  Rows are shuffled anew for each epoch, by a key folded from the policy's key
  and step. Metrics are summed over the minibatches as `Mean`s.

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
  policy_update = make_update(
      objectives.ppo_policy(
          model, prompt_length=prompt_length, clip=config.clip,
          clip_high=config.clip_high, dual_clip=config.dual_clip,
          entropy_coef=config.entropy_coef, temperature=config.temperature,
          chunk_size=chunk_size),
      policy_optimizer, num_microbatches=config.num_microbatches)
  value_update = make_update(
      objectives.ppo_value(value_model, clip=config.value_clip),
      value_optimizer, num_microbatches=config.num_microbatches)

  def shuffled(key, batch_size):
    epochs = jax.random.split(key, config.num_epochs)
    order = jax.vmap(lambda k: jax.random.permutation(k, batch_size))(epochs)
    return order.reshape(config.num_epochs * config.num_minibatches, -1)

  def update(state, trajectory):
    cells = split_cells(trajectory)

    def minibatch_step(both, rows):
      policy, value = both
      minibatch = jax.tree.map(lambda x: x[rows], cells)
      if batch_sharding is not None:
        minibatch = jax.lax.with_sharding_constraint(minibatch, batch_sharding)
      policy, of_policy = policy_update(policy, minibatch)
      value, of_value = value_update(value, minibatch)
      return (policy, value), of_policy | {
          f'value_{name}': mean for name, mean in of_value.items()}

    # A key apart from the one that generation folds from the same step.
    key = jax.random.fold_in(state.policy.key, state.policy.step)
    key = jax.random.fold_in(key, _SHUFFLE)
    (policy, value), metrics = jax.lax.scan(
        minibatch_step, (state.policy, state.value),
        shuffled(key, cells.weight.shape[0]))
    metrics = jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
    kl = jnp.sum(trajectory.logprobs - trajectory.ref_logprobs, axis=1,
                 where=trajectory.response_mask)
    kl_state = kl_controller.update(
        state.kl, Mean.of(kl, trajectory.weight).compute(),
        jnp.sum(trajectory.weight))
    return PPOState(policy, value, kl_state), metrics

  return update


def make_ppo_iteration(
    model: CausalLM,
    value_model: ScalarModel,
    ref_params,
    reward_fn: Callable[..., jax.Array],
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation,
    config: PPOConfig,
    *,
    shardings: PPOState,
    mesh: jax.sharding.Mesh,
    prompt_length: int,
    eos_id: int,
    observe: Callable[[Trajectory], Metrics] | None = None,
    chunk_size: int | None = None,
) -> Callable[[PPOState, PromptBatch], tuple[PPOState, Metrics]]:
  """Returns `iterate(state, prompts) -> (state, metrics)`; state is donated.

  Args:
    model: the policy and its frozen reference.
    value_model: the value function.
    ref_params: the reference's parameters, on the mesh as the policy's.
    reward_fn: `(tokens, attention_mask) -> [B]` rewards, in any unit; where
      samples are branches, it is given their `rows` too.
    policy_optimizer: of the policy.
    value_optimizer: of the value function.
    config: the iteration's settings.
    shardings: a `PPOState` of shardings.
    mesh: whose batch axes split the rows.
    prompt_length: P, the width that all prompts are padded to.
    eos_id: the token that ends a response.
    observe: looks at each annotated trajectory on the host, as a gold judge
      does; its metrics join the iteration's.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  of_policy, of_value = shardings.policy.params, shardings.value.params
  generate = rollout.make_generate(
      model, max_new_tokens=config.max_new_tokens, eos_id=eos_id,
      temperature=config.temperature, mesh=mesh, param_shardings=of_policy)
  share = rollout.make_share(
      config.layout, num_samples=config.num_samples,
      prompt_length=prompt_length, mesh=mesh)
  annotate = jax.jit(
      make_annotate(model, value_model, config, prompt_length=prompt_length,
                    eos_id=eos_id, chunk_size=chunk_size),
      in_shardings=(of_policy, of_policy, of_value, whole, rows, rows),
      out_shardings=(rows, whole))
  update = jax.jit(
      make_ppo_update(
          model, value_model, policy_optimizer, value_optimizer,
          make_kl_controller(config), config, prompt_length=prompt_length,
          chunk_size=chunk_size, batch_sharding=rows),
      donate_argnums=0, in_shardings=(shardings, rows),
      out_shardings=(shardings, whole))

  def iterate(state, prompts):
    key = jax.random.fold_in(state.policy.key, state.policy.step)
    trajectory = share(generate(state.policy.params, prompts, key))
    shared = () if trajectory.rows is None else (trajectory.rows,)
    reward = reward_fn(trajectory.tokens, trajectory.attention_mask, *shared)
    trajectory, measured = annotate(
        state.policy.params, ref_params, state.value.params, state.kl.coef,
        trajectory, reward)
    state, metrics = update(state, trajectory)
    observed = observe(trajectory) if observe else {}
    return state, metrics | measured | observed

  iterate.programs = {'generate': generate, 'annotate': annotate,
                      'update': update}
  return iterate


def init_ppo_state(
    model: CausalLM, value_model: ScalarModel, params, value_params,
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation, config: PPOConfig, *,
    mesh: jax.sharding.Mesh, seed: int,
) -> tuple[PPOState, PPOState]:
  """A fresh state from COPIES of the parameters, and its shardings.

  Args:
    model: the policy.
    value_model: the value function.
    params: the policy's, usually an SFT model's.
    value_params: the value function's, usually the reward model's.
    policy_optimizer: of the policy.
    value_optimizer: of the value function.
    config: for the KL coefficient to start from.
    mesh: where the state is to lie.
    seed: of the run's key.
  """
  policy, of_policy = init_state(
      params, model.axes(), policy_optimizer, mesh=mesh, seed=seed)
  value, of_value = init_state(
      value_params, value_model.axes(), value_optimizer, mesh=mesh, seed=seed)
  whole = sharding.replicated(mesh)
  kl = sharding.put(make_kl_controller(config).init(), whole)
  of_kl = jax.tree.map(lambda _: whole, kl)
  return (PPOState(policy, value, kl), PPOState(of_policy, of_value, of_kl))


def make_kl_controller(config: PPOConfig) -> losses.AdaptiveKL:
  """The controller that the settings ask for; at 0 there is none to move."""
  if config.kl_coef == 0:
    return losses.AdaptiveKL(
        init=lambda: losses.AdaptiveKLState(coef=jnp.zeros(())),
        update=lambda state, kl, num_sequences: state)
  return losses.adaptive_kl(
      init=config.kl_coef, target=config.kl_target, horizon=config.kl_horizon)
