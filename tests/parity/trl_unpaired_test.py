"""KTO gives what TRL's KTOTrainer gives.

Runs where torch and trl (1.16) are installed beside jax.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import losses
from alignjax import masked

pytestmark = pytest.mark.parity
pytest.importorskip('torch', reason='torch is not installed')
trl = pytest.importorskip(
    'trl', minversion='1.16', reason='trl 1.16 is not installed')

BETA = 0.3
OUTPUTS = ('log_probs', 'entropy', 'mean_logits')
MIXED = np.array([True, False, False, True, True, False, False, False])


@pytest.fixture
def rows(rows):
  """Policies near each other, so that no sigmoid is flat."""
  return rows._replace(
      logits=rows.logits / 3, ref_logits=rows.ref_logits / 3)


def mismatched(rows, sign):
  """The prompts with the next row's responses, and what is said of those.

  For a sign of 1 the policy likes them better than the reference, so that z0 is
  above 0; for −1 it likes them less.
  """
  policy = rows.logits.copy()
  tokens = np.roll(rows.tokens, 1, axis=0)
  row, column = np.nonzero(rows.mask)
  policy[row, column - 1, tokens[row, column]] += sign * 1.0
  return rows._replace(tokens=tokens, logits=policy)


def sums(bench, rows, logits):
  """[B] log-probabilities of the responses."""
  return masked.masked_sum(bench.logprobs(logits, rows.tokens), rows.mask, 1)


def their_loss(bench, rows, others, desirable, **settings):
  """KTOTrainer's own loss, as a function of the policy's logits."""

  def loss(logits):
    use_kl = settings.get('loss_type', 'kto') == 'kto'
    said = (others.logits,) * use_kl + (logits,)
    ref_said = (others.ref_logits,) * use_kl + (rows.ref_logits,)
    model = bench.says(*said, outputs=OUTPUTS)
    trainer = bench.trainer(trl.KTOTrainer, **(dict(
        model=model, ref_model=bench.says(*ref_said, outputs=OUTPUTS),
        beta=BETA, loss_type='kto', calculate_KL=use_kl,
        desirable_weight=1.2, undesirable_weight=1.7,
        precompute_ref_logps=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    ) | settings))
    return trainer.compute_loss(model, bench.tensors(
        input_ids=rows.tokens, attention_mask=rows.attention,
        completion_mask=rows.mask, KL_input_ids=others.tokens,
        KL_attention_mask=others.attention, KL_completion_mask=others.mask,
        label=desirable))

  return loss


def our_z0(bench, others):
  """z0 of the mismatched rows, each of them counted."""
  return losses.kto_kl(
      sums(bench, others, others.logits),
      sums(bench, others, others.ref_logits), np.ones(8, np.float32))


@pytest.mark.parametrize('desirable', [
    MIXED, np.ones(8, bool), np.zeros(8, bool)])
@pytest.mark.parametrize('sign', [1, -1])
def test_kto_loss_and_its_z0_are_trls(bench, rows, desirable, sign):
  others = mismatched(rows, sign)
  assert (our_z0(bench, others) > 0.5) == (sign > 0)

  def ours(logits):
    return jnp.mean(losses.kto_loss(
        sums(bench, rows, logits), sums(bench, rows, rows.ref_logits),
        desirable, our_z0(bench, others), beta=BETA, desirable_weight=1.2,
        undesirable_weight=1.7))

  bench.check(ours, their_loss(bench, rows, others, desirable), rows.logits)


def test_unpaired_apo_zero_of_trl_is_our_kto_at_a_z0_of_zero(bench, rows):
  def ours(logits):
    return jnp.mean(losses.kto_loss(
        sums(bench, rows, logits), sums(bench, rows, rows.ref_logits), MIXED,
        jnp.zeros(()), beta=BETA, desirable_weight=1.2,
        undesirable_weight=1.7))

  bench.check(ours, their_loss(
      bench, rows, rows, MIXED, loss_type='apo_zero_unpaired'), rows.logits)
