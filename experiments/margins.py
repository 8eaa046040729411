"""What certain preferences do to DPO and to IPO: margins over time, plotted.

  python -m experiments.margins --workdir runs/margins

Both are trained, at a constant rate and from one SFT model, on a few pairs that
never contradict each other: gold orders them, nobody disagrees. Under DPO the
log-ratio margin grows for as long as one trains, since its loss has no minimum;
under IPO it stops at 1/(2 beta). Azar et al. (2023),
https://arxiv.org/abs/2310.12036, section 4.2.

Expect, with an SFT model of the testbed: DPO's margin at 61, 98, 132 and 153
nats after 150, 300, 450 and 600 steps, IPO's at 5.0 throughout.
"""

import dataclasses
import itertools
import json
import pathlib

import numpy as np

from alignjax import cli
from alignjax import data
from alignjax import losses
from alignjax import objectives
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
  """Settings of the demonstration."""

  num_pairs: int = 32          # That the two methods are trained on.
  num_steps: int = 600         # Optimizer steps, each on all pairs.
  beta: float = 0.1            # Of both, 1/nats; IPO aims at 1/(2 beta).
  max_length: int = 48         # Tokens, prompt and response.
  learning_rate: float = 1e-4  # Constant.


def main(cfg: Config) -> dict:
  """Trains both, writes summary.json and report.html."""
  with runs.start(cfg, 'margins') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    policy = sft.policy_folder(cfg)
    model, params, tokenizer = runs.load_policy(policy)
    path, _ = preferences.preference_files(cfg, policy)
    rows = sources.preference_rows(
        run, cfg, tokenizer, certain_pairs(cfg, run, path))
    margins = {name: fit(cfg, run, model, params, rows, loss)
               for name, loss in (('dpo', losses.dpo_loss),
                                  ('ipo', losses.ipo_loss))}
    return finish(cfg, run, margins)


def certain_pairs(cfg: Config, run: runs.Run, path: str) -> str:
  """A file of the first pairs that gold does not tie, gold's choice first."""
  by_prompt = {}
  for line in pathlib.Path(path).read_text().splitlines():
    pair = json.loads(line)
    margin = pair.get('gold_margin', 0)
    if margin < 0:
      pair |= {'chosen': pair['rejected'], 'rejected': pair['chosen']}
    if margin:
      by_prompt.setdefault(pair['prompt'], pair)
  if not by_prompt:
    raise InputError(
        f"data={path}: no pair has a field 'gold_margin' that is not 0; give "
        'pairs that experiments.preferences wrote')
  return sources.write_jsonl(
      run.workdir / 'certain.jsonl', list(by_prompt.values())[:cfg.num_pairs])


def fit(cfg, run: runs.Run, model, params, rows, loss) -> list[float]:
  """The mean log-ratio margin, in nats, before each step."""
  optimizer = train.make_optimizer(
      cfg.learning_rate, cfg.num_steps, decay='constant')
  state, shardings = train.init_state(
      params, model.axes(), optimizer, mesh=run.mesh, seed=cfg.seed)
  # With beta bound in the loss, the reward's own scale of 1 leaves nats.
  bound = lambda *sides: loss(*sides, beta=cfg.beta)
  step = train.make_train_step(
      objectives.preference(model, bound), optimizer, shardings=shardings,
      mesh=run.mesh)
  annotate = rollout.make_reference(
      model, sharding.put(params, shardings.params), mesh=run.mesh,
      param_shardings=shardings.params)
  batches = data.preference_batches(
      rows, batch_size=-(-len(rows) // run.num_shards) * run.num_shards,
      max_length=cfg.max_length, seed=cfg.seed)
  margins = []
  with run.console.working(f'{loss.__name__}: {cfg.num_steps} steps'):
    for batch in itertools.islice(batches, cfg.num_steps):
      batch = sharding.put(batch, sharding.batch_sharding(run.mesh))
      state, metrics = step(state, annotate(None, batch))
      # Read at once: hundreds of steps in flight may lock CPU devices up.
      margins.append(float(metrics['margin'].compute()))
  return margins


def finish(cfg: Config, run: runs.Run, margins: dict[str, list]) -> dict:
  """The plot, and each margin at a few steps."""
  target = 1 / (2 * cfg.beta)
  steps = np.arange(cfg.num_steps) + 1
  plot = report.LineChart(
      'Log-ratio margin on certain preferences', [
          *(report.Series(name, steps, m) for name, m in margins.items()),
          report.Series('1/(2 beta)', [1, cfg.num_steps], [target, target],
                        dashed=True)], 'step', 'nats', from_zero=True)
  marks = sorted({max(0, cfg.num_steps * i // 4 - 1) for i in (1, 2, 3, 4)})
  rows = [[name, *(f'{m[i]:.2f}' for i in marks)]
          for name, m in margins.items()]
  head = ['margin, nats', *(f'step {i + 1}' for i in marks)]
  run.console.table(f'IPO aims at {target:g} nats', head, rows)
  report.write_report(
      run.workdir / 'report.html', title='alignjax margins', sections=[
          report.Section('Margins', [report.Table(head, rows), plot])])
  return run.finish({'target': target} | {
      name: {str(i + 1): m[i] for i in marks} for name, m in margins.items()})


if __name__ == '__main__':
  cli.run(main, Config)
