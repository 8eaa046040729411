"""DPO and its relatives give what TRL's DPOTrainer gives.

Runs where torch and trl (1.16) are installed beside jax.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import logprobs
from alignjax import losses
from alignjax import masked

pytestmark = pytest.mark.parity
pytest.importorskip('torch', reason='torch is not installed')
trl = pytest.importorskip(
    'trl', minversion='1.16', reason='trl 1.16 is not installed')

# One that is not the default, lest a setting be ignored.
BETA = 0.3
SETTINGS = dict(
    beta=BETA, label_smoothing=0.0, loss_weights=[1.0], use_weighting=False,
    ld_alpha=None, f_divergence_type='reverse_kl', f_alpha_divergence_coef=0.5,
    precompute_ref_logps=False)
OUTPUTS = ('log_probs', 'entropy', 'mean_logits', 'is_top1', 'log_sum_sq_probs')


def their_loss(bench, rows, **settings):
  """DPOTrainer's own loss, as a function of the policy's logits."""

  def loss(logits):
    model = bench.says(logits, outputs=OUTPUTS)
    trainer = bench.trainer(trl.DPOTrainer, **(SETTINGS | dict(
        model=model, ref_model=bench.says(rows.ref_logits, outputs=OUTPUTS),
        args=SimpleNamespace(
            discopop_tau=0.05, gradient_checkpointing_kwargs=None),
        ) | settings))
    return trainer.compute_loss(model, bench.tensors(
        input_ids=rows.tokens, attention_mask=rows.attention,
        completion_mask=rows.mask))

  return loss


def our_loss(bench, rows, loss, *, mean=False):
  """A loss of ours on the four sums or means over tokens, averaged."""
  reduce = masked.masked_mean if mean else masked.masked_sum

  def mean_loss(logits):
    return jnp.mean(loss(*(
        side for x in (logits, rows.ref_logits)
        for side in jnp.split(
            reduce(bench.logprobs(x, rows.tokens), rows.mask, 1), 2))))

  return mean_loss


@pytest.mark.parametrize('loss_type, settings, loss', [
    ('sigmoid', {}, lambda *x: losses.dpo_loss(*x, beta=BETA)),
    ('hinge', {}, lambda *x: losses.hinge_loss(*x, beta=BETA)),
    ('robust', dict(label_smoothing=0.2),
     lambda *x: losses.robust_dpo_loss(*x, beta=BETA, label_smoothing=0.2)),
    ('exo_pair', dict(label_smoothing=0.2),
     lambda *x: losses.exo_loss(*x, beta=BETA, label_smoothing=0.2)),
    ('nca_pair', {}, lambda *x: losses.nca_loss(*x, beta=BETA)),
    ('sppo_hard', {}, lambda *x: losses.sppo_loss(*x, beta=BETA)),
    ('apo_zero', {}, lambda *x: losses.apo_zero_loss(*x, beta=BETA)),
    ('apo_down', {}, lambda *x: losses.apo_down_loss(*x, beta=BETA)),
    ('bco_pair', {}, lambda *x: losses.bco_loss(*x, beta=BETA)),
    ('aot', dict(label_smoothing=0.2),
     lambda *x: losses.aot_loss(*x, beta=BETA, label_smoothing=0.2)),
    ('aot_unpaired', {},
     lambda *x: losses.aot_unpaired_loss(*x, beta=BETA)),
    ('discopop', {}, lambda *x: losses.discopop_loss(*x, beta=BETA)),
    ('sigmoid', dict(f_divergence_type='forward_kl'),
     lambda *x: losses.forward_kl_dpo_loss(*x, beta=BETA)),
    ('sigmoid', dict(f_divergence_type='js_divergence'),
     lambda *x: losses.js_dpo_loss(*x, beta=BETA)),
    ('sigmoid', dict(f_divergence_type='alpha_divergence'),
     lambda *x: losses.alpha_dpo_loss(*x, beta=BETA, alpha=0.5)),
    # TRL's coefficient is 1 − α.
    ('sigmoid', dict(f_divergence_type='alpha_divergence',
                     f_alpha_divergence_coef=0.8),
     lambda *x: losses.alpha_dpo_loss(*x, beta=BETA, alpha=0.2)),
])
def test_loss_of_summed_logprobs_is_trls(
    bench, rows, loss_type, settings, loss):
  bench.check(
      our_loss(bench, rows, loss),
      their_loss(bench, rows, loss_types=[loss_type], **settings), rows.logits)


@pytest.mark.parametrize('loss_type, loss', [
    ('ipo', losses.ipo_loss), ('sigmoid_norm', losses.dpo_loss)])
def test_loss_of_mean_logprobs_is_trls(bench, rows, loss_type, loss):
  bench.check(
      our_loss(bench, rows, lambda *x: loss(*x, beta=BETA), mean=True),
      their_loss(bench, rows, loss_types=[loss_type]), rows.logits)


def test_weighted_sum_with_the_chosen_sides_sft_loss_is_trls(bench, rows):
  preference = our_loss(bench, rows, lambda *x: losses.dpo_loss(*x, beta=BETA))
  chosen = rows.mask & (np.arange(8) < 4)[:, None]

  def ours(logits):
    sft = losses.sft_loss(bench.logprobs(logits, rows.tokens), rows.mask)
    return 0.7 * preference(logits) + 1.3 * masked.masked_mean(sft, chosen)

  bench.check(ours, their_loss(
      bench, rows, loss_types=['sigmoid', 'sft'], loss_weights=[0.7, 1.3]),
      rows.logits)


@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
def test_length_desensitized_loss_is_trls(bench, rows, alpha):
  length = rows.mask.sum(1).reshape(2, 4)
  shared = np.tile(length.min(0), 2)
  assert (length[0] > length[1]).any() and (length[0] < length[1]).any()

  def ours(logits):
    return jnp.mean(losses.dpo_loss(*(
        side for x in (logits, rows.ref_logits)
        for side in jnp.split(losses.length_desensitized_logprobs(
            bench.logprobs(x, rows.tokens), rows.mask, shared, alpha=alpha),
            2)), beta=BETA))

  bench.check(ours, their_loss(
      bench, rows, loss_types=['sigmoid'], ld_alpha=alpha), rows.logits)


def our_weights(bench, rows, logits):
  """WPO's weight of each pair."""
  collision = logprobs.token_collision(logits, jnp.eye(logits.shape[-1]))
  return losses.wpo_weights(*(
      side for x in (bench.logprobs(logits, rows.tokens), collision, rows.mask)
      for side in jnp.split(x, 2)))


