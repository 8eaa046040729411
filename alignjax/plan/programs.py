"""The programs of a method, as a run builds them, over shapes alone.

    sft, reward   train_step
    dpo, kto      reference, train_step
    ppo, grpo     generate, reward, annotate, update

The builders are those of the run (`train.make_train_step`,
`train.make_ppo_iteration`, `rollout.make_reference`, `objectives.*`), so that
what is compiled here is what will be compiled there. What is not trained is
held in the dtype of the activations, as a run with `--dtype` holds it.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from alignjax import adapters
from alignjax import advantages
from alignjax import objectives
from alignjax import rollout
from alignjax import sharding
from alignjax import topologies
from alignjax import train
from alignjax.models import cache_behind
from alignjax.models import CausalLM
from alignjax.models import freeze
from alignjax.models import lora
from alignjax.models import make_cache
from alignjax.models import ModelConfig
from alignjax.models import quantize
from alignjax.plan import batches
from alignjax.plan import cost
from alignjax.plan.batches import Shape
from alignjax.types import InputError


class Program(NamedTuple):
  """One jitted function of a run, and what it is called with."""

  name: str
  function: Callable
  arguments: tuple[Any, ...]
  roles: dict[str, Any]   # What lies in memory while it runs, by role.
  work: cost.Work


def of_method(
    method: str, config: ModelConfig, shape: Shape, mesh: jax.sharding.Mesh,
) -> list[Program]:
  """The programs of a method.

  Args:
    method: a key of `METHODS`.
    config: of the policy; float32 weights, activations in `config.dtype`.
    shape: of the run.
    mesh: what they are compiled for.

  Raises:
    InputError: the method is not planned for, or the batch does not split.
  """
  if method not in METHODS:
    raise InputError(f'method={method} is not planned for; use one of '
                     f'{", ".join(METHODS)}')
  check(config, shape, mesh, method)
  return METHODS[method](config, shape, mesh)


def check(config: ModelConfig, shape: Shape, mesh: jax.sharding.Mesh,
          method: str) -> None:
  """A batch that splits over the mesh, and heads that do.

  Raises:
    InputError: the nearest values that do are named.
  """
  shards = sharding.num_batch_shards(mesh)
  topologies.check_batch(shape.rows, smallest_batch(method, shape, shards),
                         shards)
  topologies.check_heads(config.num_kv_heads, mesh.shape['tensor'])
  if shape.length < 2 or shape.length > config.max_positions:
    raise InputError(f'length={shape.length} is not from 2 to the '
                     f'{config.max_positions} that the model was trained for')


class _Shapes(adapters.Trainee):
  """A model of which only shapes are there."""

  def reference(self, mesh):
    """See `Trainee.reference`."""
    model = CausalLM(dataclasses.replace(self.model.config, lora=None))
    if self.base is not None:
      return model, self.base, adapters.shardings_of(self.base)
    frozen = _frozen(model, mesh)
    return model, frozen, adapters.shardings_of(frozen)


def _frozen(model, mesh, kind: str = 'none'):
  """A model that is not trained, quantized or in its activations' dtype."""

  def init(key):
    params = model.init(key)
    if kind != 'none':
      params = quantize.quantize(params, kind)
    return freeze(params, model.config.dtype)

  shapes = jax.eval_shape(init, jax.random.key(0))
  return _lying(
      shapes, quantize.quantized_axes(model.axes(), shapes), mesh)


def _lying(shapes, axes, mesh):
  """Shapes with the shardings that the rules give them."""
  return train.shaped(shapes, sharding.tree_shardings(mesh, axes, shapes))


def _trainee(model, mesh, shape: Shape) -> _Shapes:
  """What is trained of a decoder: all of it, or adapters over a frozen base."""
  rank = shape.lora_rank
  if not rank:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return _Shapes(model, shapes, model.axes(), None, '')
  adapted = CausalLM(dataclasses.replace(
      model.config, lora=lora.Lora(rank=rank)))
  shapes = jax.eval_shape(adapted.init, jax.random.key(0))
  return _Shapes(adapted, lora.split(shapes)[1],
                 lora.split(adapted.axes())[1],
                 _frozen(model, mesh, shape.quantize), '')


def _step(trainee, objective, shape, mesh, batch, frozen=None):
  """The train step of an objective, `frozen` beside it."""
  optimizer = train.make_optimizer(1e-5, 1_000, offload=shape.offload)
  state, shardings = train.abstract_state(
      trainee.params, trainee.axes, optimizer, mesh=mesh)
  base = () if trainee.base is None else (trainee.base,)
  step = train.make_train_step(
      objective, optimizer, shardings=shardings, mesh=mesh,
      num_microbatches=shape.num_microbatches,
      base_shardings=adapters.shardings_of(base[0]) if base else None)
  roles = {'policy': state.params, 'optimizer': state.opt_state,
           'batch': batch} | ({'base': base[0]} if base else {})
  passes = (3.0, 2.0) if base else (4.0, 3.0)  # No gradients of the base.
  return Program('train_step', step, (state, batch, *base),
                 roles | (frozen or {}),
                 cost.Work(shape.num_read, shape.length, *passes))


