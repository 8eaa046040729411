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


def make_task(settings: dict) -> turns.Task:
  """The task's steps."""
  torch.set_num_threads(settings['threads'])
  if settings['task'] == 'generate':
    return turns.Task(_generate(settings))
  make = {'sft': _sft, 'dpo': _dpo, 'kto': _kto, 'reward': _reward,
          'grpo': _grpo}
  trainer, rows = make[settings['task']](settings)
  trainer.create_optimizer()
  trainer.current_gradient_accumulation_steps = 1  # As `train` would say.
  trainer.model.train()
  batches = iter(torch.utils.data.DataLoader(
      rows, batch_size=settings['batch_size'], shuffle=False,
      collate_fn=trainer.data_collator, drop_last=True))

  def one() -> float:
    inputs = next(batches)
    loss = trainer.training_step(
        trainer.model, inputs, num_items_in_batch=None)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return float(loss)

  check = _given(trainer, settings) if settings['task'] == 'grpo' else None
  return turns.Task(one, check=check)


def _rows(settings):
  with open(settings['rows'], encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def _arguments(config, settings, **more):
  if config is not trl.GRPOConfig:  # Whose rows are made as it goes.
    more |= {'max_length': settings['max_length'], 'dataset_num_proc': None}
  return config(
      output_dir=tempfile.mkdtemp(), learning_rate=settings['learning_rate'],
      per_device_train_batch_size=settings['batch_size'], use_cpu=True,
      bf16=False, fp16=False, gradient_checkpointing=False, adam_beta2=0.95,
      weight_decay=0.0, max_grad_norm=1.0, lr_scheduler_type='constant',
      report_to=[], disable_tqdm=True, **more)


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


def _kto(settings):
  trainer = _trainer(
      trl.KTOTrainer, _model(settings),
      _arguments(trl.KTOConfig, settings, beta=settings['beta']), settings,
      {'prompt': 'a', 'completion': ' b', 'label': True},
      ref_model=_model(settings))
  rows, size = [], settings['batch_size']
  for i, r in enumerate(_rows(settings)):
    rows.append({'prompt_ids': r['prompt'], 'label': not i % 2,
                 'completion_ids': r['rejected' if i % 2 else 'chosen']})
  for i, row in enumerate(rows):  # The next row's response, in its batch.
    other = rows[i + 1 if (i + 1) % size else i + 1 - size]
    row['KL_completion_ids'] = other['completion_ids']
  return trainer, rows


def _reward(settings):
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
      settings['reward_model'], dtype=torch.float32, num_labels=1)
  trainer = _trainer(
      trl.RewardTrainer, model, _arguments(trl.RewardConfig, settings),
      settings, _PAIR)
  return trainer, [
      {'chosen_ids': r['prompt'] + r['chosen'],
       'rejected_ids': r['prompt'] + r['rejected']} for r in _rows(settings)]


def _grpo(settings):
  """Prompts by their number, which the trainer's tokenizer step looks up."""
  own, new = turns.GRPO, settings['max_new_tokens']
  width, count = settings['max_length'] - new, settings['num_samples']
  prompts = [r['prompt'][-width:] for r in _rows(settings)]
  trainer = _trainer(
      trl.GRPOTrainer, _model(settings),
      _arguments(
          trl.GRPOConfig, settings | own, num_generations=count,
          max_completion_length=new, generation_kwargs={'min_new_tokens': new},
          beta=settings['beta'], epsilon=own['clip'], loss_type='grpo',
          num_iterations=1, steps_per_generation=1,
          use_bias_correction_kl=False),  # The paper's KL.
      settings, {'prompt': '0'},
      reward_funcs=lambda completion_ids, **_: turns.score(completion_ids))
  trainer._tokenize_prompts = lambda names: (
      [prompts[int(name)] for name in names], None, {})
  return trainer, [{'prompt': str(i)} for i in range(len(prompts))
                   for _ in range(count)]


def _given(trainer, settings):
  """The trainer's loss of responses that it did not sample."""
  new = settings['max_new_tokens']
  batches = turns.given(
      _rows(settings), settings['max_length'] - new, new)

  @torch.no_grad()
  def check() -> float:
    prompts, others, responses, signs = map(torch.tensor, next(batches))
    elsewhere = torch.cat([others, responses], dim=1)
    old = trainer._get_per_token_logps_and_entropies(
        trainer.model, elsewhere, torch.ones_like(elsewhere), new)[0]
    return float(trainer.compute_loss(trainer.model, {
        'prompt_ids': prompts, 'prompt_mask': torch.ones_like(prompts),
        'completion_ids': responses,
        'completion_mask': torch.ones_like(responses), 'advantages': signs,
        'old_per_token_logps': old, 'ref_per_token_logps': old}))

  return check


def _generate(settings):
  """transformers' own, greedy, of one length; its mean token id for a loss."""
  model, tokenizer = _model(settings).eval(), _tokenizer(settings)
  new, size = settings['max_new_tokens'], settings['batch_size']
  width = settings['max_length'] - new
  prompts = [r['prompt'][-width:] for r in _rows(settings)]
  batches = iter([prompts[i:i + size] for i in range(0, len(prompts), size)])

  @torch.no_grad()
  def one() -> float:
    rows = next(batches)
    pads = [[tokenizer.pad_token_id] * (width - len(row)) for row in rows]
    tokens = torch.tensor([p + r for p, r in zip(pads, rows, strict=True)])
    mask = torch.tensor([[0] * len(p) + [1] * len(r)
                         for p, r in zip(pads, rows, strict=True)])
    out = model.generate(
        tokens, attention_mask=mask, do_sample=False, max_new_tokens=new,
        min_new_tokens=new, eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id)
    return float(out[:, width:].float().mean())

  return one


if __name__ == '__main__':
  turns.serve(make_task)
