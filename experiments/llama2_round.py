"""One round of LLaMA 2's RLHF: fresh pairs, fresh reward models, a policy.

    policy ─► preferences ─► two reward models ─► best of N ─► SFT ─► policy
              helpfulness,   on the pairs of       safety      on the best of
              safety         ALL rounds            first       all rounds

The last round has PPO behind it. Every round ends in a manifest of what it made
from what.
"""

import dataclasses
import json
import math
import pathlib
from typing import NamedTuple

from alignjax import data
from alignjax import lineage
from alignjax import runs
from alignjax import sources
from experiments import preferences
from experiments import rejection_sampling
from experiments import reward

TOPICS = ('helpfulness', 'safety')
# Settings that say where, not what.
_PLACES = (*runs.FREE, 'model', 'data', 'safety_data', 'safety_prompts',
           'sft_data')


class Round(NamedTuple):
  """What a round starts from, or ends in: folders and files."""

  number: int
  policy: str
  judges: dict[str, str]        # Reward model of each topic; none before any.
  pairs: dict[str, list[str]]   # Files of each topic, of all rounds so far.
  best: list[str]               # Files of the best responses, the same.
  manifests: list[pathlib.Path]
  measured: dict[str, dict]     # What of each round was measured, by its name.


def run_round(cfg, run: runs.Run, settle, before: Round) -> Round:
  """Runs what is not done of the round after `before`."""
  number = before.number + 1
  folder = run.workdir / f'round{number}'
  pairs, test_pairs, judges, figures = dict(before.pairs), {}, {}, {}
  for topic in topics(cfg):
    fresh, test_pairs[topic] = collect(
        cfg, run, settle, before, topic, folder / topic)
    pairs[topic] = [*pairs.get(topic, []), fresh]
  for topic in topics(cfg):
    together = mixed(folder / f'{topic}.jsonl', topic, pairs)
    judges[topic] = reward.stage(settle(
        f'reward-{topic}', workdir=str(folder / f'reward-{topic}'),
        model=before.policy, data=together,
        test_data=test_pairs[topic] or '', **margins(together)))
    figures[topic] = {'pairs': len(pathlib.Path(together).read_text(
        ).splitlines())} | accuracies(
            cfg, run, settle, folder, topic, test_pairs[topic],
            now=judges[topic], before=before)
  sampled = folder / 'rejection_sampling'
  policy = rejection_sampling.stage(settle(
      'rejection_sampling', workdir=str(sampled), model=before.policy,
      data=prompts_of(cfg, run, number), earlier=tuple(before.best),
      skip_prompts=skipped(cfg, number), **judging(judges)))
  best = str(sampled / 'best.jsonl')
  manifest = lineage.record(
      run.workdir, folder, name=f'round {number}',
      artifacts={
          **{f'{t} pairs': folder / f'{t}.jsonl' for t in judges},
          **{f'{t} reward model': pathlib.Path(f) for t, f in judges.items()},
          'best responses': pathlib.Path(best), 'policy': pathlib.Path(policy)},
      parents={'before': before.manifests[-1]}, config=settings_of(cfg),
      figures=figures)
  return Round(number, policy, judges, pairs, [*before.best, best],
               [*before.manifests, manifest],
               before.measured | {f'round{number}': figures})


def topics(cfg) -> tuple[str, ...]:
  """Helpfulness, and safety where there are pairs of it."""
  if cfg.data == 'testbed' or cfg.safety_data:
    return TOPICS
  return TOPICS[:1]


def collect(cfg, run: runs.Run, settle, before: Round, topic: str,
            folder: pathlib.Path) -> tuple[str, str]:
  """(fresh pairs, held-out ones or none) of a topic.

  On the testbed a panel ranks what the current policy answers to prompts that
  no round had. Of a file it is the round's part.
  """
  if cfg.data == 'testbed':
    share = 0.7 if topic == 'helpfulness' else 0.3
    count = round(share * cfg.round_prompts)
    return preferences.stage(settle(
        'preferences', workdir=str(folder), model=before.policy, topic=topic,
        num_prompts=count, num_test_prompts=cfg.round_test_prompts,
        num_samples=cfg.round_samples,
        batch_size=40 * math.lcm(cfg.round_samples, run.num_shards),
        skip_prompts=before.number * count))
  source = cfg.data if topic == 'helpfulness' else cfg.safety_data
  return part_of(cfg, run, source, before.number, folder), ''


