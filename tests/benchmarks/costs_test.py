"""How cost grows: every part is measured, and its table adds up."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.errors import InputError
from alignjax.models import attention
from benchmarks import costs


@pytest.fixture
def rows_of(tiny_llama, tmp_path, capsys):
  """Measures a part; its rows."""

  def measure(part):
    path = tmp_path / 'costs.json'
    costs.main(costs.Config(
        model=tiny_llama, part=part, tokens=512, lengths=(8, 16), repeats=1,
        interval=3, json=str(path)))
    rows = json.loads(path.read_text())['rows']
    out = capsys.readouterr().out
    assert all(name in out for name in rows[0])
    return rows

  return measure


def test_attention_is_taken_off_a_step(rows_of, monkeypatch):
  left_out, alone = [], costs._see_oneself

  def counted(query, *rest, **settings):
    left_out.append(query.shape[1])
    return alone(query, *rest, **settings)

  monkeypatch.setattr(costs, '_see_oneself', counted)
  rows = rows_of('length')
  assert set(left_out) == {8, 16}  # Each length's own step is traced so.
  assert [row['tokens a row'] for row in rows] == [8, 16]
  for row in rows:
    assert row['rest'] > 0
    assert row['rest'] == pytest.approx(row['seconds'] - row['attention'])
    assert row['tokens/s'] == pytest.approx(512 / row['seconds'])


def test_a_token_that_sees_itself_alone_gets_its_own_value():
  key = iter(jax.random.split(jax.random.key(0), 3))
  make = lambda *shape: jax.random.normal(next(key), shape)
  query, keys, value = make(2, 5, 4, 3), make(2, 2, 5, 3), make(2, 2, 5, 3)
  alone = jnp.broadcast_to(jnp.eye(5, dtype=bool), (2, 5, 5))
  chex.assert_trees_all_close(
      costs._see_oneself(query, keys, value, alone, is_causal=True),
      attention.attend(query, keys, value, alone, is_causal=True), atol=1e-5)
  gradients = jax.grad(lambda *arrays: costs._see_oneself(*arrays, alone).sum(),
                       (0, 1, 2))(query, keys, value)
  assert all(np.all(np.asarray(x) != 0) for x in gradients)


def test_a_batch_is_cut_into_parts(rows_of):
  rows = rows_of('microbatches')
  assert [row['microbatches'] for row in rows] == [1, 2, 4, 8]
  assert all(row['tokens/s'] == pytest.approx(512 / row['seconds'])
             for row in rows)


def test_methods_are_told_by_sft_s_step(rows_of):
  sft, dpo, known, ppo = rows_of('methods')
  assert sft["of SFT's"] == 1.0
  assert dpo['seconds'] > known['seconds'] > 0 and ppo['seconds'] > 0
  assert dpo["of SFT's"] == pytest.approx(dpo['seconds'] / sft['seconds'])


def test_an_interval_with_a_save_is_told_by_one_without(rows_of):
  none, behind, waited = rows_of('saving')
  assert none['more, %'] == 0
  for row in (behind, waited):
    assert row['more, %'] == pytest.approx(
        100 * (row['seconds'] / none['seconds'] - 1))


@pytest.mark.parametrize('lengths', [(), (3,), (256, 100)])
def test_lengths_that_do_not_divide_a_batch_are_refused(lengths, tiny_llama):
  with pytest.raises(InputError, match='divide the tokens'):
    costs.main(costs.Config(model=tiny_llama, lengths=lengths))
