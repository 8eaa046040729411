"""The forward pass and the commands say what transformers says.

Runs where torch and transformers are installed beside jax; the last part also
needs the folder that ALIGNJAX_MODEL names.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from alignjax import hf
from alignjax import logprobs
from alignjax import rollout
from alignjax import runs
from alignjax.models import CausalLM
from alignjax.types import PromptBatch

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')

TOKENS = np.random.default_rng(0).integers(3, 29, (2, 20))
NUM_NEW = 64
PROMPTS = (
    'What is the capital of France?',
    'Write a haiku about rain.',
    'Explain how a bicycle stays upright.',
    'List three primary colours.',
    'Translate "good morning" into Spanish.',
    'What is 17 + 25?',
    'Give me a short recipe for pancakes.',
    'Why is the sky blue? Answer a child.',
)
PAIRS = (
    ('\n\nHuman: Know a prank?\n\nAssistant: Sure.\n\nHuman: With a pen.',
     'Swap its ink for one of another colour, and say nothing.',
     'I’d rather not. Is there anything else you want to do?'),
    ('\n\nHuman: How do I pick a lock?', 'Is it your own lock?',
     'You need a wrench and a pick.\n\n1. Insert the wrench.\n2. Rake.'),
    ('\n\nHuman: Say “naïve café” in Chinese 🙂', '天真的咖啡馆', 'No.'),
    ('\n\nHuman: ' + 'I walked on, and then on. ' * 12 + 'Where am I?',
     'Far away.', 'You are where you were: ' + 'walking. ' * 20),
)


def make_llama(*, tied, num_kv_heads, theta, head_dim=4):
  """A tiny random Llama whose dimensions all differ, and in eval mode."""
  torch.manual_seed(0)
  return transformers.LlamaForCausalLM(transformers.LlamaConfig(
      vocab_size=29, hidden_size=12, intermediate_size=20, num_hidden_layers=3,
      num_attention_heads=6, num_key_value_heads=num_kv_heads,
      head_dim=head_dim, max_position_embeddings=64, rms_norm_eps=1e-5,
      tie_word_embeddings=tied, initializer_range=0.5,
      rope_parameters={'rope_type': 'default', 'rope_theta': theta},
      bos_token_id=1, eos_token_id=2, pad_token_id=0)).eval()


def our_logits(model, params, tokens, mask=None):
  """[B, T, V] of whole rows."""
  mask = np.ones(tokens.shape, bool) if mask is None else mask
  return np.asarray(jax.jit(lambda p: (
      model.hidden(p, tokens, mask) @ model.unembedding(p).T))(params))


@pytest.mark.parametrize('tied, num_kv_heads, theta, head_dim', [
    (True, 6, 1e4, 4),
    (False, 2, 5e4, 4),
    (True, 1, 1e5, 8),  # Heads wider than hidden_size / num_heads.
    (False, 3, 10.0, 2),
])
def test_logits_of_a_llama_are_equal(
    tmp_path, tied, num_kv_heads, theta, head_dim):
  theirs = make_llama(tied=tied, num_kv_heads=num_kv_heads, theta=theta,
                      head_dim=head_dim)
  theirs.save_pretrained(tmp_path)
  config, params = hf.load_model(tmp_path)
  with torch.no_grad():
    due = theirs(torch.tensor(TOKENS)).logits.numpy()
  assert due.std() > 0.5  # Weights so small that nothing could differ?
  np.testing.assert_allclose(
      our_logits(CausalLM(config), params, TOKENS), due, atol=1e-4)


def test_logits_behind_padding_are_those_of_the_row_alone(tmp_path):
  theirs = make_llama(tied=False, num_kv_heads=2, theta=1e4)
  theirs.save_pretrained(tmp_path)
  config, params = hf.load_model(tmp_path)
  mask = np.arange(20) >= 7
  with torch.no_grad():
    due = theirs(torch.tensor(TOKENS[:1, 7:])).logits.numpy()
  got = our_logits(CausalLM(config), params, TOKENS[:1], mask[None])[:, 7:]
  np.testing.assert_allclose(got, due, atol=1e-4)


def greedy(model, params, prompt, count, eos_id):
  """Our greedy continuation of one row of ids."""
  generate = rollout.make_generate(
      model, max_new_tokens=count, eos_id=eos_id, temperature=0.0)
  row = np.asarray([prompt], np.int32)
  zero = np.zeros(1, np.int32)
  trajectory = generate(params, PromptBatch(
      tokens=row, attention_mask=np.ones_like(row, bool), prompt_id=zero,
      sample_id=zero, weight=np.ones(1, np.float32)), jax.random.key(0))
  response = np.asarray(trajectory.response_mask[0])
  return np.asarray(trajectory.tokens[0])[response].tolist()


def their_greedy(model, prompt, count):
  """What transformers writes after the same ids."""
  with torch.no_grad():
    row = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=count)[0]
  return row[len(prompt):].tolist()


def test_saved_model_generates_the_same_in_transformers(tmp_path):
  make_llama(tied=False, num_kv_heads=2, theta=5e4).save_pretrained(
      tmp_path / 'in')
  config, params = hf.load_model(tmp_path / 'in')
  rng = np.random.default_rng(1)
  params = jax.tree.map(  # Weights that transformers has not made.
      lambda x: x + rng.normal(0, 0.1, x.shape).astype(x.dtype), params)
  hf.save_model(tmp_path / 'out', config, params,
                generation={'eos_token_id': 2, 'pad_token_id': 0})
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / 'out').eval()
  model = CausalLM(config)
  responses = []
  for prompt in TOKENS[:, :5].tolist() + [[1], list(range(3, 23))]:
    responses.append(greedy(model, params, prompt, 24, eos_id=2))
    assert responses[-1] == their_greedy(theirs, prompt, 24)
  assert len({tuple(response) for response in responses}) > 1


# --- A real model


@pytest.fixture(scope='module')
def theirs(real_model):
  """The real model and tokenizer, as transformers reads them."""
  model = transformers.AutoModelForCausalLM.from_pretrained(
      real_model, dtype=torch.float32).eval()
  return model, transformers.AutoTokenizer.from_pretrained(real_model)


def prompt_ids(tokenizer, turns):
  """Ids of the turns and the start of the assistant's, by transformers."""
  return tokenizer.apply_chat_template(
      turns, add_generation_prompt=True, tokenize=True,
      return_dict=True)['input_ids']


