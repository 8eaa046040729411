"""Adapters go through PEFT's folders and compute what PEFT computes."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from alignjax import hf
from alignjax import logprobs
from alignjax.hf import peft as hf_peft
from alignjax.models import CausalLM
from alignjax.models import lora as lora_lib
from alignjax.models import ScalarModel
from tests.families import FAMILIES
from tests.families import random_params

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')
peft = pytest.importorskip('peft', reason='peft is not installed')

TOKENS = np.random.RandomState(7).randint(0, 19, (2, 8))
MODULES = {
    'llama': ['q_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj',
              'down_proj'],
    'gemma2': ['q_proj', 'k_proj', 'down_proj'],
    'phi3': ['qkv_proj', 'gate_up_proj', 'o_proj'],
    'gpt2': ['c_attn', 'attn.c_proj', 'c_fc'],
    'gpt_neox': ['query_key_value', 'dense', 'dense_4h_to_h'],
}


def save_base(name, folder):
  config = FAMILIES[name]
  params = random_params(
      jax.eval_shape(CausalLM(config).init, jax.random.key(0)))
  hf.save_model(folder, config, params, generation={'pad_token_id': 3})
  return config, params


def their_adapter(base, modules, folder, **settings):
  """A PEFT model whose adapters are no longer at their start."""
  theirs = peft.get_peft_model(
      transformers.AutoModelForCausalLM.from_pretrained(base),
      peft.LoraConfig(r=4, lora_alpha=6, target_modules=modules,
                      task_type='CAUSAL_LM', **settings)).eval()
  torch.manual_seed(0)
  with torch.no_grad():
    for name, parameter in theirs.named_parameters():
      if 'lora_' in name:
        parameter.copy_(0.3 * torch.randn_like(parameter))
  theirs.save_pretrained(folder)
  return theirs


def our_logits(config, base, adapters):
  model, params = CausalLM(config), lora_lib.join(base, adapters)
  hidden = jax.jit(model.hidden)(params, TOKENS, np.ones(TOKENS.shape, bool))
  return logprobs.logits(hidden, model.unembedding(params),
                         softcap=config.logit_softcap)


def their_logits(model):
  with torch.no_grad():
    return model.eval()(torch.tensor(TOKENS)).logits.numpy()


@pytest.mark.parametrize('settings', [{}, {'use_rslora': True}])
@pytest.mark.parametrize('name', MODULES)
def test_their_adapter_computes_the_same_and_comes_back_bit_for_bit(
    name, settings, tmp_path):
  config, base = save_base(name, tmp_path / 'base')
  theirs = their_adapter(
      tmp_path / 'base', MODULES[name], tmp_path / 'in', **settings)
  config, adapters, head = hf.load_adapters(tmp_path / 'in', config)
  assert head is None
  np.testing.assert_allclose(our_logits(config, base, adapters),
                             their_logits(theirs), rtol=1e-4, atol=1e-4)
  hf.save_adapters(tmp_path / 'out', config, adapters,
                   base=str(tmp_path / 'base'))
  due = safetensors.numpy.load_file(tmp_path / 'in' / hf_peft.WEIGHTS)
  got = safetensors.numpy.load_file(tmp_path / 'out' / hf_peft.WEIGHTS)
  assert got.keys() == due.keys()
  for tensor in due:
    assert got[tensor].tobytes() == due[tensor].tobytes(), tensor


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('name', MODULES)
def test_our_trained_adapter_is_read_by_peft(name, scan_layers, tmp_path):
  save_base(name, tmp_path / 'base')
  config, base = hf.load_model(tmp_path / 'base', scan_layers=scan_layers)
  config = dataclasses.replace(
      config, lora=lora_lib.Lora(3, 5.0, ('query', 'value', 'out', 'up')))
  adapters = random_params(lora_lib.split(jax.eval_shape(
      CausalLM(config).init, jax.random.key(0)))[1])
  hf.save_adapters(tmp_path / 'out', config, adapters,
                   base=str(tmp_path / 'base'))
  theirs = peft.PeftModel.from_pretrained(
      transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'base'),
      tmp_path / 'out')
  due = our_logits(config, base, adapters)
  np.testing.assert_allclose(their_logits(theirs), due, rtol=1e-4, atol=1e-4)
  again, read, _ = hf.load_adapters(
      tmp_path / 'out', dataclasses.replace(config, lora=None))
  np.testing.assert_allclose(our_logits(again, base, read), due, rtol=1e-4,
                             atol=1e-4)


def test_reward_models_adapter_brings_its_head(tmp_path):
  config, base = save_base('llama', tmp_path / 'base')
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
      tmp_path / 'base', num_labels=1)
  theirs = peft.get_peft_model(model, peft.LoraConfig(
      r=4, lora_alpha=6, target_modules=['q_proj'], task_type='SEQ_CLS')).eval()
  with torch.no_grad():
    for name, parameter in theirs.named_parameters():
      if 'lora_B' in name:
        parameter.copy_(0.3 * torch.randn_like(parameter))
  theirs.save_pretrained(tmp_path / 'in')
  config, adapters, head = hf.load_adapters(tmp_path / 'in', config)
  params = {'backbone': lora_lib.join(base, adapters), 'head': head}
  got = jax.jit(ScalarModel(config).scalars)(
      params, TOKENS, np.ones(TOKENS.shape, bool))[:, -1]
  with torch.no_grad():
    due = theirs(torch.tensor(TOKENS),
                 attention_mask=torch.ones(TOKENS.shape).long()).logits[:, 0]
  np.testing.assert_allclose(got, due, rtol=1e-4, atol=1e-4)
  hf.save_adapters(tmp_path / 'out', config, adapters, head=head,
                   base=str(tmp_path / 'base'))
  again = peft.PeftModel.from_pretrained(
      transformers.AutoModelForSequenceClassification.from_pretrained(
          tmp_path / 'base', num_labels=1), tmp_path / 'out').eval()
  with torch.no_grad():
    score = again(torch.tensor(TOKENS), attention_mask=torch.ones(
        TOKENS.shape).long()).logits[:, 0]
  np.testing.assert_allclose(score, due, rtol=1e-5)


def test_modules_of_unlike_ranks_are_read_as_they_compute(tmp_path):
  config, base = save_base('llama', tmp_path / 'base')
  theirs = their_adapter(
      tmp_path / 'base', ['q_proj', 'v_proj'], tmp_path / 'in',
      rank_pattern={'v_proj': 2}, alpha_pattern={'v_proj': 9},
      layers_to_transform=[0, 2])
  config, adapters, _ = hf.load_adapters(tmp_path / 'in', config)
  np.testing.assert_allclose(our_logits(config, base, adapters),
                             their_logits(theirs), rtol=1e-4, atol=1e-4)