def part_of(cfg, run: runs.Run, path: str, index: int,
            folder: pathlib.Path) -> str:
  """The round's share of a file's pairs, as JSONL."""
  folder.mkdir(parents=True, exist_ok=True)
  target = folder / 'preferences.jsonl'
  if not target.exists():
    records, reading = data.preferences(
        path, split=cfg.split, max_dropped=cfg.max_dropped,
        on_bad_record=cfg.on_bad_record)
    run.note_reading(str(reading), reading.summary())
    size = -(-len(records) // cfg.num_rounds)
    sources.write_jsonl(target, [
        {'prompt': r.prompt, 'chosen': r.chosen, 'rejected': r.rejected}
        | ({'strength': r.strength} if r.strength else {})
        for r in records[index * size:(index + 1) * size]])
  return str(target)


def prompts_of(cfg, run: runs.Run, number: int) -> str:
  """What rejection sampling is asked: the testbed, or the round's pairs."""
  if cfg.data == 'testbed':
    return cfg.data
  return str(run.workdir / f'round{number}' / 'helpfulness'
             / 'preferences.jsonl')


def skipped(cfg, number: int) -> int:
  """Testbed prompts that earlier rounds had."""
  return (number - 1) * cfg.round_prompts if cfg.data == 'testbed' else 0


def judging(judges: dict[str, str]) -> dict[str, str]:
  """The reward models, as rejection sampling and PPO are given them."""
  given = {'reward_model': judges['helpfulness']}
  if 'safety' in judges:
    given['safety_reward_model'] = judges['safety']
  return given


def mixed(path: pathlib.Path, topic: str, pairs: dict[str, list[str]]) -> str:
  """One file of a topic's pairs of all rounds, and some of the other topic.

  As many of the other's at most for helpfulness, and a ninth for safety, the
  first of each file: section 3.2.2 of the paper.
  """
  own, other = ([line for part in parts for line in pathlib.Path(
      part).read_text().splitlines(keepends=True)] for parts in (
          pairs[topic], [p for t, ps in pairs.items() if t != topic
                         for p in ps]))
  count = len(own) if topic == 'helpfulness' else len(own) // 9
  path.write_text(''.join(own + other[:count]))
  return str(path)


def margins(pairs: str) -> dict[str, str]:
  """No margins where no pair of a file says how clear it is."""
  with open(pairs) as file:
    has_some = any(json.loads(line).get('strength') for line in file)
  return {} if has_some else {'margins': 'none'}


def accuracies(cfg, run: runs.Run, settle, folder: pathlib.Path, topic: str,
               test_pairs: str, *, now: str, before: Round) -> dict:
  """Of three reward models on pairs of the policy that the round begins with.

  This round's (refreshed), the last round's (stale), and the first's.
  """
  if not test_pairs:
    return {}
  kept = folder / f'accuracy-{topic}.json'
  if kept.exists():
    return json.loads(kept.read_text())
  first = run.workdir / 'round1' / f'reward-{topic}' / 'model'
  measured = {'refreshed': now}
  if before.number:
    measured |= {'stale': before.judges[topic], 'first': str(first)}
  settings = settle(f'reward-{topic}', model=before.policy)
  found = {name: round(reward.accuracy(f, test_pairs, settings, run), 6)
           for name, f in measured.items()}
  runs.write_json(kept, found)
  return found


def settings_of(cfg) -> dict:
  """The config without places, as JSON has it."""
  return json.loads(json.dumps({
      k: v for k, v in dataclasses.asdict(cfg).items() if k not in _PLACES}))
