"""Each program's bytes on a chip: compiled where it can be, else estimated."""

import re
import time
from typing import NamedTuple

import jax

from alignjax import sharding
from alignjax import topologies
from alignjax.models import ModelConfig
from alignjax.plan import collectives
from alignjax.plan import cost
from alignjax.plan import devices as devices_lib
from alignjax.plan import programs

_REMATERIALIZED = 'Involuntary full rematerialization'


class Measured(NamedTuple):
  """What one program needs of each chip, in GiB."""

  name: str
  peak_gib: float        # While it runs, with all that lies beside it.
  limit_gib: float       # Of the chip.
  fits: bool
  roles: dict[str, float]  # Policy, optimizer, reference, batch.
  temporaries_gib: float   # Activations, gradients, gathered weights.
  host_gib: float        # Of the roles, in the memory of the chip's host.
  is_compiled: bool      # Else an estimate by arithmetic.
  compile_seconds: float
  tflops: float          # That the model needs, of all chips together.
  seconds: float         # At the stated utilisation.
  tokens_per_second: float
  # By kind, (executions, GiB of results on a chip); loops included.
  collectives: dict[str, tuple[int, float]]
  warnings: list[str]    # Of resharding that the compiler could not do well.


def plan(
    method: str, config: ModelConfig, shape: programs.Shape,
    topology: topologies.Topology, mesh: str = 'fsdp:-1', *,
    utilisation: float = 0.4,
) -> list[Measured]:
  """Compiles every program of a method, and says what it needs.

  Args:
    method: a key of `METHODS`.
    config: of the model; use remat and scanned layers for large ones.
    shape: rows, length and chunks.
    topology: what is to be rented.
    mesh: as `sharding.make_mesh` reads it.
    utilisation: share of the chips' peak that times are quoted at.

  Returns:
    A `Measured` for each program, in the order in which they run. Without a
    compiler for the topology they are estimates, and say so.

  Raises:
    InputError: what cannot be laid out, with the nearest that can.
  """
  devices = devices_lib.devices_of(topology)
  is_compiled = devices is not None
  layout = sharding.make_mesh(
      mesh, devices if is_compiled else _stand_ins(topology.num_chips))
  found = programs.of_method(method, config, shape, layout)
  return [_measure(p, config, shape, topology, layout, utilisation,
                   is_compiled) for p in found]


def _measure(program, config, shape, topology, mesh, utilisation,
             is_compiled) -> Measured:
  """One program's needs."""
  is_host = topology.kind == 'cpu'  # Whose memory is the devices'.
  roles = {name: cost.shard_bytes(tree, with_host=is_host) / cost.GIB
           for name, tree in program.roles.items()}
  on_host = cost.shard_bytes(program.roles) / cost.GIB - sum(roles.values())
  started = time.monotonic()
  sent, warnings = {}, []
  if is_compiled:
    temporaries, sent, warnings = _compile(program)
  else:
    rows = shape.rows // sharding.num_batch_shards(
        mesh) // shape.num_microbatches
    is_training = program.name in ('train_step', 'update')
    temporaries = cost.activation_gib(
        config, max(1, rows), shape.length, is_training=is_training,
        chunk_size=shape.chunk_size)
    temporaries += roles['policy'] if is_training else 0  # Gradients.
  _, needed = cost.flops(config, program.work)
  if is_compiled:  # The compiler counts the cache among them.
    temporaries -= roles.get('kv_cache', 0.0)
  peak = sum(roles.values()) + temporaries
  seconds = max(
      cost.seconds(needed, topology.num_chips, topology.chip.bf16_tflops,
                   utilisation),
      program.work.reads / (topology.chip.gb_per_s * 1e9))
  tokens = shape.num_read * shape.length
  return Measured(
      program.name, peak, topology.chip.hbm_gib, peak <= topology.chip.hbm_gib,
      roles, temporaries, on_host, is_compiled, time.monotonic() - started,
      needed / 1e12, seconds, tokens / seconds, sent, warnings)


def _compile(program: programs.Program):
  """(GiB beyond the arguments, collectives, warnings) of a program."""
  with devices_lib.quiet() as said:
    try:
      compiled = program.function.lower(*program.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
      return _said(str(error)), {}, []
  warnings = [line for line in said if _REMATERIALIZED in line]
  sent = {kind: (each.times, each.bytes / cost.GIB) for kind, each in
          collectives.count(compiled.as_text()).items()}
  found = compiled.memory_analysis()
  # What XLA calls the peak leaves temporaries out on CPUs, and counts what is
  # the host's on TPUs.
  beside = (found.temp_size_in_bytes + found.output_size_in_bytes
            - found.alias_size_in_bytes)
  needed = max(beside, found.peak_memory_in_bytes
               - found.argument_size_in_bytes
               - found.host_argument_size_in_bytes)
  return needed / cost.GIB, sent, warnings


def _said(message: str) -> float:
  """GiB of temporaries in the compiler's own refusal."""
  found = re.search(r'required for HLO temporaries \(([\d.]+)G\)', message)
  if found is None:
    found = re.search(r'Used ([\d.]+)G of', message)
  if found is None:
    raise RuntimeError(message)
  return float(found.group(1))


def _stand_ins(count: int) -> list:
  """Something to lay a mesh over where there is no compiler."""
  return jax.devices('cpu')[:1] * count
