"""Flags from dataclasses; whatever is wrong is one line and status 2."""

import dataclasses
import subprocess
import sys
from typing import Literal

import pytest

from alignjax import cli
from alignjax.errors import Stopped
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of nothing."""

  workdir: str                  # Where it goes.
  learning_rate: float = 0.125  # How far a step goes.
  num_steps: int = 70           # How long it runs.
  kind: Literal['mean', 'sum'] = 'mean'  # What is taken.


@pytest.fixture
def call(monkeypatch, capsys):
  """Calls a function with argv: (what it returned or its status, out, err)."""

  def run(function, *args):
    monkeypatch.setattr('sys.argv', ['program', *args])
    try:
      result = function()
    except SystemExit as stop:
      result = stop.code
    return result, *capsys.readouterr()

  return run


def parse(main=lambda cfg: None):
  """`cli.run` of the config above."""
  return lambda: cli.run(main, Config)


def check_one_line(result, *words):
  """Status 2 and one line on stderr that holds these words."""
  status, out, err = result
  assert (status, out) == (2, '')
  assert err.startswith('error: ') and err.count('\n') == 1, err
  for word in words:
    assert word in err


def test_flags_become_the_config(call):
  got = []
  call(parse(got.append), '--workdir', 'w', '--num-steps', '3')
  assert got == [Config(workdir='w', num_steps=3)]


def test_unknown_flag_is_one_line_that_offers_the_nearest(call):
  result = call(parse(), '--workdir', 'w', '--leanring-rate', '1')
  check_one_line(result, '--leanring-rate', 'did you mean --learning-rate?')


def test_unknown_flag_like_no_other_offers_none(call):
  result = call(parse(), '--workdir', 'w', '--zzz=1')
  check_one_line(result, 'unknown flag --zzz')
  assert 'did you mean' not in result[2]


@pytest.mark.parametrize('args, words', [
    ([], ['--workdir']),
    (['--workdir'], ['--workdir']),
    (['--workdir', 'w', '--num-steps', 'many'], ['--num-steps', "'many'"]),
    (['--workdir', 'w', '--kind', 'sun'], ['--kind', 'mean', 'sum']),
])
def test_flag_without_a_usable_value_is_one_line(call, args, words):
  check_one_line(call(parse(), *args), *words)


def test_input_error_is_one_line_whatever_it_holds(call):
  def main(cfg):
    raise InputError('steps=70 is wrong\nfor many\r\nreasons')

  check_one_line(call(parse(main), '--workdir', 'w'),
                 'error: steps=70 is wrong for many reasons')


def test_other_errors_are_not_hidden(call):
  def main(cfg):
    raise KeyError('a defect')

  with pytest.raises(KeyError, match='a defect'):
    call(parse(main), '--workdir', 'w')


def test_interrupt_says_how_to_go_on(call):
  def main(cfg):
    raise KeyboardInterrupt

  status, _, err = call(parse(main), '--workdir', 'w')
  assert status == 130 and '--resume' in err and err.count('\n') == 1


def test_help_lists_flags_comments_and_defaults(call):
  status, out, err = call(parse(), '--help')
  assert (status, err) == (0, '')
  for text in ('--learning-rate', 'How far a step goes.', 'default: 0.125',
               '--num-steps', 'default: 70', '--workdir', 'required'):
    assert text in out


# --- The command


@pytest.mark.parametrize('args, words', [
    ([], ['the command is none', 'generate, score, convert, inspect']),
    (['scroe', '--model', 'm'], ["'scroe'", 'did you mean score?']),
    (['--model', 'm'], ["'--model'", 'generate, score']),
    (['score', '--modle', 'm'], ['--modle', 'did you mean --model?']),
    (['score', '--model', 'm'], ['--data']),
    (['score', '--model', 'no/where', '--data', 'd'], ['no/where is not']),
])
def test_wrong_command_lines_are_one_line(call, args, words):
  check_one_line(call(cli.main, *args), *words)


def test_help_names_the_commands(call):
  status, out, _ = call(cli.main, '--help')
  assert status == 0
  for name in ('generate', 'score', 'convert', 'inspect'):
    assert f'alignjax {name}' in out


@pytest.mark.parametrize('command, texts', [
    ('generate', ['--max-new-tokens', 'default: 64', '--top-k', 'default: 0)',
                  'The longest response, in tokens.']),
    ('score', ['--batch-size', 'default: 8', 'EOS', 'nats']),
    ('convert', ['SOURCE', '--out', '--merge', '--max-shard-gb', 'Orbax']),
    ('inspect', ['TARGET', '--json', '--no-color', '--row', 'weights are']),
])
def test_help_of_a_command_lists_its_defaults(call, command, texts):
  status, out, _ = call(cli.main, command, '--help')
  assert status == 0
  for text in texts:
    assert text in out


def test_module_runs_as_the_command_with_its_exit_status():
  done = subprocess.run(
      [sys.executable, '-m', 'alignjax', 'score', '--model', 'no/where',
       '--data', 'd'], capture_output=True, text=True, check=False)
  check_one_line((done.returncode, done.stdout, done.stderr), 'no/where')


def test_reader_that_has_read_enough_is_no_traceback():
  code = ('from alignjax import cli\n'
          'with cli.one_line_errors():\n'
          '  print("line\\n" * 100_000)')
  program = subprocess.Popen(
      [sys.executable, '-c', code], stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, text=True)
  assert program.stdout.readline() == 'line\n'
  program.stdout.close()
  assert program.stderr.read() == ''
  program.stderr.close()
  assert program.wait() == 141


@pytest.mark.parametrize('error, status, said', [
    (OSError(28, 'No space left on device', 'runs/metrics.jsonl'), 2,
     'runs/metrics.jsonl could not be written: No space left'),
    (Stopped('SIGTERM: stopped after step 3', 143), 143, 'after step 3')])
def test_a_full_disk_and_a_stop_are_one_line(error, status, said, capsys):
  with pytest.raises(SystemExit) as exit_, cli.one_line_errors():
    raise error
  assert exit_.value.code == status
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and said in lines[0]
