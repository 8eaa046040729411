"""The smallest models, files and settings that the scripts run on."""

import dataclasses
import json
import pathlib
import re

import pytest

from alignjax import metrics
from alignjax import outcomes
from alignjax import sources
from alignjax import testbed
from experiments import pretrain


@pytest.fixture(scope='module', autouse=True)
def few_prompts():
  """Models are compared on 16 prompts, not 480."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(outcomes, 'NUM_PROMPTS', 16)
    yield


@pytest.fixture(scope='session')
def base(tmp_path_factory) -> str:
  """Folder of a testbed model of one layer, pretrained for four steps."""
  return pretrain.stage(pretrain.Config(
      workdir=str(tmp_path_factory.mktemp('pretrain') / 'base'), num_steps=4,
      batch_size=16, max_length=48, num_documents=64, num_layers=1,
      hidden_size=16, intermediate_size=32, num_heads=2))


@dataclasses.dataclass(frozen=True)
class Foreign:
  """A model that is none of ours, and files to train it on."""

  model: str
  pairs: str
  demonstrations: str

@pytest.fixture(scope='session')
def foreign(tiny_llama, tmp_path_factory) -> Foreign:
  """A random Llama folder, and JSONL of a few rows in words that it knows."""
  root = tmp_path_factory.mktemp('foreign')
  shown = testbed.demonstrations(sources.WORLD, 0, count=40)
  rows = [{'prompt': prompt.text, 'response': text} for prompt, text in shown]
  pairs = [{'prompt': row['prompt'], 'chosen': row['response'],
            'rejected': f'{row["response"]} {row["response"]}'}
           for row in rows]
  return Foreign(
      tiny_llama, sources.write_jsonl(root / 'pairs.jsonl', pairs),
      sources.write_jsonl(root / 'demonstrations.jsonl', rows))


@dataclasses.dataclass(frozen=True)
class Left:
  """What a run left in its workdir."""

  workdir: pathlib.Path

  def rows(self, stage: str) -> list[dict]:
    """The metrics rows of one stage."""
    rows = metrics.read_jsonl(self.workdir / 'metrics.jsonl')
    return [row for row in rows if row['stage'] == stage]

  @property
  def summary(self) -> dict:
    return json.loads((self.workdir / 'summary.json').read_text())

  @property
  def weights(self) -> bytes:
    return (self.workdir / 'model' / 'model.safetensors').read_bytes()

  @property
  def is_whole(self) -> bool:
    """Whether all promised files are there, the report without the network."""
    for name in ('config.json', 'metrics.jsonl', 'summary.json'):
      assert (self.workdir / name).stat().st_size > 50
    page = (self.workdir / 'report.html').read_text()
    assert '<svg' in page
    return not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', page)


@pytest.fixture(scope='session')
def left():
  """`left(workdir)` reads what a run left there."""
  return lambda workdir: Left(pathlib.Path(workdir))
