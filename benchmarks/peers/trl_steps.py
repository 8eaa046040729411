"""The tasks in TRL: its trainers' own collators, losses and optimizers.

Each trainer is made as its documentation says, with what would cost it time
here turned off: gradient checkpointing, evaluation, logging and saving. A step
is the trainer's `training_step`, its optimizer's and the clip.
"""

import json
import tempfile

import datasets
import torch
import transformers
import trl

from benchmarks import turns


def make_step(settings: dict):
  """One step of the task; its loss."""
  torch.set_num_threads(settings['threads'])
  make = {'sft': _sft, 'dpo': _dpo, 'reward': _reward}[settings['task']]
  trainer, rows = make(settings)
  trainer.create_optimizer()
  trainer.current_gradient_accumulation_steps = 1  # As `train` would say.
  trainer.model.train()
  batches = iter(torch.utils.data.DataLoader(
      rows, batch_size=settings['batch_size'], shuffle=False,
      collate_fn=trainer.data_collator, drop_last=True))

  def one() -> float:
    inputs = next(batches)
    loss = trainer.training_step(trainer.model, inputs)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return float(loss)

  return one


def _rows(settings):
  with open(settings['rows'], encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def _arguments(config, settings, **more):
  return config(
      output_dir=tempfile.mkdtemp(), learning_rate=settings['learning_rate'],
      per_device_train_batch_size=settings['batch_size'], use_cpu=True,
      bf16=False, fp16=False, gradient_checkpointing=False, adam_beta2=0.95,
      weight_decay=0.0, max_grad_norm=1.0, lr_scheduler_type='constant',
      report_to=[], disable_tqdm=True, max_length=settings['max_length'],
      dataset_num_proc=None, **more)


def _model(settings):
  return transformers.AutoModelForCausalLM.from_pretrained(
      settings['model'], dtype=torch.float32)


def _tokenizer(settings):
  # A reward model's own pads with another token than EOS, which it scores.
  tokenizer = transformers.AutoTokenizer.from_pretrained(settings[
      'reward_model' if settings['task'] == 'reward' else 'model'])
  tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
  return tokenizer


def _trainer(kind, model, args, settings, row, **more):
  """A trainer, made on one row; the rest comes to its collator as token ids."""
  return kind(
      model, args=args, train_dataset=datasets.Dataset.from_list([row]),
      processing_class=_tokenizer(settings), **more)


def _sft(settings):
  trainer = _trainer(
      trl.SFTTrainer, _model(settings), _arguments(trl.SFTConfig, settings),
      settings, {'prompt': 'a', 'completion': ' b'})
  return trainer, [
      {'input_ids': r['prompt'] + r['chosen'],
       'labels': [-100] * len(r['prompt']) + r['chosen']}
      for r in _rows(settings)]


_PAIR = {'prompt': 'a', 'chosen': ' b', 'rejected': ' c'}


def _dpo(settings):
  trainer = _trainer(
      trl.DPOTrainer, _model(settings),
      _arguments(trl.DPOConfig, settings, beta=settings['beta']), settings,
      _PAIR, ref_model=_model(settings))
  return trainer, [
      {'prompt_ids': r['prompt'], 'chosen_ids': r['chosen'],
       'rejected_ids': r['rejected']} for r in _rows(settings)]


def _reward(settings):
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
      settings['reward_model'], dtype=torch.float32, num_labels=1)
  trainer = _trainer(
      trl.RewardTrainer, model, _arguments(trl.RewardConfig, settings),
      settings, _PAIR)
  return trainer, [
      {'chosen_ids': r['prompt'] + r['chosen'],
       'rejected_ids': r['prompt'] + r['rejected']} for r in _rows(settings)]


if __name__ == '__main__':
  turns.serve(make_step)
