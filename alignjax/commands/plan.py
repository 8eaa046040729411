"""`alignjax plan`: what a run needs, before the machine is rented."""

import dataclasses
import json
import pathlib
import sys
from typing import Literal

from alignjax import topologies
from alignjax.errors import InputError

_COUNTS = ('batch', 'length', 'num_microbatches', 'num_minibatches',
           'num_epochs')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """Says whether a run fits, before the machine is rented.

  Compiles the very programs of a run (the train step, DPO's reference) for
  chips that are not there, over shapes alone: no weights are needed. Memory is
  the compiler's where there is one (TPUs with `pip install libtpu`, CPUs), else
  an estimate, labelled so; times are arithmetic, at a stated utilisation. Exit
  status 1 if it does not fit. See docs/plan.md.
  """

  # Whose programs. IPO, and what else asks a reference of pairs, has DPO's;
  # RLOO, REINFORCE and all that samples without a critic, GRPO's.
  method: Literal['sft', 'reward', 'dpo', 'kto', 'ppo', 'grpo'] = 'dpo'
  # A Hugging Face folder (its config.json), or a shape by name: 135m, 1b, 7b,
  # 8b, 13b, 70b, or smollm2-135m, llama-3.2-1b, llama-2-7b, mistral-7b ...
  model: str
  topology: str  # v5e:4x8, v4:..., v5p:2x2x4, v6e:..., h100:8, cpu:2.
  batch: int = 64  # Rows of a step: responses, so that a pair is two.
  length: int = 1024  # Tokens of a row, prompt and response.
  mesh: str = 'fsdp:-1'  # By axis: data, fsdp, sequence, tensor; -1: the rest.
  chunk_size: int = 128  # Columns whose logits exist at one time; 0: all.
  attention_block: int = 128  # Queries whose scores exist at one time; 0: all.
  attention_kernel: Literal['xla', 'splash'] = 'xla'  # Of what trains.
  num_microbatches: int = 1  # Parts that a batch is taken in.
  num_minibatches: int = 1  # Optimizer steps in a pass over a rollout.
  num_epochs: int = 2  # Passes over a rollout.
  num_slots: int = 0  # Responses sampled at one time: the cache's rows. 0: all.
  # Of a row, in a rollout, half of it if 0; of each response of a branched
  # pair, a quarter.
  max_new_tokens: int = 0
  # Rows of pairs: one for each response, or prompt | chosen | rejected in one.
  layout: Literal['padded', 'branched'] = 'padded'
  # Of DPO: ask the reference before training, so that nothing lies beside it,
  # and let it go.
  precompute_reference: bool = False
  # Keep AdamW's moments in the host's memory between updates.
  offload_optimizer: bool = False
  lora_rank: int = 0  # Adapters over a frozen base; 0 trains all weights.
  quantize: Literal['none', 'int8', 'nf4'] = 'none'  # The base of adapters.
  dtype: Literal['float32', 'bfloat16'] = 'bfloat16'  # Of activations.
  # Recompute activations in the backward pass; without it they are all held.
  remat: bool = True
  utilisation: float = 0.4  # Share of the chips' peak that times are told at.
  epoch_rows: int = 0  # Rows of the data, for the chip-hours of an epoch.
  # Search the largest batch that fits, and what to change where none does;
  # --batch is then not read.
  fit: bool = False
  json: bool = False  # Print JSON: a list of programs.


  def check(self) -> None:
    """Refuses what can be told without jax: numbers, topology and mesh."""
    for name in ('batch', 'length', 'num_microbatches', 'num_minibatches',
                 'num_epochs', 'chunk_size', 'attention_block', 'lora_rank',
                 'max_new_tokens', 'epoch_rows', 'num_slots'):
      least = int(name in _COUNTS)
      if getattr(self, name) < least:
        raise InputError(f'{name}={getattr(self, name)} is out of range; it '
                         f'must be at least {least}')
    if self.quantize != 'none' and not self.lora_rank:
      raise InputError(f'quantize={self.quantize} without adapters leaves '
                       'nothing to train; add --lora-rank 16, or drop it')
    if self.precompute_reference and self.method != 'dpo':
      raise InputError(f'precompute_reference=True: {self.method} has no '
                       'reference to ask before training; drop it')
    if not 0 < self.utilisation <= 1:
      raise InputError(f'utilisation={self.utilisation:g} is out of range; it '
                       'must be above 0 and at most 1')
    topology = topologies.parse_topology(self.topology)
    sizes = topologies.mesh_sizes(self.mesh, topology.num_chips)
    shards = sizes['data'] * sizes['fsdp']
    if heads := _key_heads(self.model):
      topologies.check_heads(heads, sizes['tensor'])
    topologies.check_length(self.length, sizes['sequence'])
    topologies.check_slots(self.num_slots, shards)
    if not self.fit:
      topologies.check_batch(self.batch, topologies.smallest_batch(
          self.method, shards, num_microbatches=self.num_microbatches,
          num_minibatches=self.num_minibatches), shards)


