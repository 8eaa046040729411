"""PPO's options: what each changes, and what none may change."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignjax import adapters
from alignjax import metrics as metrics_lib
from alignjax import sharding
from alignjax import train
from alignjax import types
from alignjax.models import lora
from alignjax.train import ppo
from alignjax.types import InputError

LIKED = 5  # The token that the toy reward counts.
BASE = train.PPOConfig(
    kl_coef=0.1, kl_target=0.2, kl_horizon=20.0, num_epochs=2,
    num_minibatches=2, max_new_tokens=5, missing_eos_penalty=0.5)


def iterations(tiny, mesh, config, num=1, *, reward_fn=None, roles=None,
               batches=None):
  """(states, metrics, trajectories) of a few iterations of a toy reward."""
  roles = roles or (adapters.full(tiny.model, tiny.params, ''),
                    adapters.full(tiny.scalar, tiny.scalar_params, ''))
  optimizers = optax.adam(2e-2), optax.adam(2e-2)
  state, shardings = train.init_ppo_state(
      *roles, *optimizers, config, mesh=mesh, seed=0)
  rows = sharding.batch_sharding(mesh)
  columns = jnp.arange(tiny.prompt_length + config.max_new_tokens)
  count = jax.jit(lambda tokens, mask: jnp.sum(
      (tokens == LIKED) & mask & (columns >= tiny.prompt_length), axis=1,
      dtype=jnp.float32), in_shardings=(rows, rows), out_shardings=rows)
  seen = []

  def observe(trajectory):
    seen.append(jax.device_get(trajectory))
    return {}

  iterate = train.make_ppo_iteration(
      *roles, reward_fn or count, *optimizers, config, shardings=shardings,
      mesh=mesh, prompt_length=tiny.prompt_length, eos_id=tiny.eos_id,
      observe=observe)
  states, metrics = [jax.device_get(_arrays(state))], []
  for i in range(num):
    batch = batches(i) if batches else tiny.prompts(i)
    state, measured = iterate(state, sharding.put(batch, rows))
    states.append(jax.device_get(_arrays(state)))
    metrics.append(metrics_lib.to_floats(measured))
  return states, metrics, seen


def _arrays(state):
  return {'policy': state.policy.params, 'value': state.value.params,
          'kl': state.kl, 'steps': (state.policy.step, state.value.step)}


def assert_equal(got, expected):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected),
                  strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope='module')
def one(mesh_of):
  return mesh_of('one')


@pytest.fixture(scope='module')
def plain(tiny, one):
  """Two iterations without any option."""
  return iterations(tiny, one, BASE, 2)


# --- The KL that is penalised.


def test_the_exact_kl_is_the_divergence_and_not_the_log_ratio(
    tiny, one, plain):
  config = dataclasses.replace(BASE, kl_estimator='exact')
  _, metrics, seen = iterations(tiny, one, config, 2)
  assert metrics[0]['kl'] == 0.0
  first, later = seen
  np.testing.assert_array_equal(first.tokens, plain[2][0].tokens)
  mask = later.response_mask
  assert np.all(later.kl[mask] > 0)  # A log-ratio is of either sign.
  k1 = (later.logprobs - later.ref_logprobs)[mask]
  assert k1.min() < 0 < k1.max()
  np.testing.assert_allclose(
      later.kl[mask].mean(), k1.mean(), atol=3 * k1.std() / np.sqrt(k1.size))
  total = later.kl.sum(axis=1, where=mask)
  np.testing.assert_allclose(metrics[1]['kl'], total[:7].mean(), rtol=1e-5)


def test_a_token_answers_for_its_own_log_ratio_and_the_kl_behind_it(
    tiny, one):
  """Worked by hand: no critic, no reward, λ = γ = 1."""
  config = dataclasses.replace(
      BASE, kl_estimator='exact', missing_eos_penalty=0.0, lam=1.0)
  annotate = jax.jit(ppo.make_annotate(
      tiny.model, tiny.scalar, config, prompt_length=tiny.prompt_length,
      eos_id=tiny.eos_id))
  ref = jax.tree.map(lambda x: x * 1.1, tiny.params)
  no_value = jax.tree.map(np.zeros_like, tiny.scalar_params)
  t, _ = annotate(tiny.params, ref, no_value, jnp.float32(0.5),
                  tiny.trajectory(0), np.zeros(8, np.float32))
  mask = t.response_mask & (t.weight > 0)[:, None]
  kl = np.where(mask, t.kl, 0.0)
  behind = np.cumsum(kl[:, ::-1], axis=1)[:, ::-1] - kl
  own = np.where(mask, t.logprobs - t.ref_logprobs, 0.0)
  expected = -0.5 * (own + behind)
  kept = expected[mask]
  np.testing.assert_allclose(
      t.advantages[mask], (kept - kept.mean()) / kept.std(ddof=1), atol=1e-4)
  np.testing.assert_allclose(  # The critic learns the places' own KL.
      t.returns[mask], -0.5 * (kl + behind)[mask], atol=1e-5)


# --- Rewards.


def test_a_clipped_reward_is_learnt_from_and_the_given_one_is_logged(
    tiny, one, plain):
  config = dataclasses.replace(
      BASE, reward_clip=0.5, gamma=0.0, missing_eos_penalty=0.0)
  _, metrics, (t,) = iterations(tiny, one, config)
  assert t.reward.max() > 1.0
  assert metrics[0]['reward'] == plain[1][0]['reward']
  # Without a discount and at the reference, returns are the token rewards.
  np.testing.assert_allclose(
      t.returns.sum(axis=1)[:7], np.minimum(t.reward, 0.5)[:7], atol=1e-6)


def test_whitened_token_rewards_keep_their_mean_and_have_unit_deviation(
    tiny, one):
  config = dataclasses.replace(BASE, whiten_rewards=True, gamma=0.0)
  raw, whitened = (iterations(tiny, one, c)[2][0] for c in (
      dataclasses.replace(config, whiten_rewards=False), config))
  mask = raw.response_mask & (raw.weight > 0)[:, None]
  np.testing.assert_allclose(whitened.returns[mask].std(ddof=1), 1, rtol=1e-4)
  np.testing.assert_allclose(
      whitened.returns[mask].mean(), raw.returns[mask].mean(), atol=1e-5)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_reward_that_is_no_number_changes_nothing_and_is_named(
    bad, tiny, one):
  reward_fn = lambda tokens, mask: jnp.where(
      jnp.arange(8) == 3, bad, 1.0)
  (before, after), (metrics,), _ = iterations(
      tiny, one, BASE, reward_fn=reward_fn)
  assert_equal(after, before)
  assert metrics['bad_rewards'] == 1
  check = train.make_check(
      reward='reward_model=here', max_decode_gap=1.0, min_ended=0.0,
      max_new_tokens=5)
  with pytest.raises(InputError, match='iteration 4: 1 rewards of reward_model='
                     'here are NaN or infinite'):
    check(4, metrics)


def test_a_filler_row_may_have_any_reward(tiny, one):
  reward_fn = lambda tokens, mask: jnp.where(
      jnp.arange(8) == 7, jnp.nan, 1.0)
  (_, after), (metrics,), _ = iterations(
      tiny, one, BASE, reward_fn=reward_fn)
  assert metrics['bad_rewards'] == 0
  assert after['steps'] == (4, 4)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(after))


@pytest.mark.parametrize('values, words', [
    (dict(decode_gap=2.0), 'disagree by 2 nats'),
    (dict(decode_gap=float('nan')), 'disagree by nan nats'),
    (dict(ended=0.0), '0.0% of the responses end by themselves'),
])
def test_a_first_iteration_that_cannot_be_learnt_from_is_refused(values, words):
  check = train.make_check(
      reward='', max_decode_gap=1.0, min_ended=0.01, max_new_tokens=5)
  good = dict(bad_rewards=0.0, decode_gap=0.1, ended=0.5)
  check(1, good)
  with pytest.raises(InputError, match=words):
    check(1, good | values)


def test_a_policy_may_unlearn_to_end_later():
  check = train.make_check(
      reward='', max_decode_gap=1.0, min_ended=0.01, max_new_tokens=5)
  check(2, dict(bad_rewards=0.0, decode_gap=0.1, ended=0.0))


# --- When the policy moves.


def test_the_value_function_warms_up_alone(tiny, one):
  config = dataclasses.replace(BASE, value_warmup=1)
  (before, warm, after), metrics, seen = iterations(tiny, one, config, 2)
  assert_equal(warm['policy'], before['policy'])
  assert warm['steps'] == (0, 4) and after['steps'] == (4, 8)
  assert metrics[0]['policy_moved'] == 0 and metrics[1]['policy_moved'] == 1
  assert np.any(warm['value']['head'] != before['value']['head'])
  # The samples of the second iteration are new, though the policy is not.
  assert metrics[1]['kl'] == 0.0
  keys = {tuple(t.tokens[0].tolist()) for t in seen}
  assert len(keys) == 2


def test_past_the_limit_a_minibatch_no_longer_moves_the_policy(
    tiny, one, plain):
  """The first is at the sampling policy, so that it always does."""
  config = dataclasses.replace(BASE, early_stop_kl=1e-9)
  (_, after), (metrics,), _ = iterations(tiny, one, config)
  assert metrics['policy_moved'] == 0.25
  assert after['steps'] == (1, 4)
  loose = dataclasses.replace(BASE, early_stop_kl=1e9)
  (_, same), (metrics,), _ = iterations(tiny, one, loose)
  assert metrics['policy_moved'] == 1
  for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(plain[0][1]),
                  strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


# --- PPO-ptx.


def with_text(tiny):
  return lambda i: types.PromptTextBatch(tiny.prompts(i), tiny.tokens(i, 16))


def test_the_text_counts_by_its_coefficient_whatever_its_length(
    tiny, one, mesh_of, plain):
  """Microbatches and devices change nothing of it."""
  config = dataclasses.replace(BASE, ptx_coef=2.0)
  (_, after), (metrics,), _ = iterations(
      tiny, one, config, batches=with_text(tiny))
  assert metrics['ptx_loss'] > 2.0  # Nats a token; log 16 is 2.77.
  assert np.any(after['policy']['embed'] != plain[0][1]['policy']['embed'])
  np.testing.assert_array_equal(
      after['value']['head'], plain[0][1]['value']['head'])
  for other, mesh in ((dataclasses.replace(config, num_microbatches=2), one),
                      (config, mesh_of('data:2,fsdp:2,tensor:2'))):
    (_, same), (measured,), _ = iterations(
        tiny, mesh, other, batches=with_text(tiny))
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(after),
                    strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(
        measured['ptx_loss'], metrics['ptx_loss'], rtol=1e-4)


def test_text_that_does_not_spread_over_the_devices_is_refused(tiny, mesh_of):
  """Its two rows a step would be cut unevenly into four."""
  config = dataclasses.replace(BASE, ptx_coef=2.0)
  with pytest.raises(ValueError, match='partitioned 4 times'):
    iterations(tiny, mesh_of('data:2,fsdp:2,tensor:2'), config,
               batches=lambda i: types.PromptTextBatch(
                   tiny.prompts(i), tiny.tokens(i, 8)))


def test_text_alone_is_pretraining(tiny, one):
  """A reward of 0 everywhere, and no critic's error, leave the text's loss."""
  config = dataclasses.replace(
      BASE, ptx_coef=1.0, num_epochs=1, num_minibatches=1, kl_coef=0.0,
      missing_eos_penalty=0.0)
  roles = (adapters.full(tiny.model, tiny.params, ''), adapters.full(
      tiny.scalar, tiny.scalar_params | {
          'head': np.zeros_like(tiny.scalar_params['head'])}, ''))
  _, metrics, _ = iterations(
      tiny, one, config, 6, roles=roles, batches=lambda i: with_text(tiny)(0),
      reward_fn=lambda tokens, mask: jnp.zeros(len(tokens)))
  losses = [m['ptx_loss'] for m in metrics]
  assert all(a > b for a, b in itertools.pairwise(losses))
  np.testing.assert_allclose(metrics[0]['loss'], losses[0], rtol=1e-5)


# --- Four roles over one base.


@pytest.fixture(scope='module')
def shared_roles(tiny, one):
  """Policy and value function as adapters over one frozen base."""
  base = sharding.put(tiny.params, sharding.replicated(one))
  policy = adapters.adapted(
      tiny.model, base, lora.Lora(rank=2, alpha=4.0), '', mesh=one,
      key=jax.random.key(3))
  value = adapters.adapted_scalar(
      policy, policy.params, tiny.scalar_params['head'],
      lora.Lora(rank=2, alpha=4.0), '')
  return policy, value


def test_adapters_begin_where_four_whole_models_begin(
    tiny, one, shared_roles):
  whole = (adapters.full(tiny.model, tiny.params, ''),
           adapters.full(tiny.scalar, {
               'backbone': tiny.params,
               'head': tiny.scalar_params['head']}, ''))
  (_, (metrics, _), seen), (_, (expected, _), expected_seen) = (
      iterations(tiny, one, BASE, 2, roles=r) for r in (shared_roles, whole))
  assert metrics['kl'] == 0.0
  np.testing.assert_array_equal(seen[0].logprobs, seen[0].ref_logprobs)
  for name in ('tokens', 'response_mask'):
    np.testing.assert_array_equal(
        getattr(seen[0], name), getattr(expected_seen[0], name))
  for name in ('logprobs', 'values', 'advantages', 'returns'):
    np.testing.assert_allclose(
        getattr(seen[0], name), getattr(expected_seen[0], name), atol=1e-5)
  assert metrics['reward'] == expected['reward']


def test_adapters_learn_and_the_base_stays(tiny, one, shared_roles):
  policy, _ = shared_roles
  before = jax.device_get(policy.base)
  states, metrics, _ = iterations(tiny, one, BASE, 2, roles=shared_roles)
  assert_equal(jax.device_get(policy.base), before)
  assert metrics[1]['kl'] != 0.0
  trained = jax.tree.leaves(states[2]['policy'])
  assert any(np.any(a != b) for a, b in zip(
      trained, jax.tree.leaves(states[0]['policy']), strict=True))


def test_memory_counts_what_roles_share_once(tiny, shared_roles):
  policy, value = shared_roles
  held = adapters.memory_of({
      'reference': policy.base, 'policy': (policy.base, policy.params),
      'value': (value.base, value.params)})
  size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
  assert held['reference'] == size(policy.base)
  assert held['policy'] == size(policy.params)
  # The value's adapters are the policy's own arrays here; its head is new.
  assert held['value'] == tiny.scalar_params['head'].nbytes


def test_whitened_scores_know_no_unit_of_the_reward(tiny, one):
  """Twice the reward and a bit: the same advantages, the same state."""
  config = dataclasses.replace(BASE, whiten_scores=True)
  columns = jnp.arange(tiny.prompt_length + config.max_new_tokens)
  found = []
  for scale, shift in ((1.0, 0.0), (4.0, 8.0)):
    reward_fn = jax.jit(lambda tokens, mask, a=scale, b=shift: b + a * jnp.sum(
        (tokens == LIKED) & mask & (columns >= tiny.prompt_length), axis=1,
        dtype=jnp.float32))
    found.append(iterations(tiny, one, config, reward_fn=reward_fn))
  (_, (plain,), (first,)), (_, (scaled,), (second,)) = found
  np.testing.assert_allclose(
      second.advantages, first.advantages, rtol=1e-4, atol=1e-5)
  # What is logged is what the reward model said.
  np.testing.assert_allclose(scaled['reward'], 8 + 4 * plain['reward'],
                             rtol=1e-5)
