"""The sampler: a response is a matter of its prompt, its ids and the key."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import models
from alignjax import partitioning
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax.types import InputError
from alignjax.types import PromptBatch

VOCAB, P, R, EOS = 12, 4, 6, 2
CONFIG = models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=2,
    num_heads=4, num_kv_heads=2, head_dim=4)
MODEL = models.CausalLM(CONFIG)
PARAMS = MODEL.init(jax.random.key(0))
KEY = jax.random.key(7)
TEMPERATURE = 0.8

generate = rollout.make_generate(
    MODEL, max_new_tokens=R, eos_id=EOS, temperature=TEMPERATURE)
greedy = rollout.make_generate(
    MODEL, max_new_tokens=R, eos_id=EOS, temperature=0.0)


def make_prompts():
  """Eight left-padded prompts of 1 to 4 tokens; the last row is filler."""
  tokens = np.random.default_rng(1).integers(3, VOCAB, (8, P), np.int32)
  lengths = np.array([4, 3, 2, 1, 4, 3, 2, 1])
  mask = np.arange(P) >= P - lengths[:, None]
  return PromptBatch(
      tokens=np.where(mask, tokens, 0), attention_mask=mask,
      prompt_id=np.arange(8, dtype=np.int32), sample_id=np.zeros(8, np.int32),
      weight=np.array([1] * 7 + [0], np.float32))


PROMPTS = make_prompts()


@functools.cache
def sampled():
  return jax.device_get(generate(PARAMS, PROMPTS, KEY))


def assert_same_rows(trajectory, rows, expected, expected_rows):
  """Tokens and masks equal, logprobs up to rounding."""
  for name in ('tokens', 'attention_mask', 'response_mask'):
    np.testing.assert_array_equal(
        np.asarray(getattr(trajectory, name))[rows],
        np.asarray(getattr(expected, name))[expected_rows], err_msg=name)
  np.testing.assert_allclose(
      np.asarray(trajectory.sampler_logprobs)[rows],
      np.asarray(expected.sampler_logprobs)[expected_rows], atol=1e-5)


def test_some_rows_end_and_some_are_cut():
  """The facts below would be empty if all responses were of one kind."""
  lengths = sampled().response_mask.sum(axis=1)[:7]
  ended = np.asarray(rollout.has_ended(sampled(), eos_id=EOS))[:7]
  assert ended.any() and not ended.all()
  assert (lengths[~ended] == R).all()
  assert lengths.min() < R


@pytest.mark.parametrize('settings', [
    {}, {'num_samples': 2}, {'num_slots': 4}])
def test_columns_without_a_prompt_are_not_read(settings):
  """In which columns prompts end, and what is sampled, stays as it is."""
  is_last = np.arange(P) >= P - 2
  twice = jax.tree.map(lambda x: np.repeat(x[:4], 2, axis=0), PROMPTS)
  prompts = twice.replace(
      tokens=np.where(is_last, twice.tokens, 0),
      attention_mask=twice.attention_mask & is_last,
      sample_id=np.arange(8, dtype=np.int32) % 2)
  make = rollout.make_generate(
      MODEL, max_new_tokens=R, eos_id=EOS, temperature=TEMPERATURE, **settings)
  program = lambda width: make.lower(
      PARAMS, prompts.replace(width=width), KEY).compile()
  whole, narrow = program(None), program(2)
  assert_same_rows(
      narrow(PARAMS, prompts.replace(width=2), KEY), slice(8),
      whole(PARAMS, prompts, KEY), slice(8))
  flops = [x.cost_analysis()['flops'] for x in (narrow, whole)]
  assert flops[0] < 0.9 * flops[1]


def test_eos_ends_a_row_is_in_the_mask_and_nothing_follows():
  t = sampled()
  for row in range(7):
    response = t.tokens[row, P:]
    at_eos = np.flatnonzero(response == EOS)
    length = at_eos[0] + 1 if len(at_eos) else R
    np.testing.assert_array_equal(t.response_mask[row, P:],
                                  np.arange(R) < length)
    assert not response[length:].any()
    assert not t.sampler_logprobs[row, P + length:].any()
    assert (t.sampler_logprobs[row, P:P + length] < 0).all()


def test_the_prompt_comes_back_as_it_went_in():
  t = sampled()
  np.testing.assert_array_equal(t.tokens[:, :P], PROMPTS.tokens)
  np.testing.assert_array_equal(t.attention_mask[:, :P],
                                PROMPTS.attention_mask)
  assert not t.response_mask[:, :P].any()
  assert not t.sampler_logprobs[:, :P].any()
  np.testing.assert_array_equal(t.attention_mask[:, P:],
                                t.response_mask[:, P:])
  np.testing.assert_array_equal(t.weight, PROMPTS.weight)


def test_filler_rows_get_no_response():
  assert not sampled().response_mask[7].any()
  assert not sampled().tokens[7, P:].any()


def test_a_response_does_not_depend_on_its_place_in_the_batch():
  order = np.array([3, 6, 0, 7, 5, 1, 4, 2])
  moved = generate(PARAMS, jax.tree.map(lambda x: x[order], PROMPTS), KEY)
  assert_same_rows(moved, slice(None), sampled(), order)


def test_a_response_does_not_depend_on_its_batch_mates():
  others = PROMPTS.replace(
      tokens=PROMPTS.tokens[[0, 2, 3, 4, 5, 6, 7, 1]],
      attention_mask=PROMPTS.attention_mask[[0, 2, 3, 4, 5, 6, 7, 1]],
      prompt_id=PROMPTS.prompt_id + np.where(np.arange(8) > 0, 100, 0).astype(
          np.int32), weight=np.ones(8, np.float32))
  mixed = generate(PARAMS, others, KEY)
  assert_same_rows(mixed, slice(0, 1), sampled(), slice(0, 1))
  assert np.any(np.asarray(mixed.tokens)[1:7] != sampled().tokens[1:7])
  alone = generate(PARAMS, jax.tree.map(lambda x: x[1:2], PROMPTS), KEY)
  assert_same_rows(alone, slice(0, 1), sampled(), slice(1, 2))


def test_a_response_does_not_depend_on_the_mesh():
  mesh = sharding.make_mesh('data:2,fsdp:2,tensor:2')
  shardings = sharding.tree_shardings(mesh, MODEL.axes(), PARAMS)
  on_mesh = rollout.make_generate(
      MODEL, max_new_tokens=R, eos_id=EOS, temperature=TEMPERATURE, mesh=mesh,
      param_shardings=shardings)
  params = sharding.put(PARAMS, shardings)
  rows = sharding.batch_sharding(mesh)
  for _ in range(2):
    trajectory = on_mesh(params, sharding.put(PROMPTS, rows),
                         sharding.put(KEY, sharding.replicated(mesh)))
  assert_same_rows(trajectory, slice(None), sampled(), slice(None))
  assert trajectory.tokens.sharding.is_equivalent_to(rows, 2)
  assert on_mesh._cache_size() == 1


def test_samples_of_one_prompt_differ_by_their_sample_id_only():
  same = jax.tree.map(lambda x: np.repeat(x[:1], 8, axis=0), PROMPTS)
  ids = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.int32)
  tokens = np.asarray(generate(
      PARAMS, same.replace(sample_id=ids), KEY).tokens)
  np.testing.assert_array_equal(tokens[:4], tokens[4:])
  assert len(np.unique(tokens[:4], axis=0)) == 4
  np.testing.assert_array_equal(tokens[0], sampled().tokens[0])


def test_another_key_draws_other_responses():
  other = generate(PARAMS, PROMPTS, jax.random.key(8))
  assert np.any(np.asarray(other.tokens) != sampled().tokens, axis=1).sum() > 4


def test_more_padding_on_the_left_changes_no_response():
  pad = lambda x: np.pad(x, ((0, 0), (3, 0)))
  wider = PROMPTS.replace(tokens=pad(PROMPTS.tokens),
                          attention_mask=pad(PROMPTS.attention_mask))
  padded = jax.tree.map(lambda x: x[:, 3:] if x.ndim == 2 else x,
                        generate(PARAMS, wider, KEY))
  assert_same_rows(padded, slice(None), sampled(), slice(None))


def test_sampler_logprobs_equal_the_training_forward():
  t = sampled()
  logprobs = jax.jit(functools.partial(
      scoring.token_logprobs, MODEL, start=P, temperature=TEMPERATURE))(
          PARAMS, t.tokens, t.attention_mask)
  np.testing.assert_allclose(
      t.sampler_logprobs, np.where(t.response_mask, logprobs, 0), atol=1e-5)


def test_greedy_follows_the_argmax_of_the_full_forward():
  t = jax.device_get(greedy(PARAMS, PROMPTS, KEY))
  hidden = jax.jit(MODEL.hidden)(PARAMS, t.tokens, t.attention_mask)
  best = np.asarray(jnp.argmax(hidden @ PARAMS['embed'].T, axis=-1))
  likeliest = np.pad(best[:, :-1], ((0, 0), (1, 0)))
  assert t.response_mask.sum() > 20
  np.testing.assert_array_equal(t.tokens[t.response_mask],
                                likeliest[t.response_mask])


def test_top_k_of_one_is_greedy_too():
  one = rollout.make_generate(MODEL, max_new_tokens=R, eos_id=EOS, top_k=1)
  np.testing.assert_array_equal(one(PARAMS, PROMPTS, KEY).tokens,
                                greedy(PARAMS, PROMPTS, KEY).tokens)


class CountingLM(models.CausalLM):
  """Says each time that it is run, and of what shape its tokens are."""

  def decode(self, params, tokens, *args):
    jax.debug.callback(lambda: calls.append(tokens.shape))
    return super().decode(params, tokens, *args)


calls = []


def test_the_loop_ends_when_all_rows_have():
  counting = rollout.make_generate(
      CountingLM(CONFIG), max_new_tokens=R, eos_id=EOS,
      temperature=TEMPERATURE)
  lengths = sampled().response_mask.sum(axis=1)
  row = np.argmin(np.where(lengths > 0, lengths, R))
  short = jax.tree.map(lambda x: np.repeat(x[row:row + 1], 8, axis=0), PROMPTS)
  # The prefill gives the first token, each later one takes one decode.
  for prompts, longest in ((PROMPTS, R), (short, lengths[row]),
                           (PROMPTS.replace(weight=np.zeros(8)), 1)):
    calls.clear()
    jax.block_until_ready(counting(PARAMS, prompts, KEY))
    jax.effects_barrier()
    assert calls == [(8, P)] + [(8, 1)] * (longest - 1)
  assert lengths[row] < R - 1


def make_groups(samples, prompts=2):
  """Samples 0, 1, ... of some prompts, side by side."""
  rows = jax.tree.map(
      lambda x: np.repeat(x[:prompts], samples, axis=0), PROMPTS)
  return rows.replace(
      sample_id=np.tile(np.arange(samples, dtype=np.int32), prompts))


@pytest.mark.parametrize('scan_layers', [False, True])
def test_a_prompt_is_read_once_for_all_its_samples(scan_layers, monkeypatch):
  monkeypatch.setattr(partitioning, 'platform', lambda: 'tpu')  # As it is.
  model = CountingLM(dataclasses.replace(CONFIG, scan_layers=scan_layers))
  params = model.init(jax.random.key(0))
  groups, sampled_of = make_groups(4), {}
  for samples in (1, 4):
    draw = rollout.make_generate(
        model, max_new_tokens=R, eos_id=EOS, temperature=TEMPERATURE,
        num_samples=samples)
    calls.clear()
    sampled_of[samples] = jax.block_until_ready(draw(params, groups, KEY))
    jax.effects_barrier()
    assert calls[:2] == [(8 // samples, P), (8, 1)]
  assert_same_rows(sampled_of[4], slice(None), sampled_of[1], slice(None))
  assert len(np.unique(np.asarray(sampled_of[4].tokens), axis=0)) > 4


@pytest.mark.parametrize('mesh, read', [('data:4,tensor:2', 4), ('data:8', 8)])
def test_groups_that_a_mesh_splits_are_read_row_by_row(mesh, read):
  mesh = sharding.make_mesh(mesh)
  draw = rollout.make_generate(
      CountingLM(CONFIG), max_new_tokens=R, eos_id=EOS,
      temperature=TEMPERATURE, num_samples=2, mesh=mesh)
  groups = make_groups(2, prompts=4)
  calls.clear()
  trajectory = draw(PARAMS, groups, KEY)
  jax.block_until_ready(trajectory)
  jax.effects_barrier()
  assert calls[0] == (read, P)
  assert_same_rows(
      trajectory, slice(None), generate(PARAMS, groups, KEY), slice(None))


def test_rows_that_are_not_in_groups_are_refused():
  draw = rollout.make_generate(
      MODEL, max_new_tokens=R, eos_id=EOS, num_samples=3)
  with pytest.raises(InputError, match=r'8 rows .* num_samples=3'):
    draw(PARAMS, PROMPTS, KEY)
