"""Scripts that train adapters: what they leave, and that they resume."""

import math
import shutil

import numpy as np
import pytest

from alignjax import hf
from alignjax.models import lora
from alignjax.types import InputError
from experiments import dpo
from experiments import kto
from experiments import reward
from experiments import sft

SIZES = dict(batch_size=16, max_length=48, num_steps=2)
LORA = dict(lora_rank=2, lora_targets=('query', 'down'), learning_rate=0.1)


def assert_merged(workdir, base):
  """model/ is the base with adapter/ merged into it, and no longer the base."""
  config, params = hf.load_model(base)
  config, adapters, head = hf.load_adapters(workdir / 'adapter', config)
  assert head is None and config.lora.targets == ('query', 'down')
  merged = lora.merge(lora.join(params, adapters), config.lora)
  got = hf.load_model(workdir / 'model')[1]
  for name, due in merged['layers_0'].items():
    np.testing.assert_allclose(got['layers_0'][name], due, atol=1e-6)
    moved = np.abs(due - params['layers_0'][name]).max() > 1e-4
    assert moved == (name in ('query', 'down'))


def test_dpo_trains_adapters_from_log_two_and_resumes(foreign, tmp_path, left):
  cfg = dict(workdir=str(tmp_path / 'dpo'), model=foreign.model,
             data=foreign.pairs, save_every=1, **SIZES, **LORA)
  dpo.stage(dpo.Config(**cfg))
  rows = left(cfg['workdir']).rows('dpo')
  np.testing.assert_allclose(rows[0]['loss'], math.log(2), atol=1e-6)
  assert rows[1]['loss'] < math.log(2)
  assert_merged(tmp_path / 'dpo', foreign.model)
  weights = left(cfg['workdir']).weights
  (tmp_path / 'dpo' / 'summary.json').unlink()
  for name in ('model', 'adapter'):
    shutil.rmtree(tmp_path / 'dpo' / name)
  (newest,) = (tmp_path / 'dpo' / 'checkpoints').glob('*2')
  shutil.rmtree(newest)
  dpo.stage(dpo.Config(**cfg, resume=True))
  assert left(cfg['workdir']).weights == weights


def test_sft_and_kto_train_adapters_on_few_bits(foreign, tmp_path):
  sft.stage(sft.Config(
      workdir=str(tmp_path / 'sft'), model=foreign.model,
      data=foreign.demonstrations, quantize='int8', **SIZES, **LORA))
  kto.stage(kto.Config(
      workdir=str(tmp_path / 'kto'), model=foreign.model, data=foreign.pairs,
      **SIZES, **LORA))
  assert (tmp_path / 'sft' / 'adapter' / 'adapter_config.json').exists()
  assert_merged(tmp_path / 'kto', foreign.model)


def test_reward_model_of_adapters_is_saved_with_its_head(foreign, tmp_path):
  reward.stage(reward.Config(
      workdir=str(tmp_path), model=foreign.model, data=foreign.pairs, **SIZES,
      **LORA))
  config, _ = hf.load_model(foreign.model)
  head = hf.load_adapters(tmp_path / 'adapter', config)[2]
  _, params = hf.load_reward_model(tmp_path / 'model')
  np.testing.assert_allclose(params['head'], head, atol=1e-6)


def test_few_bits_without_adapters_are_refused(foreign, tmp_path):
  with pytest.raises(InputError, match='quantize=nf4 without adapters leaves '
                     'nothing to train'):
    sft.stage(sft.Config(
        workdir=str(tmp_path / 'sft'), model=foreign.model,
        data=foreign.demonstrations, quantize='nf4', **SIZES))
  assert not (tmp_path / 'sft').exists()
