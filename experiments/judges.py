"""What scores a policy's samples, as PPO and its relatives are given it."""

import pathlib
from typing import NamedTuple

from alignjax import adapters
from alignjax import hf
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import train
from alignjax.models import freeze
from alignjax.types import InputError
from experiments import reward


class Judge(NamedTuple):
  """A reward model on the mesh."""

  reward_fn: object  # `(tokens, attention_mask[, rows]) -> [B]`.
  trainee: adapters.Trainee  # It, as a value function would begin.
  folder: str


def load(cfg, run: runs.Run, policy: adapters.Trainee) -> Judge:
  """The reward model of the config, which must read the policy's tokens."""
  folder = reward_folder(cfg, policy.folder)
  check_tokenizer(folder, policy.folder)
  trainee = runs.load_value(cfg, folder, policy, run.mesh)
  # All of its own: the value function's are copied, and trained away from it.
  of_trained = sharding.tree_shardings(run.mesh, trainee.axes, trainee.params)
  params = freeze(trainee.whole(sharding.put(trainee.params, of_trained)),
                  trainee.model.config.dtype)
  reward_fn = rollout.make_reward_fn(
      trainee.model, params, mesh=run.mesh,
      param_shardings=adapters.shardings_of(params),
      mean=runs.read_reward_mean(folder))
  return Judge(reward_fn, trainee, folder)


def with_safety(
    cfg, run: runs.Run, policy: adapters.Trainee, judge: Judge) -> Judge:
  """The judge, and the safety model before it if the config has one."""
  if not cfg.safety_reward_model:
    return judge
  width = cfg.max_length - cfg.max_new_tokens
  tokenizer = hf.load_tokenizer(policy.folder)
  return judge._replace(reward_fn=rollout.make_safety_first(
      judge.reward_fn, frozen(cfg.safety_reward_model, run, policy),
      safety_prompts(cfg, run, tokenizer, width), prompt_length=width,
      threshold=cfg.safety_threshold))


def safety_prompts(cfg, run: runs.Run, tokenizer, width: int) -> list:
  """Tokens of the prompts that invite harm, or look as if they did."""
  if cfg.safety_prompts:
    return [row.tokens for row in sources.prompt_rows(
        run, cfg, tokenizer, cfg.safety_prompts, max_length=width)[1]]
  if not runs.is_testbed(cfg.model):
    return []
  prompts, rows = sources.testbed_prompts('train', None, cfg.seed, tokenizer)
  return [row.tokens for prompt, row in zip(prompts, rows, strict=True)
          if prompt.kind in sources.SAFETY_KINDS]


def load_others(cfg, run: runs.Run, policy: adapters.Trainee) -> list:
  """The reward models that only watch, as `(trajectory) -> [B]`."""
  scores = [frozen(f, run, policy) for f in cfg.watch_reward_models]
  return [lambda t, score=score: score(
      t.tokens, t.attention_mask, *(() if t.rows is None else (t.rows,)))
          for score in scores]


def frozen(folder: str, run: runs.Run, policy: adapters.Trainee):
  """The rewards of a folder's whole reward model, for the policy's tokens."""
  check_tokenizer(folder, policy.folder)
  model, params = runs.load_reward_model(folder)
  whole = sharding.replicated(run.mesh)
  return rollout.make_reward_fn(
      model, sharding.put(params, whole), mesh=run.mesh, param_shardings=whole,
      mean=runs.read_reward_mean(folder))


def make_check(cfg, reward: str):
  """What refuses an iteration by its metrics; `reward` names the judge."""
  return train.make_check(
      reward=reward, min_ended=cfg.min_ended,
      max_decode_gap=cfg.max_decode_gap, max_new_tokens=cfg.max_new_tokens)


def check_tokenizer(folder: str, policy: str) -> None:
  """Refuses a reward model that reads other tokens than the policy writes.

  Raises:
    InputError: the vocabularies differ in size, or in what an id stands for.
  """
  if runs.is_adapter(folder):
    return  # It reads the policy's own embedding.
  ours, theirs = (hf.read_config(f).vocab_size for f in (policy, folder))
  if ours != theirs:
    raise InputError(
        f'reward_model={folder} has vocab_size={theirs} and the policy '
        f'{policy} {ours}; give a reward model trained from this policy')
  ours, theirs = (hf.load_tokenizer(f).vocabulary for f in (policy, folder))
  if ours != theirs:
    token = sorted(ours.items() ^ theirs.items(), key=lambda x: x[::-1])[0][0]
    raise InputError(
        f'reward_model={folder} has another tokenizer than the policy '
        f'{policy}: token {token!r} is {theirs.get(token)} there and '
        f'{ours.get(token)} here; give a reward model trained from this policy')


def reward_folder(cfg, policy: str) -> str:
  """The reward model's folder; without one, it is trained here first.

  Under a policy of adapters it is adapters too, over the same base.
  """
  if cfg.reward_model:
    return cfg.reward_model
  shared = {name: getattr(cfg, name) for name in (
      'data', 'max_length', 'seed', 'mesh', 'plain', 'long_prompts',
      'max_dropped', 'split', 'on_bad_record', 'duplicates')}
  if isinstance(cfg, runs.ComputeConfig):
    shared |= {name: getattr(cfg, name) for name in (
        'dtype', 'remat', 'attention_block', 'attention_kernel')}
  if adapted := lora_settings(cfg):
    shared |= adapted
  model = reward.stage(reward.Config(
      workdir=str(pathlib.Path(cfg.workdir) / 'reward'), model=policy,
      num_steps=cfg.reward_steps, resume=True, **shared,
      batch_size=None if runs.is_testbed(policy) else cfg.batch_size))
  return str(pathlib.Path(model).parent / 'adapter') if adapted else model


def lora_settings(cfg) -> dict:
  """The flags of adapters, if the config has them and asks for some."""
  if not isinstance(cfg, runs.AdapterConfig) or not cfg.lora_rank:
    return {}
  return {name: getattr(cfg, name) for name in (
      'lora_rank', 'lora_alpha', 'lora_targets', 'lora_rank_stabilised',
      'quantize')}
