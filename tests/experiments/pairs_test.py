"""Each script on pairs binds its own loss, with its settings in their place."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from alignjax import models
from alignjax import scoring
from alignjax.types import PreferenceBatch

MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=29, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS, OTHER = (MODEL.init(jax.random.key(i)) for i in (0, 1))

sigmoid = lambda x: 1 / (1 + np.exp(-x))
log1mexp = lambda x: np.log1p(-np.exp(x))

# Settings, and the loss as the paper writes it, of the log-ratios (w, l) or,
# without a reference, of the log-probabilities; and whether these are per
# token. Two settings of one script differ in all that they set.
CASES = [
    ('dpo', dict(beta=0.3), False, lambda w, l: -np.log(sigmoid(.3 * (w - l)))),
    ('dpo', dict(beta=0.9, label_smoothing=0.2, normalized=True), True,
     lambda w, l: -.8 * np.log(sigmoid(.9 * (w - l)))
     - .2 * np.log(sigmoid(-.9 * (w - l)))),
    ('ipo', dict(beta=0.3), True, lambda w, l: (w - l - 1 / .6)**2),
    ('ipo', dict(beta=0.5, sum=True), False, lambda w, l: (w - l - 1)**2),
    ('hinge', dict(beta=0.3), False, lambda w, l: np.maximum(
        0, 1 - .3 * (w - l))),
    ('robust_dpo', dict(beta=0.3, label_smoothing=0.2), False, lambda w, l: (
        -.8 * np.log(sigmoid(.3 * (w - l)))
        + .2 * np.log(sigmoid(-.3 * (w - l)))) / .6),
    ('exo', dict(beta=0.3, label_smoothing=0.1), False, lambda w, l: (
        sigmoid(.3 * (w - l)) * np.log(sigmoid(.3 * (w - l)) / .9)
        + sigmoid(.3 * (l - w)) * np.log(sigmoid(.3 * (l - w)) / .1))),
    ('f_dpo', dict(beta=0.3, divergence='forward_kl'), False, lambda w, l:
     -np.log(sigmoid(.3 * (np.exp(-l) - np.exp(-w))))),
    ('f_dpo', dict(beta=0.3, divergence='js'), False, lambda w, l:
     -np.log(sigmoid(.3 * np.log(sigmoid(w) / sigmoid(l))))),
    ('f_dpo', dict(beta=0.3, divergence='alpha', alpha=0.7), False,
     lambda w, l: -np.log(sigmoid(
         .3 * (np.exp(-.7 * l) - np.exp(-.7 * w)) / .7))),
    ('simpo', dict(beta=1.5, simpo_gamma=0.4), True,
     lambda w, l: -np.log(sigmoid(1.5 * (w - l) - .4))),
    ('simpo', dict(beta=2.5, simpo_gamma=0.8, sft_coef=0.7), True,
     lambda w, l: -np.log(sigmoid(2.5 * (w - l) - .8)) - .7 * w),
    ('orpo', dict(odds_coef=0.3), True, lambda w, l: -w - .3 * np.log(
        sigmoid(w - log1mexp(w) - l + log1mexp(l)))),
    ('cpo', dict(beta=0.3, label_smoothing=0.2, sft_coef=0), False,
     lambda w, l: -.8 * np.log(sigmoid(.3 * (w - l)))
     - .2 * np.log(sigmoid(-.3 * (w - l)))),
]
FREE = 'simpo', 'orpo', 'cpo'


def make_batch():
  """Three pairs off the reference; responses of 2 to 5 tokens."""
  tokens = np.random.default_rng(4).integers(1, 29, (3, 2, 7), np.int32)
  real = np.arange(7) < np.array([[7, 5], [4, 6], [5, 5]])[..., None]
  batch = PreferenceBatch(
      tokens=tokens, attention_mask=real, loss_mask=real & (np.arange(7) > 1),
      weight=np.ones(3, np.float32))
  return batch.replace(ref_logprobs=logprobs_of(OTHER, batch))


logprobs_of = jax.jit(lambda params, b: scoring.pair_token_logprobs(
    MODEL, params, b.tokens, b.attention_mask, b.loss_mask))


@pytest.mark.parametrize('name, settings, per_token, loss', CASES)
def test_a_script_trains_on_its_papers_loss(name, settings, per_token, loss):
  script, batch = importlib.import_module(f'experiments.{name}'), make_batch()
  cfg = script.resolve(script.Config(workdir='w', **settings))
  logprobs = np.float64(logprobs_of(PARAMS, batch))
  if name not in FREE:
    logprobs = logprobs - batch.ref_logprobs
  sides = logprobs.sum(-1)
  if per_token:
    sides = sides / batch.loss_mask.sum(-1)
  got, metrics = jax.jit(script.objective(MODEL, cfg))(
      PARAMS, batch, jax.random.key(0))
  np.testing.assert_allclose(
      got.compute(), loss(sides[:, 0], sides[:, 1]).mean(), rtol=2e-4)
  # The implicit reward is in the loss's own units.
  scale = settings.get('beta', 1.0)
  np.testing.assert_allclose(
      metrics['margin'].compute(),
      scale * np.mean(sides[:, 0] - sides[:, 1]), atol=1e-4)


def test_every_script_on_pairs_is_tried():
  folder = pathlib.Path(importlib.import_module('experiments').__file__).parent
  methods = {path.stem for path in folder.glob('*.py')
             if 'pairs.script(' in path.read_text()}
  assert {name for name, *_ in CASES} == methods > set(FREE)
