"""Policy gradients without a critic: what is averaged, and what is added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import losses
from alignjax import models
from alignjax import objectives
from alignjax import scoring
from alignjax.types import Trajectory

VOCAB, PROMPT, LENGTH = 29, 3, 7
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS = MODEL.init(jax.random.key(0))
OTHER = MODEL.init(jax.random.key(1))
KEY = jax.random.key(9)
TEMPERATURE = 0.7

logprobs_of = jax.jit(lambda params, tokens, mask: scoring.token_logprobs(
    MODEL, params, tokens, mask, start=PROMPT, temperature=TEMPERATURE))


def make_trajectory():
  """Responses of 4, 2 and 1 tokens after P = 3; the last row is filler."""
  rng = np.random.default_rng(1)
  tokens = rng.integers(1, VOCAB, (4, LENGTH), np.int32)
  real = np.arange(LENGTH) < np.array([7, 5, 4, 4])[:, None]
  response = real & (np.arange(LENGTH) >= PROMPT)
  response[3] = False
  logprobs = np.asarray(logprobs_of(PARAMS, tokens, real))
  gap = rng.normal(0, 0.3, logprobs.shape).astype(np.float32)
  return Trajectory(
      tokens=tokens, attention_mask=real, response_mask=response,
      weight=np.array([1, 1, 1, 0], np.float32), logprobs=logprobs,
      sampler_logprobs=logprobs + gap,
      ref_logprobs=np.asarray(logprobs_of(OTHER, tokens, real)),
      advantages=rng.normal(size=(4, LENGTH)).astype(np.float32))


BATCH = make_trajectory()
IS_LOSS = BATCH.response_mask  # Of the real rows only.
COUNTS = [4, 2, 1]


def clip_surrogate(logprobs, old_logprobs, advantages, mask):
  del mask
  return losses.ppo_clip_loss(logprobs, old_logprobs, advantages)


def reinforce(logprobs, old_logprobs, advantages, mask):
  del old_logprobs, mask
  return losses.reinforce_loss(logprobs, advantages)


def of(surrogate=clip_surrogate, **settings):
  """A jitted `(params, batch) -> (loss, metrics)`."""
  objective = objectives.policy_gradient(
      MODEL, surrogate, prompt_length=PROMPT, temperature=TEMPERATURE,
      **settings)
  return jax.jit(lambda params, batch: objective(params, batch, KEY))


def gradient(objective, params=PARAMS, batch=BATCH):
  return jax.jit(jax.grad(
      lambda p, b: objective(p, b)[0].total))(params, batch)


AGGREGATES = {
    'token_mean': (objectives.token_mean, lambda x: x[IS_LOSS].mean(), 7),
    'sequence_mean': (
        objectives.sequence_mean,
        lambda x: np.mean([x[i, PROMPT:PROMPT + n].mean()
                           for i, n in enumerate(COUNTS)]), 3),
    'budget_mean': (
        objectives.budget_mean(10),
        lambda x: np.mean([x[i, PROMPT:PROMPT + n].sum() / 10
                           for i, n in enumerate(COUNTS)]), 3),
}


@pytest.mark.parametrize('name', AGGREGATES)
def test_what_the_mean_is_over(name):
  aggregate, by_hand, weight = AGGREGATES[name]
  junk = np.where(IS_LOSS, BATCH.advantages, 100.0).astype(np.float32)
  mean = aggregate(junk, BATCH.response_mask, BATCH.weight)
  np.testing.assert_allclose(mean.compute(), by_hand(junk), rtol=1e-5)
  assert mean.weight == weight
  # A real row that holds no response is nobody's mean.
  if name != 'budget_mean':
    empty = aggregate(junk, BATCH.response_mask, np.ones(4, np.float32))
    np.testing.assert_array_equal(empty.compute(), mean.compute())


def test_the_three_means_are_not_the_same():
  values = [by_hand(BATCH.advantages) for _, by_hand, _ in AGGREGATES.values()]
  assert np.abs(np.diff(values)).min() > 1e-2


@pytest.mark.parametrize('name', AGGREGATES)
def test_at_the_sampling_policy_the_gradient_is_reinforces(name):
  aggregate = AGGREGATES[name][0]
  clipped, plain = (gradient(of(s, aggregate=aggregate))
                    for s in (clip_surrogate, reinforce))
  assert np.abs(plain['embed']).max() > 1e-2
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               clipped, plain)
  # And off it, it is another.
  clipped, plain = (gradient(of(s, aggregate=aggregate), OTHER)
                    for s in (clip_surrogate, reinforce))
  assert np.abs(clipped['embed'] - plain['embed']).max() > 1e-2


def test_loss_and_metrics_off_the_policy_equal_those_worked_by_hand():
  loss, metrics = of(aggregate=objectives.sequence_mean)(OTHER, BATCH)
  ratio = np.exp(BATCH.ref_logprobs - BATCH.logprobs)
  kept = -np.minimum(ratio * BATCH.advantages,
                     np.clip(ratio, 0.8, 1.2) * BATCH.advantages)
  np.testing.assert_allclose(
      loss.compute(), AGGREGATES['sequence_mean'][1](kept), rtol=1e-4)
  # Metrics are over tokens, whatever the loss's mean is over.
  np.testing.assert_allclose(metrics['ratio'].compute(),
                             ratio[IS_LOSS].mean(), rtol=1e-4)
  log_ratio = np.log(ratio)[IS_LOSS]
  np.testing.assert_allclose(
      metrics['approx_kl'].compute(),
      np.mean(np.exp(log_ratio) - 1 - log_ratio), rtol=1e-3)
  assert metrics['ratio'].weight == metrics['approx_kl'].weight == 7


@pytest.mark.parametrize('kl, by_hand', [
    (losses.kl_k2, lambda d: d**2 / 2),
    (losses.kl_k3, lambda d: np.exp(-d) - 1 + d)])
def test_a_kl_as_loss_is_added_under_the_same_mean(kl, by_hand):
  aggregate, mean, _ = AGGREGATES['sequence_mean']
  plain, _ = of(aggregate=aggregate)(PARAMS, BATCH)
  pulled, _ = of(aggregate=aggregate, kl_coef=0.3, kl=kl)(PARAMS, BATCH)
  due = 0.3 * mean(by_hand(BATCH.logprobs - BATCH.ref_logprobs))
  assert due > 1e-2
  np.testing.assert_allclose(pulled.compute() - plain.compute(), due,
                             rtol=1e-4)


def test_without_a_kl_no_reference_is_needed():
  without, _ = of()(PARAMS, BATCH.replace(ref_logprobs=None))
  np.testing.assert_array_equal(without.compute(),
                                of()(PARAMS, BATCH)[0].compute())


def test_importance_weights_multiply_the_surrogate_but_not_the_kl():
  cap = 1.1
  weights = np.minimum(np.exp(BATCH.logprobs - BATCH.sampler_logprobs), cap)
  assert (weights[IS_LOSS] == np.float32(cap)).any()
  assert (weights[IS_LOSS] < 1).any()
  d = BATCH.logprobs - BATCH.ref_logprobs
  tokens = -weights * BATCH.advantages + 0.2 * (np.exp(-d) - 1 + d)
  loss, _ = of(importance_cap=cap, kl_coef=0.2)(PARAMS, BATCH)
  np.testing.assert_allclose(loss.compute(), tokens[IS_LOSS].mean(), rtol=1e-4)


def test_gspo_has_one_ratio_for_a_response():
  """Its loss is that of the mean log-ratio, under a mean over responses."""
  surrogate = objectives.gspo_surrogate(clip=0.03, clip_high=0.04)
  # One advantage for a response, as a group gives it.
  advantages = np.where(
      IS_LOSS, np.array([1.0, -2.0, 0.5, 0.0])[:, None], 0).astype(np.float32)
  batch = BATCH.replace(advantages=advantages)
  expected = []
  for i, n in enumerate(COUNTS):
    tokens = slice(PROMPT, PROMPT + n)
    s = np.exp(np.mean((BATCH.ref_logprobs - BATCH.logprobs)[i, tokens]))
    a = advantages[i, PROMPT]
    expected.append(-min(s * a, np.clip(s, 0.97, 1.04) * a))
  loss, _ = of(surrogate, aggregate=objectives.sequence_mean)(OTHER, batch)
  np.testing.assert_allclose(loss.compute(), np.mean(expected), rtol=1e-4)
  gspo, plain = (
      gradient(of(s, aggregate=objectives.sequence_mean), batch=batch)
      for s in (surrogate, reinforce))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               gspo, plain)


@pytest.mark.parametrize('settings', [
    dict(), dict(aggregate=objectives.budget_mean(5), importance_cap=2.0),
    dict(surrogate=objectives.gspo_surrogate(clip=0.03, clip_high=0.04),
         aggregate=objectives.sequence_mean, kl_coef=0.1)],
    ids=['tokens', 'budget', 'gspo'])
def test_padding_and_filler_change_neither_value_nor_gradient(settings):
  objective = of(**settings)
  junk = lambda x, value: np.where(IS_LOSS, x, value).astype(np.float32)
  tokens = np.where(BATCH.attention_mask, BATCH.tokens, 11)
  tokens[3] = 17
  changed = BATCH.replace(
      tokens=tokens, logprobs=junk(BATCH.logprobs, -5.0),
      ref_logprobs=junk(BATCH.ref_logprobs, -7.0),
      sampler_logprobs=junk(BATCH.sampler_logprobs, -9.0),
      advantages=junk(BATCH.advantages, 30.0))
  jax.tree.map(np.testing.assert_array_equal, objective(PARAMS, BATCH),
               objective(PARAMS, changed))
  jax.tree.map(np.testing.assert_array_equal, gradient(objective),
               gradient(objective, batch=changed))


def test_chunks_change_no_gradient():
  whole, chunked = (gradient(of(kl_coef=0.1, **settings))
                    for settings in ({}, {'chunk_size': 3}))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               whole, chunked)


def test_a_gradient_step_makes_tokens_of_positive_advantage_likelier():
  params = jax.tree.map(lambda p, g: p - 0.05 * g, PARAMS, gradient(of()))
  moved = np.asarray(logprobs_of(params, BATCH.tokens, BATCH.attention_mask)
                     - BATCH.logprobs)
  assert jnp.sum(moved * BATCH.advantages, where=IS_LOSS) > 0.1
