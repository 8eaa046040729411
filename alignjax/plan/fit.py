"""The largest batch that fits, and what to change where none does."""

from collections.abc import Callable, Iterator
import dataclasses
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

  config: ModelConfig
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
  is changed, the cheapest change first: activations made anew, smaller chunks,
  heads over two chips, moments in the host's memory, adapters.

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

  def measure(step, rows):
    found = plan(
        method, step.config, step.shape._replace(rows=rows), topology,
        step.mesh, utilisation=utilisation)
    peak = max(program.peak_gib for program in found)
    tried.append(f'batch {rows}, mesh {step.mesh}, chunk '
                 f'{step.shape.chunk_size}, lora {step.shape.lora_rank}: '
                 f'{peak:.2f} GiB')
    note(tried[-1])
    return found, peak

  limit = topology.chip.hbm_gib * _MARGIN
  for step in _ladder(method, config, shape, mesh):
    sizes = topologies.mesh_sizes(step.mesh, topology.num_chips)
    unit = programs.smallest_batch(
        method, step.shape, sizes['data'] * sizes['fsdp'])
    found, least = measure(step, unit)
    if least <= limit:
      rows, found = _largest(measure, step, unit, found, least, limit)
      break
  else:
    rows = unit
  return Proposal(step.config, step.shape._replace(rows=rows), step.mesh,
                  step.changes, found, tried)


def _largest(measure, step, unit, found, least, limit):
  """(rows, their programs) of the largest batch, a multiple of `unit`."""
  second, more = measure(step, 4 * unit)
  rows, times = unit, 3
  if more <= limit:
    found, rows = second, 4 * unit
    times = int((limit - least) / max((more - least) / 3, 1e-6)) + 1
  for _ in range(_MAX_SHAVINGS):
    if times * unit <= rows:
      break
    candidate, peak = measure(step, times * unit)
    if peak <= limit:
      return times * unit, candidate
    times = min(times - 1, int(0.9 * times))
  return rows, found


class _Step(NamedTuple):
  """What is asked for, with some changes."""

  changes: list[str]
  config: ModelConfig
  shape: programs.Shape
  mesh: str

  def then(self, flag: str, **changed) -> '_Step':
    """One change more."""
    return self._replace(changes=[*self.changes, flag], **changed)


def _ladder(
    method: str, config: ModelConfig, shape: programs.Shape, mesh: str,
) -> Iterator[_Step]:
  """What is asked for, then with one change more each time."""
  step = _Step([], config, shape, mesh)
  yield step
  if not config.remat:
    step = step.then(
        '--remat', config=dataclasses.replace(config, remat=True))
    yield step
  if shape.chunk_size is None or shape.chunk_size > 32:
    step = step.then(
        '--chunk-size 32', shape=step.shape._replace(chunk_size=32))
    yield step
  if 'tensor' not in mesh and config.num_kv_heads % 2 == 0:
    mesh = 'fsdp:-1,tensor:2'
    step = step.then(f'--mesh {mesh}', mesh=mesh)
    yield step
  if not (shape.lora_rank or shape.offload):
    step = step.then(
        '--offload-optimizer', shape=step.shape._replace(offload=True))
    yield step
  if not shape.lora_rank and method != 'grpo':
    yield step.then('--lora-rank 16', shape=step.shape._replace(lora_rank=16))


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
