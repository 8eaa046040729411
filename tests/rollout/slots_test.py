"""Slots: fewer than prompts, and the responses are what they would be anyway.
"""

import dataclasses

import jax
import numpy as np
import pytest

from alignjax import models
from alignjax import rollout
from alignjax import sharding
from alignjax.plan import collectives
from alignjax.types import InputError
from alignjax.types import PromptBatch
from tests.rollout.generate_test import CONFIG
from tests.rollout.generate_test import EOS
from tests.rollout.generate_test import KEY
from tests.rollout.generate_test import MODEL
from tests.rollout.generate_test import PARAMS
from tests.rollout.generate_test import VOCAB

N, P, R = 24, 4, 16


def make_prompts():
  """Left-padded prompts of 1 to 4 tokens, two of them filler."""
  tokens = np.random.default_rng(1).integers(3, VOCAB, (N, P), np.int32)
  mask = np.arange(P) >= P - (np.arange(N) % P + 1)[:, None]
  weight = np.ones(N, np.float32)
  weight[[5, N - 1]] = 0
  return PromptBatch(
      tokens=np.where(mask, tokens, 0), attention_mask=mask,
      prompt_id=np.arange(N, dtype=np.int32), sample_id=np.zeros(N, np.int32),
      weight=weight)


PROMPTS = make_prompts()


def sample(model=MODEL, params=PARAMS, mesh=None, **settings):
  generate = rollout.make_generate(
      model, max_new_tokens=R, eos_id=EOS, temperature=3.0, mesh=mesh,
      **settings)
  return jax.device_get(generate(params, PROMPTS, KEY))


@pytest.fixture(scope='module')
def together():
  return sample()


def assert_same(trajectory, expected):
  for name in ('tokens', 'attention_mask', 'response_mask', 'weight'):
    np.testing.assert_array_equal(
        getattr(trajectory, name), getattr(expected, name), err_msg=name)
  np.testing.assert_allclose(
      trajectory.sampler_logprobs, expected.sampler_logprobs, atol=1e-5)


def test_responses_are_of_all_lengths(together):
  """Else nobody would move in while others write."""
  lengths = together.response_mask.sum(axis=1)
  assert len(set(lengths)) > 4 and {0, 1, R} <= set(lengths)


@pytest.mark.parametrize('num_slots', [1, 5, 8, N - 1])
def test_slots_sample_what_sampling_all_at_once_does(together, num_slots):
  assert_same(sample(num_slots=num_slots), together)


@pytest.mark.parametrize('num_slots', [N, 2 * N])
def test_as_many_slots_as_prompts_are_all_at_once(together, num_slots):
  np.testing.assert_array_equal(
      sample(num_slots=num_slots).sampler_logprobs, together.sampler_logprobs)


@pytest.mark.parametrize('changed', [
    dict(scan_layers=True),
    dict(attention=(models.config.Attention(window=3),)),
], ids=['stacked layers', 'a window of 3 tokens'])
def test_of_every_kind_of_cache_and_attention(changed):
  model = models.CausalLM(dataclasses.replace(CONFIG, **changed))
  params = model.init(jax.random.key(0))
  assert_same(sample(model, params, num_slots=5), sample(model, params))


@pytest.mark.parametrize('spec', ['data:8', 'data:2,fsdp:2,tensor:2'])
def test_on_a_mesh_each_device_has_slots_of_its_own(together, spec):
  mesh = sharding.make_mesh(spec)
  of_params = sharding.tree_shardings(mesh, MODEL.axes(), PARAMS)
  trajectory = sample(
      params=sharding.put(PARAMS, of_params), mesh=mesh, num_slots=8,
      param_shardings=of_params)
  assert_same(trajectory, together)


def test_over_devices_nothing_travels_but_whether_to_go_on():
  """Weights are whole on each; caches, prompts and tokens stay where they are.
  """
  mesh = sharding.make_mesh('data:8')
  generate = rollout.make_generate(
      MODEL, max_new_tokens=R, eos_id=EOS, mesh=mesh, num_slots=16)
  found = collectives.count(
      generate.lower(PARAMS, PROMPTS, KEY).compile().as_text())
  assert sum(each.bytes for each in found.values()) <= 32


def test_slots_that_do_not_split_over_the_mesh_are_refused():
  with pytest.raises(
      InputError, match=r'num_slots=9 .* 8 data shards; use a multiple of 8'):
    sample(mesh=sharding.make_mesh('data:8'), num_slots=9)


def count_decodes(**settings):
  """Decoding steps of one token that a batch takes."""
  steps = []

  class Counting(models.CausalLM):

    def decode(self, params, tokens, *args, **kwargs):
      if tokens.shape[1] == 1:
        jax.debug.callback(lambda: steps.append(len(tokens)))
      return super().decode(params, tokens, *args, **kwargs)

  sample(Counting(CONFIG), **settings)
  jax.effects_barrier()
  return steps


def test_who_has_ended_makes_room(together):
  """Rows that are decoded: near those that write, not the longest's steps."""
  writing = int(np.maximum(together.response_mask.sum(axis=1) - 1, 0).sum())
  at_once = sum(count_decodes())
  assert at_once == N * (R - 1)
  in_slots = sum(count_decodes(num_slots=4))
  assert writing <= in_slots <= 1.15 * writing
  assert in_slots < 0.6 * at_once
