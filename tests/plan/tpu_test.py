"""What the library needs of TPUs that are not there: bounds, in GiB a chip.

Needs libtpu, which brings its compiler: `pip install libtpu`. Each compiles for
a minute or more.
"""

import dataclasses
import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import pytest

from alignjax import logprobs
from alignjax import partitioning
from alignjax import plan
from alignjax import sharding
from alignjax import topologies
from alignjax.models import attention
from alignjax.models import presets
from alignjax.plan import cost

pytestmark = [pytest.mark.tpu, pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='libtpu is not installed: pip install libtpu')]


def config_of(name):
  return dataclasses.replace(
      presets.PRESETS[topologies.ALIASES[name]], dtype='bfloat16', remat=True,
      scan_layers=True, attention_block=128)


def test_a_topology_s_devices_are_there():
  assert len(plan.devices_of(plan.parse_topology('v5e:2x4'))) == 8


@pytest.mark.parametrize('model, topology, rows, bound', [
    ('1b', 'v5e:2x4', 16, 3.5), ('7b', 'v5e:4x8', 64, 5.0)])
def test_dpo_fits_with_room(model, topology, rows, bound):
  """float32 AdamW, a bfloat16 reference beside it, 1,024 tokens a row."""
  shape = plan.Shape(rows=rows, length=1_024, chunk_size=128)
  for program in plan.plan('dpo', config_of(model), shape,
                           plan.parse_topology(topology)):
    assert program.is_compiled and program.fits
    assert program.peak_gib <= bound, program
    assert not program.warnings


def test_moments_on_the_host_leave_a_layer_s_on_the_chip():
  """4.7 becomes 3.3; what is the host's is not counted as the chip's."""
  shape = plan.Shape(rows=64, length=1_024, chunk_size=128, offload=True)
  step = plan.plan('dpo', config_of('7b'), shape,
                   plan.parse_topology('v5e:4x8'))[-1]
  assert step.roles['optimizer'] < 0.01
  assert step.host_gib == pytest.approx(2 * step.roles['policy'], rel=1e-3)
  assert step.peak_gib <= 3.5


def on_v5p():
  return sharding.make_mesh(
      'fsdp:-1', plan.devices_of(plan.parse_topology('v5p:2x2x1')))


def temporaries(function, mesh, *arguments, out=None):
  """GiB of temporaries of a value and its gradients."""
  of_args = tuple(x.sharding for x in arguments)
  count = sum(jnp.issubdtype(x.dtype, jnp.floating) for x in arguments)
  compiled = partitioning.jit(
      jax.value_and_grad(function, tuple(range(count))), mesh,
      out_shardings=(sharding.replicated(mesh), of_args[:count])
  ).lower(*arguments).compile()
  return compiled.memory_analysis().temp_size_in_bytes / cost.GIB


def shaped(mesh, shape, dtype, *names):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(
      mesh, partitioning.spec(names, shape, mesh)))


def test_attention_over_8192_tokens_holds_a_block_of_scores():
  """One row a chip, 32 heads over 8."""
  mesh = on_v5p()
  heads = lambda count: shaped(
      mesh, (mesh.size, 8_192, count, 128), jnp.bfloat16, 'batch', None, None,
      None)
  mask = shaped(mesh, (mesh.size, 8_192), bool, 'batch', None)

  def loss(query, key, value, mask):
    return attention.attend(
        query, key.swapaxes(1, 2), value.swapaxes(1, 2),
        attention.visible(mask), block=128).astype(jnp.float32).sum()

  assert temporaries(loss, mesh, heads(32), heads(8), heads(8), mask) <= 0.4


def test_a_vocabulary_of_262k_adds_little():
  """To 32k, over 8,192 tokens a chip, 512 columns at one time."""
  mesh = on_v5p()
  hidden = shaped(mesh, (mesh.size, 8_192, 4_096), jnp.bfloat16, 'batch', None,
                  None)
  tokens = shaped(mesh, (mesh.size, 8_192), jnp.int32, 'batch', None)

  def loss(hidden, table, tokens):
    return logprobs.token_logprobs(hidden, table, tokens, chunk_size=512).sum()

  small, large = (temporaries(loss, mesh, hidden, shaped(
      mesh, (size, 4_096), jnp.float32, *partitioning.UNEMBEDDING), tokens)
                  for size in (32_000, 262_144))
  assert large - small <= 1.1


def test_the_command_says_that_it_compiled():
  done = subprocess.run(
      [sys.executable, '-m', 'alignjax', 'plan', '--method', 'sft', '--model',
       '135m', '--topology', 'v5e:2x2', '--batch', '8', '--length', '256'],
      capture_output=True, text=True, check=True)
  assert 'compiled' in done.stderr and 'ESTIMATED' not in done.stderr
