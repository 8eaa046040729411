"""One PPO iteration: rollout → score → advantages → epochs × minibatches.

    prompts ─► generate ─► reward ─► annotate ─► update ─► state
               policy      frozen    policy,     policy and value, clipped,
                           model     reference,  epochs × minibatches in ONE
                                     value       program; then the KL controller

The iteration has the signature of a train step, `(state, prompts) -> (state,
metrics)`, so the same loop runs it. Each box is one jitted program.
"""

from collections.abc import Callable

import jax
import optax

from alignjax import adapters
from alignjax import partitioning
from alignjax import rollout
from alignjax import sharding
from alignjax.adapters import Trainee
from alignjax.train.ppo.annotate import make_annotate
from alignjax.train.ppo.config import make_kl_controller
from alignjax.train.ppo.config import PPOConfig
from alignjax.train.ppo.config import PPOState
from alignjax.train.ppo.update import make_ppo_update
from alignjax.train.state import abstract_state
from alignjax.train.state import init_state
from alignjax.train.state import shaped
from alignjax.train.step import Metrics
from alignjax.types import PromptTextBatch
from alignjax.types import Trajectory


def make_ppo_iteration(
    policy: Trainee,
    value: Trainee,
    reward_fn: Callable[..., jax.Array],
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation,
    config: PPOConfig,
    *,
    shardings: PPOState,
    mesh: jax.sharding.Mesh,
    prompt_length: int,
    eos_id: int,
    generate: Callable | None = None,
    observe: Callable[[Trajectory], Metrics] | None = None,
    chunk_size: int | None = None,
) -> Callable[..., tuple[PPOState, Metrics]]:
  """Returns `iterate(state, prompts) -> (state, metrics)`; state is donated.

  With `config.ptx_coef` it takes a `PromptTextBatch` instead of prompts.

  Args:
    policy: what is trained, and by it the frozen reference.
    value: the value function.
    reward_fn: `(tokens, attention_mask) -> [B]` rewards, in any unit; where
      samples are branches, it is given their `rows` too.
    policy_optimizer: of the policy.
    value_optimizer: of the value function.
    config: the iteration's settings.
    shardings: a `PPOState` of shardings.
    mesh: whose batch axes split the rows.
    prompt_length: P, the width that all prompts are padded to.
    eos_id: the token that ends a response.
    generate: `(params, prompts, key) -> Trajectory`; our own sampler if None.
    observe: looks at each annotated trajectory on the host, as a gold judge
      does; its metrics join the iteration's.
    chunk_size: columns unembedded at one time; None is all of them.
  """
  rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  of_policy = policy.whole_shardings(shardings.policy.params)
  of_value = value.whole_shardings(shardings.value.params)
  ref_model, ref, of_ref = policy.reference(mesh)
  generate = generate or rollout.make_generate(
      policy.model, max_new_tokens=config.max_new_tokens, eos_id=eos_id,
      temperature=config.temperature, num_samples=config.num_samples,
      num_slots=config.num_slots, mesh=mesh, param_shardings=of_policy)
  share = rollout.make_share(config.layout, num_samples=config.num_samples,
                             prompt_length=prompt_length, mesh=mesh)
  annotate = partitioning.jit(
      make_annotate(policy.model, value.model, config, ref_model=ref_model,
                    prompt_length=prompt_length, eos_id=eos_id,
                    chunk_size=chunk_size),
      mesh, in_shardings=(of_policy, of_ref, of_value, everywhere, rows, rows),
      out_shardings=(rows, everywhere))
  frozen = policy.base, value.base
  update = partitioning.jit(
      make_ppo_update(
          policy.model, value.model, policy_optimizer, value_optimizer,
          make_kl_controller(config), config, prompt_length=prompt_length,
          chunk_size=chunk_size, batch_sharding=rows),
      mesh, donate_argnums=0,
      in_shardings=(shardings, rows, adapters.shardings_of(frozen), rows),
      out_shardings=(shardings, everywhere))

  def iterate(state, batch):
    is_both = isinstance(batch, PromptTextBatch)
    prompts, text = (batch.prompts, batch.text) if is_both else (batch, None)
    params = policy.whole(state.policy.params)
    key = jax.random.fold_in(state.policy.key, state.value.step)
    trajectory = share(
        generate(params, prompts.replace(rows=None), key), prompts.rows)
    shared = () if trajectory.rows is None else (trajectory.rows,)
    reward = reward_fn(trajectory.tokens, trajectory.attention_mask, *shared)
    trajectory, measured = annotate(
        params, ref, value.whole(state.value.params), state.kl.coef,
        trajectory, reward)
    state, metrics = update(state, trajectory, frozen, text)
    observed = observe(trajectory) if observe else {}
    return state, metrics | measured | observed

  iterate.programs = dict(generate=generate, annotate=annotate, update=update)
  return iterate


def abstract_ppo_state(
    policy: Trainee, value: Trainee,
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation, config: PPOConfig, *,
    mesh: jax.sharding.Mesh,
) -> tuple[PPOState, PPOState]:
  """(shapes with their shardings, shardings) of a state that is not made."""
  of_role = lambda role, optimizer: abstract_state(
      role.params, role.axes, optimizer, mesh=mesh)
  policy_state, of_policy = of_role(policy, policy_optimizer)
  value_state, of_value = of_role(value, value_optimizer)
  kl = jax.eval_shape(make_kl_controller(config).init)
  of_kl = jax.tree.map(lambda _: sharding.replicated(mesh), kl)
  return (PPOState(policy_state, value_state, shaped(kl, of_kl)),
          PPOState(of_policy, of_value, of_kl))


def init_ppo_state(
    policy: Trainee, value: Trainee,
    policy_optimizer: optax.GradientTransformation,
    value_optimizer: optax.GradientTransformation, config: PPOConfig, *,
    mesh: jax.sharding.Mesh, seed: int,
) -> tuple[PPOState, PPOState]:
  """A fresh state from COPIES of what is trained, and its shardings.

  Args:
    policy: usually an SFT model.
    value: usually begun from the reward model.
    policy_optimizer: of the policy.
    value_optimizer: of the value function.
    config: for the KL coefficient to start from.
    mesh: where the state is to lie.
    seed: of the run's key.
  """
  of_role = lambda role, optimizer: init_state(
      role.params, role.axes, optimizer, mesh=mesh, seed=seed)
  policy_state, of_policy = of_role(policy, policy_optimizer)
  value_state, of_value = of_role(value, value_optimizer)
  everywhere = sharding.replicated(mesh)
  kl = sharding.put(make_kl_controller(config).init(), everywhere)
  of_kl = jax.tree.map(lambda _: everywhere, kl)
  return (PPOState(policy_state, value_state, kl),
          PPOState(of_policy, of_value, of_kl))
