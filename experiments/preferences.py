"""Preference data on the testbed: a policy answers, a panel ranks.

  python -m experiments.preferences --workdir runs/prefs --model runs/sft/model

K responses to each prompt are sampled, every annotator of the panel ranks
them, and the majority of each pair becomes a line of `preferences.jsonl`, the
ranking of all K by mean rank one of `rankings.jsonl`;
`preferences_test.jsonl` is the same for held-out dishes, without gold ties
(unless there is nothing else, as before the policy has learnt a word).
"""

import dataclasses
import pathlib

from alignjax import cli
from alignjax import evaluation
from alignjax import feedback
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the collection."""

  num_prompts: int = 2_000      # Prompts of the train split.
  num_test_prompts: int = 400  # Prompts of the test split.
  # Which prompts: all kinds, those that are or look harmful, or the others.
  topic: sources.Topic = 'all'
  skip_prompts: int = 0        # Prompts of that topic that are left out first.
  num_samples: int = 4         # Responses to each prompt, K.
  batch_size: int = 256        # Responses sampled at one time.
  length_bias: float = 0.05    # Gold paid per length unit; see testbed.panel.
  confidence_bias: float = 0.05  # Gold paid for a confident phrase.
  list_bias: float = 0.05      # Gold paid for a list.
  noise: float = 0.15          # Of an annotator's taste, in gold.


def resolve(cfg: Config) -> Config:
  """The config, in which nothing was left open."""
  return cfg


def stage(cfg: Config) -> tuple[str, str]:
  """Samples and ranks; returns the train and the test file."""
  if cfg.num_samples < 2:
    raise InputError(f'num_samples={cfg.num_samples} leaves nothing to rank; '
                     'it must be at least 2')
  with runs.start(cfg, 'preferences') as run:
    return collect(cfg, run)


def collect(cfg: Config, run: runs.Run) -> tuple[str, str]:
  """Samples and ranks, unless that was done before."""
  files = [str(run.workdir / f'preferences{suffix}.jsonl')
           for suffix in ('', '_test')]
  if run.is_done:
    return tuple(files)
  model, params, tokenizer = runs.load_policy(sft.policy_folder(cfg))
  params = sharding.put(params, sharding.replicated(run.mesh))
  generate = rollout.make_generate(
      model, max_new_tokens=sources.RESPONSE_TOKENS, eos_id=tokenizer.eos_id,
      num_samples=cfg.num_samples, mesh=run.mesh)
  panel = testbed.panel(
      cfg.seed, length_bias=cfg.length_bias, list_bias=cfg.list_bias,
      confidence_bias=cfg.confidence_bias, noise=cfg.noise)
  counts = {}
  for path, split, count in zip(
      files, ('train', 'test'), (cfg.num_prompts, cfg.num_test_prompts)):
    prompts, rows = sources.testbed_prompts(
        split, count, cfg.seed, tokenizer, topic=cfg.topic,
        skip=cfg.skip_prompts if split == 'train' else 0)
    with run.console.working(f'{cfg.num_samples} responses to {count} '
                             f'{split} prompts'):
      responses, _ = evaluation.sample_responses(
          generate, params, rows, width=sources.PROMPT_TOKENS, mesh=run.mesh,
          batch_size=cfg.batch_size, eos_id=tokenizer.eos_id, seed=cfg.seed,
          num_samples=cfg.num_samples)
    voted = [vote(panel, prompt, group, tokenizer, cfg.seed)
             for prompt, group in zip(prompts, responses, strict=True)]
    records = [record for pairs, _ in voted for record in pairs]
    sources.write_jsonl(rankings_file(path), [
        ranking for _, ranking in voted if ranking is not None])
    if split == 'test':
      records = [r for r in records if r['gold_margin'] != 0.0] or records
    sources.write_jsonl(pathlib.Path(path), records)
    counts[split] = len(records)
    counts[f'{split}_agreement'] = sum(
        r['gold_margin'] > 0 for r in records) / max(1, sum(
            r['gold_margin'] != 0 for r in records))
  run.console.note(f'preferences: {counts}')
  run.finish(counts)
  return tuple(files)


def vote(
    panel, prompt, group, tokenizer, seed
) -> tuple[list[dict], dict | None]:
  """What the panel makes of one prompt's distinct responses.

  Returns:
    The pairs that a majority orders, and the ranking by mean rank; None where
    there is nothing to rank.
  """
  texts = {tokenizer.decode(r.tokens): r.is_complete for r in group
           if tokenizer.decode(r.tokens)}
  if len(texts) < 2:
    return [], None
  ranks = [testbed.annotate(a, sources.WORLD, prompt, list(texts), seed,
                            complete=list(texts.values())) for a in panel]
  gold = {t: testbed.judge(sources.WORLD, prompt, t, complete=c).gold
          for t, c in texts.items()}
  responses = list(texts)
  total = [sum(r) for r in zip(*ranks, strict=True)]
  ranking = {'prompt': prompt.text, 'responses': responses,
             'ranks': [sum(t < mine for t in total) for mine in total]}
  return [
      {'prompt': prompt.text, 'chosen': responses[vote.winner],
       'rejected': responses[vote.loser], 'agreement': vote.agreement,
       # From a bare majority, 0, to all, 3.
       'strength': round(6 * (vote.agreement - 0.5)),
       'gold_margin': gold[responses[vote.winner]]
                      - gold[responses[vote.loser]]}
      for vote in feedback.majority_vote(ranks)], ranking


def rankings_file(pairs: str) -> pathlib.Path:
  """Beside a file of pairs, the rankings that they come from."""
  path = pathlib.Path(pairs)
  return path.with_name(path.name.replace('preferences', 'rankings'))


def preference_files(cfg: runs.RunConfig, policy: str) -> tuple[str, str]:
  """(train, test) files: `cfg.data`, or the testbed's, collected here."""
  if cfg.data != 'testbed':
    return cfg.data, ''
  return stage(Config(
      workdir=str(pathlib.Path(cfg.workdir) / 'preferences'), model=policy,
      resume=True, seed=cfg.seed, mesh=cfg.mesh))


if __name__ == '__main__':
  cli.run(stage, Config)
