"""Policy-gradient losses give what TRL's GRPOTrainer and RLOOTrainer give.

Runs where torch and trl (1.16) are installed beside jax.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import logprobs
from alignjax import losses
from alignjax import masked

pytestmark = pytest.mark.parity
pytest.importorskip('torch', reason='torch is not installed')
trl = pytest.importorskip(
    'trl', minversion='1.16', reason='trl 1.16 is not installed')

OUTPUTS = ('log_probs', 'entropy')
NUM_PROMPT, NUM_RESPONSE = 3, 5
TEMPERATURE = 0.7
# More than the rows hold: the tokens of a whole step, of which they are a part.
NUM_TOKENS = 40.0
ADVANTAGES = np.array([1.3, -0.8, 0.4, -1.6, 0.9, -0.2], np.float32)


@pytest.fixture(scope='module')
def rollout(bench):
  """Six rows of a rollout, and the policy that is some steps past it."""
  rng = np.random.default_rng(1)
  column = np.arange(NUM_PROMPT + NUM_RESPONSE)
  start = np.array([0, 1, 0, 2, 0, 1])[:, None]
  end = NUM_PROMPT + np.array([5, 2, 3, 5, 1, 4])[:, None]
  tokens = rng.integers(0, 11, (6, 8))
  logits = rng.normal(0, 1, (6, 8, 11)).astype(np.float32)
  now = bench.logprobs(logits, tokens, TEMPERATURE)
  return SimpleNamespace(
      tokens=tokens, logits=logits,
      attention=(start <= column) & (column < end),
      mask=(column >= NUM_PROMPT) & (column < end),
      old=np.asarray(now + rng.uniform(-0.9, 0.9, now.shape), np.float32),
      ref=np.asarray(now + rng.normal(0, 0.8, now.shape), np.float32))


def their_loss(bench, rollout, trainer_class=trl.GRPOTrainer, inputs=(),
               **settings):
  """The trainer's own loss, as a function of the policy's logits."""
  args = SimpleNamespace(
      delta=settings.pop('delta', None), use_bias_correction_kl=False,
      steps_per_generation=1)
  parts = slice(NUM_PROMPT), slice(NUM_PROMPT, None)

  def loss(logits):
    model = bench.says(logits, outputs=OUTPUTS, temperature=TEMPERATURE)
    trainer = bench.trainer(trainer_class, **(dict(
        model=model, args=args, loss_type='grpo', beta=0.0, epsilon_low=0.2,
        epsilon_high=0.2, importance_sampling_level='token',
        top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        use_vllm=False, vllm_importance_sampling_correction=False,
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
        max_completion_length=NUM_RESPONSE) | settings))
    return trainer.compute_loss(model, bench.tensors(**(dict(
        prompt_ids=rollout.tokens[:, parts[0]],
        completion_ids=rollout.tokens[:, parts[1]],
        prompt_mask=rollout.attention[:, parts[0]],
        completion_mask=rollout.mask[:, parts[1]],
        old_per_token_logps=rollout.old[:, parts[1]],
        ref_per_token_logps=rollout.ref[:, parts[1]],
        advantages=ADVANTAGES, num_items_in_batch=np.float32(NUM_TOKENS),
    ) | dict(inputs))))

  return loss


def token_advantages(rollout):
  """The advantage of its response, on every token."""
  return jnp.broadcast_to(ADVANTAGES[:, None], rollout.mask.shape)


def sequence_mean(loss, mask):
  """Mean over the responses of each one's mean over tokens."""
  return jnp.mean(masked.masked_mean(loss, mask, 1))


# How TRL's loss types reduce [B, T]; before that, they are all ppo_clip_loss.
REDUCTIONS = dict(
    grpo=sequence_mean,
    bnpo=masked.masked_mean,
    dr_grpo=lambda x, mask: (
        masked.masked_sum(x, mask) / mask[:, NUM_PROMPT:].size),
    dapo=lambda x, mask: masked.masked_sum(x, mask) / NUM_TOKENS,
    luspo=lambda x, mask: jnp.mean(masked.masked_sum(x, mask, 1)))


@pytest.mark.parametrize('loss_type', REDUCTIONS)
@pytest.mark.parametrize('settings, ours_settings', [
    ({}, {}),
    (dict(beta=0.3), {}),
    (dict(epsilon_low=0.1, epsilon_high=0.4), dict(clip=0.1, clip_high=0.4)),
    (dict(delta=1.5), dict(dual_clip=1.5)),
])
def test_clipped_token_loss_is_trls(
    bench, rollout, loss_type, settings, ours_settings):
  def ours(logits):
    now = bench.logprobs(logits, rollout.tokens, TEMPERATURE)
    loss = losses.ppo_clip_loss(
        now, rollout.old, token_advantages(rollout), **ours_settings)
    penalty = settings.get('beta', 0.0) * losses.kl_k3(now, rollout.ref)
    return REDUCTIONS[loss_type](loss + penalty, rollout.mask)

  bench.check(
      ours, their_loss(bench, rollout, loss_type=loss_type, **settings),
      rollout.logits)


