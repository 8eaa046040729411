"""Claims about `python -m alignjax.data.builders`."""

import subprocess
import sys

import pytest

from alignjax import types
from alignjax.data import tfds
from alignjax.data.builders import __main__ as command
from tests.data.builders import conftest


def error_of(*args):
  with pytest.raises(types.InputError) as caught:
    command.main(['builders', *map(str, args)])
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_a_dataset_is_built_in_its_default_config_without_tensorflow(
    write, tmp_path):
  rows = conftest.ROWS['gsm8k', 'main']
  folder = write(rows, 'train.jsonl').parent
  script = (
      'import runpy, sys\n'
      "runpy.run_module('alignjax.data.builders', run_name='__main__')\n"
      "assert 'tensorflow' not in sys.modules\n"
  )
  result = subprocess.run(
      [sys.executable, '-c', script, 'gsm8k', f'--manual_dir={folder}',
       f'--data_dir={tmp_path / "out"}'],
      capture_output=True, text=True, check=False, timeout=120)
  assert result.returncode == 0, result.stderr
  assert "'train': <SplitInfo num_examples=1" in result.stdout
  directory = tmp_path / 'out' / 'gsm8k' / 'main' / '1.0.0'
  assert [r for _, r in tfds.read_tfds(directory)] == rows
  assert not (tmp_path / 'out' / 'gsm8k' / 'socratic').exists()


def test_bad_input_is_one_line_and_status_2(tmp_path):
  result = subprocess.run(
      [sys.executable, '-m', 'alignjax.data.builders', 'gsm8k',
       f'--manual_dir={tmp_path / "none"}'],
      capture_output=True, text=True, check=False, timeout=120)
  assert result.returncode == 2
  assert result.stderr == (
      f'error: manual_dir={tmp_path / "none"}: is no folder with files; give'
      ' the one that holds the downloaded files.\n')


def test_a_row_that_breaks_the_shape_is_told_with_its_line(write, tmp_path):
  path = write([{'question': 'q'}], 'train.jsonl')
  message = error_of('gsm8k', f'--manual_dir={path.parent}',
                     f'--data_dir={tmp_path / "out"}')
  assert message.startswith(f"{path}:1: field 'answer' is missing")


def test_names_that_there_are_not_are_refused_with_those_there_are(tmp_path):
  assert 'alpaca, dolly, gsm8k, hh_rlhf, oasst' in error_of('gsm9k')
  assert 'no dataset is named; name one of alpaca' in error_of()
  assert 'is no folder with files' in error_of(
      'dolly', f'--manual_dir={tmp_path}')
