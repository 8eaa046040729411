"""How a run ends: models compared, a table, summary.json and report.html.

Every model answers the same prompts, sampled at temperature 1 with the same
keys. On the testbed they are of held-out dishes and the gold judge scores the
responses; of a file they are the last ones, which training saw too, and the
reward model is all there is. KL is exact over the vocabulary, in nats per
response, to the reference; intervals are bootstrapped over held-out dishes.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np

from alignjax import data
from alignjax import distributed
from alignjax import evaluation
from alignjax import metrics as metrics_lib
from alignjax import report
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError

NUM_PROMPTS = 480     # Held-out testbed prompts, no two alike.
NUM_FILE_PROMPTS = 16  # Of a file: there, models are larger.
NUM_TRANSCRIPTS = 10


class Compared(NamedTuple):
  """What models answer to the same prompts, and what that is worth."""

  scores: dict[str, dict]   # Of each model.
  transcripts: list[report.Transcript]
  prompts: list             # Testbed prompts, or a file's.
  texts: dict[str, list[str]]  # Each model's response to each prompt.


def write(
    run: runs.Run, cfg: runs.RunConfig, folders: Mapping[str, str], *,
    reference: str = 'sft', reward_model: str = '', compare: str = '',
    stages: Mapping[str, dict] | None = None,
    compared: Compared | None = None,
    sections: Sequence[report.Section] = (),
    last: Sequence[report.Section] = (), more: Mapping | None = None,
) -> dict:
  """Compares the models and writes summary.json and report.html.

  A run that is made of stages gets the metrics of all in one file, too.

  Args:
    run: the run that ends.
    cfg: its settings; `cfg.data` says what the models are asked.
    folders: of the models, by name; may be empty.
    reference: the model that KL and win rate are against.
    reward_model: folder of a reward model, whose mean is the proxy reward.
    compare: workdir of another online run, whose curve is drawn too.
    stages: summaries of the stages, by name; by default the run's own.
    compared: the comparison, where it was made already.
    sections: of the report, before its own.
    last: the same, behind them.
    more: of the summary.

  Returns:
    The summary.
  """
  if run.is_done and 'models' in run.summary():
    run.console.note(f'{run.workdir} is done; see summary.json')
    return run.summary()
  if stages is None:
    stages = {run.name: run.summary()}
  scores, transcripts = ({}, []) if compared is None else compared[:2]
  if folders and compared is None:
    with run.console.working(f'comparing {", ".join(folders)}'):
      scores, transcripts = compare_models(
          run, cfg, folders, reference=reference, reward_model=reward_model)
  if scores:
    show(run, scores)
  rows = collect_metrics(run.workdir)
  if run.name not in {row['stage'] for row in rows}:
    write_metrics(run.workdir / 'metrics.jsonl', rows)
  summary = {
      'models': {n: _public(s, reference) for n, s in scores.items()},
      'seconds': {name: s['seconds'] for name, s in stages.items()}}
  for name, stage in stages.items():
    left = ('stage', 'seconds', *(['data'] if name == run.name else []))
    numbers = {k: v for k, v in stage.items() if k not in left}
    summary['reward_model' if name == 'reward' else name] = numbers
  curves = {}
  for folder in filter(None, (run.workdir, compare and pathlib.Path(compare))):
    if curve := ppo_curve(collect_metrics(folder)):
      curves[_curve_name(folder, curves)] = curve
  write_html(run, summary, scores, rows, transcripts, curves, reference,
             sections, last)
  return run.finish(summary | {'curves': curves} | dict(more or {}))


def compare_models(
    run: runs.Run, cfg: runs.RunConfig, folders: Mapping[str, str], *,
    reference: str, reward_model: str = '', split: str = 'test',
    num_prompts: int | None = None,
) -> tuple[dict[str, dict], list[report.Transcript]]:
  """Scores of every model, and some prompts with each one's answer."""
  return ask_models(
      run, cfg, folders, reference=reference, reward_model=reward_model,
      split=split, num_prompts=num_prompts)[:2]


