"""The tasks in Tunix: its trainers' own jitted steps.

Its rows have one width, to which what users write pads them; here that is the
longest of the run's rows, or of its prompts and of its responses. A step is
`_prepare_inputs` of the trainer, which asks DPO's reference, and the step that
its `train` jits.
"""

import json

from flax import nnx
import jax.numpy as jnp
import numpy as np
import optax
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as weights
from tunix.sft import peft_trainer
from tunix.sft import utils
from tunix.sft.dpo import dpo_trainer

from benchmarks import turns

_PAD = -1  # No token's id: rows may hold any other.


def make_task(settings: dict) -> turns.Task:
  """The task's steps."""
  trainer, batches = {'sft': _sft, 'dpo': _dpo}[settings['task']](settings)
  step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)
  batches = iter(batches)

  def one() -> float:
    return float(step(trainer._prepare_inputs(next(batches)))[0])

  return turns.Task(one)


def _rows(settings):
  with open(settings['rows'], encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def _model(settings) -> nnx.Module:
  with open(f'{settings["model"]}/config.json', encoding='utf-8') as file:
    c = json.load(file)
  rope = c.get('rope_parameters') or {}
  config = llama.ModelConfig(
      num_layers=c['num_hidden_layers'], vocab_size=c['vocab_size'],
      embed_dim=c['hidden_size'], hidden_dim=c['intermediate_size'],
      num_heads=c['num_attention_heads'],
      head_dim=c.get('head_dim') or (
          c['hidden_size'] // c['num_attention_heads']),
      num_kv_heads=c['num_key_value_heads'], norm_eps=c['rms_norm_eps'],
      rope_theta=int(c.get('rope_theta') or rope['rope_theta']),
      weight_tying=c['tie_word_embeddings'])
  return weights.create_model_from_safe_tensors(
      settings['model'], config, dtype=jnp.float32, mode='original')


def _optimizer(settings) -> optax.GradientTransformation:
  return optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(settings['learning_rate'], b2=0.95, weight_decay=0.0))


def _padded(rows, width: int, *, left: bool = False) -> np.ndarray:
  out = np.full((len(rows), width), _PAD, np.int32)
  for line, row in zip(out, rows, strict=True):
    line[width - len(row) if left else 0:][:len(row)] = row
  return out


def _batches(settings, make):
  rows, size = _rows(settings), settings['batch_size']
  for first in range(0, len(rows), size):
    yield make(rows[first:first + size])


def _sft(settings):
  width = max(len(r['prompt'] + r['chosen']) for r in _rows(settings))

  def batch(rows):
    tokens = _padded([r['prompt'] + r['chosen'] for r in rows], width)
    starts = np.array([[len(r['prompt'])] for r in rows])
    return peft_trainer.TrainingInput(
        input_tokens=tokens,
        input_mask=(np.arange(width) >= starts) & (tokens != _PAD))

  def model_input(x):
    is_real = x.input_tokens != _PAD
    return {'input_tokens': jnp.where(is_real, x.input_tokens, 0),
            'input_mask': x.input_mask,
            'positions': utils.build_positions_from_mask(is_real),
            'attention_mask': utils.make_causal_attn_mask(is_real)}

  trainer = peft_trainer.PeftTrainer(
      _model(settings), _optimizer(settings),
      peft_trainer.TrainingConfig(eval_every_n_steps=1_000_000))
  return trainer.with_gen_model_input_fn(model_input), _batches(settings, batch)


def _dpo(settings):
  rows = _rows(settings)
  prompt = max(len(r['prompt']) for r in rows)
  response = max(len(r[name]) for r in rows for name in ('chosen', 'rejected'))

  def batch(rows):
    found = {'prompt': _padded([r['prompt'] for r in rows], prompt, left=True)}
    for name in ('chosen', 'rejected'):
      found[name] = _padded([r[name] for r in rows], response)
    return dpo_trainer.TrainingInput(
        **{f'{name}_ids': np.maximum(x, 0) for name, x in found.items()},
        **{f'{name}_mask': x != _PAD for name, x in found.items()})

  trainer = dpo_trainer.DPOTrainer(
      _model(settings), _model(settings), _optimizer(settings),
      dpo_trainer.DPOTrainingConfig(
          eval_every_n_steps=1_000_000, beta=settings['beta']))
  return trainer, _batches(settings, batch)


if __name__ == '__main__':
  turns.serve(make_task)
