"""All methods on one budget, on the testbed: one table, one plot.

  python -m experiments.compare --workdir runs/compare
  python -m experiments.compare --workdir runs/compare --seeds 0 1 2 \\
    --methods dpo ipo kto ppo grpo rloo online_dpo

Every method starts from the same SFT model, learns from the same panel's
preferences (the online ones through the same reward model), and trains for as
many steps as the budget pays for. Costs are counted, not timed: in forward
passes of one row, a backward pass being two, divided by those of an SFT step.
The reward model's own training is not in them.
"""

from collections.abc import Callable
import dataclasses
import importlib
import pathlib
from typing import Literal, NamedTuple

import numpy as np

from alignjax import cli
from alignjax import outcomes
from alignjax import report
from alignjax import runs
from alignjax.types import InputError
from experiments import preferences
from experiments import pretrain
from experiments import reward
from experiments import sft

_SFT_STEP = 3 * 32  # Passes of a step of 32 rows: forward, and twice that back.


def _pairs(cfg) -> float:
  """Both sides forward and back, and forward through the reference."""
  return 2 * cfg.batch_size * (3 + 1)


def _free(cfg) -> float:
  """The same without a reference."""
  return 2 * cfg.batch_size * 3


def _kto(cfg) -> float:
  """Each response, the reference, and the mismatched rows through both."""
  return cfg.batch_size * (3 + 1 + 2)


def _online(cfg) -> float:
  """Sampling, the reward, old and reference logprobs; then the epochs."""
  return cfg.batch_size * (4 + 3 * cfg.num_epochs)


def _online_pairs(cfg) -> float:
  """As `_online`, but two responses of each group are trained on."""
  return cfg.batch_size * (4 + 3 * cfg.num_epochs * 2 / cfg.num_samples)


def _ppo(cfg) -> float:
  """As `_online`, and the value function beside the policy."""
  return cfg.batch_size * (5 + 6 * cfg.num_epochs)


class Method(NamedTuple):
  """What the comparison needs to know of one."""

  cost: Callable[[object], float]  # Row passes of one step or iteration.
  data: str                        # 'pairs' or 'reward'.


