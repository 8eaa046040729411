"""Held-out measurements: exact means, whatever the batches and the mesh."""

import jax
import numpy as np
import pytest

from alignjax import objectives
from alignjax import scoring
from alignjax import sharding
from alignjax import train


@pytest.fixture(scope='module')
def rows(tiny):
  """16 pairs, the filler ones of two batches among them."""
  parts = [tiny.pairs(seed) for seed in (1, 2)]
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def batches(rows, size):
  """The rows, `size` at a time."""
  count = rows.weight.shape[0]
  return [jax.tree.map(lambda x: x[i:i + size], rows)
          for i in range(0, count, size)]


def on(tiny, mesh):
  """The policy's parameters on a mesh."""
  return sharding.put(tiny.params, sharding.tree_shardings(
      mesh, tiny.model.axes(), tiny.params))


def test_is_the_objective_over_all_rows_at_once(
    tiny, mesh_of, rows, assert_close):
  objective = objectives.dpo(tiny.model, beta=0.5)
  loss, metrics = jax.jit(objective)(tiny.params, rows, jax.random.key(0))
  expected = {k: float(m.compute()) for k, m in
              (metrics | {'loss': loss}).items()}
  mesh = mesh_of('data:2,fsdp:2,tensor:2')
  got = train.measure(objective, on(tiny, mesh), batches(rows, 8), mesh=mesh)
  assert got.keys() == expected.keys()
  assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_batch_is_annotated_first(tiny, mesh_of, rows):
  mesh = mesh_of('one')
  params = on(tiny, mesh)

  def annotate(params, batch):
    return batch.replace(ref_logprobs=scoring.pair_token_logprobs(
        tiny.model, params, batch.tokens, batch.attention_mask,
        batch.loss_mask))

  got = train.measure(objectives.dpo(tiny.model), params, batches(rows, 8),
                      mesh=mesh, annotate=annotate)
  assert got['loss'] == pytest.approx(np.log(2), abs=1e-6)