def smallest_batch(method: str, shape: Shape, num_shards: int) -> int:
  """What the rows of a batch must be a multiple of."""
  return topologies.smallest_batch(
      method, num_shards, num_microbatches=shape.num_microbatches,
      num_minibatches=shape.num_minibatches)


def _sft(config, shape, mesh) -> list[Program]:
  trainee = _trainee(CausalLM(config), mesh, shape)
  objective = objectives.sft(trainee.model, chunk_size=shape.chunk_size)
  return [_step(trainee, objective, shape, mesh, batches.tokens(shape, mesh))]


def _reward(config, shape, mesh) -> list[Program]:
  policy = _trainee(CausalLM(config), mesh, shape)
  trainee = policy.with_head(jax.random.key(0))
  return [_step(trainee, objectives.reward(trainee.model), shape, mesh,
                batches.pairs(shape, mesh, ref=False))]


def _dpo(config, shape, mesh) -> list[Program]:
  """Under adapters the reference is the base, and costs nothing."""
  trainee = _trainee(CausalLM(config), mesh, shape)
  model, frozen, shardings = trainee.reference(mesh)
  is_gone = shape.precompute_reference
  step = _step(
      trainee, objectives.dpo(trainee.model, beta=0.1,
                              chunk_size=shape.chunk_size),
      shape, mesh, batches.pairs(shape, mesh, ref=True),
      None if trainee.base or is_gone else {'reference': frozen})
  asked = batches.pairs(shape, mesh, ref=False)
  annotate = rollout.make_reference(
      model, frozen, mesh=mesh, param_shardings=shardings,
      chunk_size=shape.chunk_size)
  return [
      Program('reference', annotate.jitted,
              (frozen, asked),
              {'reference': frozen, 'batch': asked} if is_gone else step.roles,
              cost.Work(shape.num_read, shape.length, 1.0, 1.0)), step]


def _kto(config, shape, mesh) -> list[Program]:
  """The reference reads each prompt with another's response as well."""
  trainee = _trainee(CausalLM(config), mesh, shape)
  model, frozen, shardings = trainee.reference(mesh)
  batch = batches.unpaired(shape, mesh)
  said = batches.on_rows(mesh)(batch.weight.shape, jnp.float32)
  step = _step(
      trainee, objectives.kto(trainee.model, beta=0.1,
                              chunk_size=shape.chunk_size),
      shape, mesh, batch.replace(ref_logprobs=said, kl=said),
      None if trainee.base else {'reference': frozen})
  annotate = rollout.make_kto_reference(
      model, frozen, policy=trainee.model, mesh=mesh,
      param_shardings=shardings, chunk_size=shape.chunk_size)
  policy = trainee.whole(step.arguments[0].params)
  return [Program('reference', annotate.jitted, (policy, frozen, batch),
                  step.roles, cost.Work(shape.rows, shape.length, 3.0, 3.0)),
          step]


class _Sampled(NamedTuple):
  """What the programs of an iteration are called with, beside the rows."""

  whole: Any               # The policy, as the sampler reads it.
  judge: Any               # The reward model.
  asked: tuple[Any, ...]   # By `annotate`, before the trajectory.
  state: Any               # What `update` trains,
  beside: tuple[Any, ...]  # and what it is given after the trajectory.
  passes: tuple[float, float]  # Of one epoch's update, over all it trains.
  group: int = 1           # Responses to a prompt.


def _judge(model, params, axes, mesh, base=None):
  """(a reward model in its dtype, its program)."""
  held = _lying(
      jax.eval_shape(lambda p: freeze(p, model.config.dtype), params), axes,
      mesh)
  whole = held if base is None else lora.join(base, held)
  reward = rollout.make_reward_fn(
      model, whole, mesh=mesh, param_shardings=adapters.shardings_of(whole))
  return held, whole, reward


def _ppo(config, shape, mesh) -> list[Program]:
  """All four roles; under adapters they share one base."""
  policy = _trainee(CausalLM(config), mesh, shape)
  value = policy.with_head(jax.random.key(0))
  settings = train.PPOConfig(
      max_new_tokens=shape.room, num_epochs=shape.num_epochs,
      num_minibatches=shape.num_minibatches,
      num_microbatches=shape.num_microbatches, num_slots=shape.num_slots)
  optimizers = [train.make_optimizer(rate, 1_000, offload=shape.offload)
                for rate in (1e-6, 1e-5)]
  state, shardings = train.abstract_ppo_state(
      policy, value, *optimizers, settings, mesh=mesh)
  held, judge, reward = _judge(
      value.model, value.params, value.axes, mesh, value.base)
  iterate = train.make_ppo_iteration(
      policy, value, reward, *optimizers, settings, shardings=shardings,
      mesh=mesh, prompt_length=shape.length - shape.room, eos_id=0,
      chunk_size=shape.chunk_size)
  _, frozen, _ = policy.reference(mesh)
  roles = {'policy': state.policy.params, 'value': state.value.params,
           'optimizer': (state.policy.opt_state, state.value.opt_state),
           'reward': held,
           'reference' if policy.base is None else 'base': frozen}
  whole = policy.whole(state.policy.params)
  critic = value.whole(state.value.params)
  return _of_iteration(
      config, shape, mesh, iterate.programs | {'reward': reward.jitted}, roles,
      _Sampled(whole, judge, (whole, frozen, critic, state.kl.coef), state,
               ((policy.base, value.base), None),
               (6.0, 4.0) if policy.base else (8.0, 6.0)))