METHODS = {
    'dpo': Method(_pairs, 'pairs'), 'ipo': Method(_pairs, 'pairs'),
    'hinge': Method(_pairs, 'pairs'), 'robust_dpo': Method(_pairs, 'pairs'),
    'exo': Method(_pairs, 'pairs'), 'f_dpo': Method(_pairs, 'pairs'),
    'simpo': Method(_free, 'pairs'), 'orpo': Method(_free, 'pairs'),
    'cpo': Method(_free, 'pairs'), 'kto': Method(_kto, 'pairs'),
    'ppo': Method(_ppo, 'reward'), 'reinforce': Method(_online, 'reward'),
    'reinforce_pp': Method(_online, 'reward'),
    'rloo': Method(_online, 'reward'), 'grpo': Method(_online, 'reward'),
    'dr_grpo': Method(_online, 'reward'), 'dapo': Method(_online, 'reward'),
    'gspo': Method(_online, 'reward'),
    'online_dpo': Method(_online_pairs, 'reward'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the comparison."""

  methods: tuple[str, ...] = (
      'dpo', 'ipo', 'kto', 'ppo', 'grpo', 'rloo', 'online_dpo')
  seeds: tuple[int, ...] = (0,)  # A whole pipeline each, `--seed` left aside.
  budget: int = 1_000            # Of every method, in SFT steps.
  split: Literal['test', 'dev'] = 'test'  # Dishes to score on; choose on dev.


def main(cfg: Config) -> dict:
  """Runs what is not done yet; returns the summary."""
  check(cfg)
  with runs.start(cfg, 'compare') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    by_seed = [seed_scores(cfg, run, seed) for seed in cfg.seeds]
    return finish(cfg, run, by_seed)


def check(cfg: Config) -> None:
  """Refuses what is no method, or no comparison."""
  unknown = [name for name in cfg.methods if name not in METHODS]
  if unknown or not cfg.methods:
    raise InputError(
        f'methods={" ".join(unknown) or "()"}: use some of '
        f'{", ".join(METHODS)}')
  if not cfg.seeds or min(cfg.seeds) < 0 or cfg.budget < 1:
    raise InputError(f'seeds={cfg.seeds}, budget={cfg.budget}: give seeds of 0 '
                     'or more, and a budget of 1 SFT step or more')
  if (cfg.model, cfg.data) != ('testbed', 'testbed'):
    raise InputError(
        f'model={cfg.model}, data={cfg.data}: methods are compared where gold '
        'is known; leave both out')


def seed_scores(cfg: Config, run: runs.Run, seed: int) -> dict[str, dict]:
  """One pipeline: each model's scores, `cost` and `steps` among them."""
  root = pathlib.Path(cfg.workdir) / f'seed{seed}'
  shared = dict(seed=seed, mesh=cfg.mesh, resume=True)
  at = lambda name: dict(shared, workdir=str(root / name))
  base = pretrain.stage(pretrain.Config(**at('base')))
  policy = sft.stage(sft.Config(**at('sft'), model=base))
  train_pairs, test_pairs = preferences.stage(
      preferences.Config(**at('preferences'), model=policy))
  files = dict(data=train_pairs, test_data=test_pairs)
  judge = reward.stage(reward.Config(**at('reward'), model=policy, **files))
  folders, costs = {'base': base, 'sft': policy}, {}
  for name in cfg.methods:
    script = importlib.import_module(f'experiments.{name}')
    method = METHODS[name]
    given = {'reward_model': judge} if method.data == 'reward' else files
    fields = {f.name for f in dataclasses.fields(script.Config)}
    settings = {k: v for k, v in given.items() if k in fields} | dict(
        at(name), model=policy)
    each = method.cost(script.resolve(script.Config(**settings))) / _SFT_STEP
    steps = max(1, round(cfg.budget / each))
    folders[name] = script.stage(script.Config(**settings, num_steps=steps))
    costs[name] = {'steps': steps, 'cost': round(steps * each)}
  with run.console.working(f'seed {seed}: comparing {", ".join(folders)}'):
    scores, _ = outcomes.compare_models(
        run, dataclasses.replace(cfg, seed=seed), folders, reference='sft',
        reward_model=judge, split=cfg.split)
  return {name: score | costs.get(name, {}) for name, score in scores.items()}


def finish(cfg: Config, run: runs.Run, by_seed: list[dict]) -> dict:
  """The table and the plot, over all seeds."""
  names = list(by_seed[0])
  mean = lambda name, key: float(np.mean([s[name][key] for s in by_seed]))
  is_apart = lambda scores, name: (
      scores[name]['gold_interval'][0] > scores['sft']['gold_interval'][1])
  rows = [[
      name, *('{:.3f} [{:.3f}, {:.3f}]'.format(
          s[name]['gold'], *s[name]['gold_interval']) for s in by_seed),
      '' if name in ('base', 'sft') else
      f'{sum(is_apart(s, name) for s in by_seed)} of {len(by_seed)}',
      f'{mean(name, "win_rate"):.2f}' if name != 'sft' else '0.50',
      f'{mean(name, "kl"):.1f}', f'{mean(name, "length"):.1f}',
      str(by_seed[0][name].get('cost', ''))] for name in names]
  head = ['model', *(f'gold, seed {s} [95 %]' for s in cfg.seeds),
          'above SFT, intervals apart', 'win rate', 'KL, nats', 'tokens',
          'cost, SFT steps']
  (run.workdir / 'table.md').write_text(''.join(
      f'| {" | ".join(row)} |\n' for row in [head, ['---'] * len(head), *rows]))
  run.console.table('Held-out prompts, one budget', head, rows)
  pick = lambda key: [[s[n][key] for s in by_seed] for n in names[1:]]
  plots = [
      report.LineChart(
          'Gold against the distance from SFT, a dot per seed', [
              report.Series(n, kl, gold) for n, kl, gold in zip(
                  names[1:], pick('kl'), pick('gold'), strict=True)][:8],
          'KL to SFT, nats', 'gold', lines=False, marks=True,
          caption='' if len(names) < 10 else (
              f'Of {len(names) - 1} models the first 8; the table has all.')),
      report.BarChart('Gold, mean over seeds, and the widest interval', names, [
          report.Bars(
              'gold', [mean(n, 'gold') for n in names],
              [min(s[n]['gold_interval'][0] for s in by_seed) for n in names],
              [max(s[n]['gold_interval'][1] for s in by_seed) for n in names])
      ])]
  report.write_report(
      run.workdir / 'report.html', title='alignjax compare', sections=[
          report.Section('Methods', [report.Table(head, rows), *plots])])
  public = [{n: {k: v for k, v in score.items() if k not in (
      'golds', 'lengths')} for n, score in scores.items()}
      for scores in by_seed]
  return run.finish({
      'budget': cfg.budget, 'split': cfg.split,
      'models': {f'seed{s}': scores for s, scores in zip(
          cfg.seeds, public, strict=True)}})


if __name__ == '__main__':
  cli.run(main, Config)
