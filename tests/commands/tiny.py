"""A tiny model, its tokenizer, and what the commands should say of it."""

import json

import jax
import numpy as np
import pytest

from alignjax import hf
from alignjax.models import CausalLM
from alignjax.models import ModelConfig

WORDS = ('<unk>', '<s>', '</s>', '<user>', '<system>', '<assistant>',
         'a', 'b', 'c', 'd', 'e', 'f', ':', 'Human:', 'Assistant:')
TEMPLATE = (
    '{{ bos_token }}{% for m in messages %} <{{ m.role }}> {{ m.content }}'
    "{% if m.role == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
    '{% if add_generation_prompt %} <assistant>{% endif %}')
CONFIG = ModelConfig(
    vocab_size=len(WORDS), hidden_size=8, intermediate_size=12, num_layers=1,
    num_heads=4, num_kv_heads=2, head_dim=4, max_positions=64,
    tie_embeddings=False)
MODEL = CausalLM(CONFIG)
# Far from uniform, so that no two continuations score alike.
PARAMS = jax.tree.map(lambda x: 2.0 * x, MODEL.init(jax.random.key(3)))
PAIRS = [
    {'chosen': '\n\nHuman: a b\n\nAssistant: c d e',
     'rejected': '\n\nHuman: a b\n\nAssistant: d'},
    {'chosen': '\n\nHuman: e\n\nAssistant: b b',  # The prompts differ.
     'rejected': '\n\nHuman: f f f f\n\nAssistant: c'},
    {'chosen': '\n\nHuman: a\n\nAssistant: f',    # The responses are equal.
     'rejected': '\n\nHuman: a\n\nAssistant: f'},
]


def make_tokenizer():
  """Words to ids by their place in WORDS, with a chat template."""
  added = [{'id': i, 'content': word, 'special': True, 'single_word': False,
            'lstrip': False, 'rstrip': False, 'normalized': False}
           for i, word in enumerate(WORDS[:6])]
  text = json.dumps({
      'version': '1.0', 'added_tokens': added,
      'pre_tokenizer': {'type': 'WhitespaceSplit'},
      'model': {'type': 'WordLevel', 'unk_token': '<unk>',
                'vocab': {word: i for i, word in enumerate(WORDS)}}})
  return hf.Tokenizer.from_json(
      text, bos_token='<s>', eos_token='</s>', pad_token='</s>',
      chat_template=TEMPLATE)


TOKENIZER = make_tokenizer()


def write_rows(path, rows):
  """A JSONL file of the rows."""
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def read_rows(text):
  """The objects of JSONL text."""
  return [json.loads(line) for line in text.splitlines()]


@jax.jit
def logits_of(tokens, mask):
  """[1, T, V], the unembedding written out."""
  with jax.default_matmul_precision('highest'):
    return MODEL.hidden(PARAMS, tokens, mask) @ PARAMS['unembed'].T


def next_logprobs(tokens):
  """[T, V] log-probabilities after each token, without alignjax.logprobs."""
  row = np.zeros((1, 96), np.int32)
  row[0, :len(tokens)] = tokens
  logits = logits_of(row, np.arange(96)[None] < len(tokens))[0, :len(tokens)]
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def argmax_response(prompt, count):
  """The likeliest token, again and again, over whole rows."""
  tokens = list(prompt)
  while len(tokens) < len(prompt) + count:
    tokens.append(int(next_logprobs(tokens)[-1].argmax()))
    if tokens[-1] == TOKENIZER.eos_id:
      break
  return tokens[len(prompt):]


def expected_score(prompt, response, plain=False):
  """What `score` should say of one response."""
  before = TOKENIZER.prompt_tokens(prompt, plain=plain)
  after = TOKENIZER.response_tokens(response)
  logprobs = next_logprobs(before + after)[len(before) - 1:-1]
  return {'logprob': pytest.approx(
      logprobs[range(len(after)), after].sum(), abs=2e-4),
          'tokens': len(after)}


def check_refused(result, *words):
  """Status 2, one line on stderr with these words, nothing on stdout."""
  status, out, err = result
  assert status == 2 and out == ''
  assert err.startswith('error: ') and err.count('\n') == 1, err
  for word in words:
    assert word in err