def _grpo(config, shape, mesh) -> list[Program]:
  """No critic: a policy, its reference and a reward model."""
  policy = _trainee(CausalLM(config), mesh, shape)
  group = topologies.GROUP['grpo']
  value = policy.with_head(jax.random.key(0))
  settings = train.OnlineConfig(
      max_new_tokens=shape.room, num_epochs=shape.num_epochs,
      num_minibatches=shape.num_minibatches, num_samples=group,
      num_microbatches=shape.num_microbatches, num_slots=shape.num_slots)
  optimizer = train.make_optimizer(1e-6, 1_000, offload=shape.offload)
  state, shardings = train.abstract_state(
      policy.params, policy.axes, optimizer, mesh=mesh)
  held, judge, reward = _judge(
      value.model, value.params, value.axes, mesh, value.base)
  _, frozen, _ = policy.reference(mesh)
  width = shape.length - shape.room
  objective = objectives.policy_gradient(
      policy.model, objectives.clip_surrogate(clip=0.2), prompt_length=width,
      aggregate=objectives.sequence_mean, kl_coef=0.04,
      chunk_size=shape.chunk_size)
  iterate = train.make_online_iteration(
      policy, reward, objective, train.grouped(
          advantages.group_advantages, group), optimizer, settings,
      shardings=shardings, mesh=mesh, prompt_length=width, eos_id=0,
      chunk_size=shape.chunk_size)
  roles = {'policy': state.params, 'optimizer': state.opt_state, 'reward': held,
           'reference' if policy.base is None else 'base': frozen}
  whole = policy.whole(state.params)
  return _of_iteration(
      config, shape, mesh, iterate.programs | {'reward': reward.jitted}, roles,
      _Sampled(whole, judge, (whole, frozen), state, (policy.base,),
               (3.0, 2.0) if policy.base else (4.0, 3.0), group))


def _cache(config, shape, mesh, group: int):
  """The sampler's; see `rollout.make_generate`."""
  if shape.num_slots or not rollout.reads_prompts_once(
      config, shape.rows, group, sharding.num_batch_shards(mesh)):
    return make_cache(config, shape.num_slots or shape.rows, shape.length)
  prompts = make_cache(
      config, shape.rows // group, shape.length - shape.room)
  return cache_behind(prompts, group, shape.room)


def _of_iteration(config, shape, mesh, programs, roles, given) -> list[Program]:
  """An iteration's four programs, each with what it is called with."""
  put, rows = batches.on_rows(mesh), shape.rows
  prompts = batches.prompts(shape, mesh)
  key = jax.eval_shape(lambda: jax.random.key(0))
  on_rows = lambda tree: jax.tree.map(lambda x: put(x.shape, x.dtype), tree)
  sampled = on_rows(
      jax.eval_shape(programs['generate'], given.whole, prompts, key))
  reward = put((rows,), jnp.float32)
  annotated, _ = jax.eval_shape(
      programs['annotate'], *given.asked, sampled, reward)
  cache = jax.eval_shape(lambda: _cache(config, shape, mesh, given.group))
  cache = _lying(cache, jax.tree.map(lambda _: _CACHE, cache), mesh)
  once = lambda n: cost.Work(rows, shape.length, n, n)
  decode = cost.Work(rows, shape.length, 1.0, 1.0, shape.room * (
      cost.shard_bytes(given.whole) + cost.shard_bytes(cache)))
  return [
      Program('generate', programs['generate'], (given.whole, prompts, key),
              roles | {'kv_cache': cache}, decode),
      Program('reward', programs['reward'],
              (given.judge, sampled.tokens, sampled.attention_mask, None),
              roles, once(1.0)),
      Program('annotate', programs['annotate'],
              (*given.asked, sampled, reward), roles,
              once(3.0 if 'value' in roles else 2.0)),
      Program('update', programs['update'],
              (given.state, on_rows(annotated), *given.beside),
              roles | {'batch': annotated},
              cost.Work(rows, shape.length, *(
                  shape.num_epochs * n for n in given.passes)))]


_CACHE = PartitionSpec('layers', 'batch', 'kv_heads', None, None)
METHODS = {'sft': _sft, 'reward': _reward, 'dpo': _dpo, 'kto': _kto,
           'ppo': _ppo, 'grpo': _grpo}
