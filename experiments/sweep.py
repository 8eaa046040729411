"""DPO over beta × seed on the testbed: every member trained in one program.

  python -m experiments.sweep --workdir runs/sweep
  python -m experiments.sweep --workdir runs/sweep --betas 0.1 0.3 1 3

The members are vmapped, so the sweep compiles once. Seeds differ in the order
of the pairs. Scores are on the dev split, which is there to choose settings by.

Expect, with the SFT model of experiments.compare's seed 0: gold 0.32, 0.43,
0.40 and 0.37 for beta 0.1, 0.3, 1 and 3, seeds within 0.03 of each other.
"""

from collections.abc import Iterator
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import cli
from alignjax import data
from alignjax import hf
from alignjax import objectives
from alignjax import outcomes
from alignjax import report
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import train
from alignjax.types import InputError
from experiments import preferences
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the sweep."""

  betas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)  # DPO's, 1/nats.
  seeds: tuple[int, ...] = (0, 1, 2)  # Of the pairs' order.
  num_steps: int = 190          # Optimizer steps of each member.
  batch_size: int = 32          # Pairs.
  max_length: int = 48          # Tokens, prompt and response.
  learning_rate: float = 2e-4   # Of each member.


def main(cfg: Config) -> dict:
  """Trains all members, scores each, writes the table and the plot."""
  if not (cfg.betas and cfg.seeds and min(cfg.betas) > 0 <= min(cfg.seeds)):
    raise InputError(f'betas={cfg.betas}, seeds={cfg.seeds}: give one of each '
                     'at least, betas above 0 and seeds of 0 or more')
  if not runs.is_testbed(cfg.model):
    raise InputError(f'model={cfg.model}: a sweep holds all members at once; '
                     'it is for the testbed and its models')
  with runs.start(cfg, 'sweep') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    policy = sft.policy_folder(cfg)
    members = [(b, s) for b in cfg.betas for s in cfg.seeds]
    params, curves = fit(cfg, run, policy, members)
    return finish(cfg, run, policy, members, params, curves)


def fit(cfg: Config, run: runs.Run, policy: str, members: list):
  """(each member's parameters on the host, each one's loss by step)."""
  model, params, tokenizer = runs.load_policy(policy)
  path, _ = preferences.preference_files(cfg, policy)
  rows = sources.preference_rows(run, cfg, tokenizer, path)
  # Members beyond the devices' multiple repeat the last one.
  count = -(-len(members) // run.mesh.size) * run.mesh.size
  filled = members + members[-1:] * (count - len(members))
  betas, seeds = (np.array(x) for x in zip(*filled, strict=True))
  init, step = train.make_sweep(
      lambda beta: objectives.dpo(model, beta=beta),
      train.make_optimizer(cfg.learning_rate, cfg.num_steps), mesh=run.mesh)
  settings = {'beta': jnp.asarray(betas, jnp.float32)}
  state, losses = init(params, seeds), []
  with run.console.working(f'sweep: {len(members)} members of {cfg.num_steps} '
                           'steps, compiled once'):
    for batch in member_batches(cfg, run, model, params, rows, seeds):
      state, metrics = step(state, batch, settings)
      # Read at once: hundreds of steps in flight may lock CPU devices up.
      losses.append(jax.device_get(metrics['loss'].compute()))
  curves = np.stack(losses, axis=1)[:len(members)]
  params = jax.device_get(state.params)
  return [jax.tree.map(lambda x, i=i: x[i], params)
          for i in range(len(members))], curves


def member_batches(cfg, run, model, params, rows, seeds) -> Iterator:
  """Batches with a leading S: each member's own, annotated by the reference."""
  whole = sharding.replicated(run.mesh)
  annotate = rollout.make_reference(
      model, sharding.put(params, whole), mesh=run.mesh, param_shardings=whole)
  names = sorted(set(seeds.tolist()))
  streams = [data.preference_batches(
      rows, batch_size=cfg.batch_size, max_length=cfg.max_length, seed=seed)
      for seed in names]
  place = np.searchsorted(names, seeds)
  for _ in range(cfg.num_steps):
    each = [jax.device_get(annotate(None, sharding.put(
        next(stream), sharding.batch_sharding(run.mesh))))
        for stream in streams]
    yield jax.tree.map(lambda *x: np.stack(x)[place], *each)


def finish(cfg, run: runs.Run, policy, members, params, curves) -> dict:
  """Scores the members, and writes summary.json and report.html."""
  model, _, _ = runs.load_policy(policy)
  tokenizer = hf.load_tokenizer(policy)
  folders = {'sft': policy}
  for (beta, seed), tree in zip(members, params, strict=True):
    folder = run.workdir / 'members' / f'beta{beta:g}_seed{seed}'
    hf.save_model(folder, model.config, tree, tokenizer=tokenizer)
    folders[f'{beta:g}/{seed}'] = str(folder)
  with run.console.working(f'scoring {len(folders)} models'):
    scores, _ = outcomes.compare_models(
        run, cfg, folders, reference='sft', split='dev')
  gold = np.array([scores[f'{b:g}/{s}']['gold'] for b, s in members]).reshape(
      len(cfg.betas), len(cfg.seeds))
  rows = [[f'{beta:g}', *(f'{g:.3f}' for g in line), f'{line.mean():.3f}']
          for beta, line in zip(cfg.betas, gold, strict=True)]
  head = ['beta', *(f'seed {seed}' for seed in cfg.seeds), 'mean']
  run.console.table('Gold on the dev split', head, rows)
  plots = [
      report.LineChart('Gold on the dev split', [
          report.Series(f'seed {seed}', np.log10(cfg.betas), gold[:, i])
          for i, seed in enumerate(cfg.seeds)], 'log10 beta', 'gold',
          marks=True),
      report.LineChart('Loss, mean over seeds', [
          report.Series(f'beta {beta:g}', np.arange(curves.shape[1]) + 1, line)
          for beta, line in zip(cfg.betas, curves.reshape(
              len(cfg.betas), len(cfg.seeds), -1).mean(axis=1), strict=True)],
          'step', 'loss')]
  report.write_report(
      run.workdir / 'report.html', title='alignjax sweep', sections=[
          report.Section('Beta by seed', [report.Table(head, rows), *plots])])
  return run.finish({
      'sft': scores['sft']['gold'], 'betas': list(cfg.betas),
      'seeds': list(cfg.seeds), 'gold': gold.tolist(),
      'kl': [scores[f'{b:g}/{s}']['kl'] for b, s in members]})


if __name__ == '__main__':
  cli.run(main, Config)