def our_wpo_loss(bench, rows):
  """Weighted DPO, not yet averaged over pairs: weights and losses."""

  def loss(logits):
    unweighted = losses.dpo_loss(*(
        side for x in (logits, rows.ref_logits)
        for side in jnp.split(masked.masked_sum(
            bench.logprobs(x, rows.tokens), rows.mask, 1), 2)), beta=BETA)
    return jnp.mean(our_weights(bench, rows, logits) * unweighted)

  return loss


def likely(rows, raised):
  """Logits of an unsure policy that likes the responses' tokens."""
  logits = rows.logits / 4
  row, column = np.nonzero(rows.mask)
  logits[row, column - 1, rows.tokens[row, column]] += raised
  return logits


def test_wpo_loss_is_trls(bench, rows):
  logits = likely(rows, -0.1)
  weights = our_weights(bench, rows, logits)
  assert 0.1 < weights.min() < weights.max() < 1.0
  bench.check(our_wpo_loss(bench, rows), their_loss(
      bench, rows, loss_types=['sigmoid'], use_weighting=True), logits)


def test_wpo_weight_is_held_at_one_by_us_and_not_by_trl(bench, rows):
  logits = likely(rows, 2.0)  # Each token is above the average draw.
  np.testing.assert_array_equal(our_weights(bench, rows, logits), 1.0)
  theirs, _ = bench.loss_and_grad(their_loss(
      bench, rows, loss_types=['sigmoid'], use_weighting=True), logits)
  unweighted, _ = bench.check(
      our_wpo_loss(bench, rows),
      their_loss(bench, rows, loss_types=['sigmoid']), logits)
  assert theirs > 1.5 * unweighted


def test_label_smoothing_smooths_ours_where_trls_sigmoid_ignores_it(
    bench, rows):
  def theirs(**settings):
    return bench.loss_and_grad(
        their_loss(bench, rows, loss_types=['sigmoid'], **settings),
        rows.logits)

  for smoothed, plain in zip(
      theirs(label_smoothing=0.2), theirs(), strict=True):
    np.testing.assert_array_equal(smoothed, plain)
  # cDPO: TRL has it in `aot` alone, which for one pair is what ours is.
  one = type(rows)(*(x[[1, 5]] for x in rows))
  ours = our_loss(bench, one, lambda *x: losses.dpo_loss(
      *x, beta=BETA, label_smoothing=0.2))
  value, _ = bench.check(ours, their_loss(
      bench, one, loss_types=['aot'], label_smoothing=0.2), one.logits)
  plain, _ = bench.loss_and_grad(
      their_loss(bench, one, loss_types=['sigmoid'], label_smoothing=0.2),
      one.logits)
  assert abs(value - plain) > 0.1


def test_forward_kl_pulls_back_at_any_distance_where_trl_lets_go(bench, rows):
  far = rows.logits.copy()
  row, column = np.nonzero(rows.mask[:4])
  far[row, column - 1, rows.tokens[:4][row, column]] -= 200.0
  _, theirs = bench.loss_and_grad(their_loss(
      bench, rows, loss_types=['sigmoid'], f_divergence_type='forward_kl'),
      far)
  assert not np.isfinite(theirs).all()
  ours = jax.grad(our_loss(
      bench, rows, lambda *x: losses.forward_kl_dpo_loss(*x, beta=BETA)))(far)
  assert np.isfinite(ours).all() and np.abs(ours[:4]).max() > 1.0
