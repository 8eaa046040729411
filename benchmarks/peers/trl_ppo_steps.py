"""PPO in TRL 1.12, the last that has it: its own loop, an iteration at a time.

`PPOTrainer.train` is one loop that logs once an iteration. It runs in a thread
of its own, and is held where it logs.
"""

import json
import tempfile
import threading

import torch
import transformers
from trl.experimental import ppo

from benchmarks import turns


def make_task(settings: dict) -> turns.Task:
  """Iterations of PPO, of all four models; the value function's loss."""
  torch.set_num_threads(settings['threads'])
  trainer = _trainer(settings)
  goes, is_done, said = threading.Semaphore(0), threading.Semaphore(0), {}

  def log(metrics, *args, **kwargs):
    del args, kwargs
    said.update(metrics)
    is_done.release()
    goes.acquire()

  def run():
    try:
      trainer.train()
    except BaseException as error:
      said['error'] = error
      is_done.release()
      raise

  trainer.log = log
  thread = threading.Thread(target=run, daemon=True)

  def one() -> float:
    if thread.ident is None:
      thread.start()
    else:
      goes.release()
    is_done.acquire()
    if 'error' in said:
      raise said['error']
    return float(said['loss/value_avg'])

  return turns.Task(one)


def _trainer(settings) -> ppo.PPOTrainer:
  tokenizer = transformers.AutoTokenizer.from_pretrained(
      settings['reward_model'])
  policy, reference = (
      transformers.AutoModelForCausalLM.from_pretrained(
          settings['model'], dtype=torch.float32) for _ in range(2))
  for model in (policy, reference):
    model.generation_config.eos_token_id = None  # All write to the end.
  reward, value = (
      transformers.AutoModelForSequenceClassification.from_pretrained(
          settings['reward_model'], dtype=torch.float32, num_labels=1)
      for _ in range(2))
  size, own = settings['batch_size'], turns.PPO
  parts = settings['peer_microbatches']
  width = settings['max_length'] - settings['max_new_tokens']
  with open(settings['rows'], encoding='utf-8') as file:
    rows = [{'input_ids': json.loads(line)['prompt'][-width:]} for line in file
            for _ in range(settings['num_samples'])]
  trainer = ppo.PPOTrainer(
      ppo.PPOConfig(
          output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, fp16=False,
          report_to=[], disable_tqdm=True, save_strategy='no',
          gradient_checkpointing=False, num_mini_batches=1,
          per_device_train_batch_size=size // parts,
          gradient_accumulation_steps=parts,
          num_ppo_epochs=settings['num_epochs'], adam_beta2=0.95,
          weight_decay=0.0, lr_scheduler_type='constant',
          total_episodes=len(rows),
          local_rollout_forward_batch_size=size // parts,
          response_length=settings['max_new_tokens'], num_sample_generations=0,
          stop_token_id=None, missing_eos_penalty=None,
          learning_rate=own['learning_rate'], kl_coef=own['kl_coef'],
          gamma=own['gamma'], lam=own['lam'], cliprange=own['clip'],
          cliprange_value=own['clip'], temperature=own['temperature']),
      processing_class=tokenizer, model=policy, ref_model=reference,
      reward_model=reward, value_model=value, train_dataset=rows)
  trainer.dataloader = torch.utils.data.DataLoader(
      rows, batch_size=size, shuffle=False, drop_last=True,
      collate_fn=lambda each: {'input_ids': _padded(
          [row['input_ids'] for row in each], tokenizer.pad_token_id)})
  return trainer


def _padded(prompts: list[list[int]], pad: int) -> torch.Tensor:
  """To the longest, on the left, as the trainer's own collator does."""
  longest = max(map(len, prompts))
  return torch.tensor([[pad] * (longest - len(x)) + x for x in prompts])


if __name__ == '__main__':
  turns.serve(make_task)
