"""Responses in the prompts' order, and the exact KL over them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import data
from alignjax import models
from alignjax import rollout
from alignjax import sharding
from alignjax.evaluation import responses
from alignjax.types import Trajectory

VOCAB, P, R, EOS = 12, 4, 5, 2
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=2, head_dim=8))
# Five prompts do not fill two batches of four.
PROMPTS = [data.TokenizedPrompt(np.array(tokens, np.int32), i)
           for i, tokens in enumerate(
               ([3, 4, 5, 6], [7], [8, 9], [3, 10, 11], [4, 4]))]


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh('data:4,tensor:2')


@pytest.fixture(scope='module')
def policy(mesh):
  """Parameters on the mesh, their shardings, and the sampler."""
  params = jax.jit(MODEL.init)(jax.random.key(0))
  shardings = sharding.tree_shardings(mesh, MODEL.axes(), params)
  generate = rollout.make_generate(
      MODEL, max_new_tokens=R, eos_id=EOS, mesh=mesh,
      param_shardings=shardings)
  return sharding.put(params, shardings), shardings, generate


@pytest.fixture(scope='module')
def sample(policy, mesh):
  """`sample(prompts, seed, num_samples)`, cached."""
  params, _, generate = policy

  @functools.cache
  def run(num_prompts=5, seed=0, num_samples=1):
    return responses.sample_responses(
        generate, params, PROMPTS[:num_prompts], width=P, batch_size=4,
        eos_id=EOS, mesh=mesh, seed=seed, num_samples=num_samples)

  return run


def test_every_prompt_gets_its_response_in_order(sample):
  found, trajectories = sample()
  assert len(found) == 5 and all(len(group) == 1 for group in found)
  prompts = [p for t in trajectories for p in responses.read_prompts(t)]
  assert prompts == [list(p.tokens) for p in PROMPTS]
  rows = [r for t in trajectories
          for r in responses.read_responses(t, eos_id=EOS)]
  assert rows == [group[0] for group in found]


def test_a_response_is_complete_if_and_only_if_it_ends_in_eos(sample):
  found = [r for seed in range(3) for group in sample(seed=seed)[0]
           for r in group]
  for response in found:
    assert response.is_complete == (response.tokens[-1] == EOS)
    assert EOS not in response.tokens[:-1]
    assert response.is_complete or len(response.tokens) == R
  assert {r.is_complete for r in found} == {True, False}


def test_samples_of_a_prompt_stand_together_and_differ(sample):
  found, trajectories = sample(num_samples=2)
  assert [len(group) for group in found] == [2] * 5
  prompts = [p for t in trajectories for p in responses.read_prompts(t)]
  assert prompts == [list(p.tokens) for p in PROMPTS for _ in range(2)]
  assert all(group[0].tokens != group[1].tokens for group in found)
  # The first sample does not depend on how many there are.
  assert [group[0] for group in found] == [g[0] for g in sample()[0]]


def test_the_same_seed_draws_the_same_and_another_does_not(sample):
  again = [r[0].tokens for r in sample(num_prompts=3)[0]]
  assert again == [r[0].tokens for r in sample()[0]][:3]
  assert again != [r[0].tokens for r in sample(num_prompts=3, seed=1)[0]]


def test_filler_rows_are_not_read():
  mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
  trajectory = Trajectory(
      tokens=np.array([[5, 6, EOS, 0], [7, 7, 7, 7]], np.int32),
      attention_mask=mask, response_mask=mask & (np.arange(4) > 0),
      weight=np.array([1, 0], np.float32),
      sampler_logprobs=np.zeros((2, 4), np.float32))
  assert responses.read_prompts(trajectory) == [[5]]
  assert responses.read_responses(trajectory, eos_id=EOS) == [
      responses.Response([6, EOS], True)]
  assert responses.read_responses(trajectory, eos_id=9) == [
      responses.Response([6, EOS], False)]


def test_kl_is_zero_at_the_reference_and_that_of_the_vocabulary_elsewhere(
    policy, sample, mesh):
  params, shardings, _ = policy
  _, trajectories = sample()
  kl = responses.make_sequence_kl(
      MODEL, prompt_length=P, mesh=mesh, param_shardings=shardings)
  np.testing.assert_allclose(
      responses.mean_kl(kl, params, params, trajectories), 0, atol=1e-6)

  ref = jax.device_put(jax.tree.map(lambda x: x * 1.2, params), shardings)
  logprobs_of = jax.jit(lambda p, t: jax.nn.log_softmax(
      MODEL.hidden(p, t.tokens, t.attention_mask) @ p['embed'].T))
  total = 0.0
  for t in trajectories:
    ours, theirs = (np.asarray(logprobs_of(p, t)) for p in (params, ref))
    per_column = np.sum(np.exp(ours) * (ours - theirs), axis=-1)[:, :-1]
    mask = np.asarray(t.response_mask)[:, 1:]
    rows = per_column.sum(axis=1, where=mask)
    np.testing.assert_allclose(kl(params, ref, t), rows, atol=1e-5)
    total += rows[np.asarray(t.weight) > 0].sum()
  assert total > 0.1
  np.testing.assert_allclose(
      responses.mean_kl(kl, params, ref, trajectories), total / 5, rtol=1e-4)
  assert kl._cache_size() == 1


def test_mean_kl_weighs_every_response_alike():
  """Batches of three and one real rows: not a mean of the batches' means."""
  kls = iter([jnp.array([1.0, 2.0, 3.0, 9.0]), jnp.array([10.0, 9, 9, 9])])
  blank = np.zeros((4, 1))
  batches = [Trajectory(blank, blank, blank, np.array(weight, np.float32),
                        blank) for weight in ([1, 1, 1, 0], [1, 0, 0, 0])]
  mean = responses.mean_kl(lambda *_: next(kls), None, None, batches)
  np.testing.assert_allclose(mean, 4.0)
