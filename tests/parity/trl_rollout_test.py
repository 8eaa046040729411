"""What TRL's trainers make of a scored rollout, ours make of it too.

Group and leave-one-out advantages, and the weights of another sampler's tokens.

Runs where torch and trl (1.16) are installed beside jax.
"""

from collections import defaultdict
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import advantages
from alignjax import losses
from alignjax import masked

pytestmark = pytest.mark.parity
pytest.importorskip('torch', reason='torch is not installed')
trl = pytest.importorskip(
    'trl', minversion='1.16', reason='trl 1.16 is not installed')

NUM_GROUPS, GROUP_SIZE, NUM_RESPONSE = 3, 4, 5
RNG = np.random.default_rng(2)
SCORES = RNG.normal(0, 2, (NUM_GROUPS, GROUP_SIZE)).astype(np.float32)
SCORES[1] = 0.7  # A group that is all alike.
TOKENS = RNG.integers(3, 11, (NUM_GROUPS * GROUP_SIZE, 1 + NUM_RESPONSE))
LENGTHS = RNG.integers(1, NUM_RESPONSE + 1, len(TOKENS))
MASK = (np.arange(TOKENS.shape[1]) > 0) & (
    np.arange(TOKENS.shape[1]) <= LENGTHS[:, None])
LOGITS, REF_LOGITS = RNG.normal(0, 1, (2, *TOKENS.shape, 11)).astype(np.float32)


def their_rollout(bench, trainer_class, sampler_logprobs=None, **settings):
  """What the trainer makes of given responses and their given scores."""
  responses = [row[1:1 + n].tolist()
               for row, n in zip(TOKENS, LENGTHS, strict=True)]
  model = bench.says(LOGITS, outputs=('log_probs',))
  trainer = bench.trainer(trainer_class, **(dict(
      model=model,
      ref_model=bench.says(REF_LOGITS, outputs=('log_probs',)),
      args=SimpleNamespace(
          per_device_train_batch_size=len(TOKENS), steps_per_generation=1,
          gradient_accumulation_steps=1, report_to=[],
          gradient_checkpointing_kwargs=None),
      beta=0.0, num_generations=GROUP_SIZE, num_iterations=1, tools=None,
      environments=None, environment_factories=None, pad_to_multiple_of=None,
      _tokenizer=SimpleNamespace(pad_token_id=0), reward_clip_range=None,
      mask_truncated_completions=False, use_vllm=False, reward_funcs=[None],
      reward_func_names=['given'], reward_weights=bench.torch.ones(1),
      multi_objective_aggregation='sum_then_normalize',
      normalize_advantages=False, log_multimodal=False,
      _pending_extra_logs={}, _pending_metrics={},
      _logs=defaultdict(list, rewards=defaultdict(list)),
      vllm_importance_sampling_correction=False,
  ) | settings))
  generated = (TOKENS[:, :1].tolist(), responses)
  trainer._generate = lambda prompts: (
      (*generated, prompts) if trainer_class is trl.RLOOTrainer
      else (*generated, None, prompts, sampler_logprobs, {}, None, None))
  trainer._calculate_rewards = lambda *_: bench.torch.tensor(
      SCORES.reshape(-1, 1))
  return trainer._generate_and_score_completions(
      [dict(prompt='')] * len(TOKENS))


def assert_same(ours, rollout):
  """Advantages [G, K] against TRL's [G K]."""
  assert np.abs(ours).max() > 0.5
  np.testing.assert_allclose(
      np.ravel(ours), rollout['advantages'].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('scale_rewards, scale', [
    ('group', True), ('none', False)])
def test_group_advantages_are_trls(bench, scale_rewards, scale):
  assert_same(
      advantages.group_advantages(SCORES, scale=scale),
      their_rollout(bench, trl.GRPOTrainer, scale_rewards=scale_rewards))


@pytest.mark.parametrize('beta', [0.0, 0.3])
def test_leave_one_out_advantages_of_penalised_scores_are_trls(bench, beta):
  kl = masked.masked_sum(losses.kl_k1(
      bench.logprobs(LOGITS, TOKENS), bench.logprobs(REF_LOGITS, TOKENS)),
      MASK, 1)
  penalised = SCORES - beta * jnp.reshape(kl, SCORES.shape)
  assert_same(
      advantages.leave_one_out_advantages(penalised),
      their_rollout(bench, trl.RLOOTrainer, beta=beta))


def test_weights_of_another_samplers_tokens_are_trls(bench):
  now = np.asarray(bench.logprobs(LOGITS, TOKENS))
  sampler = now + RNG.normal(0, 0.6, now.shape).astype(np.float32)
  theirs = their_rollout(
      bench, trl.GRPOTrainer,
      [row[1:1 + n].tolist() for row, n in zip(sampler, LENGTHS, strict=True)],
      scale_rewards='group', use_vllm=True,
      vllm_importance_sampling_correction=True,
      vllm_importance_sampling_mode='token_truncate',
      vllm_importance_sampling_clip_min=None,
      vllm_importance_sampling_clip_max=1.5)
  got = np.asarray(losses.importance_weights(now, sampler, cap=1.5))
  assert (got[MASK] == 1.5).any() and (got[MASK] < 1.0).any()
  width = LENGTHS.max()
  np.testing.assert_allclose(
      np.where(MASK, got, 1.0)[:, 1:1 + width],
      theirs['importance_sampling_ratio'].numpy(), rtol=1e-5, atol=1e-5)
