"""DPO: log 2 at the reference, and what a step away from it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import models
from alignjax import objectives
from alignjax import scoring
from alignjax.types import PreferenceBatch

VOCAB = 29
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS = MODEL.init(jax.random.key(0))
OTHER = MODEL.init(jax.random.key(1))
KEY = jax.random.key(9)
BETA = 0.1

token_logprobs_of = jax.jit(lambda params, b: scoring.pair_token_logprobs(
    MODEL, params, b.tokens, b.attention_mask, b.loss_mask))
logprobs_of = lambda params, b: jnp.sum(token_logprobs_of(params, b), axis=-1)
loss_of = jax.jit(lambda params, batch: objectives.dpo(MODEL, beta=BETA)(
    params, batch, KEY))
gradient = jax.jit(jax.grad(lambda params, batch: objectives.dpo(
    MODEL, beta=BETA)(params, batch, KEY)[0].total))


def make_batch(ref_params):
  """Four pairs of T = 7: two tokens of prompt; the last pair is filler."""
  tokens = np.random.default_rng(1).integers(1, VOCAB, (4, 2, 7), np.int32)
  tokens[:, 1, :2] = tokens[:, 0, :2]
  real = np.arange(7) < np.array([[7, 5], [4, 6], [5, 5], [7, 7]])[..., None]
  batch = PreferenceBatch(
      tokens=tokens, attention_mask=real, loss_mask=real & (np.arange(7) > 1),
      weight=np.array([1, 1, 1, 0], np.float32))
  return batch.replace(ref_logprobs=token_logprobs_of(ref_params, batch))


AT_REFERENCE = make_batch(PARAMS)
AWAY = make_batch(OTHER)


@pytest.mark.parametrize('beta', [0.05, 1.0])
def test_equals_log_two_at_the_reference_whatever_beta(beta):
  loss, metrics = jax.jit(objectives.dpo(MODEL, beta=beta))(
      PARAMS, AT_REFERENCE, KEY)
  np.testing.assert_allclose(loss.compute(), np.log(2), atol=1e-6)
  for name in ('margin', 'chosen_reward', 'rejected_reward'):
    np.testing.assert_allclose(metrics[name].compute(), 0, atol=1e-5)
  assert loss.weight == 3


def test_loss_and_rewards_equal_those_worked_by_hand():
  logprobs = np.asarray(logprobs_of(PARAMS, AWAY))[:3]
  ratios = BETA * (logprobs - np.asarray(AWAY.ref_logprobs)[:3].sum(-1))
  margins = ratios[:, 0] - ratios[:, 1]
  loss, metrics = loss_of(PARAMS, AWAY)
  np.testing.assert_allclose(
      loss.compute(), np.mean(np.log1p(np.exp(-margins))), rtol=1e-5)
  assert np.abs(margins).min() > 1e-3
  for name, value in (('accuracy', margins > 0), ('margin', margins),
                      ('chosen_reward', ratios[:, 0]),
                      ('rejected_reward', ratios[:, 1])):
    np.testing.assert_allclose(metrics[name].compute(), value.mean(),
                               atol=1e-5)


def test_a_gradient_step_raises_chosen_over_rejected():
  params = jax.tree.map(lambda p, g: p - 0.05 * g, PARAMS,
                        gradient(PARAMS, AT_REFERENCE))
  moved = (logprobs_of(params, AT_REFERENCE)
           - AT_REFERENCE.ref_logprobs.sum(-1))[:3]
  assert jnp.all(moved[:, 0] > 0)
  assert jnp.all(moved[:, 1] < 0)
  loss, metrics = loss_of(params, AT_REFERENCE)
  assert loss.compute() < np.log(2)
  assert metrics['accuracy'].compute() == 1


def test_padding_and_filler_change_neither_value_nor_gradient():
  tokens = np.where(AWAY.attention_mask, AWAY.tokens, 11)
  tokens[3] = 17
  ref = AWAY.ref_logprobs.at[3].set(-100.0)
  changed = AWAY.replace(tokens=tokens, ref_logprobs=ref)
  for a, b in zip(jax.tree.leaves(loss_of(PARAMS, AWAY)),
                  jax.tree.leaves(loss_of(PARAMS, changed))):
    np.testing.assert_array_equal(a, b)
  jax.tree.map(np.testing.assert_array_equal, gradient(PARAMS, AWAY),
               gradient(PARAMS, changed))


def test_prompt_tokens_bear_no_loss():
  logprobs = jax.jit(scoring.token_logprobs, static_argnums=0)(
      MODEL, PARAMS, AWAY.tokens[:, 0], AWAY.attention_mask[:, 0])
  by_hand = [np.asarray(logprobs)[b, 2:n].sum()
             for b, n in enumerate((7, 4, 5))]
  np.testing.assert_allclose(logprobs_of(PARAMS, AWAY)[:3, 0], by_hand,
                             rtol=1e-5)


def test_label_smoothing_is_the_mean_over_flipped_labels():
  flipped = AWAY.replace(
      tokens=AWAY.tokens[:, ::-1], attention_mask=AWAY.attention_mask[:, ::-1],
      loss_mask=AWAY.loss_mask[:, ::-1], ref_logprobs=AWAY.ref_logprobs[:, ::-1]
  )
  smoothed, _ = jax.jit(objectives.dpo(
      MODEL, beta=BETA, label_smoothing=0.2))(PARAMS, AWAY, KEY)
  straight, turned = (loss_of(PARAMS, b)[0].compute() for b in (AWAY, flipped))
  np.testing.assert_allclose(smoothed.compute(),
                             0.8 * straight + 0.2 * turned, rtol=1e-5)


def test_chunks_change_no_gradient():
  chunked = objectives.dpo(MODEL, beta=BETA, chunk_size=3)
  grads = jax.jit(jax.grad(
      lambda params: chunked(params, AWAY, KEY)[0].total))(PARAMS)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
               grads, gradient(PARAMS, AWAY))
