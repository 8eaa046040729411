"""ONE step builder: any objective becomes a jitted, sharded optimizer step."""

from collections.abc import Callable
import math

import chex
import jax
import jax.numpy as jnp
import optax

from alignjax import partitioning
from alignjax import sharding
from alignjax.models import lora
from alignjax.train import guard
from alignjax.train import spikes
from alignjax.train.state import TrainState
from alignjax.types import Mean

Metrics = dict[str, Mean]
Objective = Callable[[chex.ArrayTree, chex.ArrayTree, jax.Array],
                     tuple[Mean, Metrics]]
Update = Callable[..., tuple[TrainState, Metrics]]


def make_update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    num_microbatches: int = 1,
    skip_above: float = math.inf,
    skip_spikes: float = math.inf,
) -> Update:
  """Returns the pure function `update(state, batch, base) -> (state, metrics)`.

  `base` is what is frozen: the objective sees it joined with the parameters
  that are trained (`lora.join`). It may be left out.

  Gradients of the loss TOTAL are summed over the microbatches and divided once
  by the summed weight, so that the update does not depend on
  `num_microbatches`, however the tokens are spread over them.

  Where the loss or the gradient's norm is not finite, the norm is above
  `skip_above`, or either stands out from the run's last steps by `skip_spikes`
  deviations, parameters and optimizer stay bit for bit as they were. The step
  counts all the same: the next one has the next batch.

  Args:
    objective: pure `(params, microbatch, key) -> (loss, metrics)`.
    optimizer: applied once, to the gradient of the mean.
    num_microbatches: parts a batch is taken in, to save memory; divides B.
    skip_above: the longest gradient that is learnt from, before any clipping.
    skip_spikes: see `spikes.is_spike`; the optimizer must remember.

  Returns:
    A pure function, not jitted; metrics gain `loss`, `grad_norm` and `skipped`,
    which is 1 where nothing was learnt.
  """

  def accumulated(params, batch, base, key):

    def total_loss(params, batch, key):
      whole = params if base is None else lora.join(base, params)
      loss, metrics = objective(whole, batch, key)
      return loss.total, metrics | {'loss': loss}

    gradient = jax.grad(total_loss, has_aux=True)
    if num_microbatches == 1:
      return gradient(params, batch, jax.random.fold_in(key, 0))
    # Strided, not contiguous: each device keeps its own rows in every
    # microbatch, so that splitting the batch moves no data.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1),
        batch)

    def add(sums, numbered):
      i, part = numbered
      new = gradient(params, part, jax.random.fold_in(key, i))
      return jax.tree.map(jnp.add, sums, new), None

    shapes = jax.eval_shape(
        gradient, params, jax.tree.map(lambda x: x[0], parts), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(
        add, zeros, (jnp.arange(num_microbatches), parts))[0]

  def update(state, batch, base=None):
    key = jax.random.fold_in(state.key, state.step)
    grads, metrics = accumulated(state.params, batch, base, key)
    weight = metrics['loss'].weight
    weight = jnp.where(weight == 0, 1.0, weight)
    loss = metrics['loss'].total / weight
    grads = jax.tree.map(lambda g: g / weight, grads)
    norm = optax.tree.norm(grads)
    is_good = jnp.isfinite(loss) & jnp.isfinite(norm) & (
        norm <= skip_above) & ~spikes.is_spike(
            state.opt_state, loss, norm, skip_spikes)
    updates, opt_state = guard.update_if(
        is_good, optimizer, grads, state.opt_state, state.params, loss=loss)
    state = state.replace(
        step=state.step + 1, opt_state=opt_state, params=guard.select(
            is_good, optax.apply_updates(state.params, updates), state.params))
    one = jnp.ones(())
    return state, metrics | {
        'grad_norm': Mean(norm, one), 'skipped': Mean(1.0 - is_good, one)}

  return update


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    shardings: TrainState,
    mesh: jax.sharding.Mesh,
    num_microbatches: int = 1,
    skip_above: float = math.inf,
    skip_spikes: float = math.inf,
    base_shardings: chex.ArrayTree | None = None,
) -> Update:
  """Returns `step(state, batch) -> (state, metrics)`; `state` is donated.

  Both shardings are pinned: with the outputs left open, the compiler's choice
  for them would make step 2 compile again.

  Args:
    objective: pure `(params, microbatch, key) -> (loss, metrics)`.
    optimizer: applied once to the averaged gradient.
    shardings: of the state, as `init_state` returns them.
    mesh: whose data and fsdp axes split the batch's rows.
    num_microbatches: must divide each shard's rows of the batch.
    skip_above: the longest gradient that is learnt from.
    skip_spikes: deviations; the optimizer must remember.
    base_shardings: of the frozen parameters; with them the step is
      `step(state, batch, base)`, and `base` is not donated.
  """
  update = make_update(objective, optimizer, num_microbatches=num_microbatches,
                       skip_above=skip_above, skip_spikes=skip_spikes)
  frozen = () if base_shardings is None else (base_shardings,)
  return partitioning.jit(
      update, mesh, donate_argnums=0,
      in_shardings=(shardings, sharding.batch_sharding(mesh), *frozen),
      out_shardings=(shardings, sharding.replicated(mesh)))
