"""The reward objective: pairs compared at the last real token of each row."""

import jax
import numpy as np

from alignjax import models
from alignjax import objectives
from alignjax.types import PreferenceBatch

VOCAB = 29
MODEL = models.ScalarModel(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS = MODEL.init(jax.random.key(0))
KEY = jax.random.key(9)
LENGTHS = np.array([[7, 5], [4, 6], [5, 5], [7, 7]])


def make_batch(side='right'):
  """Four pairs of T = 7, the last one filler."""
  rng = np.random.default_rng(1)
  columns = np.arange(7)
  real = columns < LENGTHS[..., None]
  if side == 'left':
    real = real[..., ::-1]
  tokens = np.zeros((4, 2, 7), np.int32)
  tokens[real] = rng.integers(1, VOCAB, LENGTHS.sum(), np.int32)
  return PreferenceBatch(
      tokens=tokens, attention_mask=real, loss_mask=real & (columns > 2),
      weight=np.array([1, 1, 1, 0], np.float32))


loss_of = jax.jit(lambda params, batch: objectives.reward(MODEL)(
    params, batch, KEY))
gradient = jax.jit(jax.grad(lambda params, batch: objectives.reward(MODEL)(
    params, batch, KEY)[0].total))


def test_loss_compares_the_scalars_of_the_last_real_tokens():
  batch = make_batch()
  rows = (x.reshape(8, 7) for x in (batch.tokens, batch.attention_mask))
  scalars = np.asarray(jax.jit(MODEL.scalars)(PARAMS, *rows))
  last = scalars[np.arange(8), LENGTHS.ravel() - 1]
  by_hand = last.reshape(4, 2)[:3]
  margins = by_hand[:, 0] - by_hand[:, 1]
  loss, metrics = loss_of(PARAMS, batch)
  np.testing.assert_allclose(
      loss.compute(), np.mean(np.log1p(np.exp(-margins))), rtol=1e-5)
  np.testing.assert_allclose(metrics['margin'].compute(), margins.mean(),
                             atol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'].compute(),
                             (margins > 0).mean())
  np.testing.assert_allclose(metrics['reward'].compute(), by_hand.mean(),
                             atol=1e-5)


def test_the_side_of_the_padding_changes_nothing():
  right, left = make_batch('right'), make_batch('left')
  for a, b in zip(jax.tree.leaves(loss_of(PARAMS, right)),
                  jax.tree.leaves(loss_of(PARAMS, left))):
    np.testing.assert_allclose(a, b, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               gradient(PARAMS, right), gradient(PARAMS, left))


def test_padding_and_filler_change_neither_value_nor_gradient():
  batch = make_batch()
  tokens = np.where(batch.attention_mask, batch.tokens, 11)
  tokens[3] = 17
  changed = batch.replace(tokens=tokens)
  for a, b in zip(jax.tree.leaves(loss_of(PARAMS, batch)),
                  jax.tree.leaves(loss_of(PARAMS, changed))):
    np.testing.assert_array_equal(a, b)
  jax.tree.map(np.testing.assert_array_equal, gradient(PARAMS, batch),
               gradient(PARAMS, changed))


def test_a_pair_of_equal_texts_costs_log_two():
  batch = make_batch()
  same = jax.tree.map(lambda x: np.repeat(x[:, :1], 2, axis=1),
                      (batch.tokens, batch.attention_mask, batch.loss_mask))
  loss, metrics = loss_of(PARAMS, PreferenceBatch(*same, weight=batch.weight))
  np.testing.assert_allclose(loss.compute(), np.log(2), rtol=1e-6)
  assert metrics['margin'].compute() == 0


def test_swapping_the_sides_turns_the_margin_round():
  batch = make_batch()
  swapped = jax.tree.map(lambda x: x[:, ::-1],
                         (batch.tokens, batch.attention_mask, batch.loss_mask))
  swapped = PreferenceBatch(*swapped, weight=batch.weight)
  margin = loss_of(PARAMS, batch)[1]['margin'].compute()
  turned = loss_of(PARAMS, swapped)[1]['margin'].compute()
  assert abs(float(margin)) > 1e-3
  np.testing.assert_allclose(turned, -margin, rtol=1e-5)


def test_a_gradient_step_widens_the_margin():
  batch = make_batch()
  before = loss_of(PARAMS, batch)
  params = jax.tree.map(lambda p, g: p - 0.01 * g, PARAMS,
                        gradient(PARAMS, batch))
  after = loss_of(params, batch)
  assert after[0].compute() < before[0].compute()
  assert after[1]['margin'].compute() > before[1]['margin'].compute()


def test_centering_adds_the_squared_sum_of_a_pair():
  batch = make_batch().replace(weight=np.array([0, 1, 0, 0], np.float32))
  plain, metrics = loss_of(PARAMS, batch)
  centred, _ = jax.jit(objectives.reward(MODEL, centering=0.5))(
      PARAMS, batch, KEY)
  pair_sum = 2 * metrics['reward'].compute()
  assert abs(pair_sum) > 0.1
  np.testing.assert_allclose(
      centred.compute() - plain.compute(), 0.5 * pair_sum**2, rtol=1e-4)