def test_each_clip_bites_somewhere_in_these_rows(bench, rollout):
  ratio = np.exp(np.asarray(bench.logprobs(
      rollout.logits, rollout.tokens, TEMPERATURE)) - rollout.old)
  up = token_advantages(rollout) > 0
  for is_bitten in (up & (ratio > 1.4), ~up & (ratio < 0.8),
                    ~up & (ratio > 1.5)):
    assert (is_bitten & rollout.mask).any()


def test_ratio_is_bounded_in_ours_where_trls_overflows(bench, rollout):
  old = rollout.old - 100.0
  _, theirs = bench.loss_and_grad(their_loss(
      bench, rollout, inputs=dict(
          old_per_token_logps=old[:, NUM_PROMPT:])), rollout.logits)
  assert not np.isfinite(theirs).all()
  ours = jax.grad(lambda x: sequence_mean(losses.ppo_clip_loss(
      bench.logprobs(x, rollout.tokens, TEMPERATURE), old,
      token_advantages(rollout)), rollout.mask))(rollout.logits)
  assert np.isfinite(ours).all()


@pytest.mark.parametrize('cap', [1.2, 5.0])
def test_cispo_loss_is_trls_whose_epsilon_high_is_the_whole_cap(
    bench, rollout, cap):
  def ours(logits):
    loss = losses.cispo_loss(
        bench.logprobs(logits, rollout.tokens, TEMPERATURE), rollout.old,
        token_advantages(rollout), clip_high=cap - 1.0)
    return REDUCTIONS['dapo'](loss, rollout.mask)

  bench.check(ours, their_loss(
      bench, rollout, loss_type='cispo', epsilon_high=cap), rollout.logits)


@pytest.mark.parametrize('beta', [0.0, 0.3])
@pytest.mark.parametrize('clip, clip_high', [(3e-4, 4e-4), (0.1, 0.2)])
def test_gspo_loss_is_trls_at_the_sequence_level(
    bench, rollout, beta, clip, clip_high):
  def ours(logits):
    now = bench.logprobs(logits, rollout.tokens, TEMPERATURE)
    return jnp.mean(losses.gspo_loss(
        now, rollout.old, ADVANTAGES, rollout.mask, clip=clip,
        clip_high=clip_high)) + beta * sequence_mean(
            losses.kl_k3(now, rollout.ref), rollout.mask)

  bench.check(ours, their_loss(
      bench, rollout, importance_sampling_level='sequence', beta=beta,
      epsilon_low=clip, epsilon_high=clip_high), rollout.logits)


def response_sums(bench, rollout, logits):
  """[B, 1] log-probabilities of whole responses: RLOO's one action."""
  return masked.masked_sum(
      bench.logprobs(logits, rollout.tokens, TEMPERATURE), rollout.mask,
      1)[:, None]


def test_rloo_loss_is_trls_with_the_response_as_one_token(bench, rollout):
  old = np.asarray(masked.masked_sum(rollout.old, rollout.mask, 1))

  def ours(logits):
    return jnp.mean(losses.ppo_clip_loss(
        response_sums(bench, rollout, logits), old[:, None],
        ADVANTAGES[:, None]))

  bench.check(ours, their_loss(
      bench, rollout, trl.RLOOTrainer, dict(old_logps=old)), rollout.logits)


def test_reinforce_has_the_gradient_of_trls_rloo_on_fresh_responses(
    bench, rollout):
  old = np.asarray(response_sums(bench, rollout, rollout.logits))[:, 0]
  _, due = bench.loss_and_grad(their_loss(
      bench, rollout, trl.RLOOTrainer, dict(old_logps=old)), rollout.logits)
  got = jax.grad(lambda x: jnp.mean(losses.reinforce_loss(
      response_sums(bench, rollout, x), ADVANTAGES[:, None])))(rollout.logits)
  np.testing.assert_allclose(got, due, rtol=1e-5, atol=1e-5)


def test_entropy_bonus_is_trls(bench, rollout):
  def ours(logits):
    now = bench.logprobs(logits, rollout.tokens, TEMPERATURE)
    loss = losses.ppo_clip_loss(now, rollout.old, token_advantages(rollout))
    entropy = logprobs.token_entropy(
        logits, jnp.eye(logits.shape[-1]), temperature=TEMPERATURE)
    return (sequence_mean(loss, rollout.mask)
            - 0.3 * masked.masked_mean(entropy, rollout.mask))

  bench.check(ours, their_loss(
      bench, rollout, _entropy_bonus_enabled=True, entropy_coef=0.3,
      use_adaptive_entropy=False), rollout.logits)
