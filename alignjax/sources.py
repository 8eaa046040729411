"""Where an experiment's rows come from: a file, or the embedded testbed.

The testbed's demonstrations and preferences are written to the workdir as
JSONL first and read back like anybody's file, so that there is one way in, and
what a model was trained on can be looked at.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import functools
import json
import math
import pathlib
from typing import Literal

import numpy as np

from alignjax import data
from alignjax import distributed
from alignjax import evaluation
from alignjax import feedback
from alignjax import hf
from alignjax import row_cache
from alignjax import runs
from alignjax import sharding
from alignjax import testbed
from alignjax.models import ModelConfig
from alignjax.types import InputError
from alignjax.types import Mean
from alignjax.types import Trajectory

PROMPT_TOKENS = 16    # The testbed's longest prompt has 15.
RESPONSE_TOKENS = 32  # Its longest demonstration has 30.
Topic = Literal['all', 'helpfulness', 'safety']
WORLD = testbed.make_world(seed=0)
SAFETY_KINDS = ('danger', 'look_alike')  # Prompts that are, or look, harmful.


def testbed_tokenizer() -> hf.Tokenizer:
  """The testbed's word-level tokenizer with its chat template."""
  return hf.Tokenizer.from_json(
      testbed.tokenizer_json(WORLD), bos_token='<bos>', eos_token='<eos>',
      pad_token='<pad>', chat_template=testbed.chat_template())


def write_jsonl(path: pathlib.Path, records: Sequence[dict]) -> str:
  """Writes one record per line and returns the path as text."""
  distributed.by_first(lambda: path.write_text(
      ''.join(json.dumps(record) + '\n' for record in records)))
  return str(path)


def demonstration_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, *,
    turns: data.Turns = 'last',
) -> list[data.TokenizedResponse]:
  """Rows for SFT from `cfg.data`; says what was read and what did not fit.

  Without a chat template, `turns` is 'last': a transcript ends no other turn.
  """
  path = cfg.data
  turns = 'last' if tokenizer.chat_template is None else turns
  if path == 'testbed':
    path = write_jsonl(
        run.workdir / 'demonstrations.jsonl',
        [{'prompt': prompt.text, 'response': response} for prompt, response
         in testbed.demonstrations(WORLD, cfg.seed, count=480)])
  return _file_rows(
      run, cfg, tokenizer, path, data.demonstrations,
      functools.partial(data.tokenize_demonstrations, turns=turns))


def classified_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer,
    classes: Iterable[str], *, turns: data.Turns = 'last',
) -> list[tuple[str, data.TokenizedResponse]]:
  """(class, row): the prompt begins with the class that wrote the response.

  On the testbed the class of a perfect response is the first, of any other the
  second.
  """
  classes = list(classes)
  path = cfg.data
  if path == 'testbed':
    path = write_jsonl(
        run.workdir / 'demonstrations.jsonl',
        [{'prompt': prompt.text, 'response': response, 'source': classes[
            testbed.judge(WORLD, prompt, response).gold < 1.0]}
         for prompt, response in testbed.demonstrations(
             WORLD, cfg.seed, count=480)])
  records, text, summary = _read(cfg, path, data.demonstrations)
  run.note_reading(text, summary)
  for record in records:
    if record.source not in classes:
      raise InputError(
          f"{record.where}: field 'source' is {record.source!r}, none of the "
          f'classes {", ".join(classes)}; name its class, or add it to '
          '--classes')
  rows = []
  for name in classes:
    own = [record for record in records if record.source == name]
    if own:
      tokenized, fitted = data.tokenize_demonstrations(
          own, hf.condition(tokenizer, f'{name} '), max_length=cfg.max_length,
          long_prompts=cfg.long_prompts, turns=turns)
      run.console.note(f'{name}: {fitted}')
      rows += [(name, row) for row in tokenized]
  return rows


