"""Sampling through another program: how weights are handed to it."""

import pathlib

from alignjax import adapters
from alignjax import engines
from alignjax import hf
from alignjax import runs
from alignjax.types import InputError


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
