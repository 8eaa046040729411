"""Sampling through a server process of our own, which is the local sampler."""

import json
import urllib.error
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import engines
from alignjax import hf
from alignjax import rollout
from alignjax import sharding
from alignjax.types import InputError
from alignjax.types import PromptBatch
from tests.commands import tiny

EOS = tiny.TOKENIZER.eos_id
PROMPTS = [[1, 3, 6, 5], [1, 3, 7, 8, 9, 5], [6], [7, 7, 7]]
SHARED = dict(max_new_tokens=7, temperature=1.0, eos_id=EOS)


@pytest.fixture
def engine(server):
  return engines.HttpEngine(server, retries=1)


def ask(url, body, path='/v1/completions'):
  """(status, answer) of a request."""
  data = body if isinstance(body, bytes) else json.dumps(body).encode()
  request = urllib.request.Request(url + path, data=data)
  try:
    with urllib.request.urlopen(request, timeout=60) as answer:
      return answer.status, json.loads(answer.read())
  except urllib.error.HTTPError as error:
    return error.code, json.loads(error.read())


def locally(prompts, seeds, temperature=1.0):
  """What our own sampler draws in this process, by the same seeds."""
  generate = rollout.make_generate(
      tiny.MODEL, max_new_tokens=8, eos_id=EOS, temperature=temperature)
  drawn = []
  for prompt, seed in zip(prompts, seeds, strict=True):
    batch = PromptBatch(
        tokens=jnp.array([prompt]), weight=jnp.ones(1),
        attention_mask=jnp.ones((1, len(prompt)), bool),
        prompt_id=jnp.array([seed]), sample_id=jnp.zeros(1, jnp.int32))
    with jax.default_matmul_precision('highest'):
      t = generate(tiny.PARAMS, batch, jax.random.key(0))
    tokens = np.asarray(t.tokens[0])[np.asarray(t.response_mask[0])]
    logprobs = np.asarray(t.sampler_logprobs[0])[np.asarray(t.response_mask[0])]
    drawn.append((tokens[:7].tolist(), logprobs[:7]))
  return drawn


def test_the_server_draws_what_the_local_sampler_draws(engine):
  seeds = [5, 6, 7, 2**31 - 1]
  drawn = engine.draw(PROMPTS, seeds, **SHARED)
  for got, (tokens, logprobs) in zip(
      drawn, locally(PROMPTS, seeds), strict=True):
    assert got.tokens == tokens
    np.testing.assert_allclose(got.logprobs, logprobs, atol=2e-5)


def test_a_response_is_a_function_of_its_prompt_and_seed_alone(engine):
  together = engine.draw(PROMPTS * 2, [3] * 8, **SHARED)
  alone = engine.draw(PROMPTS[:1], [3], **SHARED)
  assert together[0].tokens == together[4].tokens == alone[0].tokens
  other = engine.draw(PROMPTS * 2, list(range(8)), **SHARED)
  assert len({tuple(d.tokens) for d in other}) > 4


def test_completions_are_openais(server):
  status, answer = ask(server, {
      'prompt': 'a b', 'max_tokens': 5, 'temperature': 0, 'n': 2})
  assert status == 200 and len(answer['choices']) == 2
  first, second = answer['choices']
  assert first['text'] == second['text']  # Greedy.
  assert first['token_ids'] == tiny.argmax_response([6, 7], 5)
  assert answer['usage']['prompt_tokens'] == 2
  assert first['finish_reason'] in ('stop', 'length')


@pytest.mark.parametrize('body, said', [
    (b'{', 'not JSON'), (b'[]', 'no JSON object'), ({}, 'prompt=None'),
    ({'prompt': []}, 'prompt=[]'), ({'prompt': [999]}, 'not below 15'),
    ({'prompt': [1.5]}, 'prompt='), ({'prompt': 'a', 'seed': -1}, 'seed=-1'),
    ({'prompt': 'a', 'max_tokens': 0}, 'max_tokens=0'),
    ({'prompt': 'a', 'temperature': 'hot'}, "temperature='hot'"),
    ({'prompt': 'a', 'stream': True}, 'stream=true')])
def test_what_cannot_be_answered_is_refused_with_the_reason(
    server, body, said):
  status, answer = ask(server, body)
  assert status == 400 and said in answer['error']['message']


def test_paths_that_are_not_there_are_told_what_is(server):
  status, answer = ask(server, {}, '/v1/embeddings')
  assert status == 404 and '/v1/completions' in answer['error']['message']


def test_weights_are_taken_from_a_folder(folder, start_server, tmp_path):
  url = start_server(folder)
  engine = engines.HttpEngine(url)
  greedy = SHARED | dict(temperature=0.0)
  before = engine.draw(PROMPTS, [0] * 4, **greedy)
  other = jax.tree.map(lambda x: -x, tiny.PARAMS)
  hf.save_model(tmp_path / 'w', tiny.CONFIG, other, tokenizer=tiny.TOKENIZER)
  engine.load(str(tmp_path / 'w'))
  assert engine.draw(PROMPTS, [0] * 4, **greedy) != before
  with pytest.raises(InputError, match='refuses'):
    engine.load(str(tmp_path / 'none'))
  engine.load(folder)
  assert engine.draw(PROMPTS, [0] * 4, **greedy) == before


