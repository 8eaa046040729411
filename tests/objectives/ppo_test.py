"""PPO's two objectives, at the sampling policy and a known way off it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import models
from alignjax import objectives
from alignjax import scoring
from alignjax.types import Trajectory

VOCAB, PROMPT = 29, 3
CONFIG = models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8)
MODEL, VALUE = models.CausalLM(CONFIG), models.ScalarModel(CONFIG)
PARAMS = MODEL.init(jax.random.key(0))
VALUE_PARAMS = VALUE.init(jax.random.key(1))
KEY = jax.random.key(9)
TEMPERATURE = 0.7


logprobs_of = jax.jit(lambda params, tokens, mask: scoring.token_logprobs(
    MODEL, params, tokens, mask, start=PROMPT, temperature=TEMPERATURE))
values_of = jax.jit(scoring.token_values, static_argnums=0)


def make_trajectory():
  """Responses of 4, 2 and 1 tokens after P = 3; the last row is filler."""
  rng = np.random.default_rng(1)
  tokens = rng.integers(1, VOCAB, (4, 7), np.int32)
  real = np.arange(7) < np.array([7, 5, 4, 7])[:, None]
  response = real & (np.arange(7) >= PROMPT)
  return Trajectory(
      tokens=tokens, attention_mask=real, response_mask=response,
      weight=np.array([1, 1, 1, 0], np.float32),
      sampler_logprobs=np.zeros((4, 7), np.float32),
      logprobs=logprobs_of(PARAMS, tokens, real),
      values=values_of(VALUE, VALUE_PARAMS, tokens, real),
      advantages=rng.normal(size=(4, 7)).astype(np.float32),
      returns=rng.normal(size=(4, 7)).astype(np.float32))


BATCH = make_trajectory()
IS_LOSS = BATCH.response_mask & (BATCH.weight > 0)[:, None]

policy = jax.jit(lambda params, batch: objectives.ppo_policy(
    MODEL, prompt_length=PROMPT, temperature=TEMPERATURE)(params, batch, KEY))
policy_gradient = jax.jit(jax.grad(lambda params, batch: policy(
    params, batch)[0].total))
value = jax.jit(lambda params, batch: objectives.ppo_value(VALUE)(
    params, batch, KEY))
value_gradient = jax.jit(jax.grad(lambda params, batch: value(
    params, batch)[0].total))


def test_ratio_is_one_and_loss_minus_the_advantage_at_the_sampling_policy():
  loss, metrics = policy(PARAMS, BATCH)
  assert loss.weight == 7
  np.testing.assert_allclose(metrics['ratio'].compute(), 1, atol=1e-6)
  np.testing.assert_allclose(metrics['approx_kl'].compute(), 0, atol=1e-6)
  assert metrics['clipped'].compute() == 0
  np.testing.assert_allclose(
      loss.compute(), -BATCH.advantages[IS_LOSS].mean(), rtol=1e-5)


def test_the_temperature_divides_the_logits():
  _, metrics = jax.jit(objectives.ppo_policy(MODEL, prompt_length=PROMPT))(
      PARAMS, BATCH, KEY)
  assert abs(float(metrics['ratio'].compute()) - 1) > 1e-2


def test_share_of_clipped_tokens_counts_real_response_tokens_only():
  off = np.zeros((4, 7), np.float32)
  off[0, 3:5], off[1, 3] = -0.3, 0.1       # Two beyond 1 ± 0.2, one within.
  off[0, 1], off[2, 5:], off[3] = 2, 2, 2  # Prompt, padding, filler.
  _, metrics = policy(PARAMS, BATCH.replace(logprobs=BATCH.logprobs + off))
  np.testing.assert_allclose(metrics['clipped'].compute(), 2 / 7, rtol=1e-6)
  ratios = np.exp(-off)[IS_LOSS]
  np.testing.assert_allclose(metrics['ratio'].compute(), ratios.mean(),
                             rtol=1e-5)
  # KL(old ‖ new) by k3: exp(d) − 1 − d at d = log new − log old = −off.
  np.testing.assert_allclose(
      metrics['approx_kl'].compute(), np.mean(ratios - 1 - np.log(ratios)),
      rtol=1e-4)


def test_the_clips_and_the_entropy_are_worked_by_hand():
  """A ratio of e^0.3 is within 1.4, and one of e^1.5 past the second clip."""
  off = np.zeros((4, 7), np.float32)
  off[0, 3], off[1, 3] = -0.3, -1.5
  advantages = np.zeros((4, 7), np.float32)
  advantages[0, 3], advantages[1, 3] = 1.0, -1.0
  batch = BATCH.replace(logprobs=BATCH.logprobs + off, advantages=advantages)
  loss, metrics = jax.jit(objectives.ppo_policy(
      MODEL, prompt_length=PROMPT, temperature=TEMPERATURE, clip_high=0.4,
      dual_clip=3.0, entropy_coef=0.5))(PARAMS, batch, KEY)
  logits = MODEL.hidden(
      PARAMS, batch.tokens, batch.attention_mask) @ MODEL.unembedding(PARAMS).T
  probs = np.asarray(jax.nn.softmax(logits / TEMPERATURE))[:, :-1]
  entropy = -np.sum(probs * np.log(probs), axis=-1)[IS_LOSS[:, 1:]]
  np.testing.assert_allclose(
      metrics['exact_entropy'].compute(), entropy.mean(), rtol=1e-4)
  np.testing.assert_allclose(
      loss.total, -np.exp(0.3) + 3.0 - 0.5 * entropy.sum(), rtol=1e-4)
  np.testing.assert_allclose(metrics['clipped'].compute(), 1 / 7, rtol=1e-6)


def test_a_gradient_step_raises_what_had_an_advantage():
  first = np.zeros((4, 7), np.float32)
  first[0, 3], first[1, 3] = 1, -1
  batch = BATCH.replace(advantages=first)
  params = jax.tree.map(lambda p, g: p - 0.01 * g, PARAMS,
                        policy_gradient(PARAMS, batch))
  after = logprobs_of(params, BATCH.tokens, BATCH.attention_mask)
  assert after[0, 3] > BATCH.logprobs[0, 3]
  assert after[1, 3] < BATCH.logprobs[1, 3]


def test_value_loss_is_half_the_squared_error_at_the_rollout():
  loss, metrics = value(VALUE_PARAMS, BATCH)
  error = np.asarray(BATCH.values - BATCH.returns)[IS_LOSS]
  np.testing.assert_allclose(loss.compute(), np.mean(error**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(
      metrics['value'].compute(), np.asarray(BATCH.values)[IS_LOSS].mean(),
      rtol=1e-5)


def test_values_stand_before_their_tokens():
  changed = BATCH.tokens.copy()
  changed[0, 5] = changed[0, 5] % (VOCAB - 1) + 1
  values = values_of(VALUE, VALUE_PARAMS, changed, BATCH.attention_mask)
  moved = values[0] != BATCH.values[0]
  np.testing.assert_array_equal(moved, [False] * 6 + [True])


@pytest.mark.parametrize('of', ['policy', 'value'])
def test_what_is_not_a_real_response_token_changes_nothing(of):
  loss, gradient, params = {
      'policy': (policy, policy_gradient, PARAMS),
      'value': (value, value_gradient, VALUE_PARAMS)}[of]
  junk = lambda x: jnp.where(IS_LOSS, x, 3.0)
  tokens = np.where(BATCH.attention_mask, BATCH.tokens, 11)
  tokens[3] = 17
  changed = BATCH.replace(
      tokens=tokens, logprobs=junk(BATCH.logprobs), values=junk(BATCH.values),
      advantages=junk(BATCH.advantages), returns=junk(BATCH.returns))
  for a, b in zip(jax.tree.leaves(loss(params, BATCH)),
                  jax.tree.leaves(loss(params, changed))):
    np.testing.assert_array_equal(a, b)
  jax.tree.map(np.testing.assert_array_equal, gradient(params, BATCH),
               gradient(params, changed))


def test_tokens_are_weighed_by_what_the_sampler_made_of_them():
  """Drawn with half the probability, a token counts twice, to the cap."""
  drawn = BATCH.logprobs - np.log([[2.0], [0.5], [4.0], [9.0]])
  batch = BATCH.replace(sampler_logprobs=drawn)
  objective = jax.jit(objectives.ppo_policy(
      MODEL, prompt_length=PROMPT, temperature=TEMPERATURE, importance_cap=3.0))
  loss, metrics = objective(PARAMS, batch, KEY)
  weights = np.broadcast_to([[2.0], [0.5], [3.0], [0.0]], (4, 7))
  np.testing.assert_allclose(
      loss.compute(), np.mean(-(BATCH.advantages * weights)[IS_LOSS]),
      rtol=1e-5)
  np.testing.assert_allclose(
      metrics['importance'].compute(), weights[IS_LOSS].mean(), rtol=1e-5)
  same, _ = objective(
      PARAMS, BATCH.replace(sampler_logprobs=BATCH.logprobs), KEY)
  assert same.total == policy(PARAMS, BATCH)[0].total
