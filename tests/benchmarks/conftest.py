"""Pairs in words that the tiny model knows."""

import pytest

from alignjax import sources
from alignjax import testbed


@pytest.fixture(scope='session')
def pairs_file(tmp_path_factory) -> str:
  """JSONL of 80 pairs, the rejected response twice the chosen one."""
  pairs = [{'prompt': prompt.text, 'chosen': text, 'rejected': f'{text} {text}'}
           for prompt, text in testbed.demonstrations(
               sources.WORLD, 0, count=80)]
  return sources.write_jsonl(
      tmp_path_factory.mktemp('benchmarks') / 'pairs.jsonl', pairs)
