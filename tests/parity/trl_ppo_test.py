"""The pieces of PPO give what TRL's PPOTrainer computes while it trains.

TRL 1.12 is the last with PPO. It is run in a process of its own, from the
folder that ALIGNJAX_TRL_PPO names (`pip install --no-deps --target FOLDER
'trl==1.12.*'`), which writes down what its step computes and what of.
"""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import advantages
from alignjax import losses
from alignjax import masked

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
VOCABULARY, NUM_ROWS = 11, 8
PAD, EOS = 0, 2
SETTINGS = dict(
    kl_coef=0.3, gamma=0.97, lam=0.9, cliprange=0.1, cliprange_value=0.15,
    vf_coef=0.4, temperature=0.7, missing_eos_penalty=0.5)
# What TRL calls what is compared below, in the step that makes its loss.
NAMES = (
    'logprobs', 'ref_logprobs', 'scores', 'values', 'kl', 'rewards', 'returns',
    'advantages', 'padding_mask', 'padding_mask_p1', 'mb_responses', 'logits',
    'mb_logprobs', 'mb_advantage', 'mb_return', 'mb_values', 'vpred',
    'vf_loss', 'pg_loss', 'loss', 'micro_batch_inds')


# --- In the other process


def make_trainer(folder, **settings):
  """A PPOTrainer of TRL on tiny random models and eight prompts of ids."""
  from tokenizers import models
  from tokenizers import Tokenizer
  from trl.experimental import ppo

  torch.manual_seed(0)
  config = transformers.LlamaConfig(
      vocab_size=VOCABULARY, hidden_size=12, intermediate_size=20,
      num_hidden_layers=1, num_attention_heads=2, initializer_range=0.5,
      max_position_embeddings=64, num_labels=1, pad_token_id=PAD,
      bos_token_id=1, eos_token_id=EOS)
  words = {str(id_): id_ for id_ in range(VOCABULARY)}
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=Tokenizer(models.WordLevel(words, unk_token='3')),
      pad_token='0', eos_token='2', padding_side='left')
  rng = np.random.default_rng(0)
  prompts = [dict(input_ids=rng.integers(3, VOCABULARY, n).tolist())
             for n in rng.integers(2, 5, NUM_ROWS)]
  policy, reference = (
      transformers.LlamaForCausalLM(config) for _ in range(2))
  reward, value = (
      transformers.LlamaForSequenceClassification(config) for _ in range(2))
  return ppo.PPOTrainer(
      ppo.PPOConfig(
          output_dir=str(folder), use_cpu=True, bf16=False, report_to=[],
          save_strategy='no', disable_tqdm=True, logging_strategy='no',
          per_device_train_batch_size=NUM_ROWS, gradient_accumulation_steps=1,
          num_mini_batches=1, num_ppo_epochs=3, total_episodes=NUM_ROWS,
          local_rollout_forward_batch_size=NUM_ROWS, response_length=7,
          num_sample_generations=0, stop_token_id=EOS, learning_rate=3e-2,
          **SETTINGS, **settings),
      processing_class=tokenizer, model=policy, ref_model=reference,
      reward_model=reward, value_model=value, train_dataset=prompts)


def record(folder):
  """Runs one PPO batch of three epochs, and writes each epoch's variables."""
  for name in 'plain', 'whitened':
    trainer = make_trainer(folder, whiten_rewards=name == 'whitened')
    backward = trainer.accelerator.backward
    epochs = []

    def and_record(loss):
      step = sys._getframe(1).f_locals
      grads = torch.autograd.grad(
          loss, (step['logits'], step['vpred']), retain_graph=True)
      epochs.append(
          {key: torch.as_tensor(step[key]).detach().clone().numpy()
           for key in NAMES}
          | {f'{key}_grad': grad.numpy()
             for key, grad in zip(('logits', 'vpred'), grads, strict=True)})
      backward(loss)

    trainer.accelerator.backward = and_record
    trainer.train()
    for index, epoch in enumerate(epochs):
      np.savez(folder / f'{name}_{index}.npz', **epoch)


# --- In this process


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Where TRL's run has left its variables."""
  trl = os.environ.get('ALIGNJAX_TRL_PPO')
  if not trl:
    pytest.skip('ALIGNJAX_TRL_PPO is not set; it names a folder with TRL 1.12')
  out = tmp_path_factory.mktemp('ppo')
  here = pathlib.Path(__file__)
  path = os.pathsep.join((trl, str(here.parents[2])))
  done = subprocess.run(
      [sys.executable, str(here), str(out)], check=False, text=True,
      capture_output=True, env=dict(
          os.environ, PYTHONPATH=path, TRL_EXPERIMENTAL_SILENCE='1',
          CUDA_VISIBLE_DEVICES=''))
  assert done.returncode == 0, done.stderr
  return out


