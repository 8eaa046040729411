"""The loop of thumbs: serve, collect, retrain, compare, promote or keep.

  python -m experiments.thumbs --workdir runs/thumbs
  python -m experiments.thumbs --workdir runs/thumbs --model DIR \\
    --log LOG.jsonl --data PROMPTS --judge reward:DIR

A log of {prompt, response, is_good, user} becomes rows for KTO
(`feedback.digest`: one vote a user, one row a response, a fair share for each
prompt); the retrained policy is compared with the one that serves, on prompts
that nobody rated, and takes its place only if its win rate is above one half by
its whole interval. `loop.json` says which policy serves after each round.

On the testbed the users are simulated, each round rates the policy that serves,
and their panel compares the two; gold is told beside it. With `--log` there is
one round, and `--judge` compares (experiments.evaluate lists the judges).

Expect, on the testbed with two CPU cores and seed 0: 3 minutes after the SFT
model.
"""

import dataclasses
import pathlib
import random

import numpy as np

from alignjax import cli
from alignjax import evaluation
from alignjax import feedback
from alignjax import outcomes
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError
from experiments import judging
from experiments import kto
from experiments import sft

_LIKED = 0.5    # Gold, from which on a response pleases.
_POPULAR = 0.1  # Share of the prompts that are asked five times.
_TWICE = 0.1    # Share of the thumbs that are pressed again.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of the loop."""

  log: str = ''                # Thumbs of the model that serves.
  num_rounds: int = 3          # Of the testbed; a log is one round.
  num_prompts: int = 600       # Rated in a round, of the testbed.
  max_per_prompt: int = 8      # Rows that a prompt may have.
  num_steps: int | None = None  # Of KTO in a round. 100, 500.
  judge: str = ''              # Who compares; '' is the testbed's panel.
  judge_model: str = ''        # Its name, at a server.
  judge_per_minute: float = 600.0  # Questions to a server, at most.
  rubric: str = ''             # TOML file that a model judges by.
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 128.


def resolve(cfg: Config) -> Config:
  """The config with no setting left open."""
  return runs.with_defaults(
      cfg, testbed=dict(num_steps=100, max_length=48, max_new_tokens=32),
      folder=dict(num_steps=500, max_length=512, max_new_tokens=128))


def main(cfg: Config) -> dict:
  """Runs the rounds that are not done yet; returns the summary."""
  cfg = resolve(cfg)
  if bool(cfg.log) == (cfg.model == 'testbed'):
    raise InputError(f'log={cfg.log!r}, model={cfg.model}: a log is of the '
                     'model that served; give both, or neither for the testbed')
  if cfg.log and not cfg.judge:
    raise InputError("judge='' is the testbed's panel; give --judge "
                     'reward:FOLDER, model:FOLDER or a URL')
  with runs.start(cfg, 'thumbs') as run:
    if run.is_done:
      run.console.note(f'{run.workdir} is done; see summary.json')
      return run.summary()
    serving = sft.policy_folder(cfg)
    folders, rounds = {'sft': serving}, []
    for number in range(1, (1 if cfg.log else cfg.num_rounds) + 1):
      found, trained = run_round(cfg, run, serving, number)
      folders[f'round{number}'] = trained
      serving = trained if found['promoted'] else serving
      rounds.append(found | {'serves': serving})
      runs.write_json(run.workdir / 'loop.json', rounds)
    return outcomes.write(run, dataclasses.replace(cfg, model=folders['sft']),
                          folders, stages={}, more={'rounds': rounds})


