"""Each online script binds its own advantages, surrogate and mean."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from alignjax import models
from alignjax import scoring
from alignjax.types import Trajectory

VOCAB, PROMPT, LENGTH, BUDGET, CAP = 29, 3, 7, 5, 1.1
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
POLICY, OLD, REF = (MODEL.init(jax.random.key(i)) for i in (0, 1, 2))
KEY = jax.random.key(9)
TEMPERATURE = 0.7
COUNTS = [4, 2, 1, 3]
SHARED = dict(
    num_samples=2, max_new_tokens=BUDGET, temperature=TEMPERATURE)

logprobs_of = jax.jit(lambda params, tokens, mask: scoring.token_logprobs(
    MODEL, params, tokens, mask, start=PROMPT, temperature=TEMPERATURE))


def make_trajectory():
  """Four responses, two to each prompt, none of them filler."""
  rng = np.random.default_rng(1)
  tokens = rng.integers(1, VOCAB, (4, LENGTH), np.int32)
  real = np.arange(LENGTH) < PROMPT + np.array(COUNTS)[:, None]
  old, ref = (np.asarray(logprobs_of(p, tokens, real)) for p in (OLD, REF))
  gap = rng.normal(0, 0.3, old.shape).astype(np.float32)
  return Trajectory(
      tokens=tokens, attention_mask=real,
      response_mask=real & (np.arange(LENGTH) >= PROMPT),
      weight=np.ones(4, np.float32), logprobs=old, ref_logprobs=ref,
      sampler_logprobs=old + gap,
      reward=np.array([1, 4, 2, -1], np.float32))


BATCH = make_trajectory()
MASK = BATCH.response_mask
NEW = np.asarray(logprobs_of(POLICY, BATCH.tokens, BATCH.attention_mask))
KL = BATCH.logprobs - BATCH.ref_logprobs


# --- What the papers say, in numpy.


def on_tokens(rows):
  return np.where(MASK, np.asarray(rows)[:, None], 0)


def leave_one_out(kl_coef):
  reward = BATCH.reward - kl_coef * KL.sum(axis=1, where=MASK)
  return on_tokens(reward - reward[[1, 0, 3, 2]])


def to_go(kl_coef, scale):
  rewards = np.where(MASK, -kl_coef * KL, 0)
  rewards[np.arange(4), PROMPT - 1 + np.array(COUNTS)] += BATCH.reward
  returns = rewards[:, ::-1].cumsum(axis=1)[:, ::-1]
  centred = returns - returns[MASK].mean()
  if scale:
    centred = centred / returns[MASK].std(ddof=1)
  return np.where(MASK, centred, 0)


CENTRED = on_tokens([-1.5, 1.5, 1.5, -1.5])
SCALED = on_tokens(np.array([-1, 1, 1, -1]) / np.sqrt(2))


def clipped(low, high, log_ratio=None):
  ratio = np.exp(NEW - BATCH.logprobs if log_ratio is None else log_ratio)
  return lambda a: np.maximum(
      -ratio * a, -np.clip(ratio, 1 - low, 1 + high) * a)


def sequence_ratio():
  gap = np.where(MASK, NEW - BATCH.logprobs, 0).sum(axis=1) / COUNTS
  return np.broadcast_to(gap[:, None], NEW.shape)


def response_log_ratio():
  gap = np.where(MASK, NEW - BATCH.logprobs, 0).sum(axis=1)
  return np.broadcast_to(gap[:, None], NEW.shape)


over_tokens = lambda x: x[MASK].mean()
over_responses = lambda x: np.mean(x.sum(axis=1, where=MASK) / COUNTS)
over_budget = lambda x: np.mean(x.sum(axis=1, where=MASK) / BUDGET)

# Settings, advantages, loss of a token, its mean, and the KL's weight in it.
CASES = {
    'grpo': (dict(clip=.05, kl_coef=.3), SCALED, clipped(.05, .05),
             over_responses, .3),
    'dr_grpo': (dict(clip=.05, kl_coef=.3), CENTRED, clipped(.05, .05),
                over_budget, .3),
    'dapo': (dict(clip=.05, clip_high=.1, kl_coef=.3), SCALED,
             clipped(.05, .1), over_tokens, .3),
    'gspo': (dict(clip=.01, clip_high=.02, kl_coef=.3), SCALED,
             clipped(.01, .02, sequence_ratio()), over_responses, .3),
    'rloo': (dict(clip=.05, kl_coef=.3), leave_one_out(.3),
             clipped(.05, .05, response_log_ratio()), over_responses, 0),
    'reinforce': (dict(kl_coef=.3), to_go(.3, False), lambda a: -a * NEW,
                  over_tokens, 0),
    'reinforce_pp': (dict(clip=.05, kl_coef=.3), to_go(.3, True),
                     clipped(.05, .05), over_tokens, 0),
}


def load(name, **settings):
  script = importlib.import_module(f'experiments.{name}')
  return script, script.resolve(
      script.Config(workdir='w', **SHARED | settings))


@pytest.mark.parametrize('name', CASES)
def test_rewards_become_the_methods_advantages(name):
  settings, advantages, *_ = CASES[name]
  script, cfg = load(name, **settings)
  got = script.estimate(cfg)(BATCH.reward, KL, MASK)
  np.testing.assert_allclose(got, advantages, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_a_minibatch_is_trained_on_the_methods_loss(name):
  settings, advantages, token_loss, mean, kl_coef = CASES[name]
  script, cfg = load(name, importance_cap=CAP, **settings)
  batch = BATCH.replace(advantages=advantages.astype(np.float32))
  loss, _ = jax.jit(script.objective(MODEL, cfg, PROMPT))(POLICY, batch, KEY)
  weights = np.minimum(np.exp(BATCH.logprobs - BATCH.sampler_logprobs), CAP)
  d = NEW - BATCH.ref_logprobs
  tokens = weights * token_loss(advantages) + kl_coef * (np.exp(-d) - 1 + d)
  np.testing.assert_allclose(loss.compute(), mean(tokens), rtol=1e-3)


def test_online_dpo_starts_at_log_two_at_any_temperature():
  """The reference's logprobs are taken at the temperature of sampling."""
  script, cfg = load('online_dpo', beta=0.3)
  pairs = script.make_rows(cfg)(BATCH)
  np.testing.assert_array_equal(pairs.tokens, BATCH.tokens[[[1, 0], [2, 3]]])
  objective = jax.jit(script.objective(MODEL, cfg, PROMPT))
  loss, _ = objective(REF, pairs, KEY)
  np.testing.assert_allclose(loss.compute(), np.log(2), rtol=1e-6)
  loss, _ = objective(POLICY, pairs, KEY)
  gap = (NEW - BATCH.ref_logprobs).sum(axis=1, where=MASK)
  margins = 0.3 * (gap[[1, 2]] - gap[[0, 3]])
  np.testing.assert_allclose(
      loss.compute(), np.mean(np.log1p(np.exp(-margins))), rtol=1e-4)


def test_every_online_script_is_tried():
  folder = pathlib.Path(importlib.import_module('experiments').__file__).parent
  methods = {path.stem for path in folder.glob('*.py')
             if 'online.script(' in path.read_text()}
  assert methods == {*CASES, 'online_dpo'}
