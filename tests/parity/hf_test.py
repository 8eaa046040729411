"""Folders that transformers wrote and reads: weights, scores, chat tokens.

Runs where torch and transformers are installed beside jax.
"""

import json

import numpy as np
import pytest

from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.hf import weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')

CHATS = [
    [{'role': 'user', 'content': 'What is 2 + 2?'}],
    [{'role': 'system', 'content': 'Be terse.'},
     {'role': 'user', 'content': 'Hi'}],
    [{'role': 'user', 'content': 'Hi'},
     {'role': 'assistant', 'content': 'Hello! How are you?'},
     {'role': 'user', 'content': ' Fine,\n\n\tthanks — 你好 🙂 '}],
    [{'role': 'user', 'content': ''}],
]
EDGE_TEMPLATE = """\
{%- if messages[0].role == 'system' -%}
  {{ bos_token + messages[0].content | trim }}
{%- endif %}
{% for message in messages %}
  {% if message.role == 'assistant' %}
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
  {% else %}
{{ message | tojson }}
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"""


def llama_config(*, tied, **fields):
  """A tiny grouped-query Llama whose dimensions all differ."""
  return transformers.LlamaConfig(**(dict(
      vocab_size=29, hidden_size=12, intermediate_size=20, num_hidden_layers=2,
      num_attention_heads=6, num_key_value_heads=2, head_dim=4,
      max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=tied,
      rope_parameters={'rope_type': 'default', 'rope_theta': 5e4},
      bos_token_id=1, eos_token_id=2, pad_token_id=0) | fields))


def assert_same_state(got, due):
  """Two modules hold the same tensors, bit for bit."""
  got, due = got.state_dict(), due.state_dict()
  assert got.keys() == due.keys()
  for name in due:
    assert got[name].dtype == due[name].dtype, name
    assert torch.equal(got[name], due[name]), name


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('tied', [False, True])
def test_llama_goes_through_alignjax_unchanged(
    tmp_path, tied, dtype, scan_layers):
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(llama_config(tied=tied))
  model = model.to(getattr(torch, dtype))
  model.save_pretrained(tmp_path / 'in', max_shard_size='4KB')
  config, params = weights.load_model(
      tmp_path / 'in', param_dtype=dtype, scan_layers=scan_layers)
  weights.save_model(tmp_path / 'out', config, params, max_shard_bytes=4_000)
  again = transformers.LlamaForCausalLM.from_pretrained(
      tmp_path / 'out', dtype='auto')
  assert_same_state(again, model)
  for field in ('rope_parameters', 'rms_norm_eps', 'head_dim',
                'num_key_value_heads', 'tie_word_embeddings',
                'max_position_embeddings', 'hidden_act'):
    assert getattr(again.config, field) == getattr(model.config, field), field
  tokens = torch.arange(1, 9)[None]
  assert torch.equal(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize('tied', [False, True])
def test_reward_model_scores_a_padded_batch_the_same(tmp_path, tied):
  torch.manual_seed(0)
  model = transformers.LlamaForSequenceClassification(
      llama_config(tied=tied, num_labels=1)).eval()
  model.save_pretrained(tmp_path / 'in')
  config, params = weights.load_reward_model(tmp_path / 'in')
  np.testing.assert_array_equal(
      params['head'], model.score.weight.detach().numpy()[0])
  weights.save_model(
      tmp_path / 'out', config, params['backbone'], head=params['head'],
      generation={'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0})
  again = transformers.AutoModelForSequenceClassification.from_pretrained(
      tmp_path / 'out').eval()
  assert_same_state(again, model)
  batch = dict(
      input_ids=torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]),
      attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]))
  scores = again(**batch).logits
  assert scores.shape == (2, 1)
  assert torch.equal(scores, model(**batch).logits)
  alone = again(input_ids=batch['input_ids'][1:, :3]).logits
  torch.testing.assert_close(scores[1:], alone)


def chat_tokens(tokenizer, messages):
  """What transformers feeds the model for a chat."""
  return tokenizer.apply_chat_template(
      messages, add_generation_prompt=True, tokenize=True,
      return_dict=True)['input_ids']


@pytest.mark.parametrize('messages', CHATS)
def test_chat_is_rendered_and_tokenized_the_same(real_model, messages):
  ours = hf_tokenizer.load_tokenizer(real_model)
  theirs = transformers.AutoTokenizer.from_pretrained(real_model)
  for add in (False, True):
    assert ours.render(messages, add_generation_prompt=add) == (
        theirs.apply_chat_template(
            messages, add_generation_prompt=add, tokenize=False))
  assert ours.prompt_tokens(messages) == chat_tokens(theirs, messages)


@pytest.mark.parametrize('messages', CHATS)
def test_template_features_render_the_same(real_model, messages, tmp_path):
  ours = hf_tokenizer.load_tokenizer(real_model)
  ours.save(tmp_path)
  (tmp_path / 'chat_template.jinja').write_text(EDGE_TEMPLATE)
  ours = hf_tokenizer.load_tokenizer(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert ours.render(messages, add_generation_prompt=True) == (
      theirs.apply_chat_template(
          messages, add_generation_prompt=True, tokenize=False))
  assert ours.prompt_tokens(messages) == chat_tokens(theirs, messages)


def test_plain_text_is_tokenized_the_same(real_model):
  ours = hf_tokenizer.load_tokenizer(real_model)
  theirs = transformers.AutoTokenizer.from_pretrained(real_model)
  assert (ours.bos_id, ours.eos_id, ours.pad_id) == (
      theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
  for text in ('Once upon a time', '', ' 3.14\r\n', 'naïve 🙂'):
    assert ours.prompt_tokens(text, plain=True) == theirs(text).input_ids
    assert ours.decode(ours.encode(text)) == text


def test_tokenizer_made_from_json_is_read_by_transformers(real_model, tmp_path):
  ours = hf_tokenizer.Tokenizer.from_json(
      (real_model / 'tokenizer.json').read_text(), bos_token='<|im_start|>',
      eos_token='<|im_end|>', pad_token='<|endoftext|>',
      chat_template=EDGE_TEMPLATE, add_bos=True)
  ours.save(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert (ours.bos_id, ours.eos_id, ours.pad_id) == (
      theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
  assert ours.prompt_tokens('hi', plain=True) == theirs('hi').input_ids
  assert ours.prompt_tokens(CHATS[1]) == chat_tokens(theirs, CHATS[1])


def test_generation_settings_reach_transformers(tmp_path):
  transformers.LlamaForCausalLM(llama_config(tied=True)).save_pretrained(
      tmp_path / 'in')
  config, params = weights.load_model(tmp_path / 'in')
  weights.save_model(tmp_path / 'out', config, params, generation={
      'eos_token_id': [2, 3], 'temperature': 0.7, 'do_sample': True})
  settings = transformers.GenerationConfig.from_pretrained(tmp_path / 'out')
  assert settings.eos_token_id == [2, 3] and settings.temperature == 0.7
  fields = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert fields['eos_token_id'] == [2, 3]
