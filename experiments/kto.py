"""KTO: responses labelled good or bad one by one, no pairs.

  python -m experiments.kto --workdir runs/kto
  python -m experiments.kto --workdir runs/kto --model DIR --data FILE.jsonl

`--data` holds `{prompt, response, label}` rows; of a file of pairs, as on the
testbed, each gives one response of either label. Ethayarajh et al. (2024),
https://arxiv.org/abs/2402.01306.

Expect, with seed 0 of experiments.compare (250 steps):
gold 0.512 at 2.2 nats, where SFT has 0.284.
"""

import dataclasses

from alignjax import cli
from alignjax import data
from alignjax import losses
from alignjax import objectives
from alignjax import rollout
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import train
from alignjax.types import InputError
from experiments import preferences
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.BatchConfig):
  """Settings of KTO. Where two defaults are given: testbed, folder."""

  num_steps: runs.Steps = None       # Optimizer steps. 190, 500.
  batch_size: int | None = None      # Responses, 2 or more. 64, 32.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  learning_rate: float | None = None  # 2e-4, 5e-6.
  beta: float | None = None          # Pull to the reference, 1/nats. 0.5, 0.1.
  # Weights of the classes; by default the smaller one's makes up for its size.
  desirable_weight: float | None = None
  undesirable_weight: float | None = None
  chunk_size: int | None = None      # Columns unembedded at one time.


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on labelled responses and saves the policy."""
  policy = sft.policy_folder(cfg)
  trainee, tokenizer = runs.load_trainee(cfg, policy, run.mesh)
  path, _ = preferences.preference_files(cfg, policy)
  rows = sources.unpaired_rows(run, cfg, tokenizer, path)
  cfg = cfg.count_steps(len(rows))
  num_desirable = sum(row.desirable for row in rows)
  weights = losses.kto_weights(num_desirable, len(rows) - num_desirable)
  given = cfg.desirable_weight, cfg.undesirable_weight
  weights = [w if g is None else g for w, g in zip(weights, given)]
  reference, ref_params, ref_shardings = trainee.reference(run.mesh)
  params = train.train(
      run.stage(cfg, num_microbatches=cfg.num_microbatches),
      objectives.kto(
          trainee.model, beta=cfg.beta, desirable_weight=weights[0],
          undesirable_weight=weights[1], chunk_size=cfg.chunk_size),
      trainee.params, trainee.axes,
      cfg.make_optimizer(cfg.learning_rate, cfg.num_steps),
      sources.batches(run, cfg, trainee.model.config, data.unpaired_batches,
                      rows),
      annotate=rollout.make_kto_reference(
          reference, ref_params, policy=trainee.model, mesh=run.mesh,
          param_shardings=ref_shardings, chunk_size=cfg.chunk_size),
      base=trainee.base)
  run.save_trained(trainee, params, tokenizer)
  run.finish({'desirable': num_desirable,
              'undesirable': len(rows) - num_desirable,
              'desirable_weight': weights[0], 'undesirable_weight': weights[1]})


def check(cfg: Config) -> None:
  """The KL is measured on a response to another prompt of the batch."""
  if cfg.batch_size < 2:
    raise InputError('batch_size=1 leaves KTO no other response to measure its '
                     'KL on; use 2 or more')


SCRIPT = scripts.Script(
    'kto', fit, check=check,
    testbed=dict(num_steps=190, batch_size=64, max_length=48,
                 learning_rate=2e-4, beta=0.5),
    folder=dict(num_steps=500, batch_size=32, max_length=512,
                learning_rate=5e-6, beta=0.1),
    outcome=lambda cfg, folder: {
        'folders': {'sft': sft.policy_folder(cfg), 'kto': folder}})
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
