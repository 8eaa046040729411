"""Compares models on held-out testbed prompts, by the gold judge.

  python -m experiments.evaluate --workdir runs/eval \\
    --models base=runs/first/base/model sft=runs/first/sft/model

Every model answers the same prompts, sampled at temperature 1 with the same
keys. KL is exact over the vocabulary, in nats per response, to the model named
by `--reference`. Intervals are bootstrapped over held-out dishes.
"""

import dataclasses

import jax
import numpy as np

from alignjax import cli
from alignjax import evaluation
from alignjax import hf
from alignjax import models
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the comparison."""

  models: dict[str, str]     # name=FOLDER, one or more.
  reference: str = 'sft'     # Whom KL and win rate are taken against.
  reward_model: str = ''     # Its folder, to report the proxy reward too.
  num_prompts: int = 480     # Held-out prompts, no two alike.
  split: str = 'test'        # dev or test; neither shares a dish with train.
  batch_size: int = 240      # Responses sampled at one time.
  num_transcripts: int = 10  # Prompts whose answers are shown side by side.


def main(cfg: Config) -> dict:
  """Evaluates, writes summary.json, and returns it."""
  run = runs.start(cfg, 'evaluate')
  scores, transcripts = evaluate(cfg, run)
  show(run, scores)
  return run.finish({'models': scores, 'transcripts': transcripts})


def evaluate(cfg: Config, run: runs.Run) -> tuple[dict, list]:
  """Scores of every model, and the same prompts answered by each."""
  loaded = {n: runs.load_policy(f) for n, f in cfg.models.items()}
  model, _, tokenizer = next(iter(loaded.values()))
  prompts, rows = sources.testbed_prompts(
      cfg.split, cfg.num_prompts, cfg.seed, tokenizer)
  whole = sharding.replicated(run.mesh)
  generate = rollout.make_generate(
      model, max_new_tokens=sources.RESPONSE_TOKENS, eos_id=tokenizer.eos_id,
      mesh=run.mesh)
  sequence_kl = evaluation.make_sequence_kl(
      model, prompt_length=sources.PROMPT_TOKENS, mesh=run.mesh,
      param_shardings=whole)
  reward_fn = load_reward(cfg.reward_model, run.mesh)
  params = {n: sharding.put(p, whole) for n, (_, p, _) in loaded.items()}
  order = sorted(params, key=lambda n: n != cfg.reference)
  scores, answers = {}, {}
  for name in order:
    groups, trajectories = evaluation.sample_responses(
        generate, params[name], rows, width=sources.PROMPT_TOKENS,
        batch_size=cfg.batch_size, eos_id=tokenizer.eos_id, mesh=run.mesh,
        seed=cfg.seed)
    texts = [tokenizer.decode(r.tokens) for (r,) in groups]
    complete = [r.is_complete for (r,) in groups]
    verdicts = [testbed.judge(sources.WORLD, p, t, complete=c)
                for p, t, c in zip(prompts, texts, complete, strict=True)]
    rival = scores.get(cfg.reference, {}).get('golds')
    score = evaluation.score_model(
        verdicts, prompts, texts, is_refusal=testbed.is_refusal,
        complete=complete, rival_golds=rival)
    score['kl'] = (
        evaluation.mean_kl(sequence_kl, params[name], params[cfg.reference],
                           trajectories) if cfg.reference in params else None)
    if reward_fn is not None:
      score['proxy'] = mean_reward(reward_fn, trajectories)
    scores[name], answers[name] = score, (texts, [v.gold for v in verdicts])
  transcripts = [
      {'prompt': prompts[i].text, 'kind': prompts[i].kind,
       'responses': {n: answers[n][0][i] for n in params},
       'golds': {n: answers[n][1][i] for n in params}}
      for i in _some_of_each_kind(prompts, cfg.num_transcripts)]
  return {n: named(scores[n]) for n in params}, transcripts


def named(score: dict) -> dict:
  """A model's scores under the names that summary.json promises."""
  score = dict(score)
  score['gold_ci'] = score.pop('gold_interval')
  score['win_rate_vs_sft'] = score.pop('win_rate', 0.5)
  score['win_rate_ci'] = score.pop('win_rate_interval', [0.5, 0.5])
  return score


def load_reward(folder: str, mesh):
  """The reward function of a folder, or None without one."""
  if not folder:
    return None
  config, params = hf.load_reward_model(folder)
  whole = sharding.replicated(mesh)
  return rollout.make_reward_fn(
      models.ScalarModel(config), sharding.put(params, whole), mesh=mesh,
      param_shardings=whole)


def mean_reward(reward_fn, trajectories) -> float:
  """Mean proxy reward over the trajectories' real rows."""
  pairs = [jax.device_get((reward_fn(t.tokens, t.attention_mask), t.weight))
           for t in trajectories]
  rewards, weights = (np.concatenate(x) for x in zip(*pairs, strict=True))
  return float(np.average(rewards, weights=weights))


def _some_of_each_kind(prompts, count: int) -> list[int]:
  """Indices of `count` prompts, the kinds in turn."""
  seen: dict[str, int] = {}
  turns = []
  for i, prompt in enumerate(prompts):
    turns.append((seen.setdefault(prompt.kind, 0), i))
    seen[prompt.kind] += 1
  return [i for _, i in sorted(turns)[:count]]


def show(run: runs.Run, scores: dict) -> None:
  """The table at the end of a run."""
  rows = [
      [name, round(s['gold'], 3),
       f'[{s["gold_ci"][0]:.3f}, {s["gold_ci"][1]:.3f}]',
       round(s['win_rate_vs_sft'], 3), s['kl'], round(s['length'], 1),
       *(round(v, 2) for v in s['gold_by_kind'].values())]
      for name, s in scores.items()]
  kinds = next(iter(scores.values()))['gold_by_kind']
  run.console.table(
      'Gold on held-out dishes',
      ['model', 'gold', '95 %', 'win rate', 'KL nats', 'words', *kinds], rows)


if __name__ == '__main__':
  cli.run(main, Config)