@pytest.fixture(params=['plain', 'whitened'])
def run(request, folder):
  """The variables of the first epoch, and whether rewards were whitened."""
  return np.load(folder / f'{request.param}_0.npz'), request.param == 'whitened'


def our_rewards(step, mask):
  """Token rewards of TRL's scores and log-probabilities under a mask of ours.

  TRL writes 1 under masked log-probabilities, so that no KL lies there.
  """
  kl = losses.kl_k1(step['logprobs'], step['ref_logprobs'])
  return advantages.token_rewards(
      step['scores'], kl, mask, kl_coef=SETTINGS['kl_coef'])


def test_some_responses_end_and_some_are_cut(run):
  step, _ = run
  length = (~step['padding_mask']).sum(1)
  assert length.min() >= 1
  assert (length < 7).any() and (length == 7).any()


def test_k1_is_trls(run):
  step, _ = run
  np.testing.assert_allclose(
      losses.kl_k1(step['logprobs'], step['ref_logprobs']), step['kl'],
      **TOLERANCE)


def test_token_rewards_are_trls_in_its_slot_behind_the_response(run):
  step, is_whitened = run
  mask = ~step['padding_mask_p1']
  rewards = our_rewards(step, mask)
  if is_whitened:
    rewards = masked.whiten(rewards, mask, shift_mean=False)
  np.testing.assert_allclose(rewards, step['rewards'], **TOLERANCE)


def test_ours_score_the_last_token_where_trl_scores_the_pad_behind_it(folder):
  step = np.load(folder / 'plain_0.npz')
  is_response = ~step['padding_mask']
  ours = our_rewards(step, is_response)
  np.testing.assert_allclose(ours.sum(1), step['rewards'].sum(1), **TOLERANCE)
  ends = is_response.sum(1) < is_response.shape[1]
  moved = np.where(is_response, 0.0, step['rewards']).sum(1)
  np.testing.assert_allclose(moved[ends], step['scores'][ends], **TOLERANCE)
  assert not moved[~ends].any()


def test_returns_and_whitened_advantages_are_trls(run):
  step, _ = run
  raw, returns = advantages.gae(
      step['rewards'], step['values'], ~step['padding_mask_p1'],
      gamma=SETTINGS['gamma'], lam=SETTINGS['lam'])
  np.testing.assert_allclose(returns, step['returns'], **TOLERANCE)
  np.testing.assert_allclose(
      masked.whiten(raw, ~step['padding_mask']), step['advantages'],
      **TOLERANCE)


def our_logprobs(bench, logits, tokens):
  """[B, T] of tokens of which the logits of the same column speak."""
  ahead = jnp.pad(logits, ((0, 0), (0, 1), (0, 0)))
  return bench.logprobs(ahead, np.pad(tokens, ((0, 0), (1, 0))))[:, 1:]


@pytest.mark.parametrize('epoch', [0, 1, 2])
@pytest.mark.parametrize('name', ['plain', 'whitened'])
def test_loss_and_its_gradients_are_trls(bench, folder, name, epoch):
  step = np.load(folder / f'{name}_{epoch}.npz')
  rows = step['micro_batch_inds']
  mask, value_mask = (
      ~step[key][rows] for key in ('padding_mask', 'padding_mask_p1'))

  def ours(logits, values):
    policy_loss = masked.masked_mean(losses.ppo_clip_loss(
        our_logprobs(bench, logits, step['mb_responses']), step['mb_logprobs'],
        step['mb_advantage'], clip=SETTINGS['cliprange']), mask)
    value_loss = masked.masked_mean(losses.value_clip_loss(
        values, step['mb_values'], step['mb_return'],
        clip=SETTINGS['cliprange_value']), value_mask)
    return (policy_loss + SETTINGS['vf_coef'] * value_loss,
            (policy_loss, value_loss))

  (loss, parts), grads = jax.jit(jax.value_and_grad(
      ours, argnums=(0, 1), has_aux=True))(step['logits'], step['vpred'])
  for got, key in zip((loss, *parts, *grads), (
      'loss', 'pg_loss', 'vf_loss', 'logits_grad', 'vpred_grad'), strict=True):
    np.testing.assert_allclose(got, step[key], **TOLERANCE, err_msg=key)


def test_both_clips_bite_from_the_second_epoch_on(bench, folder):
  for epoch in 1, 2:
    step = np.load(folder / f'plain_{epoch}.npz')
    mask = ~step['padding_mask'][step['micro_batch_inds']]
    moved = np.exp(our_logprobs(bench, step['logits'], step['mb_responses'])
                   - step['mb_logprobs']) - 1.0
    assert (np.abs(moved)[mask] > SETTINGS['cliprange']).any()
    moved = step['vpred'] - step['mb_values']
    assert (np.abs(moved)[mask] > SETTINGS['cliprange_value']).any()


if __name__ == '__main__':
  record(pathlib.Path(sys.argv[1]))
