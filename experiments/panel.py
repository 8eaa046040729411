"""What a panel is worth: reward models of its vote, and of each member alone.

  python -m experiments.panel --workdir runs/panel --seed 0
  python -m experiments.panel --workdir runs/panel --model runs/sft/model

On the testbed a policy answers each prompt K times and seven annotators rank
the answers, each through a rubric, tastes and noise of their own:
`items.jsonl` and `answers.jsonl`, as `alignjax annotate` writes them. Their
answers are aggregated (`pairs-majority.jsonl` ...), and a reward model learns
from every method's pairs and from each annotator's own. All are measured by
gold, on the same held-out pairs.

Expect, with two CPU cores: 7 minutes with `--methods majority`, beside other
jobs.
"""

import dataclasses
import itertools
import json

import numpy as np

from alignjax import cli
from alignjax import evaluation
from alignjax import feedback
from alignjax import hf
from alignjax import report
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the study."""

  panel_size: int = 7          # Annotators.
  noise: float = 0.35          # Of their taste, in gold.
  methods: tuple[feedback.Method, ...] = (
      'majority', 'dawid_skene', 'bradley_terry')  # Of aggregation.
  num_prompts: int = 1_000     # Prompts of the train split.
  num_test_prompts: int = 1_000  # Prompts of the test split.
  num_samples: int = 4         # Responses to each prompt, K.
  reward_steps: int = 500      # Of each reward model.
  sample_batch: int = 256      # Responses sampled at one time.


def main(cfg: Config) -> dict:
  """Collects, aggregates, trains and measures; returns the summary."""
  with runs.start(cfg, 'panel') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    policy = sft.policy_folder(cfg)
    sources_of = collect(cfg, run, policy)
    right, judge_cfg = {}, None
    for name in sources_of:
      judge_cfg = reward.resolve(reward.Config(
          workdir=str(run.workdir / name), model=policy, seed=cfg.seed,
          mesh=cfg.mesh, data=str(run.workdir / f'pairs-{name}.jsonl'),
          num_steps=cfg.reward_steps, resume=True))
      right[name] = rightness(
          reward.stage(judge_cfg), str(run.workdir / 'test.jsonl'), judge_cfg,
          run)
    return finish(cfg, run, right, sources_of, dishes_of(cfg, run))


def collect(cfg: Config, run: runs.Run, policy: str) -> dict[str, dict]:
  """Writes items, answers and pairs; what each source's pairs are like."""
  prompts, groups = sample(cfg, run, policy, 'train', cfg.num_prompts)
  shown = [(prompt, feedback.Item(
      feedback.item_id(prompt.text, group), prompt.text, tuple(group)))
           for prompt, group in zip(prompts, groups, strict=True)
           if len(group) > 1]
  asked = {item.id: prompt for prompt, item in shown}
  items = [item for _, item in shown]
  panel = testbed.panel(cfg.seed, size=cfg.panel_size, noise=cfg.noise)
  answers = [
      feedback.Answer(item.id, who.name, ranks=tuple(testbed.annotate(
          who, sources.WORLD, asked[item.id], item.responses, cfg.seed)))
      for item in items for who in panel]
  sources.write_jsonl(run.workdir / 'items.jsonl', [
      {'id': i.id, 'prompt': i.prompt, 'responses': list(i.responses)}
      for i in items])
  sources.write_jsonl(
      run.workdir / 'answers.jsonl', [a.record() for a in answers])
  voted = feedback.make_panel(items, answers)
  runs.write_json(run.workdir / 'agreement.json',
                  feedback.agreement_table(voted, seed=cfg.seed))
  found = {method: feedback.aggregate(voted, method)
           for method in cfg.methods}
  for who in panel:
    own = [a for a in answers if a.annotator == who.name]
    found[who.name] = feedback.aggregate(feedback.make_panel(items, own))
  for name, pairs in found.items():
    sources.write_jsonl(run.workdir / f'pairs-{name}.jsonl',
                        [pair.record() for pair in pairs])
  gold = {(i.id, text): testbed.judge(sources.WORLD, asked[i.id], text).gold
          for i in items for text in i.responses}
  write_test(cfg, run, policy)
  return {name: {'pairs': len(pairs), 'agrees_with_gold': _agreement(
      pairs, gold)} for name, pairs in found.items()}


