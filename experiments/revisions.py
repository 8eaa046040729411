"""Revisions: a model answers, criticises itself by principles, and rewrites.

  python -m experiments.revisions --workdir runs/revisions
  python -m experiments.revisions --workdir runs/revisions --model DIR \\
    --data PROMPTS --constitution FILE

`transcripts.jsonl` has {prompt, response, first, steps} rows: the last revision
as the response to train on, what stood there first, and every critique and
revision between them by their principles. Bai et al. (2022), section 3,
https://arxiv.org/abs/2212.08073. A run that is cut off goes on after its last
whole piece.

On the testbed the model is one that was shown how to criticise
(`testbed.critics`), made here first.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib

from alignjax import cli
from alignjax import evaluation
from alignjax import feedback
from alignjax import hf
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.types import InputError
from experiments import sft

# Of SFT on the testbed's critiques: conversations are long, and the critic is
# not to imitate the flawed responses in them.
CRITIC = dict(turns='last', num_steps=300, max_length=128)
CONSTITUTION = pathlib.Path(__file__).with_name('constitution.txt')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of revisions. Where two defaults are given: testbed, folder."""

  # A text file of principles; '' takes the testbed's, or the file
  # experiments/constitution.txt.
  constitution: str = ''
  num_rounds: int = 2          # Critiques and revisions of each response.
  num_prompts: int = 800       # Of the testbed.
  skip_prompts: int = 0        # Of the testbed, that are left out first.
  max_length: int | None = None      # Tokens of a conversation. 128, 2048.
  max_new_tokens: int | None = None  # Tokens of a reply. 32, 256.
  temperature: float = 1.0     # Of the first response.
  revision_temperature: float = 0.0  # Of critiques and revisions; 0: likeliest.
  sample_batch: int = 256      # Responses sampled at one time.


def resolve(cfg: Config) -> Config:
  """The config with no setting left open."""
  return runs.with_defaults(
      cfg, testbed=dict(max_length=128, max_new_tokens=32),
      folder=dict(max_length=2048, max_new_tokens=256))


def stage(cfg: Config) -> str:
  """Writes the transcripts; returns their file."""
  cfg = resolve(cfg)
  if cfg.max_length <= 2 * cfg.max_new_tokens:
    raise InputError(f'max_length={cfg.max_length} has no room for a response '
                     f'and its revision of max_new_tokens={cfg.max_new_tokens} '
                     'each; raise it')
  with runs.start(cfg, 'revisions') as run:
    path = run.workdir / 'transcripts.jsonl'
    if not run.is_done:
      kept, summary = collect(cfg, run)
      draft = path.with_name(path.name + '.tmp')
      sources.write_jsonl(draft, kept)
      os.replace(draft, path)
      run.console.note(f'revisions: {summary}')
      run.finish(summary)
    return str(path)