def _key_heads(model: str) -> int | None:
  """Key heads of a name or a folder; None where it takes jax to tell."""
  name = topologies.ALIASES.get(model.lower(), model.lower())
  if name in topologies.KEY_HEADS:
    return topologies.KEY_HEADS[name]
  try:
    fields = json.loads((pathlib.Path(model) / 'config.json').read_text())
    count = fields.get('num_key_value_heads') or fields['num_attention_heads']
  except (OSError, ValueError, KeyError, AttributeError, TypeError):
    return None  # What is wrong is said where the folder is read.
  return count if isinstance(count, int) and count > 0 else None


def plan(cfg: Plan) -> None:
  """Plans; see `Plan`."""
  cfg.check()
  from alignjax import plan as plan_lib
  topology = topologies.parse_topology(cfg.topology)
  config = dataclasses.replace(
      read_config(cfg.model), dtype=cfg.dtype, remat=cfg.remat,
      scan_layers=True, attention_block=cfg.attention_block or None,
      attention_kernel=cfg.attention_kernel)
  shape = plan_lib.Shape(
      rows=cfg.batch, length=cfg.length, chunk_size=cfg.chunk_size or None,
      num_microbatches=cfg.num_microbatches, lora_rank=cfg.lora_rank,
      quantize=cfg.quantize, max_new_tokens=cfg.max_new_tokens,
      num_minibatches=cfg.num_minibatches, num_epochs=cfg.num_epochs,
      num_slots=cfg.num_slots, offload=cfg.offload_optimizer,
      layout=cfg.layout, precompute_reference=cfg.precompute_reference)
  if cfg.fit:
    cfg, found = search(cfg, config, shape, topology)
  else:
    found = plan_lib.plan(cfg.method, config, shape, topology, cfg.mesh,
                          utilisation=cfg.utilisation)
  if cfg.json:
    print(json.dumps([
        program._asdict() | {'topology': topology.name} for program in found],
        indent=2))
  else:
    show(cfg, config, topology, found)
  sys.stdout.flush()
  if not all(program.fits for program in found):
    sys.exit(1)


def search(cfg: Plan, config, shape, topology):
  """(the flags that fit, their programs); says what was tried on stderr."""
  from alignjax import plan as plan_lib
  proposal = plan_lib.fit(
      cfg.method, config, shape, topology, cfg.mesh,
      utilisation=cfg.utilisation,
      note=lambda text: print(f'tried {text}', file=sys.stderr, flush=True))
  cfg = dataclasses.replace(
      cfg, batch=proposal.shape.rows, mesh=proposal.mesh,
      chunk_size=proposal.shape.chunk_size or 0,
      lora_rank=proposal.shape.lora_rank,
      offload_optimizer=proposal.shape.offload, remat=proposal.config.remat)
  if proposal.fits:
    print('the largest batch that fits: ', ' '.join(
        [f'--batch {cfg.batch}', *proposal.changes]), file=sys.stderr)
  else:
    peak = max(p.peak_gib for p in proposal.programs)
    larger = plan_lib.smallest_topology(topology.kind, peak, topology.num_chips)
    print(f'nothing that was tried fits {topology.name}; '
          + (f'{larger} would hold what {topology.num_chips} chips do not'
             if larger else 'take chips with more memory'), file=sys.stderr)
  return cfg, proposal.programs


