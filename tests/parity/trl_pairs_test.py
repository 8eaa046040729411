"""CPO, SimPO and ORPO give what TRL's CPOTrainer and ORPOTrainer give.

Runs where torch and trl (1.16) are installed beside jax.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import losses
from alignjax import masked

pytestmark = pytest.mark.parity
pytest.importorskip('torch', reason='torch is not installed')
pytest.importorskip(
    'trl', minversion='1.16', reason='trl 1.16 is not installed')
cpo = pytest.importorskip('trl.experimental.cpo', reason='trl has no CPO')
orpo = pytest.importorskip('trl.experimental.orpo', reason='trl has no ORPO')

BETA = 0.4
# Nobody wrote the ids under an attention mask of 0, so TRL's labels hold -100.
IGNORED = -100


def their_loss(bench, rows, trainer_class, **settings):
  """The trainer's own loss, as a function of the policy's logits."""
  labels = np.where(rows.mask, rows.tokens, IGNORED)
  batch = bench.tensors(**{
      f'{side}_{name}': half
      for name, x in dict(input_ids=rows.tokens, labels=labels,
                          attention_mask=rows.attention).items()
      for side, half in zip(('chosen', 'rejected'), np.split(x, 2))})

  def loss(logits):
    trainer = bench.trainer(trainer_class, **(dict(
        beta=BETA, is_encoder_decoder=False, pad_token_id=0, padding_value=0,
    ) | settings))
    return trainer.get_batch_loss_metrics(bench.says(logits), batch)[0]

  return loss


def sides(bench, rows, logits, reduce):
  """The chosen and the rejected half of the responses' logprobs, reduced."""
  return jnp.split(
      reduce(bench.logprobs(logits, rows.tokens), rows.mask, 1), 2)


def chosen_sft(bench, rows, logits, mask):
  """Mean cross-entropy of the chosen half's tokens under a mask."""
  losses_ = losses.sft_loss(bench.logprobs(logits, rows.tokens), mask)
  # Nothing predicts the first column.
  column, row = np.arange(mask.shape[1]), np.arange(len(mask))[:, None]
  return masked.masked_mean(
      losses_, mask & (row < len(mask) // 2) & (column > 0))


def without_reference(loss, **settings):
  """A loss of ours whose reference says 0 of everything."""
  return lambda chosen, rejected: loss(
      chosen, rejected, 0 * chosen, 0 * rejected, **settings)


@pytest.mark.parametrize('loss_type, settings, loss, reduce', [
    ('sigmoid', {}, lambda *x: losses.cpo_loss(*x, beta=BETA),
     masked.masked_sum),
    ('sigmoid', dict(label_smoothing=0.2),
     lambda *x: losses.cpo_loss(*x, beta=BETA, label_smoothing=0.2),
     masked.masked_sum),
    ('hinge', {}, without_reference(losses.hinge_loss, beta=BETA),
     masked.masked_sum),
    ('ipo', {}, without_reference(losses.ipo_loss, beta=BETA),
     masked.masked_mean),
    ('simpo', dict(simpo_gamma=0.9),
     lambda *x: losses.simpo_loss(*x, beta=BETA, gamma=0.9),
     masked.masked_mean),
])
@pytest.mark.parametrize('sft_weight', [0.0, 0.7])
def test_cpo_loss_is_trls(
    bench, rows, loss_type, settings, loss, reduce, sft_weight):
  def ours(logits):
    preference = jnp.mean(loss(*sides(bench, rows, logits, reduce)))
    return preference + sft_weight * chosen_sft(
        bench, rows, logits, rows.mask)

  bench.check(ours, their_loss(bench, rows, cpo.CPOTrainer, **(dict(
      loss_type=loss_type, alpha=0.0, cpo_alpha=sft_weight,
      label_smoothing=0.0) | settings)), rows.logits)


def test_orpo_loss_is_trls_with_the_prompt_in_its_sft_term(bench, rows):
  def ours(logits):
    odds = jnp.mean(losses.orpo_loss(
        *sides(bench, rows, logits, masked.masked_mean)))
    return chosen_sft(bench, rows, logits, rows.attention) + BETA * odds

  bench.check(
      ours, their_loss(bench, rows, orpo.ORPOTrainer), rows.logits)


@pytest.mark.parametrize('logprobs', [
    [-1e-3, -2.0], [-20.0, -1e-4], [-0.69, -0.7], [-1e-6, -1e-5]])
def test_odds_ratio_is_trls_from_certainty_to_despair(bench, logprobs):
  def theirs(x):
    trainer = bench.trainer(orpo.ORPOTrainer, beta=1.0)
    return -trainer.odds_ratio_loss(x[:1], x[1:])[0].mean()

  bench.check(lambda x: jnp.mean(losses.orpo_loss(x[:1], x[1:])), theirs,
              np.array(logprobs, np.float32))


def test_odds_of_a_certain_response_are_finite_in_ours_alone(bench):
  certain = np.array([0.0, -1.0], np.float32)
  trainer = bench.trainer(orpo.ORPOTrainer, beta=1.0)
  theirs, _ = bench.loss_and_grad(
      lambda x: -trainer.odds_ratio_loss(x[1:], x[:1])[0].mean(), certain)
  assert not np.isfinite(theirs)
  assert np.isfinite(losses.orpo_loss(certain[1:], certain[:1])).all()
