"""KTO: the loss worked by hand, and one z0 however the batch is cut."""

import jax
import numpy as np
import optax
import pytest

from alignjax import models
from alignjax import objectives
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax import train
from alignjax.data import collate
from alignjax.data import layout
from alignjax.data import tokenize
from alignjax.types import merge_cells

VOCAB, LENGTH, BETA = 29, 8, 0.2
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS = jax.device_get(MODEL.init(jax.random.key(0)))
OTHER = jax.device_get(MODEL.init(jax.random.key(1)))
KEY = jax.random.key(9)
DESIRABLE = np.array([1, 0, 0, 1, 0, 1], bool)


def make_batch(desirable=DESIRABLE, length=LENGTH):
  """Eight rows, of which the last two are filler."""
  rng, rows = np.random.default_rng(2), []
  for i, label in enumerate(desirable):
    tokens = rng.integers(1, VOCAB, 4 + i % 4).astype(np.int32)
    rows.append(tokenize.TokenizedLabel(
        tokenize.TokenizedResponse(tokens, 1 + i % 3), bool(label)))
  return collate.collate_unpaired(rows, batch_size=8, length=length)


@jax.jit
def response_logprobs(params, batch):
  return scoring.response_logprobs(
      MODEL, params, batch.tokens, batch.attention_mask, batch.loss_mask)


def z0_of(policy, ref, batch):
  """The batch's estimate, from its six real rows."""
  ratios = (response_logprobs(policy, batch.mismatched)
            - response_logprobs(ref, batch.mismatched))
  return max(0.0, float(np.mean(ratios[:6])))


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh('data:2,fsdp:2,tensor:2')


@pytest.fixture(scope='module')
def annotate(mesh):
  """Fills in what `OTHER`, the reference, says."""
  shardings = sharding.tree_shardings(mesh, MODEL.axes(), OTHER)
  return rollout.make_kto_reference(
      MODEL, sharding.put(OTHER, shardings), mesh=mesh,
      param_shardings=shardings)


def annotated(annotate, mesh, params=PARAMS, **settings):
  batch = sharding.put(
      make_batch(**settings), sharding.batch_sharding(mesh))
  return jax.device_get(annotate(params, batch))


def loss_of(batch, params=PARAMS, **settings):
  return jax.jit(objectives.kto(MODEL, beta=BETA, **settings))(
      params, batch, KEY)


def test_the_reference_adds_its_logprobs_and_the_z0_of_the_whole_batch(
    annotate, mesh):
  batch = annotated(annotate, mesh)
  np.testing.assert_allclose(
      batch.ref_logprobs, response_logprobs(OTHER, batch), atol=1e-5)
  # Either side of 0, that the bound is seen.
  z0s = [z0_of(p, OTHER, batch) for p in (PARAMS, OTHER)]
  scaled = jax.tree.map(lambda x: 1.5 * x, OTHER)
  z0s.append(z0_of(scaled, OTHER, batch))
  assert min(z0s) == 0 < 0.01 < max(z0s)
  for params, z0 in zip((PARAMS, OTHER, scaled), z0s, strict=True):
    kl = annotated(annotate, mesh, params).kl
    assert kl.shape == (8,)
    np.testing.assert_allclose(kl, z0, atol=1e-5)
  assert annotate.jitted._cache_size() == 1


def test_packed_rows_have_the_same_reference_and_z0(annotate, mesh):
  params = MODEL.init(jax.random.key(4))  # Of a z0 above 0.
  padded = annotated(annotate, mesh, params, length=16)
  packed = annotate(params, sharding.put(
      layout.make_layout('packed', num_cells=4)(make_batch(length=16)),
      sharding.batch_sharding(mesh)))
  # Two responses of a cell, in one row.
  assert packed.mismatched.rows.tokens.shape == (4, 1, 16)
  packed = merge_cells(packed)
  np.testing.assert_allclose(
      packed.ref_logprobs[:6], padded.ref_logprobs[:6], atol=1e-5)
  np.testing.assert_allclose(packed.kl, padded.kl, atol=1e-5)
  assert packed.kl[0] > 0.01


