"""`alignjax inspect`: whatever it is given, it says what that is."""

import json

import jax.numpy as jnp
import pytest

from alignjax import checkpoints
from tests.commands import tiny


def make_run(workdir, *, is_done):
  """A workdir after its fourth step."""
  checkpoints.save(workdir / 'checkpoints', 4, {'a': jnp.ones(2)})
  (workdir / 'config.json').write_text(json.dumps(
      {'experiment': 'sft', 'model': 'testbed', 'data': 'rows.jsonl'}))
  (workdir / 'metrics.jsonl').write_text(''.join(
      json.dumps({'step': step, 'stage': 'sft', 'loss': 4 / step}) + '\n'
      for step in (1, 2, 3, 4)))
  if is_done:
    (workdir / 'summary.json').write_text(json.dumps(
        {'stage': 'sft', 'models': {'sft': {'gold': 0.28, 'ci': [0, 1]}}}))


@pytest.mark.parametrize('is_done', [True, False])
def test_workdir_says_how_its_run_ended(is_done, call, folder, tmp_path):
  make_run(tmp_path, is_done=is_done)
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'config.json').write_text('{}')
  status, out, _ = call('inspect', tmp_path)
  assert status == 0
  assert 'checkpoint of step 4' in out and 'loss 1' in out
  assert ('--resume' in out) == (not is_done)
  assert ('models/sft/gold 0.28' in out) == is_done
  assert f'alignjax inspect {tmp_path / "model"}' in out
  facts = json.loads(call('inspect', tmp_path, '--json')[1])
  assert facts['last_metrics'] == {'step': 4, 'stage': 'sft', 'loss': 1.0}
  assert facts['folders'] == [str(tmp_path / 'model')]


def test_folder_above_is_told_what_is_below(call, tmp_path):
  (tmp_path / 'runs' / 'model').mkdir(parents=True)
  (tmp_path / 'runs' / 'model' / 'config.json').write_text('{}')
  tiny.check_refused(call('inspect', tmp_path), 'holds no model and no rows',
                     f'did you mean {tmp_path}/runs/model?')


@pytest.mark.parametrize('args, words', [
    (['no/where'], ['no/where is not there']),
    ([], ['TARGET']),
    (['.', '--rwo', '1'], ['--rwo', 'did you mean --row?']),
])
def test_command_lines_that_make_no_sense_are_refused(call, args, words):
  tiny.check_refused(call('inspect', *args), *words)


def test_flags_of_files_are_refused_for_folders(call, folder):
  tiny.check_refused(call('inspect', folder, '--row', 1), '--row is for files')
  tiny.check_refused(call('inspect', folder, '--max-length', 9),
                     '--max-length is for files')


def test_file_of_weights_is_sent_to_its_folder(call, folder):
  tiny.check_refused(call('inspect', f'{folder}/model.safetensors'),
                     'holds weights', folder)


def test_colours_are_for_terminals(call, folder, tmp_path, monkeypatch):
  path = tiny.write_rows(tmp_path / 'rows.jsonl',
                         [{'prompt': 'a', 'response': 'b'}])
  monkeypatch.setattr('sys.stdout.isatty', lambda: True)
  monkeypatch.setenv('TERM', 'xterm-256color')
  args = 'inspect', path, '--model', folder
  monkeypatch.setenv('FORCE_COLOR', '1')
  assert '\x1b[1;32m b' in call(*args)[1]
  plain = call(*args, '--no-color')[1]
  assert '\x1b' not in plain and '[[ b</s>]]' in plain
