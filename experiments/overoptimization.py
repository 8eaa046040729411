"""Reward hacking, measured: gold against proxy in the course of optimisation.

  python -m experiments.overoptimization --workdir runs/hacking --seed 0
  python -m experiments.overoptimization --workdir runs/hacking --parts kl

On the testbed, where gold is known: PPO with and without a KL penalty, best of
n and DPO from one SFT model; reward models of less data; and panels with one
bias planted strongly, with a control that has none. Gold and proxy are drawn
over √KL with the curves of Gao et al. (2022), https://arxiv.org/abs/2210.10760,
and each run says which hack its telemetry named, and when.

Every part is a run of its own below --workdir, and is skipped when it is done.
With --model and --reward-model the SFT model and the reward model are given.

Expect, with two CPU cores: 9 minutes for `--parts kl` on given models, while
other jobs ran; docs/hacking.md has the figures of five seeds.
"""

import dataclasses
import json
import math
import pathlib
from typing import Literal

import numpy as np

from alignjax import cli
from alignjax import evaluation
from alignjax import outcomes
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError
from experiments import dpo
from experiments import overoptimization_report
from experiments import ppo
from experiments import preferences
from experiments import reward
from experiments import sft

Part = Literal['kl', 'best_of_n', 'dpo', 'sizes', 'biases']
PARTS = ('kl', 'best_of_n', 'dpo', 'sizes', 'biases')
BIASES = ('length_bias', 'confidence_bias', 'list_bias')
CONTROL = 'bias=0'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the study."""

  reward_model: str = ''        # Its folder; '' trains one here first.
  parts: tuple[Part, ...] = PARTS  # What is measured.
  kl_coefs: tuple[float, ...] = (0.0, 0.05, 0.3)  # Of PPO, fixed, 1/nats.
  preference_prompts: int = 2_000  # Whose answers are ranked.
  reward_steps: int = 250       # Of a reward model that has all pairs.
  dpo_steps: int = 190          # Of each DPO run.
  num_steps: int = 60           # Iterations of each PPO run.
  batch_size: int = 128         # Responses in an iteration.
  sizes: tuple[float, ...] = (0.0625, 0.25)  # Shares of the preferences.
  betas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)  # DPO's, 1/nats.
  num_samples: int = 16         # Responses to choose the best of.
  num_prompts: int = 240        # Held-out prompts of best of n.
  # Biases planted, each alone: gold paid for 20 tokens more, for a confident
  # phrase, for a list. Lists have to pay more, or no policy finds them.
  length_bias: float = 0.4
  confidence_bias: float = 0.4
  list_bias: float = 2.0
  # Nats per response past twice which telemetry speaks of the budget.
  kl_target: float = 8.0


def main(cfg: Config) -> dict:
  """Measures what is not done yet; returns the summary."""
  check(cfg)
  with runs.start(cfg, 'overoptimization') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    policy = sft.policy_folder(cfg)
    judge = cfg.reward_model or reward.stage(reward.Config(
        **at(cfg, 'reward'), model=policy, num_steps=cfg.reward_steps,
        **files(cfg, policy)))
    measured = {}
    for part in PARTS:
      if part in cfg.parts:
        measured |= MEASURE[part](cfg, run, policy, judge)
    summary = summarize(measured)
    overoptimization_report.write(run, cfg, summary)
    return run.finish(summary)


def check(cfg: Config) -> None:
  """Refuses what cannot be measured."""
  if not runs.is_testbed(cfg.model):
    raise InputError(f'model={cfg.model}: gold is known on the testbed alone; '
                     'give a model of it, or leave --model out')
  bad = [x for x in cfg.sizes if not 0 < x < 1] or [
      x for x in cfg.kl_coefs if not 0 <= x < math.inf] or [
          x for x in cfg.betas if not 0 < x < math.inf]
  if bad or not cfg.parts:
    raise InputError(
        f'sizes={cfg.sizes}, kl_coefs={cfg.kl_coefs}, betas={cfg.betas}, parts='
        f'{cfg.parts}: sizes are shares between 0 and 1, coefficients 0 or '
        'more, betas above 0, and there is a part at least')


def at(cfg: Config, name: str) -> dict:
  """What all runs share, and the folder of one."""
  return dict(workdir=str(pathlib.Path(cfg.workdir) / name), seed=cfg.seed,
              mesh=cfg.mesh, resume=True)


def files(cfg: Config, policy: str, **biases) -> dict[str, str]:
  """The pairs to train and to test on, of a panel with such biases."""
  name = 'preferences' + ''.join(f'-{k}={v:g}' for k, v in biases.items() if v)
  train, test = preferences.stage(preferences.Config(
      **at(cfg, name if any(biases.values()) or not biases
           else f'preferences-{CONTROL}'), model=policy,
      num_prompts=cfg.preference_prompts, **biases))
  return dict(data=train, test_data=test)


# --- The parts: each gives {name: {'points': ..., 'alarms': ..., ...}}.


def optimize(cfg: Config, policy: str, judge: str, name: str,
             kl_coef: float) -> dict:
  """PPO against a reward model: five iterations a point, and its alarms."""
  where = at(cfg, name)
  ppo.stage(ppo.Config(
      **where, model=policy, reward_model=judge, num_steps=cfg.num_steps,
      batch_size=cfg.batch_size, kl_coef=kl_coef, kl_horizon=math.inf,
      kl_gain=0.0, kl_target=cfg.kl_target, min_ended=0.0))
  workdir = pathlib.Path(where['workdir'])
  summary = json.loads((workdir / 'summary.json').read_text())
  return {'form': 'rl', 'alarms': summary['alarms'],
          'points': outcomes.ppo_curve(outcomes.collect_metrics(workdir))}


def measure_kl(cfg: Config, run: runs.Run, policy: str, judge: str) -> dict:
  """PPO with fixed coefficients."""
  del run
  return {f'kl_coef={coef:g}': optimize(
      cfg, policy, judge, f'kl_coef={coef:g}', coef) for coef in cfg.kl_coefs}


def measure_sizes(cfg: Config, run: runs.Run, policy: str, judge: str) -> dict:
  """PPO without a penalty, against reward models of less data."""
  del judge
  pairs = files(cfg, policy)
  records = pathlib.Path(pairs['data']).read_text().splitlines(keepends=True)
  measured = {}
  for share in sorted(cfg.sizes):
    count = max(2, round(share * len(records)))
    some = run.workdir / f'preferences_{count}.jsonl'
    some.write_text(''.join(records[:count]))
    less = reward.stage(reward.Config(
        **at(cfg, f'reward-pairs={count}'), model=policy, data=str(some),
        test_data=pairs['test_data'],
        num_steps=max(1, round(share * cfg.reward_steps))))
    name = f'kl_coef=0, pairs={count}'
    measured[name] = optimize(cfg, policy, less, f'kl_coef=0-pairs={count}', 0)
  return measured


def measure_biases(cfg: Config, run: runs.Run, policy: str, judge: str) -> dict:
  """PPO without a penalty, against panels with one bias each, and with none."""
  del run, judge
  measured = {}
  for planted in (None, *BIASES):
    biases = {b: getattr(cfg, b) if b == planted else 0.0 for b in BIASES}
    name = f'{planted}={biases[planted]:g}' if planted else CONTROL
    taught = reward.stage(reward.Config(
        **at(cfg, f'reward-{name}'), model=policy, num_steps=cfg.reward_steps,
        **files(cfg, policy, **biases)))
    measured[name] = optimize(cfg, policy, taught, f'ppo-{name}', 0.0)
  return measured


def measure_dpo(cfg: Config, run: runs.Run, policy: str, judge: str) -> dict:
  """DPO by beta, each on held-out prompts."""
  folders = {'sft': policy} | {f'{beta:g}': dpo.stage(dpo.Config(
      **at(cfg, f'dpo-beta={beta:g}'), model=policy, beta=beta,
      num_steps=cfg.dpo_steps,
      **files(cfg, policy))) for beta in cfg.betas}
  with run.console.working('comparing ' + ', '.join(folders)):
    scores, _ = outcomes.compare_models(
        run, cfg, folders, reference='sft', reward_model=judge)
  points = [{'beta': float(name) if name != 'sft' else math.inf,
             **{key: scores[name][key] for key in ('kl', 'proxy', 'gold')}}
            for name in folders]
  return {'dpo': {'form': 'rl', 'points': sorted(
      points, key=lambda p: p['kl'])}}


def measure_best_of_n(
    cfg: Config, run: runs.Run, policy: str, judge: str) -> dict:
  """The best by the reward model of n samples of the SFT model."""
  model, params, tokenizer = runs.load_policy(policy)
  whole = sharding.replicated(run.mesh)
  generate = rollout.make_generate(
      model, max_new_tokens=sources.RESPONSE_TOKENS, eos_id=tokenizer.eos_id,
      num_samples=cfg.num_samples, mesh=run.mesh)
  prompts, rows = sources.testbed_prompts(
      'test', cfg.num_prompts, cfg.seed, tokenizer)
  with run.console.working(f'{cfg.num_samples} responses to each prompt'):
    groups, trajectories = evaluation.sample_responses(
        generate, sharding.put(params, whole), rows, mesh=run.mesh,
        width=sources.PROMPT_TOKENS, batch_size=16 * cfg.num_samples,
        eos_id=tokenizer.eos_id, seed=cfg.seed, num_samples=cfg.num_samples)
  reward_model, reward_params = runs.load_reward_model(judge)
  reward_fn = rollout.make_reward_fn(
      reward_model, sharding.put(reward_params, whole), mesh=run.mesh,
      param_shardings=whole, mean=runs.read_reward_mean(judge))
  proxy = np.concatenate([
      np.asarray(reward_fn(t.tokens, t.attention_mask))[
          np.asarray(t.weight) > 0] for t in trajectories])
  proxy = proxy.reshape(len(prompts), cfg.num_samples)
  gold = np.array([[
      testbed.judge(sources.WORLD, prompt, tokenizer.decode(r.tokens),
                    complete=r.is_complete).gold for r in group]
      for prompt, group in zip(prompts, groups, strict=True)])
  points = []
  for n in (2**i for i in range(cfg.num_samples.bit_length())):
    best = evaluation.best_of_n(proxy, gold, n)
    points.append({'n': n, 'kl': evaluation.best_of_n_kl(n),
                   'proxy': best[0], 'gold': best[1]})
  return {'best_of_n': {'form': 'best_of_n', 'points': points}}


MEASURE = {'kl': measure_kl, 'best_of_n': measure_best_of_n,
           'dpo': measure_dpo, 'sizes': measure_sizes,
           'biases': measure_biases}


def summarize(measured: dict[str, dict]) -> dict:
  """The curves, their fits, and the alarms by name in their order."""
  curves, fits, alarms = {}, {}, {}
  for name, run in measured.items():
    curves[name] = {key: [p[key] for p in run['points']]
                    for key in ('kl', 'proxy', 'gold')}
    kl, gold = curves[name]['kl'], curves[name]['gold']
    if len({x for x in kl if x > 0}) > 1:
      fit = evaluation.fit_overoptimization(
          run['form'], kl, gold, start=gold[int(np.argmin(kl))])
      fits[name] = fit._asdict() | {'peak': fit.peak}
    if 'alarms' in run:
      alarms[name] = [alarm['name'] for alarm in run['alarms']]
  said = {name: run['alarms'] for name, run in measured.items()
          if run.get('alarms')}
  return {'curves': curves, 'fits': fits, 'alarms': alarms, 'said': said}


if __name__ == '__main__':
  cli.run(main, Config)