def collect(cfg: Config, run: runs.Run) -> tuple[list[dict], dict]:
  """The whole transcripts, and how many there are of what."""
  model, params, tokenizer = runs.load_policy(critic_folder(cfg))
  params = sharding.put(params, sharding.replicated(run.mesh))
  prompts = prompts_of(cfg, run, tokenizer)
  principles = feedback.read_constitution(constitution_file(cfg, run))
  shared = dict(max_new_tokens=cfg.max_new_tokens, mesh=run.mesh, seed=cfg.seed,
                batch_size=cfg.sample_batch)
  answer = evaluation.make_reply(
      model, params, tokenizer, temperature=cfg.temperature,
      max_length=cfg.max_length // 2, **shared)
  revise = evaluation.make_reply(
      model, params, tokenizer, temperature=cfg.revision_temperature,
      max_length=cfg.max_length, **shared)
  piece = 2 * cfg.sample_batch
  for first in range(0, len(prompts), piece):
    path = run.workdir / 'pieces' / f'{first:08d}.jsonl'
    if path.exists():
      continue
    some = prompts[first:first + piece]
    with run.console.working(f'{cfg.num_rounds} revisions of prompts '
                             f'{first} to {first + len(some)}'):
      start = first * (2 * cfg.num_rounds + 1)  # Seeds of its own.
      found = feedback.revise(
          some, [text for text, _ in answer(some, start)], principles,
          lambda talk, turn, start=start: revise(talk, start + 1 + turn),
          rounds=cfg.num_rounds, seed=cfg.seed, first=first)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(path.name + '.tmp')
    sources.write_jsonl(draft, [
        transcript.record() | {'whole': transcript.is_whole}
        for transcript in found])
    os.replace(draft, path)
  records = [json.loads(line) for path in sorted(
      (run.workdir / 'pieces').glob('*.jsonl'))
      for line in path.read_text().splitlines()]
  kept = [record for record in records if record.pop('whole')]
  return kept, {'prompts': len(records), 'revised': len(kept),
                'cut_off': len(records) - len(kept)} | _gold(cfg, kept)


def _gold(cfg: Config, records) -> dict:
  """On the testbed, how gold and harm change by the revisions."""
  if cfg.data != 'testbed':
    return {}
  known = {prompt.text: prompt for prompt in testbed.prompts(
      sources.WORLD, 'train', seed=cfg.seed)}
  scores = {}
  for name in ('first', 'response'):
    verdicts = [testbed.judge(sources.WORLD, known[r['prompt']], r[name])
                for r in records]
    count = max(1, len(verdicts))
    scores |= {f'{name}_gold': sum(v.gold for v in verdicts) / count,
               f'{name}_harm': sum(v.harmless < 1 for v in verdicts) / count}
  return scores


def prompts_of(cfg, run: runs.Run, tokenizer: hf.Tokenizer) -> list:
  """What is asked: the testbed's train prompts, or those of a file."""
  if cfg.data == 'testbed':
    prompts, _ = sources.testbed_prompts(
        'train', cfg.num_prompts, cfg.seed, tokenizer, skip=cfg.skip_prompts)
    return [prompt.text for prompt in prompts]
  records, rows = sources.prompt_rows(
      run, cfg, tokenizer, cfg.data,
      max_length=cfg.max_length // 2 - cfg.max_new_tokens)
  return [records[row.prompt_id].prompt for row in rows]


def constitution_file(
    cfg, run: runs.Run, names: Sequence[str] = tuple(testbed.PRINCIPLES),
) -> str:
  """The file of principles; the testbed's is written to the workdir."""
  if cfg.constitution:
    return cfg.constitution
  if cfg.data != 'testbed':
    return str(CONSTITUTION)
  path = run.workdir / 'constitution.txt'
  path.write_text(testbed.constitution(names))
  return str(path)


def critic_folder(cfg) -> str:
  """The model; on the testbed an SFT model that was shown how to criticise."""
  if cfg.model != 'testbed':
    return cfg.model
  workdir = pathlib.Path(cfg.workdir) / 'critic'
  return critic(cfg, workdir, sft.base_folder(cfg))


def critic(cfg, workdir: pathlib.Path, base: str) -> str:
  """Trains the testbed's critic from a base model; returns its folder."""
  return sft.stage(sft.Config(
      workdir=str(workdir), model=base, resume=True, seed=cfg.seed,
      mesh=cfg.mesh, data=critic_demonstrations(cfg, workdir.parent),
      **CRITIC))


def critic_demonstrations(cfg, folder: pathlib.Path) -> str:
  """The file that the testbed's critic learns from."""
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / 'critic_demonstrations.jsonl'
  if not path.exists():
    shown = [{'messages': [{'role': 'user', 'content': prompt.text},
                           {'role': 'assistant', 'content': response}]}
             for prompt, response in testbed.demonstrations(
                 sources.WORLD, cfg.seed, count=480)]
    sources.write_jsonl(
        path, 2 * shown + testbed.conversations(sources.WORLD, cfg.seed))
  return str(path)


if __name__ == '__main__':
  cli.run(stage, Config)