def test_a_server_that_is_not_there_is_told_how_to_start():
  with pytest.raises(InputError, match=r'does not answer .*alignjax serve'):
    engines.HttpEngine('http://127.0.0.1:9', retries=0)


@pytest.mark.parametrize('answer', [
    {}, {'choices': []}, {'choices': [{'text': 'a'}]},
    {'choices': [{'logprobs': {'tokens': ['a'], 'token_logprobs': [0.0]}}]},
    {'choices': [{'token_ids': [1], 'logprobs': {'token_logprobs': [None]}}]}])
def test_an_answer_without_ids_or_logprobs_is_refused(
    engine, monkeypatch, answer):
  monkeypatch.setattr(engine._endpoint, 'ask', lambda path, body: answer)
  with pytest.raises(InputError, match='token ids'):
    engine.draw([[1]], [0], **SHARED)


def test_ids_that_are_written_as_text_are_read(engine, monkeypatch):
  monkeypatch.setattr(engine._endpoint, 'ask', lambda path, body: {'choices': [{
      'logprobs': {'tokens': ['token_id:4', 'token_id:2'],
                   'token_logprobs': [-0.5, -1.0]}}]})
  assert engine.draw([[1]], [0], **SHARED) == [
      engines.Drawn([4, 2], [-0.5, -1.0])]


# --- Chat, as judges ask.


def test_a_chat_is_a_completion_behind_the_template(server):
  chat = {'messages': [{'role': 'user', 'content': 'a b'}], 'seed': 3,
          'max_tokens': 7}
  status, answer = ask(server, chat, '/v1/chat/completions')
  tokens = tiny.TOKENIZER.prompt_tokens('a b')
  _, plain = ask(server, {'prompt': tokens, 'seed': 3, 'max_tokens': 7})
  assert status == 200 and answer['object'] == 'chat.completion'
  choice, = answer['choices']
  assert choice['message'] == {
      'role': 'assistant', 'content': plain['choices'][0]['text']}
  assert choice['token_ids'] == plain['choices'][0]['token_ids']


@pytest.mark.parametrize('messages', [
    None, [], 'a', [{'role': 'user'}], [3]])
def test_a_chat_that_is_none_is_refused(server, messages):
  status, answer = ask(server, {'messages': messages}, '/v1/chat/completions')
  assert status == 400 and answer['error']['message']


# --- An iteration's `generate`.


class Recorded:
  """An engine that answers with the prompt's first token and EOS."""

  def __init__(self):
    self.seeds, self.answer = [], [9, EOS]

  def draw(self, prompts, seeds, **settings):
    self.seeds.append(list(seeds))
    return [engines.Drawn(self.answer, [-0.1] * len(self.answer))
            for _ in prompts]


def batch_of(order):
  """Prompts padded on the left, in an order; the last row is filler."""
  tokens = np.array([[0, 6, 7], [6, 7, 8], [0, 0, 6], [0, 0, 0]])
  return PromptBatch(
      tokens=jnp.asarray(tokens[order]),
      attention_mask=jnp.asarray(tokens[order] > 0),
      prompt_id=jnp.asarray(np.arange(4)[order], jnp.int32),
      sample_id=jnp.zeros(4, jnp.int32),
      weight=jnp.asarray((np.arange(4) < 3)[order], jnp.float32))


def made(engine, mesh, handed, **settings):
  return engines.make_engine_generate(
      engine, handed.append, max_new_tokens=4, eos_id=EOS, mesh=mesh,
      **settings)


def test_responses_stand_behind_their_prompts(mesh_of):
  engine = Recorded()
  mesh = mesh_of('one')
  batch = sharding.put(batch_of(np.arange(4)), sharding.batch_sharding(mesh))
  t = made(engine, mesh, [])('params', batch, jax.random.key(0))
  np.testing.assert_array_equal(t.tokens[0], [0, 6, 7, 9, EOS, 0, 0])
  np.testing.assert_array_equal(
      t.response_mask[1], [False] * 3 + [True] * 2 + [False] * 2)
  assert not np.any(t.response_mask[3]) and len(engine.seeds[0]) == 3
  np.testing.assert_allclose(t.sampler_logprobs[2, 3:5], -0.1)


def test_seeds_follow_the_prompt_and_not_the_row(mesh_of):
  engine = Recorded()
  generate = made(engine, mesh_of('one'), [])
  order = np.array([2, 0, 1, 3])
  for rows in (np.arange(4), order):
    generate('params', batch_of(rows), jax.random.key(0))
  generate('params', batch_of(np.arange(4)), jax.random.key(1))
  first, shuffled, later = engine.seeds
  assert [first[i] for i in order[:3]] == shuffled
  assert not set(first) & set(later)


def test_weights_are_handed_over_every_so_often(mesh_of):
  handed = []
  generate = made(Recorded(), mesh_of('one'), handed, sync_every=2)
  for step in range(5):
    generate(step, batch_of(np.arange(4)), jax.random.key(step))
  assert handed == [0, 2, 4]


@pytest.mark.parametrize('answer', [[], [9] * 5])
def test_a_response_of_no_or_too_many_tokens_is_refused(mesh_of, answer):
  engine = Recorded()
  engine.answer = answer
  with pytest.raises(InputError, match='max_new_tokens=4'):
    made(engine, mesh_of('one'), [])(
        'params', batch_of(np.arange(4)), jax.random.key(0))