def read_config(model: str):
  """The shape of a folder, or of a name.

  Raises:
    InputError: it is neither.
  """
  from alignjax.models import presets
  name = topologies.ALIASES.get(model.lower(), model.lower())
  if name in presets.PRESETS:
    return presets.PRESETS[name]
  if not pathlib.Path(model).is_dir():
    raise InputError(
        f'model={model} is neither a folder nor one of '
        f'{", ".join([*topologies.ALIASES, *presets.PRESETS])}')
  from alignjax import hf
  return hf.read_config(model)


def show(cfg: Plan, config, topology, found) -> None:
  """The table, and what would help where it does not fit."""
  from alignjax import metrics
  from alignjax.models import presets
  console = metrics.Console()
  count = presets.count_parameters(config)
  how = 'compiled' if found[0].is_compiled else (
      'ESTIMATED: there is no compiler for this topology here')
  console.note(f'{cfg.method} of {cfg.model} ({count:,} parameters), '
               f'{cfg.batch} rows of {cfg.length} tokens, on {topology.name} '
               f'({topology.num_chips} chips), mesh {cfg.mesh}; {how}')
  names = list(dict.fromkeys(n for p in found for n in p.roles))
  console.table(
      'GiB on each chip',
      ['program', *names, 'temporaries', 'peak', 'limit', 'fits',
       'compiled in'],
      [[p.name, *(f'{p.roles.get(n, 0):.2f}' for n in names),
        f'{p.temporaries_gib:.2f}', f'{p.peak_gib:.2f}', f'{p.limit_gib:.2f}',
        'yes' if p.fits else 'NO', f'{p.compile_seconds:.0f} s']
       for p in found])
  total = sum(p.seconds for p in found)
  tokens = found[-1].tokens_per_second * found[-1].seconds / total
  text = (f'a step: {sum(p.tflops for p in found):,.1f} TFLOP, {total:.2f} s '
          f'and {tokens:,.0f} tokens/s at {cfg.utilisation:.0%} of the peak')
  if cfg.epoch_rows:
    hours = cfg.epoch_rows / cfg.batch * total * topology.num_chips / 3600
    text += f'; an epoch of {cfg.epoch_rows:,} rows: {hours:,.1f} chip-hours'
  console.note(text)
  if held := max(p.host_gib for p in found):
    console.note(f'and {held:.2f} GiB of each chip in its host\'s memory')
  worst = max(found, key=lambda p: p.peak_gib - p.limit_gib)
  if not worst.fits:
    console.note(f'{worst.name} does not fit by '
                 f'{worst.peak_gib - worst.limit_gib:.2f} GiB a chip; '
                 + advice(cfg, worst))


def advice(cfg: Plan, program) -> str:
  """What would help, the cheapest first."""
  held = sum(program.roles.values())
  if held > program.limit_gib:
    return (f'weights and optimizer alone take {held:.2f}: more chips, '
            '--offload-optimizer, or adapters over a frozen base')
  tips = []
  if not cfg.remat:
    tips.append('--remat')
  if cfg.chunk_size == 0 or cfg.chunk_size > 128:
    tips.append('--chunk-size 128')
  tips += [f'--num-microbatches {2 * cfg.num_microbatches}',
           f'--batch {cfg.batch // 2}', 'more chips']
  return f'what would help: {", ".join(tips)}'
