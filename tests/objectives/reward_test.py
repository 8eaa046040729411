"""The reward objectives: rows compared at the last real token of each."""

import jax
import numpy as np
import pytest

from alignjax import models
from alignjax import objectives
from alignjax.types import PreferenceBatch
from alignjax.types import RankingBatch

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


# --- Rankings.


def make_rankings():
  """Four prompts of K = 3: two, three and no pairs, and filler."""
  lengths = np.array([[7, 5, 3], [4, 6, 2], [5, 5, 1], [7, 7, 7]])
  real = np.arange(7) < lengths[..., None]
  return RankingBatch(
      tokens=np.random.default_rng(3).integers(1, VOCAB, (4, 3, 7), np.int32),
      attention_mask=real,
      ranks=np.array([[1, 0, 1], [2, 0, 1], [0, 0, 1], [0, 1, 2]], np.int32),
      mask=np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], bool),
      weight=np.array([1, 1, 1, 0], np.float32))


def ranking_of(batch, **settings):
  return jax.jit(objectives.reward_ranking(MODEL, **settings))(
      PARAMS, batch, KEY)


def last_scalars(batch):
  """[B, K] rewards, each picked by its row's length."""
  rows = [x.reshape(-1, 7) for x in (batch.tokens, batch.attention_mask)]
  scalars = np.asarray(jax.jit(MODEL.scalars)(PARAMS, *rows))
  last = scalars[np.arange(len(scalars)), rows[1].sum(1) - 1]
  return last.reshape(batch.ranks.shape)


@pytest.mark.parametrize('plackett_luce', [False, True])
def test_a_ranking_of_two_is_a_pair(plackett_luce):
  pairs = make_batch()
  swaps = np.array([0, 1, 0, 0])  # Which column holds the chosen response.
  order = np.stack([swaps, 1 - swaps], axis=1)[..., None]
  pick = lambda x: np.take_along_axis(x, order, axis=1)
  batch = RankingBatch(
      tokens=pick(pairs.tokens), attention_mask=pick(pairs.attention_mask),
      ranks=order[..., 0].astype(np.int32), mask=np.ones((4, 2), bool),
      weight=pairs.weight)
  loss, metrics = ranking_of(batch, plackett_luce=plackett_luce)
  pair_loss, pair_metrics = loss_of(PARAMS, pairs)
  np.testing.assert_allclose(loss.compute(), pair_loss.compute(), rtol=1e-5)
  for name in ('accuracy', 'reward'):
    np.testing.assert_allclose(
        metrics[name].compute(), pair_metrics[name].compute(), rtol=1e-5)
  assert loss.weight == pair_loss.weight == 3


def test_pairs_of_a_prompt_share_one_mean_and_ties_make_none():
  batch = make_rankings()
  r = last_scalars(batch)
  pairs = [[r[0, 1] - r[0, 0], r[0, 1] - r[0, 2]],
           [r[1, 1] - r[1, 2], r[1, 1] - r[1, 0], r[1, 2] - r[1, 0]]]
  expected = [np.mean(np.log1p(np.exp(-np.array(m)))) for m in pairs]
  right = [np.mean(np.array(m) > 0) for m in pairs]
  assert 0 < np.mean(right) < 1
  loss, metrics = ranking_of(batch)
  np.testing.assert_allclose(loss.compute(), np.mean(expected), rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'].compute(), np.mean(right))
  # The third prompt, all of whose responses tie, has a reward and no pair.
  assert loss.weight == metrics['accuracy'].weight == 2
  np.testing.assert_allclose(
      metrics['reward'].compute(), r[:3][batch.mask[:3]].mean(), rtol=1e-4)
  assert metrics['reward'].weight == 8


def test_plackett_luce_draws_the_best_from_those_that_are_left():
  batch = make_rankings()
  batch = batch.replace(weight=np.array([0, 1, 0, 0], np.float32))
  worst, best, middle = last_scalars(batch)[1]
  total = np.log(np.sum(np.exp([best, middle, worst])))
  rest = np.log(np.sum(np.exp([middle, worst])))
  loss, _ = ranking_of(batch, plackett_luce=True)
  np.testing.assert_allclose(
      loss.compute(), total - best + rest - middle, rtol=1e-5)


@pytest.mark.parametrize('plackett_luce', [False, True])
def test_what_does_not_exist_changes_neither_value_nor_gradient(plackett_luce):
  batch = make_rankings()
  objective = objectives.reward_ranking(MODEL, plackett_luce=plackett_luce)
  both = jax.jit(lambda params, batch: (
      objective(params, batch, KEY),
      jax.grad(lambda p: objective(p, batch, KEY)[0].total)(params)))
  is_there = batch.mask & (batch.weight > 0)[:, None]
  changed = batch.replace(
      tokens=np.where(batch.attention_mask & is_there[..., None],
                      batch.tokens, 11),
      ranks=np.where(is_there, batch.ranks, 1).astype(np.int32))
  jax.tree.map(np.testing.assert_array_equal, both(PARAMS, batch),
               both(PARAMS, changed))