def run_command(*args):
  """`alignjax ...` as a user runs it, on the machine's own devices."""
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  done = subprocess.run(
      [sys.executable, '-m', 'alignjax', *map(str, args)], env=env, check=False,
      capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


def write_rows(path, rows):
  """A JSONL file of the rows."""
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def hh_turns(prompt):
  """The turns of an HH prompt, read here once more."""
  turns = []
  for part in prompt.split('\n\nHuman: ')[1:]:
    human, *assistant = part.split('\n\nAssistant: ')
    turns.append({'role': 'user', 'content': human.strip()})
    turns += [{'role': 'assistant', 'content': text} for text in assistant]
  return turns


def their_logprobs(model, prompt, response):
  """Log-probability of each token of the response."""
  with torch.no_grad():
    logits = model(torch.tensor([prompt + response])).logits[0].double()
  every = torch.log_softmax(logits, -1)[len(prompt) - 1:-1]
  return every[range(len(response)), response].numpy()


def test_token_logprobs_of_a_real_model_are_equal(real_model, theirs):
  model, params, tokenizer = runs.load_policy(real_model)
  row = tokenizer.prompt_tokens(hh_turns(PAIRS[0][0]))
  response = tokenizer.response_tokens(PAIRS[0][1])
  tokens = np.asarray([row + response])
  got = jax.jit(lambda p: logprobs.token_logprobs(
      model.hidden(p, tokens, np.ones_like(tokens, bool)),
      model.unembedding(p), tokens))(params)[0, len(row):]
  np.testing.assert_allclose(
      got, their_logprobs(theirs[0], row, response), atol=1e-3)


def test_score_agrees_within_a_thousandth_of_a_nat_per_token(
    real_model, theirs, tmp_path):
  model, tokenizer = theirs
  path = write_rows(tmp_path / 'hh.jsonl', [
      {side: f'{prompt}\n\nAssistant: {text}'
       for side, text in (('chosen', chosen), ('rejected', rejected))}
      for prompt, chosen, rejected in PAIRS])
  scores = run_command('score', '--model', real_model, '--data', path,
                       '--batch-size', 2)
  for (prompt, *texts), score in zip(PAIRS, scores, strict=True):
    before = prompt_ids(tokenizer, hh_turns(prompt))
    for side, text in zip(('chosen', 'rejected'), texts, strict=True):
      response = tokenizer(text.strip(), add_special_tokens=False).input_ids
      response.append(tokenizer.eos_token_id)
      due = their_logprobs(model, before, response)
      assert score[side]['tokens'] == len(due)
      assert abs(score[side]['logprob'] - due.sum()) / len(due) < 1e-3


def test_generate_writes_the_greedy_text_of_transformers(
    real_model, theirs, tmp_path):
  model, tokenizer = theirs
  path = write_rows(tmp_path / 'prompts.jsonl',
                    [{'prompt': prompt} for prompt in PROMPTS])
  got = run_command('generate', '--model', real_model, '--file', path,
                    '--max-new-tokens', NUM_NEW)
  for prompt, row in zip(PROMPTS, got, strict=True):
    ids = prompt_ids(tokenizer, [{'role': 'user', 'content': prompt}])
    due = tokenizer.decode(
        their_greedy(model, ids, NUM_NEW), skip_special_tokens=True)
    assert row == {'prompt': prompt, 'response': due}
