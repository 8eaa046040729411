"""Every family says, step for step, what transformers says.

Models are tiny and random, with biases and norms that are not at their start,
in eval mode.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from alignjax import hf
from alignjax import logprobs
from alignjax import losses
from alignjax import rollout
from alignjax.models import CausalLM
from alignjax.models import ScalarModel
from alignjax.models import transformer
from alignjax.models.attention import count_positions
from alignjax.models.attention import visible
from alignjax.types import Mean
from alignjax.types import PromptBatch

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')

TOLERANCE = dict(rtol=1e-4, atol=1e-4)
SHAPE = dict(
    vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    max_position_embeddings=96, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    initializer_range=0.3)
GPT = dict(
    vocab_size=37, n_embd=24, n_layer=3, n_head=4, n_positions=96, n_inner=40,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3)
LONG_ROPE = dict(
    rope_type='longrope', rope_theta=1e4, short_factor=[1.0, 1.2],
    long_factor=[1.5, 4.0], original_max_position_embeddings=48,
    partial_rotary_factor=0.75)
SCALED = {  # At twice the first length of 48.
    'linear': dict(factor=4.0),
    'llama3': dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=48),
    'yarn': dict(factor=4.0, original_max_position_embeddings=48),
}
SLIDES = ['sliding_attention', 'full_attention', 'sliding_attention']

# Name: configuration class, and what differs from SHAPE.
FAMILIES = {
    'llama': ('Llama', {}),
    'llama untied, biased': ('Llama', dict(
        tie_word_embeddings=False, attention_bias=True, mlp_bias=True)),
    'llama linear': ('Llama', dict(rope_parameters=dict(
        rope_type='linear', rope_theta=1e4, **SCALED['linear']))),
    'llama 3': ('Llama', dict(rope_parameters=dict(
        rope_type='llama3', rope_theta=5e5, **SCALED['llama3']))),
    'mistral': ('Mistral', dict(sliding_window=5)),
    'mistral without window': ('Mistral', dict(sliding_window=None)),
    'qwen 2': ('Qwen2', {}),
    'qwen 2.5 yarn': ('Qwen2', dict(rope_parameters=dict(
        rope_type='yarn', rope_theta=1e6, **SCALED['yarn']))),
    'qwen 2 sliding': ('Qwen2', dict(
        use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    'qwen 3': ('Qwen3', {}),
    'gemma': ('Gemma', {}),
    'gemma 2': ('Gemma2', dict(
        sliding_window=5, query_pre_attn_scalar=16,
        attn_logit_softcapping=4.0, final_logit_softcapping=3.0)),
    'gemma 3': ('Gemma3Text', dict(
        sliding_window=5, query_pre_attn_scalar=16, layer_types=SLIDES,
        rope_parameters={
            'full_attention': dict(
                rope_type='linear', rope_theta=1e6, factor=8.0),
            'sliding_attention': dict(rope_type='default', rope_theta=1e4)})),
    'smollm 3': ('SmolLM3', dict(no_rope_layers=[1, 0, 1])),
    'phi 3': ('Phi3', dict(sliding_window=None)),
    'phi 3 long, sliding': ('Phi3', dict(
        sliding_window=5, original_max_position_embeddings=48,
        rope_parameters=LONG_ROPE)),
    'olmo 2': ('Olmo2', {}),
    'gpt 2': ('GPT2', GPT),
    'gpt neox': ('GPTNeoX', dict(rope_parameters=dict(
        rope_type='default', rope_theta=1e4, partial_rotary_factor=0.7))),
    'gpt neox sequential, untied': ('GPTNeoX', dict(
        use_parallel_residual=False, tie_word_embeddings=False,
        attention_bias=False, rope_parameters=dict(
            rope_type='default', rope_theta=1e4,
            partial_rotary_factor=1.0))),
}
TOKENS = np.random.RandomState(0).randint(3, 37, (3, 12))
MASK = np.arange(12) < np.array([[12], [9], [5]])
LOSS_MASK = MASK & (np.arange(12) >= np.array([[4], [2], [3]]))


def make(name, head='CausalLM', **changes):
  """A random model of the family, in eval mode, no parameter at its start."""
  kind, fields = FAMILIES[name]
  fields = dict(fields if kind == 'GPT2' else SHAPE | fields)
  if kind in ('Phi3', 'GPTNeoX', 'Olmo2'):
    fields.pop('head_dim')
  if kind == 'GPTNeoX':
    fields.pop('num_key_value_heads')
  config = getattr(transformers, f'{kind}Config')(**(fields | changes))
  torch.manual_seed(0)
  auto = getattr(transformers, f'AutoModelFor{head}')
  model = auto.from_config(config, attn_implementation='eager').eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim == 1:
        parameter += 0.3 * torch.randn_like(parameter)
  return model


@functools.cache
def saved(name, folder):
  """(theirs, ours, params) of a family, written to and read from `folder`."""
  theirs = make(name)
  theirs.save_pretrained(folder / name)
  config, params = hf.load_model(folder / name)
  return theirs, CausalLM(config), params


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('families')


def our_logits(model, params, hidden):
  return logprobs.logits(hidden, model.unembedding(params),
                         softcap=model.config.logit_softcap)


@pytest.mark.parametrize('name', FAMILIES)
def test_every_hidden_state_and_the_logits_are_theirs(name, folder):
  theirs, model, params = saved(name, folder)
  with torch.no_grad():
    due = theirs(torch.tensor(TOKENS), attention_mask=torch.tensor(MASK).long(),
                 output_hidden_states=True)

  @jax.jit
  def ours(params):
    (hidden, _), kept = transformer.Transformer(model.config).apply(
        {'params': params}, TOKENS, count_positions(jnp.asarray(MASK)),
        visible(jnp.asarray(MASK)), mutable=['intermediates'],
        capture_intermediates=lambda m, _: isinstance(m, transformer.Layer))
    kept = kept['intermediates']
    layers = [kept[f'layers_{i}']['__call__'][0][0]
              for i in range(model.config.num_layers)]
    return layers[:-1] + [hidden], our_logits(model, params, hidden)

  hidden, logits = ours(params)
  for i, (got, state) in enumerate(
      zip(hidden, due.hidden_states[1:], strict=True)):
    np.testing.assert_allclose(got[MASK], state.numpy()[MASK], **TOLERANCE,
                               err_msg=f'after layer {i}')
  np.testing.assert_allclose(logits[MASK], due.logits.numpy()[MASK],
                             **TOLERANCE)
  assert np.abs(due.logits.numpy()).max() > 0.5


@pytest.mark.parametrize('name', FAMILIES)
def test_gradients_of_the_sft_loss_are_theirs(name, folder, tmp_path):
  theirs, model, params = saved(name, folder)

  @jax.jit
  @jax.grad
  def gradient(params):
    lp = logprobs.token_logprobs(
        model.hidden(params, TOKENS, jnp.asarray(MASK)),
        model.unembedding(params), TOKENS, softcap=model.config.logit_softcap)
    return Mean.of(losses.sft_loss(lp, LOSS_MASK), LOSS_MASK).compute()

  hf.save_model(tmp_path, model.config, gradient(params))
  got = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  # In files this tensor keeps the name that the module had once.
  got = {n.replace('embed_out', 'lm_head'): x for n, x in got.items()}
  labels = torch.tensor(np.where(LOSS_MASK, TOKENS, -100))
  theirs.zero_grad()
  theirs(torch.tensor(TOKENS), attention_mask=torch.tensor(MASK).long(),
         labels=labels).loss.backward()
  due = {n: p.grad.numpy() for n, p in theirs.named_parameters()
         if p.grad is not None}
  assert got.keys() == due.keys()
  for tensor in due:
    np.testing.assert_allclose(got[tensor], due[tensor], **TOLERANCE,
                               err_msg=tensor)


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('name', FAMILIES)
def test_folder_goes_through_unchanged(name, scan_layers, folder, tmp_path):
  saved(name, folder)
  config, params = hf.load_model(folder / name, scan_layers=scan_layers)
  hf.save_model(tmp_path, config, params, generation={
      'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0})
  due = safetensors.numpy.load_file(folder / name / 'model.safetensors')
  got = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  assert got.keys() == due.keys()
  for tensor in due:
    assert got[tensor].tobytes() == due[tensor].tobytes(), tensor
  theirs = transformers.AutoConfig.from_pretrained(folder / name).to_dict()
  ours = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
  skipped = {'_name_or_path', 'transformers_version', 'initializer_range',
             'dtype', 'torch_dtype', 'attn_pdrop', 'embd_pdrop', 'resid_pdrop',
             'rope_theta', 'rope_scaling', 'rope_local_base_freq', 'rotary_pct',
             'rotary_emb_base', 'partial_rotary_factor', 'max_window_layers'}
  if 'long' not in name:  # Phi-3's unused default.
    skipped.add('original_max_position_embeddings')
  for field in theirs.keys() - skipped:
    got, due = ours.get(field), theirs[field]
    if field == 'rope_parameters' and due.get('rope_type') in (
        'yarn', 'longrope'):
      got = {k: got[k] for k in due}  # We also write what follows from these.
    assert got == due, field
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
  with torch.no_grad():
    assert torch.equal(
        again(torch.tensor(TOKENS)).logits,
        transformers.AutoModelForCausalLM.from_pretrained(
            folder / name).eval()(torch.tensor(TOKENS)).logits)


def their_greedy(model, ids, count):
  with torch.no_grad():
    out = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(),
        max_new_tokens=count, do_sample=False, eos_token_id=None,
        pad_token_id=0)
  return out[0, len(ids):].tolist()


@pytest.mark.parametrize('name', FAMILIES)
def test_greedy_tokens_of_a_left_padded_batch_are_theirs(name, folder):
  theirs, model, params = saved(name, folder)
  prompts = [row[:n].tolist() for row, n in zip(TOKENS, (7, 3, 1))]
  tokens, mask = np.zeros((3, 7), np.int32), np.zeros((3, 7), bool)
  for i, prompt in enumerate(prompts):
    tokens[i, 7 - len(prompt):] = prompt
    mask[i, 7 - len(prompt):] = True
  sample = rollout.make_generate(
      model, max_new_tokens=64, eos_id=36 + 1, temperature=0.0)
  got = sample(params, PromptBatch(
      tokens=tokens, attention_mask=mask, prompt_id=np.arange(3),
      sample_id=np.zeros(3, np.int32), weight=np.ones(3, np.float32)),
      jax.random.key(0))
  for i, prompt in enumerate(prompts):
    due = their_greedy(theirs, prompt, 64)
    assert np.asarray(got.tokens[i, 7:]).tolist() == due


@pytest.mark.parametrize('name', ['llama linear', 'llama 3', 'qwen 2.5 yarn',
                                  'phi 3 long, sliding', 'gemma 3'])
def test_stretched_model_agrees_at_twice_its_first_length(name, folder):
  theirs, model, params = saved(name, folder)
  tokens = np.random.RandomState(1).randint(3, 37, (1, 96))
  with torch.no_grad():
    due = theirs(torch.tensor(tokens)).logits.numpy()
  hidden = jax.jit(model.hidden)(params, tokens, np.ones((1, 96), bool))
  np.testing.assert_allclose(
      our_logits(model, params, hidden), due, **TOLERANCE)


@pytest.mark.parametrize('name', [
    'llama', 'mistral', 'qwen 2', 'qwen 3', 'gemma', 'gemma 2', 'gemma 3',
    'smollm 3', 'phi 3', 'olmo 2', 'gpt 2', 'gpt neox'])
def test_reward_model_scores_what_theirs_scores(name, tmp_path):
  theirs = make(name, head='SequenceClassification', num_labels=1)
  theirs.save_pretrained(tmp_path / 'in')
  config, params = hf.load_reward_model(tmp_path / 'in')
  scalars = jax.jit(ScalarModel(config).scalars)(params, TOKENS, MASK)
  got = np.asarray(scalars)[np.arange(3), MASK.sum(1) - 1]
  hf.save_model(
      tmp_path / 'out', config, params['backbone'], head=params['head'],
      generation={'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0})
  again = transformers.AutoModelForSequenceClassification.from_pretrained(
      tmp_path / 'out').eval()
  for model in theirs, again:
    with torch.no_grad():
      due = model(torch.tensor(np.where(MASK, TOKENS, 0)),
                  attention_mask=torch.tensor(MASK).long()).logits[:, 0]
    np.testing.assert_allclose(got, due, **TOLERANCE)


@pytest.mark.parametrize('name', ['gpt 2', 'gpt neox'])
def test_old_files_with_masks_or_without_a_prefix_are_read(
    name, folder, tmp_path):
  _, model, params = saved(name, folder)
  tensors = safetensors.numpy.load_file(folder / name / 'model.safetensors')
  prefix = {'gpt 2': 'transformer.', 'gpt neox': 'gpt_neox.'}[name]
  layer = {'gpt 2': 'h.0.attn.', 'gpt neox': 'layers.0.attention.'}[name]
  bare = {n.removeprefix(prefix): x for n, x in tensors.items()}
  for extra in ('bias', 'masked_bias'):
    bare[layer + extra] = np.ones((1, 1, 4, 4), np.float32)
  safetensors.numpy.save_file(bare, tmp_path / 'model.safetensors')
  (tmp_path / 'config.json').write_text(json.dumps(json.loads(
      (folder / name / 'config.json').read_text())))
  config, again = hf.load_model(tmp_path)
  assert config == model.config
  jax.tree.map(np.testing.assert_array_equal, again, params)
