"""Any preference loss, bound to a model: what it is given and what is added."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import losses
from alignjax import models
from alignjax import objectives
from alignjax import scoring
from alignjax.types import PreferenceBatch

VOCAB, PROMPT, LENGTH = 29, 2, 7
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS = MODEL.init(jax.random.key(0))
OTHER = MODEL.init(jax.random.key(1))
KEY = jax.random.key(9)
LENGTHS = np.array([[7, 5], [4, 6], [5, 5], [7, 7]])

LOSSES = {
    'dpo': losses.dpo_loss, 'ipo': losses.ipo_loss, 'hinge': losses.hinge_loss,
    'forward_kl': losses.forward_kl_dpo_loss, 'js': losses.js_dpo_loss,
    'alpha': losses.alpha_dpo_loss, 'simpo': losses.simpo_loss,
    'cpo': losses.cpo_loss, 'orpo': losses.orpo_loss}
FREE = 'simpo', 'cpo', 'orpo'
PER_TOKEN = 'ipo', 'simpo', 'orpo'


def run(objective, batch, params=PARAMS):
  """(loss, metrics) of an objective."""
  return jax.jit(objective)(params, batch, KEY)


def make_batch():
  """Four pairs with a reference of other parameters; the last is filler."""
  tokens = np.random.default_rng(4).integers(
      1, VOCAB, (4, 2, LENGTH), np.int32)
  tokens[:, 1, :PROMPT] = tokens[:, 0, :PROMPT]
  columns = np.arange(LENGTH)
  real = columns < LENGTHS[..., None]
  batch = PreferenceBatch(
      tokens=tokens, attention_mask=real, loss_mask=real & (columns >= PROMPT),
      weight=np.array([1, 1, 1, 0], np.float32))
  ref = jax.jit(scoring.pair_token_logprobs, static_argnums=0)(
      MODEL, OTHER, tokens, real, batch.loss_mask)
  return batch.replace(ref_logprobs=ref)


def all_logprobs(params):
  """[8, T - 1, V] in float64: what each token from the second is drawn from."""
  hidden = jax.jit(MODEL.hidden)(
      params, BATCH.tokens.reshape(8, LENGTH),
      BATCH.attention_mask.reshape(8, LENGTH))
  logits = np.float64(hidden[:, :-1]) @ np.float64(MODEL.unembedding(params)).T
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def token_logprobs(params):
  """[4][2] lists of the responses' log-probabilities."""
  tokens = BATCH.tokens.reshape(8, LENGTH)
  rows = np.take_along_axis(
      all_logprobs(params), tokens[:, 1:, None], axis=2)[..., 0]
  return [[rows[2 * b + i, PROMPT - 1:LENGTHS[b, i] - 1] for i in (0, 1)]
          for b in range(4)]


BATCH = make_batch()
POLICY, REF = token_logprobs(PARAMS), token_logprobs(OTHER)
by_hand = lambda reduce, rows: np.float32(
    [[reduce(side) for side in pair] for pair in rows])


@pytest.mark.parametrize('name, reduce, due', [
    *((name, scoring.sum_tokens, np.sum) for name in LOSSES
      if name not in PER_TOKEN),
    *((name, scoring.mean_tokens, np.mean) for name in ('dpo', *PER_TOKEN))])
def test_the_loss_is_given_what_its_reduction_makes_of_each_side(
    name, reduce, due):
  policy, ref = by_hand(due, POLICY), by_hand(due, REF)
  sides = (policy,) if name in FREE else (policy, ref)
  expected = LOSSES[name](*(x[:3, i] for x in sides for i in (0, 1)))
  # Without a reference the batch may hold none.
  batch = BATCH.replace(ref_logprobs=None) if name in FREE else BATCH
  loss, metrics = run(objectives.preference(
      MODEL, LOSSES[name], beta=0.3, reduce=reduce,
      has_reference=name not in FREE), batch)
  np.testing.assert_allclose(loss.compute(), expected.mean(), rtol=1e-4)
  assert loss.weight == 3
  rewards = 0.3 * (policy - (0 if name in FREE else ref))[:3]
  margins = rewards[:, 0] - rewards[:, 1]
  assert np.abs(margins).min() > 1e-3 and len(set(margins > 0)) == 2
  for metric, value in (
      ('accuracy', margins > 0), ('margin', margins),
      ('chosen_reward', rewards[:, 0]), ('rejected_reward', rewards[:, 1]),
      ('sft_loss', -by_hand(np.mean, POLICY)[:3, 0])):
    np.testing.assert_allclose(
        metrics[metric].compute(), value.mean(), atol=1e-5, err_msg=metric)


@pytest.mark.parametrize('has_reference, count', [(True, 4), (False, 2)])
def test_a_loss_gets_two_arrays_for_each_model(has_reference, count):
  given = []

  def loss(*sides):
    given.extend(x.shape for x in sides)
    return sides[0]

  run(objectives.preference(MODEL, loss, has_reference=has_reference), BATCH)
  assert given == [(4,)] * count


