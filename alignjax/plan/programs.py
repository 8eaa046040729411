"""The programs of a method, as a run builds them, over shapes alone.

    sft, reward   train_step
    dpo           reference, train_step
    ppo           generate, reward, annotate, update

The builders are those of the run (`train.make_train_step`,
`train.make_ppo_iteration`, `rollout.make_reference`, `objectives.*`), so that
what is compiled here is what will be compiled there. What is not trained is
held in the dtype of the activations, as a run with `--dtype` holds it.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from alignjax import adapters
from alignjax import objectives
from alignjax import rollout
from alignjax import sharding
from alignjax import topologies
from alignjax import train
from alignjax.models import CausalLM
from alignjax.models import freeze
from alignjax.models import lora
from alignjax.models import make_cache
from alignjax.models import ModelConfig
from alignjax.plan import cost
from alignjax.types import InputError
from alignjax.types import PreferenceBatch
from alignjax.types import PromptBatch
from alignjax.types import Rows
from alignjax.types import TokenBatch


class Shape(NamedTuple):
  """How large a run is."""

  rows: int                 # Responses in a batch; a pair is two.
  length: int               # Tokens, prompt and response.
  chunk_size: int | None    # Columns whose logits exist at one time.
  num_microbatches: int = 1
  lora_rank: int = 0        # 0 trains all weights.
  max_new_tokens: int = 0   # Of `length`, in a rollout; 0 is half.
  num_minibatches: int = 1  # Of a rollout.
  num_epochs: int = 2       # Over a rollout.
  num_slots: int = 0        # Responses sampled at one time; 0: all.
  offload: bool = False     # Moments in the host's memory between updates.
  # 'branched': a pair shares a row, prompt | chosen | rejected, of `length`.
  layout: Literal['padded', 'branched'] = 'padded'

  @property
  def num_read(self) -> int:
    """Rows that models read."""
    return self.rows // 2 if self.layout == 'branched' else self.rows


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
    method: 'sft', 'reward', 'dpo' or 'ppo'.
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
  tensor = mesh.shape['tensor']
  if config.num_kv_heads % tensor:
    fits = [n for n in range(1, tensor + 1) if config.num_kv_heads % n == 0]
    raise InputError(
        f'mesh: tensor:{tensor} does not divide {config.num_kv_heads} key '
        f'heads; use tensor:{max(fits)}')
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


def _frozen(model, mesh):
  """A model that is not trained, in the dtype of its activations."""
  init = lambda key: freeze(model.init(key), model.config.dtype)
  return _lying(jax.eval_shape(init, jax.random.key(0)), model.axes(), mesh)


def _lying(shapes, axes, mesh):
  """Shapes with the shardings that the rules give them."""
  return train.shaped(shapes, sharding.tree_shardings(mesh, axes, shapes))


def _trainee(model, mesh, rank: int) -> _Shapes:
  """What is trained of a decoder: all of it, or adapters over a frozen base."""
  if not rank:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return _Shapes(model, shapes, model.axes(), None, '')
  adapted = CausalLM(dataclasses.replace(
      model.config, lora=lora.Lora(rank=rank)))
  shapes = jax.eval_shape(adapted.init, jax.random.key(0))
  return _Shapes(adapted, lora.split(shapes)[1],
                 lora.split(adapted.axes())[1], _frozen(model, mesh), '')


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
      num_shards, is_paired=method in topologies.PAIRED,
      num_microbatches=shape.num_microbatches,
      num_minibatches=shape.num_minibatches if method == 'ppo' else 1)


def _tokens(shape: Shape, mesh) -> TokenBatch:
  """Rows of text."""
  put = _on(mesh)
  size = shape.rows, shape.length
  return TokenBatch(
      tokens=put(size, jnp.int32), attention_mask=put(size, bool),
      loss_mask=put(size, bool), weight=put(size[:1], jnp.float32))


def _pairs(shape: Shape, mesh, *, ref: bool) -> PreferenceBatch:
  """Pairs, with the reference's logprobs or without; in cells if branched."""
  put, length, rows = _on(mesh), shape.length, None
  lead: tuple[int, ...] = (shape.rows // 2,)
  if shape.layout == 'branched':
    cells = sharding.num_batch_shards(mesh) * shape.num_microbatches
    lead = cells, shape.rows // 2 // cells
    read = put((*lead, length), jnp.int32)
    length -= shape.max_new_tokens or length // 4  # One response is elsewhere.
    rows = Rows(
        tokens=read, attention_mask=put(read.shape, bool), segments=read,
        branches=read, positions=read,
        index=put((*lead, 2, length), jnp.int32), start=1)
  size = *lead, 2, length
  return PreferenceBatch(
      tokens=put(size, jnp.int32), attention_mask=put(size, bool),
      loss_mask=put(size, bool), weight=put(lead, jnp.float32),
      strength=put(lead, jnp.int32),
      ref_logprobs=put(size, jnp.float32) if ref else None, rows=rows)


def _on(mesh):
  """Shapes whose rows are split over the mesh."""
  rows = sharding.batch_sharding(mesh)
  return lambda size, dtype: jax.ShapeDtypeStruct(size, dtype, sharding=rows)


def _sft(config, shape, mesh) -> list[Program]:
  trainee = _trainee(CausalLM(config), mesh, shape.lora_rank)
  objective = objectives.sft(trainee.model, chunk_size=shape.chunk_size)
  return [_step(trainee, objective, shape, mesh, _tokens(shape, mesh))]


def _reward(config, shape, mesh) -> list[Program]:
  policy = _trainee(CausalLM(config), mesh, shape.lora_rank)
  trainee = policy.with_head(jax.random.key(0))
  return [_step(trainee, objectives.reward(trainee.model), shape, mesh,
                _pairs(shape, mesh, ref=False))]


def _dpo(config, shape, mesh) -> list[Program]:
  """Under adapters the reference is the base, and costs nothing."""
  trainee = _trainee(CausalLM(config), mesh, shape.lora_rank)
  model, frozen, shardings = trainee.reference(mesh)
  step = _step(
      trainee, objectives.dpo(trainee.model, beta=0.1,
                              chunk_size=shape.chunk_size),
      shape, mesh, _pairs(shape, mesh, ref=True),
      None if trainee.base else {'reference': frozen})
  annotate = rollout.make_reference(
      model, frozen, mesh=mesh, param_shardings=shardings,
      chunk_size=shape.chunk_size)
  return [
      Program('reference', annotate.jitted,
              (frozen, _pairs(shape, mesh, ref=False)), step.roles,
              cost.Work(shape.num_read, shape.length, 1.0, 1.0)), step]


def _ppo(config, shape, mesh) -> list[Program]:
  """All four roles; under adapters they share one base."""
  policy = _trainee(CausalLM(config), mesh, shape.lora_rank)
  value = policy.with_head(jax.random.key(0))
  new = shape.max_new_tokens or shape.length // 2
  settings = train.PPOConfig(
      max_new_tokens=new, num_epochs=shape.num_epochs,
      num_minibatches=shape.num_minibatches,
      num_microbatches=shape.num_microbatches, num_slots=shape.num_slots)
  optimizers = [train.make_optimizer(rate, 1_000, offload=shape.offload)
                for rate in (1e-6, 1e-5)]
  state, shardings = train.abstract_ppo_state(
      policy, value, *optimizers, settings, mesh=mesh)
  of_value = lambda params: params if value.base is None else lora.join(
      value.base, params)
  judge = _lying(
      jax.eval_shape(lambda p: freeze(p, config.dtype), value.params),
      value.axes, mesh)
  reward = rollout.make_reward_fn(
      value.model, of_value(judge), mesh=mesh,
      param_shardings=adapters.shardings_of(of_value(judge)))
  iterate = train.make_ppo_iteration(
      policy, value, reward, *optimizers, settings, shardings=shardings,
      mesh=mesh, prompt_length=shape.length - new, eos_id=0,
      chunk_size=shape.chunk_size)
  _, frozen, _ = policy.reference(mesh)
  roles = {'policy': state.policy.params, 'value': state.value.params,
           'optimizer': (state.policy.opt_state, state.value.opt_state),
           'reward': judge,
           'reference' if policy.base is None else 'base': frozen}
  return _of_iteration(
      config, shape, mesh, new, iterate.programs | {'reward': reward.jitted},
      roles, state, policy, value, frozen, of_value(judge))


def _of_iteration(config, shape, mesh, new, programs, roles, state, policy,
                  value, frozen, judge) -> list[Program]:
  """A PPO iteration's four programs, each with what it is called with."""
  put, rows = _on(mesh), shape.rows
  width = shape.length - new
  prompts = PromptBatch(
      tokens=put((rows, width), jnp.int32),
      attention_mask=put((rows, width), bool),
      prompt_id=put((rows,), jnp.int32), sample_id=put((rows,), jnp.int32),
      weight=put((rows,), jnp.float32))
  key = jax.eval_shape(lambda: jax.random.key(0))
  whole = policy.whole(state.policy.params)
  critic = value.whole(state.value.params)
  on_rows = lambda tree: jax.tree.map(lambda x: put(x.shape, x.dtype), tree)
  sampled = on_rows(jax.eval_shape(programs['generate'], whole, prompts, key))
  reward = put((rows,), jnp.float32)
  annotated, _ = jax.eval_shape(
      programs['annotate'], whole, frozen, critic, state.kl.coef, sampled,
      reward)
  cache = jax.eval_shape(lambda: make_cache(
      config, shape.num_slots or rows, shape.length))
  cache = _lying(cache, jax.tree.map(lambda _: _CACHE, cache), mesh)
  passes = (3.0, 2.0) if policy.base else (4.0, 3.0)
  once = lambda n: cost.Work(rows, shape.length, n, n)
  decode = cost.Work(rows, shape.length, 1.0, 1.0, new * (
      cost.shard_bytes(whole) + cost.shard_bytes(cache)))
  return [
      Program('generate', programs['generate'], (whole, prompts, key),
              roles | {'kv_cache': cache}, decode),
      Program('reward', programs['reward'],
              (judge, sampled.tokens, sampled.attention_mask, None), roles,
              once(1.0)),
      Program('annotate', programs['annotate'],
              (whole, frozen, critic, state.kl.coef, sampled, reward), roles,
              once(3.0)),
      Program('update', programs['update'],
              (state, on_rows(annotated), (policy.base, value.base), None),
              roles | {'batch': annotated},
              cost.Work(rows, shape.length, *(
                  2 * shape.num_epochs * n for n in passes)))]


_CACHE = PartitionSpec('layers', 'batch', None, 'kv_heads', None)
METHODS = {'sft': _sft, 'reward': _reward, 'dpo': _dpo, 'ppo': _ppo}