def preference_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, path: str, *,
    test_path: str = '',
) -> list[data.TokenizedPair]:
  """Rows of pairs from the file at `path`; says what was read.

  Rows whose prompt a row at `test_path` has too are repetitions, which
  `cfg.duplicates` keeps and counts, or drops.
  """
  return _file_rows(run, cfg, tokenizer, path, data.preferences,
                    data.tokenize_preferences, test_path)


def unpaired_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, path: str
) -> list[data.TokenizedLabel]:
  """Labelled rows; a pair gives one of each label.

  Raises:
    InputError: all labels are one, which tells nothing of the other class.
  """
  rows = _file_rows(run, cfg, tokenizer, path, data.unpaired,
                    data.tokenize_unpaired)
  labels = {row.desirable for row in rows}
  if len(labels) == 1:
    label = str(*labels).lower()
    raise InputError(
        f'{path}: field \'label\' is {label} in all {len(rows):,} rows; a '
        'method that learns from labels needs responses of both; add some')
  return rows


def ranking_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, path: str
) -> list[data.TokenizedRanking]:
  """Rows of K ranked responses; a pair is a ranking of two."""
  return _file_rows(run, cfg, tokenizer, path, data.rankings,
                    data.tokenize_rankings)


def _file_rows(run, cfg, tokenizer, path, read: Callable, tokenize: Callable,
               test_path: str = ''):
  """Reads and tokenizes a file, and says what was read and what did not fit."""
  options = dict(max_length=cfg.max_length, plain=cfg.plain,
                 long_prompts=cfg.long_prompts)

  def make():
    records, text, summary = _read(cfg, path, read, test_path)
    rows, fitted = tokenize(records, tokenizer, **options)
    return rows, _notes(text, summary, fitted)

  how = options | _reading(cfg) | getattr(tokenize, 'keywords', {}) | {
      'read': read.__name__, 'duplicates': cfg.duplicates}
  rows, notes = row_cache.rows_of(
      (path, test_path), how, tokenizer, make, note=run.console.note,
  ) if cfg.reuse_rows else make()
  run.note_reading(*notes)
  return rows


def batches(
    run: runs.Run, cfg: runs.BatchConfig, model: ModelConfig, make: Callable,
    rows: Sequence,
) -> Callable[[int], Iterator]:
  """From a step to the batches that begin there, laid out as `cfg.layout` says.

  Args:
    run: told how full the rows are that the model reads.
    cfg: with the batches' sizes.
    model: what will read them.
    make: of `alignjax.data`, such as `preference_batches`.
    rows: what it makes batches of.
  """
  if cfg.layout is None:
    cfg = dataclasses.replace(cfg, layout=(
        'branched' if can_share_rows(cfg, model)
        and not runs.is_testbed(cfg.model) else 'padded'))
  check_layout(cfg, model)
  layout = data.make_layout(
      cfg.layout, num_cells=run.num_shards * cfg.num_microbatches)
  stream = lambda start: make(
      rows, batch_size=cfg.batch_size, max_length=cfg.max_length, seed=cfg.seed,
      start=start, layout=layout)
  run.console.note(f'{cfg.layout}: {data.describe_layout(next(stream(0)))}')
  return stream


def check_layout(cfg: runs.RunConfig, model: ModelConfig) -> None:
  """Refuses rows that the model would read otherwise than each text alone.

  Raises:
    InputError: the model turns long rows as a whole otherwise (LongRoPE), or
      has no positions for a text of `max_length`.
  """
  limit = _longest_shared(model)
  if cfg.layout not in (None, 'padded') and not can_share_rows(cfg, model):
    raise InputError(
        f'layout={cfg.layout} with max_length={cfg.max_length}: this model '
        f'reads rows past {limit} tokens otherwise, or not at all; use '
        f'max_length={limit} or less, or layout=padded')


