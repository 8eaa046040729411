"""An objective's loss and metrics on rows that it is not trained on."""

from collections.abc import Callable, Iterable

import jax

from alignjax import metrics as metrics_lib
from alignjax import partitioning
from alignjax import sharding
from alignjax.train.step import Objective


def measure(
    objective: Objective, params, batches: Iterable, *,
    mesh: jax.sharding.Mesh, annotate: Callable | None = None,
) -> dict[str, float]:
  """The objective's loss and metrics over all batches, each mean taken once.

  Args:
    objective: pure `(params, batch, key) -> (loss, metrics)`.
    params: on the mesh.
    batches: host batches of one shape, filler rows included; not empty.
    mesh: whose batch axes split the rows.
    annotate: `(params, batch)` adds what models say to each batch.

  Returns:
    `loss` and the objective's metrics as floats, weighed by the rows of all
    batches: they do not depend on the batch size.
  """
  rows = sharding.batch_sharding(mesh)

  def means(params, batch):
    loss, metrics = objective(params, batch, jax.random.key(0))
    return metrics | {'loss': loss}

  of_params = jax.tree.map(lambda x: x.sharding, params)
  jitted = partitioning.jit(
      means, mesh, in_shardings=(of_params, rows),
      out_shardings=sharding.replicated(mesh))
  sums = None
  for batch in batches:
    batch = sharding.put(batch, rows)
    if annotate:
      batch = annotate(params, batch)
    new = sharding.to_host(jitted(params, batch))
    sums = new if sums is None else jax.tree.map(lambda x, y: x + y, sums, new)
  return metrics_lib.to_floats(sums)
