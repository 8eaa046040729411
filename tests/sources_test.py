"""Rows come from files; the testbed's are written to one and read back."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest

from alignjax import data
from alignjax import metrics
from alignjax import runs
from alignjax import sources
from alignjax import testbed
from alignjax import types
from alignjax.types import InputError

TOKENIZER = sources.testbed_tokenizer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.RunConfig):
  """Settings of a run that reads."""

  max_length: int = 48


@pytest.fixture
def run(tmp_path):
  """An open run."""
  with runs.start(Config(workdir=str(tmp_path / 'run')), 'sft') as run:
    yield run


def test_the_testbeds_demonstrations_lie_in_the_workdir_and_fit(run):
  said = io.StringIO()
  run = dataclasses.replace(run, console=metrics.Console(stream=said))
  rows = sources.demonstration_rows(run, Config(workdir='w'), TOKENIZER)
  lines = (run.workdir / 'demonstrations.jsonl').read_text().splitlines()
  assert len(rows) == len(lines) == 480
  first = json.loads(lines[0])
  tokens = rows[0].tokens.tolist()
  assert TOKENIZER.decode(tokens[rows[0].prompt_length:]).strip() == (
      first['response'])
  lengths = [len(r.tokens) - r.prompt_length for r in rows]
  assert max(lengths) <= sources.RESPONSE_TOKENS
  assert '480 demonstrations from demonstrations.jsonl' in said.getvalue()


@pytest.mark.parametrize('split', ['train', 'test'])
def test_every_prompt_of_a_split_fits_its_width(split):
  prompts, rows = sources.testbed_prompts(split, None, 0, TOKENIZER)
  assert len(prompts) == len(rows) > 400
  assert max(len(row.tokens) for row in rows) <= sources.PROMPT_TOKENS


def test_prompts_keep_the_place_of_their_record(run, tmp_path):
  path = tmp_path / 'p.jsonl'
  prompts = ['how', 'how do i ' * 9, 'what']
  sources.write_jsonl(path, [{'prompt': p} for p in prompts])
  cfg = Config(workdir='w', long_prompts='drop')
  records, rows = sources.prompt_rows(
      run, cfg, TOKENIZER, str(path), max_length=8)
  assert [records[row.prompt_id].prompt for row in rows] == ['how', 'what']


def test_held_out_rows_are_drawn_by_the_seed_and_are_no_others():
  rows = list(range(20))
  kept, out = sources.hold_out(rows, 5, seed=0)
  assert len(out) == 5 and sorted(kept + out) == rows
  assert (kept, out) == (sorted(kept), sorted(out))
  assert out == sources.hold_out(rows, 5, seed=0)[1]
  assert out != sources.hold_out(rows, 5, seed=1)[1]


def test_not_all_rows_can_be_held_out():
  with pytest.raises(InputError, match='holding out 3 of 3 rows leaves none'):
    sources.hold_out([1, 2, 3], 3, seed=0)


def test_the_gold_judge_watches_the_real_rows(run):
  """A good answer, a bad one, and a filler row."""
  rows, observe = sources.ppo_prompts(
      run, Config(workdir='w'), TOKENIZER, sources.PROMPT_TOKENS)
  prompts, _ = sources.testbed_prompts('train', len(rows), 0, TOKENIZER)
  batch = next(data.prompt_batches(
      rows[:2], batch_size=3, max_length=16, shuffle=False))
  texts = [testbed.perfect_response(sources.WORLD, prompts[0]), 'hello', '']
  responses = [TOKENIZER.response_tokens(text) for text in texts]
  width = max(map(len, responses))
  tokens = np.zeros((3, width), np.int32)
  mask = np.zeros((3, width), bool)
  for i, response in enumerate(responses):
    tokens[i, :len(response)], mask[i, :len(response)] = response, True
  mask[2] = False
  none = np.zeros_like(batch.attention_mask)
  trajectory = types.Trajectory(
      tokens=np.concatenate([batch.tokens, tokens], 1),
      attention_mask=np.concatenate([batch.attention_mask, mask], 1),
      response_mask=np.concatenate([none, mask], 1), weight=batch.weight,
      sampler_logprobs=None)
  gold = observe(trajectory)['gold']
  expected = sum(
      testbed.judge(sources.WORLD, p, t, complete=True).gold
      for p, t in zip(prompts, texts[:2], strict=False))
  assert gold.weight == 2 and expected > 0.5
  np.testing.assert_allclose(jax.device_get(gold.total), expected)


def test_a_file_of_prompts_has_no_judge(run, tmp_path):
  path = sources.write_jsonl(tmp_path / 'p.jsonl', [{'prompt': 'how'}])
  cfg = dataclasses.replace(Config(workdir='w'), data=path)
  rows, observe = sources.ppo_prompts(run, cfg, TOKENIZER, 16)
  assert len(rows) == 1 and observe is None
