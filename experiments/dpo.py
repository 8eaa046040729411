"""Direct preference optimisation from an SFT model.

  python -m experiments.dpo --workdir runs/dpo
  python -m experiments.dpo --workdir runs/dpo --model DIR --data FILE.jsonl

The first loss is log 2, whatever beta: policy and reference are the same.

Expect, on the testbed with two CPU cores and seed 0: 28 seconds after the SFT
model and its preferences, gold 0.44 at 0.6 nats.
"""

import dataclasses

from alignjax import cli
from alignjax import data
from alignjax import objectives
from alignjax import outcomes
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import train
from experiments import preferences
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of DPO. Where two defaults are given: testbed, folder."""

  num_steps: runs.Steps = None       # Optimizer steps. 190, 500.
  batch_size: int | None = None      # Pairs. 32, 16.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  learning_rate: float | None = None  # 2e-4, 2e-6.
  beta: float | None = None          # Pull to the reference, 1/nats. 1.0, 0.1.
  label_smoothing: float = 0.0       # Chance that a label is flipped.
  num_microbatches: int = 1          # Parts of a batch, to save memory.
  chunk_size: int | None = None      # Columns unembedded at one time.


def resolve(cfg: Config) -> Config:
  """The config with no setting left open."""
  return runs.with_defaults(
      cfg,
      testbed=dict(num_steps=190, batch_size=32, max_length=48,
                   learning_rate=2e-4, beta=1.0),
      folder=dict(num_steps=500, batch_size=16, max_length=512,
                  learning_rate=2e-6, beta=0.1))


def main(cfg: Config) -> str:
  """Trains and reports; returns the model's folder."""
  cfg = resolve(cfg)
  with runs.start(cfg, 'dpo') as run:
    folder = fit(cfg, run)
    outcomes.write(run, cfg, {'sft': sft.policy_folder(cfg), 'dpo': folder})
  return folder


def stage(cfg: Config) -> str:
  """Trains as a part of a larger run; returns the model's folder."""
  cfg = resolve(cfg)
  with runs.start(cfg, 'dpo') as run:
    return fit(cfg, run)


def fit(cfg: Config, run: runs.Run) -> str:
  """Trains, unless that was done before, and returns the model's folder."""
  if run.is_done:
    return str(run.model_dir)
  policy = sft.policy_folder(cfg)
  model, params, tokenizer = runs.load_policy(policy)
  path, _ = preferences.preference_files(cfg, policy)
  rows = sources.preference_rows(run, cfg, tokenizer, path)
  shardings = sharding.tree_shardings(run.mesh, model.axes(), params)
  annotate = rollout.make_reference(
      model, sharding.put(params, shardings), mesh=run.mesh,
      param_shardings=shardings, chunk_size=cfg.chunk_size)
  params = train.train(
      run.stage(cfg, num_microbatches=cfg.num_microbatches),
      objectives.dpo(model, beta=cfg.beta, chunk_size=cfg.chunk_size,
                     label_smoothing=cfg.label_smoothing),
      params, model.axes(),
      train.make_optimizer(cfg.learning_rate, cfg.num_steps),
      lambda start: data.preference_batches(
          rows, batch_size=cfg.batch_size, max_length=cfg.max_length,
          seed=cfg.seed, start=start),
      annotate=annotate)
  run.save_model(model, params, tokenizer)
  run.finish({'pairs': len(rows)})
  return str(run.model_dir)


if __name__ == '__main__':
  cli.run(main, Config)