def sample(cfg: Config, run: runs.Run, policy: str, split: str, count: int):
  """(prompts, the different whole responses to each)."""
  model, params, tokenizer = runs.load_policy(policy)
  params = sharding.put(params, sharding.replicated(run.mesh))
  prompts, _ = sources.testbed_prompts(split, count, cfg.seed, tokenizer)
  reply = evaluation.make_reply(
      model, params, tokenizer, max_new_tokens=sources.RESPONSE_TOKENS,
      max_length=sources.PROMPT_TOKENS + sources.RESPONSE_TOKENS,
      mesh=run.mesh, batch_size=cfg.sample_batch, seed=cfg.seed)
  texts = [prompt.text for prompt in prompts]
  with run.console.working(f'{cfg.num_samples} responses to {count} {split} '
                           'prompts'):
    drawn = [reply(texts, turn) for turn in range(cfg.num_samples)]
  groups = [list(dict.fromkeys(text for text, ended in replies
                               if ended and text))
            for replies in zip(*drawn, strict=True)]
  return prompts, groups


def write_test(cfg: Config, run: runs.Run, policy: str) -> None:
  """Held-out pairs that gold does not tie, the better one chosen.

  Ties are kept where there is nothing else, as of a policy that knows nothing.
  """
  prompts, groups = sample(cfg, run, policy, 'test', cfg.num_test_prompts)
  decided, tied = [], []
  for prompt, group in zip(prompts, groups, strict=True):
    gold = {text: testbed.judge(sources.WORLD, prompt, text).gold
            for text in group}
    for a, b in itertools.combinations(sorted(group, key=lambda t: -gold[t]),
                                       2):
      (decided if gold[a] > gold[b] else tied).append(
          {'prompt': prompt.text, 'chosen': a, 'rejected': b})
  sources.write_jsonl(run.workdir / 'test.jsonl', decided or tied)


def rightness(folder: str, path: str, cfg, run: runs.Run) -> np.ndarray:
  """[N] 1 where a reward model orders a held-out pair as gold does."""
  model, params = runs.load_reward_model(folder)
  rows = sources.preference_rows(run, cfg, hf.load_tokenizer(folder), path)
  params = sharding.put(params, sharding.replicated(run.mesh))
  chosen, rejected = reward.held_out_rewards(
      model, params, rows, cfg, run.mesh)
  return evaluation.win_scores(chosen, rejected)


def dishes_of(cfg: Config, run: runs.Run) -> list[str]:
  """The dish of each held-out pair: pairs of one stand and fall together."""
  known = {prompt.text: prompt.dish for prompt in testbed.prompts(
      sources.WORLD, 'test', count=cfg.num_test_prompts, seed=cfg.seed)}
  lines = (run.workdir / 'test.jsonl').read_text().splitlines()
  return [known[json.loads(line)['prompt']] for line in lines]


def finish(cfg: Config, run: runs.Run, right, sources_of, dishes) -> dict:
  """The table, the plot, and how the vote compares with the best member."""
  interval = lambda x: list(evaluation.bootstrap_interval(
      x, dishes, seed=cfg.seed))
  models = {
      name: {'accuracy': float(np.mean(x)), 'interval': interval(x)}
      | sources_of[name] for name, x in right.items()}
  members = [name for name in models if name not in cfg.methods]
  best = max(members, key=lambda name: models[name]['accuracy'])
  gain = right[cfg.methods[0]] - right[best]
  head = ['pairs of', 'pairs', 'agree with gold', 'accuracy', '95 %']
  rows = [[name, str(m['pairs']), f'{m["agrees_with_gold"]:.3f}',
           f'{m["accuracy"]:.3f}', '{:.3f}-{:.3f}'.format(*m['interval'])]
          for name, m in models.items()]
  run.console.table('Reward models on held-out pairs', head, rows)
  report.write_report(
      run.workdir / 'report.html', title='alignjax panel', sections=[
          report.Section('Reward models on held-out pairs', [
              report.Table(head, rows),
              report.BarChart('Accuracy by gold', list(models), [report.Bars(
                  'accuracy', [m['accuracy'] for m in models.values()],
                  [m['interval'][0] for m in models.values()],
                  [m['interval'][1] for m in models.values()])])])])
  return run.finish({
      'models': models, 'best_member': best,
      'held_out_pairs': len(gain), 'gain': float(np.mean(gain)),
      'gain_interval': interval(gain)})


def _agreement(pairs, gold) -> float:
  """Share of the pairs that gold does not tie and orders as they do."""
  margins = np.array([
      gold[p.item.id, p.item.responses[p.winner]]
      - gold[p.item.id, p.item.responses[p.loser]] for p in pairs])
  untied = margins[margins != 0]
  return float(np.mean(untied > 0)) if untied.size else 0.0


if __name__ == '__main__':
  cli.run(main, Config)
