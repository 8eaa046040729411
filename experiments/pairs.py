"""What the methods that train a policy on preference pairs share.

A method is an objective over `PreferenceBatch`es; its script gives it a name
and its settings, and `script` does the rest: it reads the pairs, annotates them
with the reference if the method has one, trains, and measures the objective
on pairs that were held out and on pairs that were trained on.
"""

from collections.abc import Callable
import dataclasses
import itertools

import jax.numpy as jnp

from alignjax import data
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import train
from alignjax.models import CausalLM
from alignjax.types import InputError
from experiments import preferences
from experiments import references
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.BatchConfig):
  """Settings of every method on pairs. Where two are given: testbed, folder."""

  test_data: str = ''                # Held-out pairs; '' holds out of --data.
  num_steps: runs.Steps = None       # Optimizer steps. 190, 500.
  batch_size: int | None = None      # Pairs. 32, 16.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  learning_rate: float | None = None  # 2e-4, 1e-5.
  chunk_size: int | None = None      # Columns unembedded at one time.
  reference_free: bool = False       # Let the reference give every text 0 nats.
  # Ask the reference once, before training, and let it go; what it said is kept
  # for the next run in the user's cache.
  precompute_reference: bool = False
  # Pairs kept back when there is no --test-data, at most a quarter of them.
  num_held_out: int = 64


TESTBED = dict(num_steps=190, batch_size=32, max_length=48, learning_rate=2e-4)
FOLDER = dict(num_steps=500, batch_size=16, max_length=512, learning_rate=1e-5)


def script(
    name: str, make_objective: Callable[[CausalLM, Config], train.Objective], *,
    testbed: dict, folder: dict, has_reference: bool = True,
    check: Callable[[Config], None] = lambda cfg: None,
) -> scripts.Script:
  """The script of a method on pairs.

  Args:
    name: of the experiment.
    make_objective: from the model and the config to the objective.
    testbed: settings on the testbed, besides or instead of `TESTBED`.
    folder: settings for model folders, besides or instead of `FOLDER`.
    has_reference: whether batches need the reference's logprobs.
    check: see `scripts.Script`.
  """

  def fit(cfg: Config, run: runs.Run) -> None:
    policy = sft.policy_folder(cfg)
    trainee, tokenizer = runs.load_trainee(cfg, policy, run.mesh)
    rows, held_out = split_rows(cfg, run, tokenizer, policy)
    cfg = cfg.count_steps(len(rows))
    if cfg.precompute_reference:
      rows, held_out = map(references.Known, (rows, held_out))
    batches = sources.batches(
        run, cfg, trainee.model.config, data.preference_batches, rows)
    objective, annotate = make_objective(trainee.model, cfg), None
    if has_reference and cfg.reference_free:
      annotate = lambda _, batch: batch.replace(
          ref_logprobs=jnp.zeros(batch.tokens.shape))
    elif cfg.precompute_reference:
      ask_before(references.Reference(cfg, run, trainee, policy), cfg,
                 (rows, batches), held_out)
    elif has_reference:
      annotate = references.Reference(cfg, run, trainee, policy).annotate
    params = train.train(
        run.stage(cfg, num_microbatches=cfg.num_microbatches), objective,
        trainee.params, trainee.axes,
        cfg.make_optimizer(cfg.learning_rate, cfg.num_steps), batches,
        annotate=annotate, base=trainee.base)
    run.save_trained(trainee, params, tokenizer)
    params = trainee.whole(params)
    with run.console.working(f'{name}: measuring on {len(held_out)} pairs'):
      measured = {
          'held_out': train.measure(
              objective, params, held_out_batches(held_out, cfg),
              mesh=run.mesh, annotate=annotate),
          'trained': train.measure(
              objective, params, first_batches(rows, cfg), mesh=run.mesh,
              annotate=annotate)}
    run.console.note(f'{name} on held-out pairs: {measured["held_out"]}')
    run.finish({'pairs': len(rows), 'held_out_pairs': len(held_out)} | measured)

  def check_all(cfg: Config) -> None:
    if cfg.reference_free and not has_reference:
      raise InputError(f'reference_free=True: {name} has no reference to leave '
                       'out; drop the flag')
    if cfg.precompute_reference and (cfg.reference_free or not has_reference):
      raise InputError(f'precompute_reference=True: {name} has no reference to '
                       'ask here; drop the flag')
    check(cfg)

  return scripts.Script(
      name, fit, check=check_all, testbed=TESTBED | testbed,
      folder=FOLDER | folder,
      outcome=lambda cfg, folder: {
          'folders': {'sft': sft.policy_folder(cfg), name: folder}})


def ask_before(reference: references.Reference, cfg: Config, trained_on,
               held_out: references.Known) -> None:
  """Asks about all pairs that the run will read; it may go then."""
  rows, batches = trained_on
  of_all = lambda rows: -(-len(rows) // cfg.batch_size)
  reference.ask(rows, batches, min(cfg.num_steps, of_all(rows)),
                layout=cfg.layout)
  reference.ask(held_out, lambda start: held_out_batches(
      held_out, cfg, start=start), of_all(held_out), layout='padded')


def split_rows(cfg, run: runs.Run, tokenizer, policy: str):
  """(pairs to train on, held-out pairs) of the config's files."""
  path, test_path = preferences.preference_files(cfg, policy)
  test_path = cfg.test_data or test_path
  rows = sources.preference_rows(
      run, cfg, tokenizer, path, test_path=test_path or '')
  if test_path:
    return rows, sources.preference_rows(run, cfg, tokenizer, test_path)
  count = min(cfg.num_held_out, max(1, len(rows) // 4))
  return data.hold_out(rows, count, cfg.seed)


def held_out_batches(rows, cfg, *, start: int = 0):
  """All rows once, in their order."""
  return data.preference_batches(
      rows, batch_size=cfg.batch_size, max_length=cfg.max_length, num_epochs=1,
      shuffle=False, start=start)


def first_batches(rows, cfg: Config):
  """The pairs that training began with, about `num_held_out`, padded."""
  count = min(cfg.num_steps, -(-cfg.num_held_out // cfg.batch_size))
  return itertools.islice(data.preference_batches(
      rows, batch_size=cfg.batch_size, max_length=cfg.max_length,
      seed=cfg.seed), count)