def test_the_sft_term_is_the_chosen_responses_loss_per_token():
  make = functools.partial(objectives.preference, MODEL, losses.dpo_loss)
  plain, _ = run(make(), BATCH)
  with_sft, _ = run(make(sft_coef=0.7), BATCH)
  per_token = -by_hand(np.mean, POLICY)[:3, 0].mean()
  np.testing.assert_allclose(
      with_sft.compute() - plain.compute(), 0.7 * per_token, rtol=1e-4)
  assert with_sft.weight == 3


def test_wpo_weighs_a_pair_by_how_likely_the_policy_writes_it():
  collision = np.log(np.exp(2 * all_logprobs(PARAMS)).sum(-1)).reshape(
      4, 2, LENGTH - 1)
  excess = np.array([
      [np.mean(POLICY[b][i]
               - collision[b, i, PROMPT - 1:LENGTHS[b, i] - 1])
       for i in (0, 1)] for b in range(3)])
  weights = np.exp(np.minimum(excess.sum(1), 0))
  assert 0 < weights.min() < weights.max() < 1
  policy, ref = by_hand(np.sum, POLICY)[:3], by_hand(np.sum, REF)[:3]
  pair_loss = losses.dpo_loss(policy[:, 0], policy[:, 1], ref[:, 0], ref[:, 1])
  sft = -by_hand(np.mean, POLICY)[:3, 0]
  # The SFT term is not weighed.
  loss, metrics = run(objectives.preference(
      MODEL, losses.dpo_loss, wpo=True, sft_coef=0.5), BATCH)
  np.testing.assert_allclose(
      loss.compute(), np.mean(weights * pair_loss + 0.5 * sft), rtol=1e-4)
  assert loss.weight == 3
  np.testing.assert_allclose(metrics['sft_loss'].compute(), sft.mean(),
                             rtol=1e-4)


@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
def test_what_one_response_has_beyond_the_other_counts_alpha(alpha):
  def reduced(rows):
    shared = [min(len(a), len(b)) for a, b in rows]
    return np.array([[side[:n].sum() + alpha * side[n:].sum() for side in pair]
                     for pair, n in zip(rows, shared, strict=True)])

  logprobs = jax.jit(scoring.pair_token_logprobs, static_argnums=0)(
      MODEL, PARAMS, BATCH.tokens, BATCH.attention_mask, BATCH.loss_mask)
  got = objectives.length_desensitized(alpha)(logprobs, BATCH.loss_mask)
  np.testing.assert_allclose(got, reduced(POLICY), rtol=1e-5)
  sums = by_hand(np.sum, POLICY)
  is_longer = LENGTHS - LENGTHS[:, ::-1] > 0
  assert is_longer.sum() == 2
  np.testing.assert_array_equal(
      np.abs(got - sums) > 1e-2, is_longer & (alpha < 1))
  # The reference is cut where the policy is.
  margins = np.array([1, -1]) * (reduced(POLICY) - reduced(REF))[:3]
  loss, _ = run(objectives.dpo(
      MODEL, beta=0.1, reduce=objectives.length_desensitized(alpha)), BATCH)
  np.testing.assert_allclose(
      loss.compute(), np.mean(np.log1p(np.exp(-0.1 * margins.sum(1)))),
      rtol=1e-4)


@pytest.mark.parametrize('settings', [
    dict(), dict(reduce=scoring.mean_tokens, sft_coef=0.5),
    dict(reduce=objectives.length_desensitized(0.3), wpo=True)],
    ids=['sums', 'means', 'tails'])
def test_padding_and_filler_change_neither_value_nor_gradient(settings):
  objective = objectives.preference(MODEL, losses.dpo_loss, **settings)
  tokens = np.where(BATCH.attention_mask, BATCH.tokens, 11)
  tokens[3] = 17
  ref = np.where(BATCH.loss_mask, BATCH.ref_logprobs, 5.0)
  ref[3] = -100.0
  changed = BATCH.replace(tokens=tokens, ref_logprobs=ref)
  both = jax.jit(lambda params, batch: (
      objective(params, batch, KEY),
      jax.grad(lambda p: objective(p, batch, KEY)[0].total)(params)))
  jax.tree.map(np.testing.assert_array_equal, both(PARAMS, BATCH),
               both(PARAMS, changed))


def test_chunks_change_no_gradient():
  gradient = lambda **settings: jax.jit(jax.grad(
      lambda params: objectives.preference(
          MODEL, losses.ipo_loss, reduce=scoring.mean_tokens, wpo=True,
          sft_coef=0.5, **settings)(params, BATCH, KEY)[0].total))(PARAMS)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               gradient(chunk_size=3), gradient())


def test_a_filler_pair_alone_weighs_nothing():
  loss, metrics = run(
      objectives.preference(MODEL, losses.dpo_loss, wpo=True),
      BATCH.replace(weight=jnp.zeros(4)))
  assert loss.compute() == 0 and loss.weight == 0
  assert all(m.weight == 0 for m in metrics.values())