def test_loss_and_metrics_equal_those_worked_by_hand(annotate, mesh):
  batch = annotated(annotate, mesh).replace(kl=np.full(8, 0.4, np.float32))
  ratios = np.asarray(response_logprobs(PARAMS, batch)
                      - batch.ref_logprobs)[:6]
  sign = np.where(DESIRABLE, 1, -1)
  weights = np.where(DESIRABLE, 2.0, 0.5)
  expected = weights * (1 - 1 / (1 + np.exp(-sign * BETA * (ratios - 0.4))))
  loss, metrics = loss_of(
      batch, desirable_weight=2.0, undesirable_weight=0.5)
  assert loss.weight == 6 and np.abs(ratios).min() > 1e-2
  np.testing.assert_allclose(loss.compute(), expected.mean(), rtol=1e-4)
  for name, rows in (('desirable_reward', DESIRABLE),
                     ('undesirable_reward', ~DESIRABLE)):
    np.testing.assert_allclose(
        metrics[name].compute(), BETA * ratios[rows].mean(), atol=1e-5)
    assert metrics[name].weight == 3
  np.testing.assert_allclose(metrics['kl'].compute(), 0.4)


def test_no_gradient_flows_through_z0_or_the_reference(annotate, mesh):
  batch = annotated(annotate, mesh)
  total = lambda kl, ref, params: objectives.kto(MODEL, beta=BETA)(
      params, batch.replace(kl=kl, ref_logprobs=ref), KEY)[0].total
  for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(
      batch.kl, batch.ref_logprobs, PARAMS):
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('is_good', [True, False])
def test_a_batch_may_hold_one_class_only(annotate, mesh, is_good):
  batch = annotated(annotate, mesh, desirable=[is_good] * 6)
  gradient = jax.jit(jax.grad(lambda params, batch: objectives.kto(
      MODEL, beta=BETA)(params, batch, KEY)[0].total))(PARAMS, batch)
  moved = jax.tree.map(lambda p, g: p - 0.02 * g, PARAMS, gradient)
  before, after = (np.asarray(response_logprobs(p, batch))[:6].mean()
                   for p in (PARAMS, moved))
  assert (after > before) == is_good and after != before
  _, metrics = loss_of(batch)
  names = ['desirable_reward', 'undesirable_reward']
  there, missing = names if is_good else names[::-1]
  assert metrics[there].weight == 6
  assert metrics[missing].weight == metrics[missing].compute() == 0


def test_padding_and_filler_change_neither_value_nor_gradient(annotate, mesh):
  batch = annotated(annotate, mesh)
  objective = objectives.kto(MODEL, beta=BETA)
  both = jax.jit(lambda params, batch: (
      objective(params, batch, KEY),
      jax.grad(lambda p: objective(p, batch, KEY)[0].total)(params)))
  tokens = np.where(batch.attention_mask, batch.tokens, 11)
  tokens[6:] = 17
  changed = batch.replace(
      tokens=tokens, ref_logprobs=np.where(
          np.arange(8) < 6, batch.ref_logprobs, -100.0).astype(np.float32),
      desirable=batch.desirable | (np.arange(8) >= 6))
  jax.tree.map(np.testing.assert_array_equal, both(PARAMS, batch),
               both(PARAMS, changed))


def test_four_microbatches_equal_one():
  """z0 above all, which a microbatch could not know."""
  here = sharding.make_mesh('data:1', jax.devices()[:1])
  optimizer, results = optax.adam(1e-2), []
  for num_microbatches in (1, 4):
    state, shardings = train.init_state(
        PARAMS, MODEL.axes(), optimizer, mesh=here, seed=0)
    step = train.make_train_step(
        objectives.kto(MODEL, beta=BETA), optimizer, shardings=shardings,
        mesh=here, num_microbatches=num_microbatches)
    annotate = rollout.make_kto_reference(
        MODEL, sharding.put(OTHER, shardings.params), mesh=here,
        param_shardings=shardings.params)
    history = []
    for _ in range(2):
      batch = sharding.put(make_batch(), sharding.batch_sharding(here))
      state, metrics = step(state, annotate(state.params, batch))
      history.append({k: float(m.compute()) for k, m in metrics.items()})
    results.append((jax.device_get(state.params), history))
  (params, history), (cut_params, cut_history) = results
  # z0 is the policy's at each step, before the step.
  assert 0.01 < history[0]['kl'] != history[1]['kl']
  for a, b in zip(history, cut_history, strict=True):
    assert a.keys() == b.keys()
    for name, value in a.items():
      np.testing.assert_allclose(b[name], value, rtol=1e-4, atol=1e-5,
                                 err_msg=name)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               cut_params, params)
