"""The programs of a method, as a run builds them, over shapes alone.

    sft      train_step
    reward   train_step
    dpo      reference, train_step

The builders are those of the run (`train.make_train_step`,
`rollout.make_reference`, `objectives.*`), so that what is compiled here is what
will be compiled there.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignjax import objectives
from alignjax import rollout
from alignjax import sharding
from alignjax import train
from alignjax.models import CausalLM
from alignjax.models import ModelConfig
from alignjax.models import ScalarModel
from alignjax.plan import cost
from alignjax.types import InputError
from alignjax.types import PreferenceBatch
from alignjax.types import TokenBatch


class Shape(NamedTuple):
  """How large a run is."""

  rows: int                 # Responses in a batch; a pair is two.
  length: int               # Tokens, prompt and response.
  chunk_size: int | None    # Columns whose logits exist at one time.
  num_microbatches: int = 1


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
    method: 'sft', 'reward' or 'dpo'.
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
  unit = shards * shape.num_microbatches * (1 if method == 'sft' else 2)
  if shape.rows % unit or not shape.rows:
    below, above = shape.rows // unit * unit, -(-shape.rows // unit) * unit
    near = ' or '.join(str(n) for n in sorted({below, above or unit}) if n)
    pairs = '' if method == 'sft' else ', in pairs'
    raise InputError(
        f'batch={shape.rows} rows do not split over {shards} shards of data x '
        f'fsdp{pairs}, in {shape.num_microbatches} microbatch(es); use '
        f'{near or unit}')
  tensor = mesh.shape['tensor']
  if config.num_kv_heads % tensor:
    fits = [n for n in range(1, tensor + 1) if config.num_kv_heads % n == 0]
    raise InputError(
        f'mesh: tensor:{tensor} does not divide {config.num_kv_heads} key '
        f'heads; use tensor:{max(fits)}')
  if shape.length < 2 or shape.length > config.max_positions:
    raise InputError(f'length={shape.length} is not from 2 to the '
                     f'{config.max_positions} that the model was trained for')


def _state(model, mesh):
  """(abstract state, shardings, optimizer) of what is trained."""
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  optimizer = train.make_optimizer(1e-5, 1_000)
  state, shardings = train.abstract_state(
      shapes, model.axes(), optimizer, mesh=mesh)
  return state, shardings, optimizer


def _step(model, objective, shape, mesh, batch, passes=(4.0, 3.0)):
  """The train step of an objective."""
  state, shardings, optimizer = _state(model, mesh)
  step = train.make_train_step(
      objective, optimizer, shardings=shardings, mesh=mesh,
      num_microbatches=shape.num_microbatches)
  return Program(
      'train_step', step, (state, batch),
      {'policy': state.params, 'optimizer': state.opt_state, 'batch': batch},
      cost.Work(shape.rows, shape.length, *passes))


def _tokens(shape: Shape, mesh) -> TokenBatch:
  """Rows of text."""
  put = _on(mesh)
  size = shape.rows, shape.length
  return TokenBatch(
      tokens=put(size, jnp.int32), attention_mask=put(size, bool),
      loss_mask=put(size, bool), weight=put(size[:1], jnp.float32))


def _pairs(shape: Shape, mesh, *, ref: bool) -> PreferenceBatch:
  """Pairs, with the reference's logprobs or without."""
  put = _on(mesh)
  size = shape.rows // 2, 2, shape.length
  return PreferenceBatch(
      tokens=put(size, jnp.int32), attention_mask=put(size, bool),
      loss_mask=put(size, bool), weight=put(size[:1], jnp.float32),
      strength=put(size[:1], jnp.int32),
      ref_logprobs=put(size, jnp.float32) if ref else None)


def _on(mesh):
  """Shapes whose rows are split over the mesh."""
  rows = sharding.batch_sharding(mesh)
  return lambda size, dtype: jax.ShapeDtypeStruct(size, dtype, sharding=rows)


def _sft(config, shape, mesh) -> list[Program]:
  model = CausalLM(config)
  return [_step(model, objectives.sft(model, chunk_size=shape.chunk_size),
                shape, mesh, _tokens(shape, mesh))]


def _reward(config, shape, mesh) -> list[Program]:
  model = ScalarModel(dataclasses.replace(config, tie_embeddings=True))
  return [_step(model, objectives.reward(model), shape, mesh,
                _pairs(shape, mesh, ref=False))]


def _dpo(config, shape, mesh) -> list[Program]:
  """The reference is frozen, and held in the dtype of the activations."""
  model = CausalLM(config)
  step = _step(model, objectives.dpo(
      model, beta=0.1, chunk_size=shape.chunk_size), shape, mesh,
      _pairs(shape, mesh, ref=True))
  of_params = sharding.tree_shardings(mesh, model.axes(), step.arguments[0]
                                      .params)
  frozen = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, config.dtype, sharding=s),
      step.arguments[0].params, of_params)
  annotate = rollout.make_reference(
      model, frozen, mesh=mesh, param_shardings=of_params,
      chunk_size=shape.chunk_size)
  pairs = _pairs(shape, mesh, ref=False)
  roles = step.roles | {'reference': frozen}
  return [
      Program('reference', annotate.jitted, (frozen, pairs), roles,
              cost.Work(shape.rows, shape.length, 1.0, 1.0)),
      step._replace(roles=roles)]


METHODS = {'sft': _sft, 'reward': _reward, 'dpo': _dpo}