def run_round(cfg: Config, run: runs.Run, serving: str,
              number: int) -> tuple[dict, str]:
  """What a round found, and the policy that it trained."""
  folder = run.workdir / f'round{number}'
  folder.mkdir(exist_ok=True)
  log = cfg.log or str(folder / 'log.jsonl')
  if not cfg.log and not pathlib.Path(log).exists():
    sources.write_jsonl(folder / 'log.jsonl', press(
        run, serving, cfg.num_prompts, cfg.seed,
        skip=(number - 1) * cfg.num_prompts))
  digested = feedback.digest(
      feedback.read_thumbs(log), max_per_prompt=cfg.max_per_prompt)
  run.console.note(f'round {number}: {digested}')
  rows = sources.write_jsonl(
      folder / 'labels.jsonl', [row.record() for row in digested.rows])
  trained = kto.stage(kto.Config(
      workdir=str(folder / 'kto'), model=serving, data=rows, resume=True,
      seed=cfg.seed, mesh=cfg.mesh, num_steps=cfg.num_steps,
      max_length=cfg.max_length))
  scores, groups = compare(cfg, run, serving, trained)
  low, high = evaluation.bootstrap_interval(scores, groups, seed=cfg.seed)
  found = {'thumbs': digested.presses, 'rows': len(digested.rows),
           'win_rate': float(np.mean(scores)), 'win_rate_interval': [low, high],
           'promoted': bool(low > 0.5)}
  run.console.note(
      f'round {number}: win rate {found["win_rate"]:.3f} [{low:.3f}, '
      f'{high:.3f}]: {"promoted" if found["promoted"] else "kept"}')
  return found, trained


def compare(cfg: Config, run: runs.Run, serving: str, trained: str):
  """([N] scores of the trained policy, [N] groups) on prompts not rated."""
  asked = outcomes.ask_models(
      run, dataclasses.replace(cfg, model=serving),
      {'serving': serving, 'trained': trained}, reference='serving',
      split='dev', num_prompts=None if cfg.log else 320)
  if cfg.judge:
    judge = judging.make_judge(cfg, run, asked.prompts)
  else:
    judge = panel_judge(asked.prompts, cfg.seed)
  prompts = [judging.prompt_of(p) for p in asked.prompts]
  verdicts = judge([feedback.Comparison(*each) for each in zip(
      prompts, asked.texts['trained'], asked.texts['serving'], strict=True)])
  return ([v.score for v in verdicts],
          [getattr(p, 'dish', i) for i, p in enumerate(asked.prompts)])


def panel_judge(asked: list[testbed.Prompt], seed: int) -> feedback.Judge:
  """The testbed's users, by the mean of their likings."""
  known = {prompt.text: prompt for prompt in asked}
  users = testbed.panel(seed, size=7)

  def liking(prompts, texts):
    return [float(np.mean([
        user.utility(sources.WORLD, known[prompt], text, seed=seed)
        for user in users])) for prompt, text in zip(
            prompts, texts, strict=True)]

  return feedback.score_judge(liking)


def press(run: runs.Run, folder: str, num_prompts: int, seed: int, *,
          skip: int = 0) -> list[dict]:
  """What simulated users press on a policy's responses: a log.

  A press is good where the user's liking, which is mostly gold, is above one
  half. Popular prompts are asked five times, and some thumbs pressed twice.
  """
  model, params, tokenizer = runs.load_policy(folder)
  params = sharding.put(params, sharding.replicated(run.mesh))
  prompts, _ = sources.testbed_prompts(
      'train', num_prompts, seed, tokenizer, skip=skip)
  reply = evaluation.make_reply(
      model, params, tokenizer, max_new_tokens=sources.RESPONSE_TOKENS,
      max_length=sources.PROMPT_TOKENS + sources.RESPONSE_TOKENS,
      mesh=run.mesh, seed=seed)
  rng, users = random.Random(f'thumbs {seed} {skip}'), testbed.panel(
      seed, size=7)
  records = []
  for turn in range(5):
    asked = prompts if not turn else prompts[:round(_POPULAR * num_prompts)]
    for prompt, (text, ended) in zip(
        asked, reply([p.text for p in asked], turn), strict=True):
      user = rng.choice(users)
      liking = user.utility(sources.WORLD, prompt, text, complete=ended,
                            seed=turn)
      record = {'prompt': prompt.text, 'response': text,
                'is_good': liking > _LIKED, 'user': user.name}
      records += [record] * (2 if rng.random() < _TWICE else 1)
  return records


if __name__ == '__main__':
  cli.run(main, Config)
