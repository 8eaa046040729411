"""The largest batch that fits, and what to change where none does."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from alignjax import topologies
from alignjax.models import ModelConfig
from alignjax.plan import programs
from alignjax.plan.compiled import Measured
from alignjax.plan.compiled import plan

_MARGIN = 0.97  # Of the limit, that a batch may take.
_MAX_SHAVINGS = 4


class Proposal(NamedTuple):
  """A run that fits, or the nearest to one."""

  shape: programs.Shape
  mesh: str
  changes: list[str]        # Flags that differ from what was asked for.
  programs: list[Measured]  # Of the proposal.
  tried: list[str]          # One line for each plan that was made.

  @property
  def fits(self) -> bool:
    """Whether every program does."""
    return all(program.fits for program in self.programs)


def fit(
    method: str, config: ModelConfig, shape: programs.Shape,
    topology: topologies.Topology, mesh: str = 'fsdp:-1', *,
    utilisation: float = 0.4, note: Callable[[str], None] = lambda text: None,
) -> Proposal:
  """Searches the largest batch that fits a topology.

  Temporaries grow by the same amount with every row. So two plans, of the
  smallest batch and of four times that, tell where the limit is met, and a
  third confirms it. Where not even the smallest batch fits, what is asked for
  is changed, the cheapest change first: smaller chunks, heads over two chips,
  moments in the host's memory, adapters.

  Args:
    method: as for `plan`.
    config: of the model.
    shape: as asked for; its rows are where nothing is searched from.
    topology: what is to be rented.
    mesh: as asked for.
    utilisation: as for `plan`.
    note: is told what is being tried.

  Returns:
    The largest batch found, with the changes that it took.
  """
  tried: list[str] = []

  def measure(shape, mesh):
    found = plan(method, config, shape, topology, mesh, utilisation=utilisation)
    peak = max(program.peak_gib for program in found)
    tried.append(f'batch {shape.rows}, mesh {mesh}, chunk {shape.chunk_size}, '
                 f'lora {shape.lora_rank}: {peak:.2f} GiB')
    note(tried[-1])
    return found, peak

  limit = topology.chip.hbm_gib * _MARGIN
  for step in _ladder(method, config, shape, mesh):
    changes, shape_now, mesh_now = step
    sizes = topologies.mesh_sizes(mesh_now, topology.num_chips)
    unit = programs.smallest_batch(
        method, shape_now, sizes['data'] * sizes['fsdp'])
    small = shape_now._replace(rows=unit)
    found, least = measure(small, mesh_now)
    if least <= limit:
      break
  else:
    return Proposal(small, mesh_now, changes, found, tried)
  second, more = measure(shape_now._replace(rows=4 * unit), mesh_now)
  if more > limit:
    times = 3
  else:
    found, small = second, small._replace(rows=4 * unit)
    times = int((limit - least) / max((more - least) / 3, 1e-6)) + 1
  for _ in range(_MAX_SHAVINGS):
    rows = times * unit
    if rows <= small.rows:
      break
    candidate, peak = measure(small._replace(rows=rows), mesh_now)
    if peak <= limit:
      found, small = candidate, small._replace(rows=rows)
      break
    times = min(times - 1, int(0.9 * times))
  return Proposal(small, mesh_now, changes, found, tried)


def _ladder(
    method: str, config: ModelConfig, shape: programs.Shape, mesh: str,
) -> Iterator[tuple[list[str], programs.Shape, str]]:
  """What is asked for, then with one change more each time."""
  changes: list[str] = []
  yield [], shape, mesh
  if shape.chunk_size is None or shape.chunk_size > 32:
    changes, shape = changes + ['--chunk-size 32'], shape._replace(
        chunk_size=32)
    yield changes, shape, mesh
  if 'tensor' not in mesh and config.num_kv_heads % 2 == 0:
    mesh = 'fsdp:-1,tensor:2'
    changes = changes + [f'--mesh {mesh}']
    yield changes, shape, mesh
  if not (shape.lora_rank or shape.offload):
    changes, shape = changes + ['--offload-optimizer'], shape._replace(
        offload=True)
    yield changes, shape, mesh
  if not shape.lora_rank and method != 'grpo':
    yield changes + ['--lora-rank 16'], shape._replace(lora_rank=16), mesh


def smallest_topology(
    kind: str, needed_gib: float, num_chips: int) -> str | None:
  """The smallest shape of a kind whose chips hold what these hold together.

  Args:
    kind: of the chip.
    needed_gib: on each of `num_chips`, split evenly.
    num_chips: that do not hold it.
  """
  limit = topologies.CHIPS[kind].hbm_gib * _MARGIN
  for shape in topologies.SHAPES.get(kind, ()):
    found = topologies.parse_topology(f'{kind}:{shape}')
    if needed_gib * num_chips / found.num_chips <= limit:
      return found.name
  return None
