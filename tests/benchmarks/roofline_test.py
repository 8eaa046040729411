"""The roofline's table: its FLOPs are the model's, its shares add up."""

import json

import pytest

from alignjax import runs
from alignjax.errors import InputError
from alignjax.plan import cost
from benchmarks import roofline


def test_parts_of_a_step_and_their_share_of_a_matmul(
    tiny_llama, tmp_path, capsys):
  path = tmp_path / 'roofline.json'
  roofline.main(roofline.Config(
      model=tiny_llama, batch_size=8, length=16, repeats=1,
      json=str(path)))
  found = json.loads(path.read_text())
  parts = {part['name']: part for part in found['parts']}
  assert list(parts) == [
      'hidden states', 'loss', 'loss and gradients', 'step']
  config = runs.load_policy(tiny_llama)[0].config
  once = cost.matmul_flops(config, 8, 16) / 1e9
  table = 2 * 8 * 16 * config.vocab_size * config.hidden_size / 1e9
  assert parts['loss']['gflops'] == pytest.approx(once)
  assert parts['hidden states']['gflops'] == pytest.approx(once - table)
  assert parts['step']['gflops'] == pytest.approx(3 * once)
  for part in parts.values():
    rate = part['gflops'] / part['seconds']
    assert part['share'] == pytest.approx(
        rate / found['matmul_gflops_per_second'])
  assert 'loss and gradients' in capsys.readouterr().out


def test_a_row_of_one_token_is_refused(tiny_llama):
  with pytest.raises(InputError, match='length=1'):
    roofline.main(roofline.Config(model=tiny_llama, length=1))
