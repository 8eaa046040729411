"""Models from folders, as runs train, ask and share them."""

import dataclasses
import json
import os
import pathlib

import jax

from alignjax import adapters
from alignjax import configs
from alignjax import distributed
from alignjax import hf
from alignjax import sharding
from alignjax.hf import files
from alignjax.models import CausalLM
from alignjax.models import freeze
from alignjax.models import lora
from alignjax.models import ScalarModel
from alignjax.types import InputError

_UNROLLED_LAYERS = 8  # Deeper models are scanned.

# In a reward model's folder: what is taken off its rewards.
_REWARD_MEAN = 'reward_mean.json'


def load_trainee(
    cfg: configs.AdapterConfig, folder: str, mesh: jax.sharding.Mesh):
  """(trainee, tokenizer) of a Hugging Face folder: all of it, or adapters.

  With adapters the base goes straight to the mesh, and stays there once.
  """
  depth = dict(scan_layers=_is_deep(folder))
  tokenizer = hf.load_tokenizer(folder)
  if not cfg.lora_rank:
    config, params = hf.load_model(folder, **depth)
    config = computed(config, cfg)
    return adapters.full(CausalLM(config), params, folder), tokenizer
  config, base = hf.load_model(
      folder, mesh=mesh, **depth,
      quantize=None if cfg.quantize == 'none' else cfg.quantize)
  config, base = computed(config, cfg), freeze(base, cfg.dtype)
  settings = lora.Lora(cfg.lora_rank, cfg.lora_alpha, cfg.lora_targets,
                       cfg.lora_rank_stabilised)
  return adapters.adapted(
      CausalLM(config), base, settings, folder, mesh=mesh,
      key=jax.random.key(cfg.seed)), tokenizer


def load_policy(folder: str | os.PathLike):
  """(model, params, tokenizer) of a Hugging Face folder, in float32."""
  config, params = hf.load_model(folder, scan_layers=_is_deep(folder))
  return CausalLM(config), params, hf.load_tokenizer(folder)


def load_reward_model(folder: str | os.PathLike):
  """(model, params) of a reward model in float32, its adapters merged.

  Args:
    folder: a sequence classification folder, or one of adapters with a head.
  """
  if not is_adapter(folder):
    config, params = hf.load_reward_model(folder, scan_layers=_is_deep(folder))
    return ScalarModel(config), params
  base_folder = hf.check_adapters(folder).get('base_model_name_or_path')
  config, base = hf.load_model(base_folder, scan_layers=_is_deep(base_folder))
  trainee = _over(adapters.Trainee(
      CausalLM(config), {}, {}, base, base_folder), folder)
  return trainee.merged(trainee.params)


def load_value(
    cfg: configs.AdapterConfig, folder: str, policy: adapters.Trainee,
    mesh: jax.sharding.Mesh,
) -> adapters.Trainee:
  """The reward model in `folder` as something that can be trained on.

  Adapters are laid over the POLICY's base, which is then held once. A whole
  reward model is trained whole, or under adapters of its own if the policy is.

  Args:
    cfg: says whether the policy has adapters.
    folder: of a sequence classifier, or of adapters with a head.
    policy: what `load_trainee` gave.
    mesh: where it is to lie.

  Raises:
    InputError: adapters without a head, of another base, or for a policy that
      is trained whole.
  """
  if is_adapter(folder):
    if policy.base is None:
      raise InputError(
          f'reward_model={folder} holds adapters, which need a frozen base to '
          'share, and all of the policy is trained; give --lora-rank, or the '
          'merged model beside it')
    base = hf.check_adapters(folder).get('base_model_name_or_path')
    if pathlib.Path(base).resolve() != pathlib.Path(policy.folder).resolve():
      raise InputError(
          f'reward_model={folder} adapts {base}, not the policy '
          f'{policy.folder}; train its adapters on that, or give the merged '
          'model beside it')
    return _over(policy, folder)
  depth = dict(scan_layers=_is_deep(folder))
  if policy.base is None:
    config, params = hf.load_reward_model(folder, **depth)
    config = computed(config, cfg)
    return adapters.full(ScalarModel(config), params, folder)
  config, params = hf.load_reward_model(folder, **depth)
  config = computed(config, cfg)
  axes = ScalarModel(config).axes()
  params = freeze(sharding.put(
      params, sharding.tree_shardings(mesh, axes, params)), cfg.dtype)
  trainee = adapters.adapted(
      CausalLM(config), params['backbone'], policy.model.config.lora, folder,
      mesh=mesh, key=jax.random.key(cfg.seed)).with_head(jax.random.key(0))
  return dataclasses.replace(
      trainee, params=trainee.params | {'head': params['head']})


def computed(config, cfg: configs.ComputeConfig):
  """The model's config with the run's dtype and its ways to save memory."""
  return dataclasses.replace(
      config, dtype=cfg.dtype, remat=cfg.remat,
      attention_block=cfg.attention_block,
      attention_kernel=cfg.attention_kernel)


def is_adapter(folder: str | os.PathLike) -> bool:
  """Whether a folder holds adapters and not a model."""
  return (pathlib.Path(folder) / 'adapter_config.json').exists()


def _over(base: adapters.Trainee, folder: str | os.PathLike):
  """A reward model's adapters over a base that is there."""
  plain = dataclasses.replace(base.model.config, lora=None)
  config, tree, head = hf.load_adapters(folder, plain)
  if head is None:
    raise InputError(
        f'{folder} adapts a language model and has no reward head; give the '
        'adapter/ of a reward model, as experiments.reward --lora-rank writes')
  return adapters.adapted_scalar(base, tree, head, config.lora, str(folder))


def write_reward_mean(folder: pathlib.Path, mean: float) -> None:
  """Says beside a reward model what is taken off its rewards, if anything.

  A sequence classifier has no bias to hold it; where rewards are only compared
  it does not matter.
  """
  path = folder / _REWARD_MEAN

  def write():
    path.unlink(missing_ok=True)
    if mean:
      path.write_text(json.dumps({'mean': mean}) + '\n')

  distributed.by_first(write)


def read_reward_mean(folder: str | os.PathLike) -> float:
  """What `write_reward_mean` left in the folder; 0 if nothing."""
  path = pathlib.Path(folder) / _REWARD_MEAN
  if not path.exists():
    return 0.0
  mean = files.read_json(path).get('mean')
  if type(mean) not in (int, float) or not abs(mean) < 1e9:
    raise InputError(f'{path}: mean={mean!r:.80} is no finite number; train '
                     'the reward model again, or write its mean reward')
  return float(mean)


def _is_deep(folder: str | os.PathLike) -> bool:
  """Whether to compile one layer and scan it, rather than every layer.

  An unrolled program runs a little faster and compiles in a time that grows
  with its depth.
  """
  return hf.read_config(folder).num_layers > _UNROLLED_LAYERS
