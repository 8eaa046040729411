"""Preferences of a model: which of two responses follows a principle better?

  python -m experiments.ai_feedback --workdir runs/ai --model DIR --judge DIR
  python -m experiments.ai_feedback --workdir runs/ai --model DIR \\
    --data PROMPTS --constitution FILE --thoughts

The policy (`--model`) answers each prompt twice; the judge, the policy itself
unless `--judge` names another folder, says by a principle drawn for the prompt
which is better: by the log odds of its label, the mean of both orders, after
thinking aloud with `--thoughts`. Pairs on which the two orders disagree say
nothing but where the judge looks first, and are left out. Bai et al. (2022),
section 4.1, https://arxiv.org/abs/2212.08073. `preferences.jsonl` is data for
experiments.reward, experiments.dpo and all others that learn from pairs;
`thoughts.jsonl` has what the judge thought, in either order.
"""

import dataclasses

import numpy as np

from alignjax import cli
from alignjax import evaluation
from alignjax import feedback
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError
from experiments import revisions

# Of the testbed's: its small judge takes every refusal for unhelpful, also
# where one is due, and would talk the policy out of them.
_PRINCIPLES = ('kind', 'true')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the feedback. Where two defaults are given: testbed, folder."""

  judge: str = ''              # Folder of who judges; '' is the policy.
  constitution: str = ''       # A text file of principles; '': the usual one.
  thoughts: bool = False       # Let the judge think aloud before it decides.
  # Pairs that the judge is less sure of are left out, nats. 2, 0.
  min_margin: float | None = None
  # Keep pairs too of which the judge prefers whichever stands first (or last).
  keep_swayed: bool = False
  num_prompts: int = 1_600     # Of the testbed.
  skip_prompts: int = 0        # Of the testbed, that are left out first.
  max_length: int | None = None  # Tokens that the judge reads. 128, 2048.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 256.
  temperature: float = 1.0     # Of the responses.
  sample_batch: int = 256      # Rows sampled or read at one time.


def resolve(cfg: Config) -> Config:
  """The config with no setting left open."""
  return runs.with_defaults(
      cfg, testbed=dict(min_margin=2.0, max_length=128, max_new_tokens=32),
      folder=dict(min_margin=0.0, max_length=2048, max_new_tokens=256))


def stage(cfg: Config) -> str:
  """Samples and judges; returns the file of pairs."""
  cfg = resolve(cfg)
  with runs.start(cfg, 'ai_feedback') as run:
    path = run.workdir / 'preferences.jsonl'
    if not run.is_done:
      records, summary = collect(cfg, run)
      sources.write_jsonl(path, records)
      run.console.note(f'ai_feedback: {summary}')
      run.finish(summary)
    return str(path)


def collect(cfg: Config, run: runs.Run) -> tuple[list[dict], dict]:
  """The pairs, and how they came about."""
  policy = revisions.critic_folder(cfg)
  prompts, pairs = sample(cfg, run, policy)
  model, params, tokenizer = runs.load_policy(cfg.judge or policy)
  params = sharding.put(params, sharding.replicated(run.mesh))
  shared = dict(max_length=cfg.max_length, mesh=run.mesh,
                batch_size=cfg.sample_batch)
  label_logprobs = evaluation.make_label_logprobs(
      model, params, tokenizer, ('1', '2'), **shared)
  reply = evaluation.make_reply(
      model, params, tokenizer, temperature=0.0, seed=cfg.seed,
      max_new_tokens=cfg.max_new_tokens, **shared) if cfg.thoughts else None
  principles = feedback.read_constitution(
      revisions.constitution_file(cfg, run, _PRINCIPLES))
  drawn = np.random.default_rng(cfg.seed).integers(
      len(principles), size=len(prompts))
  records, heard = [None] * len(prompts), []
  for index, principle in enumerate(principles):
    mine = np.flatnonzero(drawn == index)
    judge = feedback.principle_judge(
        principle, label_logprobs, reply=reply, heard=heard)
    comparisons = [feedback.Comparison(prompts[i], *pairs[i]) for i in mine]
    with run.console.working(f'judging {len(mine)} pairs by {principle.text}'):
      verdicts = judge(comparisons) if comparisons else []
    for i, comparison, verdict in zip(mine, comparisons, verdicts, strict=True):
      records[i] = _record(comparison, verdict, principle)
  if heard:
    sources.write_jsonl(run.workdir / 'thoughts.jsonl', heard)
  swayed = [r.pop('swayed') for r in records]
  kept = [r for r, is_swayed in zip(records, swayed, strict=True)
          if r['margin'] > cfg.min_margin and (
              cfg.keep_swayed or not is_swayed)]
  if not kept:
    raise InputError(
        f'none of {len(records)} pairs is left: of {sum(swayed)} the judge '
        'prefers whichever stands first, or last; take a better judge, or '
        '--keep-swayed')
  return kept, {
      'prompts': len(prompts), 'judged': len(records), 'pairs': len(kept),
      'swayed_by_order': float(np.mean(swayed))} | _gold(cfg, kept)


def sample(cfg: Config, run: runs.Run, policy: str):
  """(prompts, two different whole responses to each)."""
  model, params, tokenizer = runs.load_policy(policy)
  params = sharding.put(params, sharding.replicated(run.mesh))
  prompts = revisions.prompts_of(cfg, run, tokenizer)
  reply = evaluation.make_reply(
      model, params, tokenizer, max_new_tokens=cfg.max_new_tokens,
      max_length=cfg.max_length // 2, mesh=run.mesh, seed=cfg.seed,
      temperature=cfg.temperature, batch_size=cfg.sample_batch)
  with run.console.working(f'2 responses to {len(prompts)} prompts'):
    first, second = reply(prompts, 0), reply(prompts, 1)
  kept = [(prompt, (a, b)) for prompt, (a, a_ended), (b, b_ended) in zip(
      prompts, first, second, strict=True)
      if a_ended and b_ended and a and b and a != b]
  return [prompt for prompt, _ in kept], [pair for _, pair in kept]


def _record(comparison, verdict, principle) -> dict:
  """A line of preferences.jsonl."""
  chosen, rejected = ((comparison.a, comparison.b) if verdict.margin >= 0
                      else (comparison.b, comparison.a))
  prompt = comparison.prompt
  return {'prompt': prompt if isinstance(prompt, str) else list(prompt),
          'chosen': chosen, 'rejected': rejected,
          'margin': round(abs(verdict.margin), 6),
          'principle': principle.text,
          'swayed': verdict.first * verdict.second <= 0}


def _gold(cfg: Config, records) -> dict:
  """On the testbed, how often gold agrees, where it is not tied."""
  if cfg.data != 'testbed':
    return {}
  known = {prompt.text: prompt for prompt in testbed.prompts(
      sources.WORLD, 'train', seed=cfg.seed)}
  margins = np.array([
      testbed.judge(sources.WORLD, known[r['prompt']], r['chosen']).gold
      - testbed.judge(sources.WORLD, known[r['prompt']], r['rejected']).gold
      for r in records])
  untied = margins[margins != 0]
  return {'agrees_with_gold': float(np.mean(untied > 0)) if len(untied) else 0}


if __name__ == '__main__':
  cli.run(stage, Config)