def ask_models(
    run: runs.Run, cfg: runs.RunConfig, folders: Mapping[str, str], *,
    reference: str, reward_model: str = '', split: str = 'test',
    num_prompts: int | None = None,
) -> Compared:
  """As `compare_models`, with all that was asked and answered."""
  loaded = {name: runs.load_policy(f) for name, f in folders.items()}
  model, _, tokenizer = next(iter(loaded.values()))
  for name, (other, _, _) in loaded.items():
    if other.config != model.config:
      raise InputError(
          f'{name}={folders[name]} is not of the shape of '
          f'{next(iter(loaded))}={next(iter(folders.values()))}; compare '
          'models that were trained from one')
  # Each model is asked by its own template: C-RLFT's names a class.
  asked = {name: _questions(run, cfg, own, split, num_prompts)
           for name, (_, _, own) in loaded.items()}
  prompts, rows, width, room = next(iter(asked.values()))
  shards = run.num_shards
  batch_size = -(-min(240, len(rows)) // shards) * shards
  whole = sharding.replicated(run.mesh)
  generate = rollout.make_generate(
      model, max_new_tokens=room, eos_id=tokenizer.eos_id, mesh=run.mesh)
  sequence_kl = evaluation.make_sequence_kl(
      model, prompt_length=width, mesh=run.mesh, param_shardings=whole)
  reward_fn = _load_reward(reward_model, run.mesh)
  params = {n: sharding.put(p, whole) for n, (_, p, _) in loaded.items()}
  scores, texts = {}, {}
  for name in sorted(params, key=lambda n: n != reference):  # It comes first.
    groups, trajectories = evaluation.sample_responses(
        generate, params[name], asked[name][1], width=width,
        eos_id=tokenizer.eos_id, batch_size=batch_size, mesh=run.mesh,
        seed=cfg.seed)
    texts[name] = [tokenizer.decode(r.tokens) for (r,) in groups]
    score = _score(prompts, texts[name], [r for (r,) in groups],
                   scores.get(reference))
    if reference in params:
      score['kl'] = evaluation.mean_kl(
          sequence_kl, params[name], params[reference], trajectories)
    if reward_fn is not None:
      score['proxy'] = _mean_reward(reward_fn, trajectories)
    scores[name] = score
  transcripts = [
      report.Transcript(
          _text(prompts[i]), {n: texts[n][i] for n in params},
          getattr(prompts[i], 'kind', ''),
          {n: scores[n]['golds'][i] for n in params if 'golds' in scores[n]})
      for i in _some_of_each_kind(prompts)]
  return Compared({n: scores[n] for n in params}, transcripts, prompts,
                  {n: texts[n] for n in params})


def _questions(run, cfg, tokenizer, split, num_prompts):
  """(prompts, rows, prompt width, response room) that models are asked."""
  if runs.is_testbed(cfg.model):  # Whatever it was trained on.
    prompts, rows = sources.testbed_prompts(
        split, num_prompts or NUM_PROMPTS, cfg.seed, tokenizer)
    return prompts, rows, sources.PROMPT_TOKENS, sources.RESPONSE_TOKENS
  room = getattr(cfg, 'max_new_tokens', None) or 32
  length = cfg.max_length or 256
  width = max(length - room, length // 2)
  # Not a reason to stop a run that has been trained: a long prompt is cut.
  cfg = dataclasses.replace(cfg, long_prompts='left')
  prompts, rows = sources.prompt_rows(
      run, cfg, tokenizer, cfg.data, max_length=width)
  rows = rows[-NUM_FILE_PROMPTS:]  # Not held out: training saw the file.
  return [prompts[row.prompt_id] for row in rows], rows, width, room


def _score(prompts, texts, responses, rival) -> dict:
  """One model's scores: by the gold judge, or what can be said without."""
  complete = [r.is_complete for r in responses]
  if not isinstance(prompts[0], testbed.Prompt):
    lengths = [len(r.tokens) for r in responses]
    return {'num_prompts': len(prompts), 'lengths': lengths,
            'length': float(np.mean(lengths)),
            'unfinished': 1.0 - float(np.mean(complete))}
  verdicts = [testbed.judge(sources.WORLD, p, t, complete=c)
              for p, t, c in zip(prompts, texts, complete, strict=True)]
  score = dict(evaluation.score_model(
      verdicts, prompts, texts, is_refusal=testbed.is_refusal,
      complete=complete, rival_golds=rival and rival['golds']))
  score['lengths'] = [len(r.tokens) for r in responses]
  score['length'] = float(np.mean(score['lengths']))
  return score


def _public(score: dict, reference: str) -> dict:
  """A model's scores under the names that summary.json promises."""
  score = {k: v for k, v in score.items() if k not in ('golds', 'lengths')}
  names = {'gold_interval': 'gold_ci', 'win_rate': f'win_rate_vs_{reference}',
           'win_rate_interval': 'win_rate_ci'}
  score = {names.get(k, k): v for k, v in score.items()}
  if 'gold' in score:
    score.setdefault(f'win_rate_vs_{reference}', 0.5)  # Against itself.
  return score


def _load_reward(folder: str, mesh):
  """The reward function of a folder, or None without one."""
  if not folder:
    return None
  model, params = runs.load_reward_model(folder)
  whole = sharding.replicated(mesh)
  return rollout.make_reward_fn(
      model, sharding.put(params, whole), mesh=mesh,
      param_shardings=whole, mean=runs.read_reward_mean(folder))


def _mean_reward(reward_fn, trajectories) -> float:
  """Mean proxy reward over the trajectories' real rows."""
  pairs = [sharding.to_host((reward_fn(t.tokens, t.attention_mask), t.weight))
           for t in trajectories]
  rewards, weights = (np.concatenate(x) for x in zip(*pairs, strict=True))
  return float(np.average(rewards, weights=weights))


def _some_of_each_kind(prompts) -> list[int]:
  """Indices of a few prompts, the kinds in turn."""
  seen: dict[str, int] = {}
  turns = []
  for i, prompt in enumerate(prompts):
    kind = getattr(prompt, 'kind', '')
    turns.append((seen.get(kind, 0), i))
    seen[kind] = seen.get(kind, 0) + 1
  return [i for _, i in sorted(turns)[:NUM_TRANSCRIPTS]]


def _text(prompt: testbed.Prompt | data.PromptOnly) -> str:
  """The prompt as one text."""
  if isinstance(prompt, testbed.Prompt):
    return prompt.text
  if isinstance(prompt.prompt, str):
    return prompt.prompt
  return '\n'.join(f'{m["role"]}: {m["content"]}' for m in prompt.prompt)


def show(run: runs.Run, scores: Mapping[str, dict]) -> None:
  """The table at the end of a run."""
  kinds = sorted(set().union(*(s.get('gold_by_kind', {})
                               for s in scores.values())))
  columns = {
      'gold': lambda s: s.get('gold'),
      '95 %': lambda s: '{:.3f}-{:.3f}'.format(*s['gold_interval'])
              if 'gold' in s else None,
      'win rate': lambda s: s.get('win_rate'),
      'proxy': lambda s: s.get('proxy'),
      'KL nats': lambda s: s.get('kl'),
      'tokens': lambda s: s['length'],
  } | {kind: lambda s, k=kind: s.get('gold_by_kind', {}).get(k)
       for kind in kinds}
  columns = {name: read for name, read in columns.items()
             if any(read(s) is not None for s in scores.values())}
  run.console.table(
      'Held-out prompts' if kinds else 'Prompts of the file',
      ['model', *columns],
      [[name, *('' if read(s) is None else read(s)
                for read in columns.values())]
       for name, s in scores.items()])


def collect_metrics(workdir: pathlib.Path) -> list[dict]:
  """All metrics rows below a workdir, its stages' in the order they ended.

  What `write_metrics` put in the workdir itself is not counted twice.
  """
  own = workdir / 'metrics.jsonl'
  files = sorted(set(workdir.rglob('metrics.jsonl')) - {own},
                 key=lambda path: path.stat().st_mtime)
  rows = [row for path in files for row in metrics_lib.read_jsonl(path)]
  stages = {row['stage'] for row in rows}
  if own.exists():
    rows += [row for row in metrics_lib.read_jsonl(own)
             if row['stage'] not in stages]
  return rows


def write_metrics(path: pathlib.Path, rows: list[dict]) -> None:
  """Writes rows of `collect_metrics` to one file, in place of what it held."""
  distributed.by_first(lambda: _write_metrics(path, rows))


def _write_metrics(path: pathlib.Path, rows: list[dict]) -> None:
  draft = path.with_name(path.name + '.tmp')
  draft.unlink(missing_ok=True)
  with metrics_lib.JsonlWriter(draft) as writer:
    for row in rows:
      values = {k: v for k, v in row.items() if k not in ('step', 'stage')}
      writer.write(row['step'], row['stage'], values)
  if rows:
    os.replace(draft, path)


def ppo_curve(rows) -> list[dict]:
  """Proxy and gold over KL in the course of PPO, five iterations a point.

  Or of any other method that samples: its rows alone have a reward and a KL.
  """
  rows = [r for r in rows if {'reward', 'kl'} <= r.keys()]
  points = []
  for i in range(0, len(rows), 5):
    part = rows[i:i + 5]
    point = {name: float(np.mean([r[key] for r in part]))
             for name, key in (('kl', 'kl'), ('proxy', 'reward'),
                               ('gold', 'gold'))
             if all(key in r for r in part)}
    points.append({'step': part[-1]['step']} | point)
  return points


def _curve_name(workdir: pathlib.Path, taken: Mapping) -> str:
  """What sets a PPO run apart: its KL coefficient, or else its folder."""
  configs = [workdir / 'config.json', workdir / 'ppo' / 'config.json']
  settings = [json.loads(path.read_text())
              for path in configs if path.exists()]
  settings = [s for s in settings if s.get('kl_coef') is not None]
  name = workdir.name
  if settings:
    method, coef = settings[0]['experiment'], settings[0]['kl_coef']
    name = f'kl_coef={coef:g}' if method in ('ppo', 'instructgpt') else (
        f'{method}, kl_coef={coef:g}')
  return f'{name} ({workdir.name})' if name in taken else name


def write_html(run, summary, scores, rows, transcripts, curves, reference,
               first: Sequence[report.Section] = (),
               last: Sequence[report.Section] = ()):
  """report.html: curves, tables and transcripts in one file."""
  config = json.loads((run.workdir / 'config.json').read_text())
  if scores and all('gold' in s for s in scores.values()):
    has_gold = {n: c for n, c in curves.items() if c and 'gold' in c[0]}
    sections = report.testbed_report(
        {'models': scores, 'seconds': summary['seconds'], 'config': config}
        | ({'reward_model': summary['reward_model']}
           if 'reward_model' in summary else {}),
        rows, transcripts, runs=has_gold or None, baseline=reference)
  else:
    blocks = [report.Table(('setting', 'value'),
                           [(k, str(v)) for k, v in config.items()])]
    sections = report.training_curves(rows) + [
        report.Section('How it was made', blocks)]
    if scores:
      names = ('length', 'unfinished', 'kl', 'proxy')
      table = report.Table(
          ('model', *names),
          [(n, *(s.get(k, '') for k in names)) for n, s in scores.items()])
      sections.insert(0, report.Section('Results', [table]))
    if transcripts:
      sections.append(report.Section(
          'The same prompts, each model', [report.Transcripts(transcripts)]))
  report.write_report(run.workdir / 'report.html',
                      title=f'alignjax {run.name}',
                      sections=[*first, *sections, *last])
  run.console.note(f'wrote {run.workdir / "report.html"}')
