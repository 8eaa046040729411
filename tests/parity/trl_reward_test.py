"""Reward-model losses give what TRL's RewardTrainer gives.

Runs where torch and trl (1.16) are installed beside jax.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import losses

pytestmark = pytest.mark.parity
pytest.importorskip('torch', reason='torch is not installed')
trl = pytest.importorskip(
    'trl', minversion='1.16', reason='trl 1.16 is not installed')

REWARDS = np.random.default_rng(0).normal(0, 3, (8, 1)).astype(np.float32)
MARGIN = np.array([0.0, 1.0, 2 / 3, 3.0], np.float32)


class Scores:
  """A model that gives the rows their rewards."""

  training = True

  def __init__(self, rewards):
    self.rewards = rewards

  def __call__(self, **inputs):
    return SimpleNamespace(logits=self.rewards)


@pytest.mark.parametrize('margin', [None, MARGIN])
@pytest.mark.parametrize('centering', [None, 0.05])
def test_bradley_terry_with_margin_and_centering_is_trls(
    bench, margin, centering):
  def theirs(rewards):
    model = Scores(rewards)
    trainer = bench.trainer(
        trl.RewardTrainer, model=model,
        args=SimpleNamespace(center_rewards_coefficient=centering))
    given = {} if margin is None else dict(margin=margin)
    return trainer.compute_loss(model, bench.tensors(
        input_ids=np.ones((8, 3), int), attention_mask=np.ones((8, 3), bool),
        **given))

  def ours(rewards):
    chosen, rejected = jnp.split(rewards[:, 0], 2)
    loss = losses.bradley_terry_loss(
        chosen, rejected, margin=0.0 if margin is None else margin)
    centred = losses.reward_centering_loss(chosen, rejected)
    return jnp.mean(loss + (centering or 0.0) * centred)

  bench.check(ours, theirs, REWARDS)
