"""The flags that save memory change how a run computes, and not what."""

import math

import numpy as np
import pytest

from experiments import dpo
from experiments import sft

SIZES = dict(batch_size=16, max_length=48, num_steps=2, learning_rate=1e-2)
SAVING = dict(remat=True, attention_block=16, chunk_size=8)


@pytest.mark.parametrize('settings', [
    dict(dtype='bfloat16'), dict(dtype='bfloat16', lora_rank=2),
    dict(dtype='bfloat16', mesh='fsdp:8'), dict(mesh='fsdp:4,tensor:2')],
                         ids=lambda x: ' '.join(map(str, x.values())))
def test_the_first_dpo_loss_is_log_two_in_any_dtype_and_on_any_mesh(
    settings, foreign, tmp_path, left):
  """The frozen reference has the policy's bits, though it is stored in fewer.
  """
  dpo.stage(dpo.Config(
      workdir=str(tmp_path / 'dpo'), model=foreign.model, data=foreign.pairs,
      **SIZES, **SAVING, **settings))
  rows = left(str(tmp_path / 'dpo')).rows('dpo')
  assert rows[0]['loss'] == pytest.approx(math.log(2), abs=1e-6)
  assert rows[1]['loss'] != rows[0]['loss']


def test_float32_losses_are_those_of_a_run_without_them(
    foreign, tmp_path, left):
  losses = []
  for name, settings in (('plain', {}), ('saving', SAVING)):
    sft.stage(sft.Config(
        workdir=str(tmp_path / name), model=foreign.model,
        data=foreign.demonstrations, **SIZES, **settings))
    losses.append([row['loss'] for row in left(str(tmp_path / name)).rows(
        'sft')])
  np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)


def test_a_kernel_for_tpus_is_refused_elsewhere(foreign, tmp_path):
  with pytest.raises(ValueError, match=r'attention_kernel=splash .* on CPUs'):
    sft.stage(sft.Config(
        workdir=str(tmp_path / 'run'), model=foreign.model,
        data=foreign.demonstrations, attention_kernel='splash', **SIZES))
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('value', [0, -4])
def test_a_block_of_no_queries_is_refused(value, foreign, tmp_path):
  with pytest.raises(ValueError, match='attention_block'):
    sft.stage(sft.Config(
        workdir=str(tmp_path / 'run'), model=foreign.model,
        data=foreign.demonstrations, attention_block=value, **SIZES))
