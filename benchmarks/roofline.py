"""How near a training step comes to this machine's own matmul.

  python -m benchmarks.roofline --model DIR

Times the parts of an SFT step apart, each a jitted program over the mesh of a
run, and sets the matmul FLOPs that each needs against the rate of a 2048³
matmul in the same dtype, measured before and after them. Medians; the parts do
not sum to the step, which fuses and overlaps them.
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
import statistics
import time
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import cli
from alignjax import objectives
from alignjax import partitioning
from alignjax import runs
from alignjax import sharding
from alignjax import train
from alignjax.errors import InputError
from alignjax.plan import cost
from alignjax.types import TokenBatch

_SIZE = 2_048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the measurement."""

  model: str  # A Hugging Face folder.
  batch_size: int = 8  # Rows of a step.
  length: int = 256  # Tokens of a row, half of them a prompt.
  mesh: str = 'data:-1'  # Devices by axis.
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # Of activations.
  attention_block: int | None = None  # As in a run.
  chunk_size: int | None = None  # As in a run.
  repeats: int = 5  # Of each part.
  json: str = ''  # File for the result.


class Part(NamedTuple):
  """One jitted part of a step."""

  name: str
  seconds: float  # Median.
  gflops: float   # FLOPs of its matmuls, in units of 1e9.


def main(cfg: Config) -> None:
  """Measures; see `Config`."""
  if min(cfg.batch_size, cfg.length - 1, cfg.repeats) < 1:
    raise InputError(
        f'batch_size={cfg.batch_size}, length={cfg.length}, repeats='
        f'{cfg.repeats}: at least 1, 2 and 1 are needed')
  before = matmul_gflops(cfg)
  parts = measure(cfg)
  peak = statistics.median([before, matmul_gflops(cfg)])
  show(cfg, parts, peak)
  if cfg.json:
    pathlib.Path(cfg.json).write_text(json.dumps({
        'matmul_gflops_per_second': peak, 'parts': [
            part._asdict() | {'share': part.gflops / part.seconds / peak}
            for part in parts]}, indent=2) + '\n')


def matmul_gflops(cfg: Config) -> float:
  """GFLOP/s of a 2048³ matmul, its rows over the mesh."""
  mesh = sharding.make_mesh(cfg.mesh)
  rows = jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(mesh.axis_names))
  x = jax.device_put(jnp.ones((_SIZE, _SIZE), cfg.dtype), rows)
  y = jax.device_put(
      jnp.ones((_SIZE, _SIZE), cfg.dtype), sharding.replicated(mesh))
  multiply = jax.jit(jnp.matmul, out_shardings=rows)
  return 2 * _SIZE**3 / 1e9 / _median(cfg.repeats, lambda: multiply(x, y))


def measure(cfg: Config) -> list[Part]:
  """Every part of an SFT step."""
  mesh = sharding.make_mesh(cfg.mesh)
  model, params, _ = runs.load_policy(cfg.model)
  config = dataclasses.replace(
      model.config, dtype=cfg.dtype, attention_block=cfg.attention_block)
  model = dataclasses.replace(model, config=config)
  optimizer = train.make_optimizer(1e-5, 1_000)
  state, shardings = train.init_state(
      params, model.axes(), optimizer, mesh=mesh, seed=0)
  objective = objectives.sft(model, chunk_size=cfg.chunk_size)
  batch = sharding.put(_batch(cfg, config), sharding.batch_sharding(mesh))
  step = train.make_train_step(
      objective, optimizer, shardings=shardings, mesh=mesh)
  jit = lambda function: partitioning.jit(function, mesh)
  hidden = jit(lambda p: model.hidden(p, batch.tokens, batch.attention_mask))
  loss = jit(lambda p: objective(p, batch, state.key)[0].compute())
  gradient = jit(jax.grad(
      lambda p: objective(p, batch, jax.random.key(0))[0].total))
  work = lambda passes: cost.flops(config, cost.Work(
      cfg.batch_size, cfg.length, passes, passes))[1] / 1e9
  table = 2 * cfg.batch_size * cfg.length * (
      config.vocab_size * config.hidden_size) / 1e9
  times = lambda function: _median(cfg.repeats, function)
  parts = [
      Part('hidden states', times(lambda: hidden(state.params)),
           work(1.0) - table),
      Part('loss', times(lambda: loss(state.params)), work(1.0)),
      Part('loss and gradients', times(lambda: gradient(state.params)),
           work(3.0))]
  held = [state]

  def whole():
    held[0], metrics = step(held[0], batch)
    return metrics

  return [*parts, Part('step', times(whole), work(3.0))]


def _batch(cfg: Config, config) -> TokenBatch:
  size = cfg.batch_size, cfg.length
  tokens = np.random.default_rng(0).integers(0, config.vocab_size, size)
  answered = np.broadcast_to(np.arange(cfg.length) >= cfg.length // 2, size)
  return TokenBatch(
      tokens=tokens.astype(np.int32), attention_mask=np.ones(size, bool),
      loss_mask=answered, weight=np.ones(cfg.batch_size, np.float32))


def _median(repeats: int, function: Callable) -> float:
  """Seconds of a call, after one that compiles."""
  jax.block_until_ready(function())
  seconds = []
  for _ in range(repeats):
    began = time.monotonic()
    jax.block_until_ready(function())
    seconds.append(time.monotonic() - began)
  return statistics.median(seconds)


def show(cfg: Config, parts: list[Part], peak: float) -> None:
  """The table."""
  print(f'{cfg.batch_size} rows of {cfg.length} tokens in {cfg.dtype}; a '
        f'{_SIZE}³ matmul does {peak:,.0f} GFLOP/s')
  print(f'{"":20}{"seconds":>10}{"GFLOP":>10}{"GFLOP/s":>10}{"of it":>8}')
  for part in parts:
    rate = part.gflops / part.seconds
    print(f'{part.name:20}{part.seconds:10.3f}{part.gflops:10.1f}{rate:10.1f}'
          f'{rate / peak:8.0%}')


if __name__ == '__main__':
  cli.run(main, Config)
