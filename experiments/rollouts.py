"""Rollouts, for all methods that sample: their batches, and another sampler.

Prompts come in batches, whose samples are laid out as `--layout` says. With
`--engine` another program samples, and weights are handed to it.
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools
import pathlib

from alignjax import adapters
from alignjax import data
from alignjax import engines
from alignjax import hf
from alignjax import models
from alignjax import runs
from alignjax import sources
from alignjax.types import InputError


def prompt_stream(cfg, run: runs.Run, rows, width: int) -> Callable:
  """From an iteration to the prompts' batches that begin there.

  If packed, there is a cell for each part that a minibatch is taken in, and all
  are as large as nine tenths of them need: those compile once.
  """
  plan = functools.partial(
      data.make_prompt_layout, cfg.layout, max_new_tokens=cfg.max_new_tokens,
      num_samples=cfg.num_samples, num_cells=num_parts(cfg, run))
  stream = lambda layout, start: data.prompt_batches(
      rows, batch_size=cfg.batch_size, max_length=width,
      num_samples=cfg.num_samples, seed=cfg.seed, start=start, layout=layout)
  if cfg.layout != 'packed':
    return functools.partial(stream, plan())
  like = list(itertools.islice(stream(None, 0), 20))
  packed = plan(like=like)
  num_cells, count, columns = packed(like[0]).rows.tokens.shape
  run.console.note(
      f'packed: {num_cells * count} rows of {columns} tokens hold an '
      f'iteration, instead of {cfg.batch_size} of {cfg.max_length}')
  return functools.partial(stream, packed)


def with_layout(cfg, run: runs.Run, model: models.ModelConfig):
  """The settings with a layout, chosen if it was left out."""
  if cfg.layout is None:
    can = sources.can_share_rows(cfg, model) and (
        cfg.batch_size % (num_parts(cfg, run) * cfg.num_samples) == 0)
    cfg = dataclasses.replace(cfg, layout=(
        'packed' if can and not runs.is_testbed(cfg.model) else 'padded'))
  sources.check_layout(cfg, model)
  return cfg


def num_parts(cfg, run: runs.Run) -> int:
  """Into how many an iteration's responses are cut, over all devices."""
  return cfg.num_minibatches * cfg.num_microbatches * run.num_shards


def check_groups(cfg, run: runs.Run, *, in_pairs: bool = False) -> None:
  """Refuses a batch that does not hold whole groups in every minibatch."""
  parts = num_parts(cfg, run)
  in_groups = in_pairs or cfg.layout not in (None, 'padded')
  whole = parts * cfg.num_samples if in_groups else parts
  if cfg.batch_size % whole:
    raise InputError(
        f'batch_size={cfg.batch_size} does not split into num_minibatches='
        f'{cfg.num_minibatches} of whole {"pairs" if in_pairs else "groups"} '
        f'over {run.num_shards} data shards; use a multiple of {whole}')


def make_generate(cfg, run: runs.Run, policy: adapters.Trainee, tokenizer):
  """The engine's `generate`, or None to sample here.

  The weights are handed over in two folders in turn, so that the server may
  still read the one while the other is written. What it cannot load, or draws
  from other weights, shows as `decode_gap`.
  """
  if not cfg.engine:
    return None
  engine = engines.HttpEngine(cfg.engine)
  root = pathlib.Path(cfg.engine_folder or run.workdir / 'engine').resolve()
  turns = 0

  def hand_over(params):
    nonlocal turns
    folder = root / f'weights{turns % 2}'
    turns += 1
    hf.save_model(folder, policy.model.config, params, tokenizer=tokenizer)
    engine.load(str(folder))

  return engines.make_engine_generate(
      engine, hand_over, max_new_tokens=cfg.max_new_tokens, mesh=run.mesh,
      eos_id=tokenizer.eos_id, temperature=cfg.temperature,
      sync_every=cfg.engine_sync_every)


def check(cfg) -> None:
  """Refuses settings of an engine that have no meaning together."""
  if cfg.engine and cfg.lora_rank:
    raise InputError(
        f'engine={cfg.engine} is handed whole weights, and lora_rank='
        f'{cfg.lora_rank} trains adapters; leave one of them out')
  if cfg.engine and cfg.num_slots:
    raise InputError(
        f'num_slots={cfg.num_slots} is of the sampler here, and engine='
        f'{cfg.engine} samples; leave one of them out')
  if cfg.engine and not cfg.engine.startswith(('http://', 'https://')):
    raise InputError(f'engine={cfg.engine} is no URL; write for example '
                     'http://127.0.0.1:8000')
  if not cfg.engine and (cfg.engine_folder or cfg.engine_sync_every != 1):
    raise InputError(
        f'engine_folder={cfg.engine_folder!r}, engine_sync_every='
        f'{cfg.engine_sync_every} are of an engine, and there is none; give '
        'its URL as --engine, or leave them out')
