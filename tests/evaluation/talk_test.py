"""Talking to a model: what it reads is what the training forward reads."""

import jax
import numpy as np
import pytest

from alignjax import evaluation
from alignjax import sharding
from alignjax.types import InputError
from tests.commands import tiny


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh('data:-1')


PROMPTS = ['a b', 'b', 'c a b a']


def words(count):
  """Labels that differ in their first token."""
  found = {}
  for text in 'abcdefghijklmnop':
    tokens = tiny.TOKENIZER.encode(text)
    if tokens:
      found.setdefault(tokens[0], text)
  return list(found.values())[:count]


def test_label_logprobs_are_those_of_a_response_s_first_token(mesh):
  labels = words(2)
  read = evaluation.make_label_logprobs(
      tiny.MODEL, tiny.PARAMS, tiny.TOKENIZER, labels, max_length=16, mesh=mesh)
  found = read(PROMPTS)
  assert found.shape == (3, 2)
  for prompt, row in zip(PROMPTS, found, strict=True):
    tokens = tiny.TOKENIZER.prompt_tokens(prompt)
    hidden = tiny.MODEL.hidden(
        tiny.PARAMS, np.array([tokens]), np.ones((1, len(tokens)), bool))[0, -1]
    logits = tiny.MODEL.unembedding(tiny.PARAMS) @ hidden
    expected = jax.nn.log_softmax(logits)[
        np.array([tiny.TOKENIZER.encode(x)[0] for x in labels])]
    np.testing.assert_allclose(row, expected, atol=1e-4)


def test_logprobs_of_responses_add_up_over_their_tokens(mesh):
  read = evaluation.make_response_logprobs(
      tiny.MODEL, tiny.PARAMS, tiny.TOKENIZER, max_length=24, mesh=mesh)
  sums, tokens = read(PROMPTS, ['a', 'b a', 'c'])
  assert (sums < 0).all()
  assert tokens.tolist() == [
      len(tiny.TOKENIZER.response_tokens(r)) for r in ('a', 'b a', 'c')]
  alone, _ = read(PROMPTS[1:2], ['b a'])
  np.testing.assert_allclose(alone, sums[1:2], atol=1e-5)


def test_replies_do_not_depend_on_the_batch_and_turns_differ(mesh):
  reply = evaluation.make_reply(
      tiny.MODEL, tiny.PARAMS, tiny.TOKENIZER, max_new_tokens=6, max_length=16,
      mesh=mesh, batch_size=8)
  prompts = PROMPTS * 4
  assert reply(prompts, 0) == reply(prompts, 0)
  assert reply(prompts, 0) != reply(prompts, 1)
  assert reply(PROMPTS, 0) == reply(prompts, 0)[:3]


def test_labels_that_one_token_does_not_tell_apart_are_refused(mesh):
  with pytest.raises(InputError, match='same token'):
    evaluation.make_label_logprobs(
        tiny.MODEL, tiny.PARAMS, tiny.TOKENIZER, ('a', 'a b'), max_length=16,
        mesh=mesh)


def test_a_prompt_without_room_is_shown(mesh):
  read = evaluation.make_label_logprobs(
      tiny.MODEL, tiny.PARAMS, tiny.TOKENIZER, words(2), max_length=2,
      mesh=mesh)
  with pytest.raises(InputError, match='room for 2'):
    read(['a b c a b c a b c'])
