"""Compares models on held-out prompts and on benchmarks: one page for all.

  python -m experiments.evaluate --workdir runs/eval \\
    --models sft=runs/first/sft/model ppo=runs/first/ppo/model
  python -m experiments.evaluate --workdir runs/eval --data PROMPTS \\
    --models sft=DIR dpo=DIR --judge reward:DIR --ifeval FILE --gsm8k FILE

Every model answers the same prompts. Each is compared with `--reference` by
`--judge`: the win rate with its bootstrap interval, that of a sign test, and
the win rate at equal lengths; all together stand on one scale of Elo points.
On the testbed gold judges; elsewhere a reward model (reward:FOLDER), a language
model with a rubric (model:FOLDER, or a server's http://...), each pair in both
orders. `exports/` has AlpacaEval's and lm-eval's files.
"""

import dataclasses
import itertools

import numpy as np

from alignjax import cli
from alignjax import data
from alignjax import evaluation
from alignjax import feedback
from alignjax import outcomes
from alignjax import report
from alignjax import runs
from alignjax import sharding
from alignjax.types import InputError
from experiments import judging


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the comparison."""

  models: tuple[str, ...]    # name=FOLDER, one or more.
  reference: str = 'sft'     # Whom KL and win rate are taken against.
  reward_model: str = ''     # Its folder, to report the proxy reward too.
  # gold, reward:FOLDER, model:FOLDER or http://...; '': gold on the testbed,
  # of a file the reward model if there is one.
  judge: str = ''
  judge_model: str = ''      # Its name, at a server of several.
  judge_per_minute: float = 600.0  # Questions to a server, at most.
  rubric: str = ''           # TOML file that a model judges by.
  ifeval: str = ''           # File of checkable instructions.
  gsm8k: str = ''            # File of word problems.
  choices: str = ''          # File of multiple choice, such as HHH.
  text: str = ''             # File of demonstrations, for the perplexity.
  # File of pairs, and the reward models that it tests: name=FOLDER.
  rewardbench: str = ''
  reward_models: tuple[str, ...] = ()
  max_length: int = 256      # Tokens, prompt and response, of a file's.
  max_new_tokens: int = 32   # Tokens of a response.


def main(cfg: Config) -> dict:
  """Evaluates, writes summary.json, report.html and exports/."""
  folders = named_folders(cfg.models)
  judges = named_folders(cfg.reward_models)
  if cfg.reference not in folders:
    raise InputError(f'reference={cfg.reference} is none of the models '
                     f'({", ".join(folders)}); name one of them')
  if bool(cfg.rewardbench) != bool(judges):
    raise InputError('rewardbench and reward_models belong together; give both '
                     'or neither')
  cfg = dataclasses.replace(cfg, model=folders[cfg.reference])
  with runs.start(cfg, 'evaluate') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    with run.console.working(f'asking {", ".join(folders)}'):
      compared = outcomes.ask_models(
          run, cfg, folders, reference=cfg.reference,
          reward_model=cfg.reward_model)
    found = {'judged': judged(cfg, run, compared),
             'benchmarks': benchmarks(cfg, run, folders, judges)}
    export(cfg, run, compared, found)
    return outcomes.write(
        run, cfg, folders, reference=cfg.reference, stages={},
        compared=compared, sections=sections(cfg, found), more=found)


def judged(cfg: Config, run: runs.Run, compared: outcomes.Compared) -> dict:
  """What the judge says of each model against the reference, and of all."""
  if not cfg.judge and cfg.reward_model and not runs.is_testbed(cfg.model):
    cfg = dataclasses.replace(cfg, judge=f'reward:{cfg.reward_model}')
  is_known = cfg.judge or runs.is_testbed(cfg.model)
  if len(compared.texts) < 2 or not is_known:
    return {}
  judge = judging.make_judge(cfg, run, compared.prompts)
  prompts = [judging.prompt_of(p) for p in compared.prompts]
  groups = [getattr(p, 'dish', i) for i, p in enumerate(compared.prompts)]
  lengths = {n: s['lengths'] for n, s in compared.scores.items()}
  scores = {}
  for a, b in itertools.combinations(compared.texts, 2):
    # The reference second, so that the other's win rate is what is told.
    pair = (b, a) if a == cfg.reference else (a, b)
    with run.console.working(f'judging {pair[0]} against {pair[1]}'):
      scores[pair] = [v.score for v in judge([
          feedback.Comparison(*each) for each in zip(
              prompts, compared.texts[pair[0]], compared.texts[pair[1]],
              strict=True)])]
  result = {'by': cfg.judge or 'gold', 'against': cfg.reference, 'models': {
      a: evaluation.compare(s, lengths[a], lengths[b], groups, seed=cfg.seed)
      for (a, b), s in scores.items() if b == cfg.reference}}
  scale = evaluation.strengths(scores, groups, seed=cfg.seed)
  result['elo'] = {
      name: [float(x) for x in row] for name, row in zip(
          scale.names, zip(scale.elo, scale.low, scale.high, strict=True),
          strict=True)}
  result['scores'] = {a: s for (a, b), s in scores.items()
                      if b == cfg.reference}
  return result


def benchmarks(cfg: Config, run: runs.Run, folders, judges) -> dict:
  """Numbers of each benchmark that is given, by model."""
  found = {}
  for name, folder in folders.items():
    if not any((cfg.ifeval, cfg.gsm8k, cfg.choices, cfg.text)):
      break
    model, params, tokenizer = runs.load_policy(folder)
    params = sharding.put(params, sharding.replicated(run.mesh))
    shared = dict(max_length=cfg.max_length, mesh=run.mesh)
    reply = evaluation.make_reply(
        model, params, tokenizer, max_new_tokens=cfg.max_new_tokens,
        temperature=0.0, batch_size=16, **shared)
    logprobs = evaluation.make_response_logprobs(
        model, params, tokenizer, batch_size=16, **shared)
    with run.console.working(f'benchmarks of {name}'):
      found[name] = {
          task: measure(path, reply, logprobs) for task, path, measure in (
              ('ifeval', cfg.ifeval, _ifeval), ('gsm8k', cfg.gsm8k, _gsm8k),
              ('choices', cfg.choices, _choices), ('text', cfg.text, _text))
          if path}
  for name, folder in judges.items():
    pairs = evaluation.read_pairs(cfg.rewardbench)
    score = judging.reward_scores(folder, cfg, run)
    prompts = [pair.prompt for pair in pairs]
    with run.console.working(f'{len(pairs)} pairs by {name}'):
      chosen = score(prompts, [pair.chosen for pair in pairs])
      rejected = score(prompts, [pair.rejected for pair in pairs])
    found[name] = found.get(name, {}) | {'rewardbench': (
        evaluation.subset_accuracy(pairs, chosen, rejected) | {
            'calibration_error': evaluation.expected_calibration_error(
                chosen - rejected),
            'reliability': evaluation.reliability_bins(
                chosen - rejected).lists()})}
  return found


def _ifeval(path: str, reply, logprobs) -> dict:
  rows = evaluation.read_instructions(path)
  texts = [text for text, _ in reply([row['prompt'] for row in rows])]
  found = evaluation.following(rows, texts)
  return found._asdict() | {'count': found.num_prompts}


def _gsm8k(path: str, reply, logprobs) -> dict:
  problems = evaluation.read_problems(path)
  texts = [text for text, _ in reply([question for question, _ in problems])]
  return evaluation.exact_match(problems, texts)


def _choices(path: str, reply, logprobs) -> dict:
  questions = evaluation.read_choices(path)
  sums, tokens = logprobs(
      [q.prompt for q in questions for _ in q.choices],
      [choice for q in questions for choice in q.choices])
  ends = np.cumsum([len(q.choices) for q in questions])[:-1]
  return evaluation.choice_accuracy(
      questions, np.split(sums, ends), np.split(tokens, ends))


def _text(path: str, reply, logprobs) -> dict:
  records, _ = data.demonstrations(path)
  sums, tokens = logprobs([r.prompt for r in records],
                          [r.response for r in records])
  mean = float(sums.sum() / tokens.sum())
  return {'nats_per_token': -mean, 'perplexity': float(np.exp(-mean)),
          'count': len(records)}


def export(cfg: Config, run: runs.Run, compared: outcomes.Compared,
           found: dict) -> None:
  """The files that other tools read."""
  folder = run.workdir / 'exports'
  folder.mkdir(exist_ok=True)
  prompts = [_text_of(p) for p in compared.prompts]
  texts, scores = compared.texts, found['judged'].pop('scores', {})
  for name, responses in texts.items():
    runs.write_json(folder / f'alpaca_eval-{name}.json',
                    evaluation.alpaca_outputs(prompts, responses, name))
    if name in scores:
      runs.write_json(
          folder / f'alpaca_eval-{name}-annotations.json',
          evaluation.alpaca_annotations(
              prompts, (cfg.reference, texts[cfg.reference]),
              (name, responses), scores[name], found['judged']['by']))
  for name, tasks in found['benchmarks'].items():
    runs.write_json(folder / f'lm_eval-{name}.json',
                    evaluation.lm_eval_results(name, tasks))


def _text_of(prompt) -> str:
  """A prompt as text for people."""
  text = judging.prompt_of(prompt)
  return text if isinstance(text, str) else feedback.chat_text(text)


def sections(cfg: Config, found: dict) -> list[report.Section]:
  """The judge's verdicts, and the benchmarks."""
  made, verdicts = [], found['judged']
  if verdicts:
    span = lambda x: f'{x[0]:.3f} to {x[1]:.3f}'
    rows = [[name, f'{v["win_rate"]:.3f}', span(v['win_rate_interval']),
             f'{v["wins"]}, {v["losses"]}, {v["ties"]}',
             span(v['sign_interval']), f'{v["p_value"]:.2g}',
             f'{v["length_controlled"]:.3f}',
             span(v['length_controlled_interval'])]
            for name, v in verdicts['models'].items()]
    names = list(verdicts['elo'])
    elo = report.BarChart('Elo points', names, [report.Bars(
        'Elo', *(list(x) for x in zip(*verdicts['elo'].values(),
                                      strict=True)))])
    made.append(report.Section(
        f'Against {cfg.reference}, judged by {verdicts["by"]}', [
            report.Table(['model', 'win rate', '95 %', 'wins, losses, ties',
                          'of decided, 95 %', 'p', 'at equal length', '95 %'],
                         rows), elo]))
  if found['benchmarks']:
    rows = [[name, task, metric, f'{value:.4f}',
             '{:.3f} to {:.3f}'.format(*numbers[f'{metric}_interval'])
             if f'{metric}_interval' in numbers else '']
            for name, tasks in found['benchmarks'].items()
            for task, numbers in tasks.items()
            for metric, value in numbers.items() if isinstance(value, float)]
    made.append(report.Section('Benchmarks', [report.Table(
        ['model', 'benchmark', 'metric', 'value', '95 %'], rows)]))
    bins = {name: tasks['rewardbench']['reliability']
            for name, tasks in found['benchmarks'].items()
            if 'rewardbench' in tasks}
    if bins:
      made[-1].blocks.append(report.calibration(bins))
  return made


def named_folders(models: tuple[str, ...]) -> dict[str, str]:
  """Each name=FOLDER, taken apart."""
  folders = {}
  for text in models:
    name, _, folder = text.partition('=')
    if not (name and folder):
      raise InputError(f'models={text!r} is not name=FOLDER; give for example '
                       'sft=runs/first/sft/model')
    if name in folders:
      raise InputError(f'models={text!r}: the name {name} is taken by '
                       f'{folders[name]}; give each model its own')
    folders[name] = folder
  return folders


if __name__ == '__main__':
  cli.run(main, Config)