def can_share_rows(cfg: runs.RunConfig, model: ModelConfig) -> bool:
  """Whether texts of `max_length` are read in shared rows as they are alone."""
  return cfg.max_length <= _longest_shared(model)


def _longest_shared(model: ModelConfig) -> float:
  """Tokens up to which a text in a row of several is read as it is alone."""
  limits = [model.first_length,
            model.max_positions if model.learned_positions else None]
  return min((limit for limit in limits if limit is not None),
             default=math.inf)


def _read(cfg: runs.RunConfig, path: str, read: Callable, test_path: str = ''):
  """(records, what was read in words, the same for summary.json)."""
  settings = _reading(cfg)
  records, reading = read(path, **settings)
  unique, repeated = data.without_duplicates(records)
  if test_path:
    unique, leaked = data.without_test_prompts(
        unique, data.prompts(test_path, **settings)[0])
    repeated += leaked
  counts = dict(collections.Counter(reason for reason, _ in repeated))
  if cfg.duplicates == 'drop':
    text = str(data.add_dropped(reading, repeated))
    # Rows repeat, not records: of one record some rows may go and some stay.
    # So these are no part of `records == kept + dropped`.
    reading = dataclasses.replace(reading, num_rows=len(unique))
    return unique, text, reading.summary() | {
        'kept_repetitions': {}, 'dropped_repetitions': counts}
  text = str(reading) + ''.join(
      f'; kept {count:,} {reason}' for reason, count in counts.items())
  return records, text, reading.summary() | {
      'kept_repetitions': counts, 'dropped_repetitions': {}}


def _reading(cfg: runs.RunConfig) -> dict:
  """How files are read."""
  return {name: getattr(cfg, name)
          for name in ('split', 'max_dropped', 'on_bad_record')}


def _notes(text: str, summary: dict, fitted: data.Fitted) -> tuple[str, dict]:
  """What was read and what fits, in words and for summary.json."""
  return f'{text}; {fitted}', summary | {'fitted': {
      'max_length': fitted.max_length, 'rows': fitted.num_rows,
      'cut_responses': len(fitted.cut_responses),
      'cut_prompts': len(fitted.cut_prompts),
      'dropped': dict(collections.Counter(
          reason for reason, _ in fitted.dropped))}}


def prompt_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, path: str, *,
    max_length: int,
) -> tuple[list[data.PromptOnly], list[data.TokenizedPrompt]]:
  """Prompts from the file at `path`, and their tokens, those that fit."""
  records, text, summary = _read(cfg, path, data.prompts)
  rows, fitted = data.tokenize_prompts(
      records, tokenizer, max_length=max_length, plain=cfg.plain,
      long_prompts=cfg.long_prompts)
  run.note_reading(*_notes(text, summary, fitted))
  return records, rows


def pretraining_rows(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, path: str
) -> list[data.TokenizedResponse]:
  """Rows of pretraining text from a file of {text} rows, or the testbed's."""
  if not path:
    texts = testbed.corpus(WORLD, cfg.seed, 2_000)
  else:
    records, reading = data.documents(path, **_reading(cfg))
    run.note_reading(str(reading), reading.summary())
    texts = [record.text for record in records]
  return data.tokenize_documents(texts, tokenizer, max_length=cfg.max_length)


def ppo_prompts(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, width: int
) -> tuple[list[data.TokenizedPrompt], Callable | None]:
  """Prompts to sample from; on the testbed, with a gold judge that watches."""
  if cfg.data != 'testbed':
    return prompt_rows(run, cfg, tokenizer, cfg.data, max_length=width)[1], None
  prompts, rows = testbed_prompts('train', 1_920, cfg.seed, tokenizer)
  by_text = {tuple(row.tokens.tolist()): prompt
             for prompt, row in zip(prompts, rows, strict=True)}

  def observe(trajectory: Trajectory) -> dict[str, Mean]:
    asked = evaluation.read_prompts(trajectory)
    answers = evaluation.read_responses(trajectory, eos_id=tokenizer.eos_id)
    golds = [
        testbed.judge(WORLD, by_text[tuple(p)], tokenizer.decode(a.tokens),
                      complete=a.is_complete).gold
        for p, a in zip(asked, answers, strict=True)]
    return {'gold': Mean(np.sum(golds), np.float32(len(golds)))}

  return rows, observe


