"""Supervised fine-tuning: a base model learns to answer.

  python -m experiments.sft --workdir runs/sft
  python -m experiments.sft --workdir runs/sft --model DIR --data FILE.jsonl

On the testbed it pretrains a base model first, unless `--model` names one.

Expect, on the testbed with two CPU cores and seed 0: 8 seconds after the base
model, gold 0.28.
"""

import dataclasses
import pathlib

from alignjax import cli
from alignjax import data
from alignjax import objectives
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import train
from experiments import pretrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.BatchConfig):
  """Settings of SFT. Where two defaults are given: testbed, folder."""

  num_steps: runs.Steps = None       # Optimizer steps. 105, 500.
  batch_size: int | None = None      # Rows. 32, 16.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  # What bears loss: all of the assistant's turns in a conversation, or the last
  # alone. A row of one turn is the same either way, and so is a transcript (of
  # --plain, or without a chat template), which ends no turn but the last.
  turns: data.Turns = 'all'
  learning_rate: float | None = None  # 2e-3, 1e-5.
  chunk_size: int | None = None      # Columns unembedded at one time.


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on demonstrations and saves the model."""
  trainee, tokenizer = runs.load_trainee(cfg, base_folder(cfg), run.mesh)
  rows = sources.demonstration_rows(
      run, cfg, tokenizer, turns=cfg.turns)
  learn(cfg, run, trainee, tokenizer, rows)
  run.finish({'demonstrations': len(rows)})


def learn(cfg: Config, run: runs.Run, trainee, tokenizer, rows) -> None:
  """Trains on rows and saves the model."""
  cfg = cfg.count_steps(len(rows))
  params = train.train(
      run.stage(cfg, num_microbatches=cfg.num_microbatches),
      objectives.sft(trainee.model, chunk_size=cfg.chunk_size),
      trainee.params, trainee.axes,
      cfg.make_optimizer(cfg.learning_rate, cfg.num_steps),
      sources.batches(run, cfg, trainee.model.config,
                      data.demonstration_batches, rows),
      base=trainee.base)
  run.save_trained(trainee, params, tokenizer)


def base_folder(cfg: runs.RunConfig) -> str:
  """The model to start from; on the testbed, one pretrained here."""
  if cfg.model != 'testbed':
    return cfg.model
  return pretrain.stage(pretrain.Config(
      workdir=str(pathlib.Path(cfg.workdir) / 'base'), resume=True,
      seed=cfg.seed, mesh=cfg.mesh))


def policy_folder(cfg: runs.RunConfig) -> str:
  """The policy that later stages start from; on the testbed, an SFT model."""
  if cfg.model != 'testbed':
    return cfg.model
  return stage(Config(workdir=str(pathlib.Path(cfg.workdir) / 'sft'),
                     resume=True, seed=cfg.seed, mesh=cfg.mesh))


SCRIPT = scripts.Script(
    'sft', fit,
    testbed=dict(num_steps=105, batch_size=32, max_length=48,
                 learning_rate=2e-3),
    folder=dict(num_steps=500, batch_size=16, max_length=512,
                learning_rate=1e-5),
    outcome=lambda cfg, folder: {
        'folders': {'base': base_folder(cfg), 'sft': folder},
        'reference': 'base'})
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
