"""Pretrains the testbed's base model on its corpus of web-like pages.

  python -m experiments.pretrain --workdir runs/base

The result continues pages and answers nothing: gold near 0. It is where the
other experiments start when `--model` is `testbed`.

Expect, on the testbed with two CPU cores and seed 0: 70 seconds, loss 0.40.
"""

import dataclasses

import jax

from alignjax import cli
from alignjax import data
from alignjax import models
from alignjax import objectives
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import testbed
from alignjax import train
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the base model and its pretraining."""

  num_steps: int = 900         # Optimizer steps.
  batch_size: int = 32         # Documents.
  max_length: int = 64         # Tokens; the longest document has 64.
  learning_rate: float = 3e-3  # At its peak.
  num_documents: int = 12_000  # Of the corpus.
  num_layers: int = 3          # Of the decoder.
  hidden_size: int = 96        # Width of the decoder.
  intermediate_size: int = 256  # Width of its MLPs.
  num_heads: int = 4           # Of attention, in each layer.


def model_config(cfg: Config, vocab_size: int) -> models.ModelConfig:
  """The testbed's decoder."""
  if cfg.hidden_size % (2 * cfg.num_heads):
    raise InputError(
        f'hidden_size={cfg.hidden_size} does not split into num_heads='
        f'{cfg.num_heads} of even size; use a multiple of {2 * cfg.num_heads}')
  return models.ModelConfig(
      vocab_size=vocab_size, hidden_size=cfg.hidden_size,
      intermediate_size=cfg.intermediate_size, num_layers=cfg.num_layers,
      num_heads=cfg.num_heads, num_kv_heads=cfg.num_heads,
      head_dim=cfg.hidden_size // cfg.num_heads, max_positions=cfg.max_length)


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on the corpus and saves the model."""
  tokenizer = sources.testbed_tokenizer()
  documents = testbed.corpus(sources.WORLD, cfg.seed, cfg.num_documents)
  rows = data.tokenize_documents(
      documents, tokenizer, max_length=cfg.max_length)
  model = models.CausalLM(model_config(cfg, tokenizer.vocab_size))
  params = train.train(
      run.stage(cfg), objectives.sft(model),
      model.init(jax.random.key(cfg.seed)), model.axes(),
      train.make_optimizer(cfg.learning_rate, cfg.num_steps),
      lambda start: data.demonstration_batches(
          rows, batch_size=cfg.batch_size, max_length=cfg.max_length,
          seed=cfg.seed, start=start))
  run.save_model(model, params, tokenizer)
  run.finish({'documents': len(documents)})


SCRIPT = scripts.Script(
    'pretrain', fit, outcome=lambda cfg, folder: {
        'folders': {'base': folder}, 'reference': 'base'})
stage, resolve = SCRIPT.stage, SCRIPT.resolve


def main(cfg: Config) -> str:
  """Trains and reports; returns the model's folder."""
  if (cfg.model, cfg.data) != ('testbed', 'testbed'):
    raise InputError(
        f'model={cfg.model}, data={cfg.data}: pretraining is for the testbed '
        'only; leave both out, or train on a file with experiments.sft')
  return SCRIPT.main(cfg)


if __name__ == '__main__':
  cli.run(main, Config)