def verified_prompts(
    run: runs.Run, cfg: runs.RunConfig, tokenizer: hf.Tokenizer, width: int
) -> tuple[list[data.TokenizedPrompt], Callable[[Trajectory], np.ndarray]]:
  """Prompts of a file that holds their answers, and the reward by rule.

  A response is worth 1 if it ends on the number that the file's answer ends on,
  and else 0.
  """
  # A question that is asked twice is looked at below, by its answers.
  cfg = dataclasses.replace(cfg, duplicates='keep')
  answers, text, summary = _read(cfg, cfg.data, data.demonstrations)
  run.note_reading(text, summary)
  number_at = {a.where: feedback.final_number(a.response) for a in answers}
  records, rows = prompt_rows(
      run, cfg, tokenizer, cfg.data, max_length=width)
  key = lambda row: tuple(row.tokens.tolist())
  numbers = {}  # To each question, all numbers that the file ends on.
  for row in rows:
    numbers.setdefault(key(row), set()).add(
        number_at.get(records[row.prompt_id].where))
  # Answered without a number, or twice and differently: no rule can judge it.
  judged = [row for row in rows
            if len(numbers[key(row)]) == 1 and None not in numbers[key(row)]]
  if not judged:
    raise InputError(f'data={cfg.data}: no answer ends on a number, which '
                     'reward=gsm8k compares; give question/answer rows')
  if len(judged) < len(rows):
    run.console.note(f'dropped {len(rows) - len(judged):,} prompts whose '
                     'answers hold no number, or contradict each other')

  def reward(trajectory: Trajectory) -> np.ndarray:
    weight = sharding.to_host(trajectory.weight)
    rewards = np.zeros(weight.shape, np.float32)
    rewards[weight > 0] = [
        feedback.final_number(tokenizer.decode(response.tokens))
        in numbers[tuple(prompt)]
        for prompt, response in zip(
            evaluation.read_prompts(trajectory),
            evaluation.read_responses(trajectory, eos_id=tokenizer.eos_id),
            strict=True)]
    return rewards

  return judged, reward


def testbed_prompts(
    split: str, count: int | None, seed: int, tokenizer: hf.Tokenizer, *,
    topic: Topic = 'all', skip: int = 0,
) -> tuple[list[testbed.Prompt], list[data.TokenizedPrompt]]:
  """Testbed prompts and their tokens.

  Args:
    split: 'train', 'dev' or 'test'.
    count: how many; None is all that there are.
    seed: which ones, and their order.
    tokenizer: of the testbed.
    topic: of safety are those that are or look harmful, of helpfulness the
      others.
    skip: how many of the topic are left out first, for other, fresh ones.

  Raises:
    InputError: there are not as many.
  """
  if topic == 'all' and not skip:
    prompts = testbed.prompts(WORLD, split, count=count, seed=seed)
  else:
    prompts = [p for p in testbed.prompts(WORLD, split, seed=seed)
               if topic == 'all' or (
                   (p.kind in SAFETY_KINDS) == (topic == 'safety'))]
    total = len(prompts)
    prompts = prompts[skip:None if count is None else skip + count]
    if not prompts or (count is not None and len(prompts) < count):
      raise InputError(
          f'{count} {topic} prompts of {split} after {skip} cannot be drawn: '
          f'there are {total}; use fewer')
  rows, _ = data.tokenize_prompts(
      [data.PromptOnly(p.text, f'testbed:{i}') for i, p in enumerate(prompts)],
      tokenizer, max_length=PROMPT_TOKENS)
  return prompts, rows
