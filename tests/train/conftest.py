"""A tiny policy with batches of every kind, and the meshes to train it on."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from alignjax import models
from alignjax import types

VOCAB, LENGTH, PROMPT = 16, 8, 3


@dataclasses.dataclass(frozen=True)
class Tiny:
  """Models, their parameters, and batches made from a seed."""

  model: models.CausalLM
  scalar: models.ScalarModel
  params: Any
  scalar_params: Any
  vocab_size: int = VOCAB
  prompt_length: int = PROMPT
  eos_id: int = 2

  def tokens(self, seed, batch_size=8):
    """`TokenBatch`: 1 to 7 loss tokens a row; the last two are filler."""
    rng = np.random.default_rng(seed)
    lengths = (np.arange(batch_size) * 3 + seed) % 7 + 2
    real = np.arange(LENGTH) < lengths[:, None]
    weight = np.ones(batch_size, np.float32)
    weight[-2:] = 0
    return types.TokenBatch(
        tokens=rng.integers(1, VOCAB, real.shape, np.int32),
        attention_mask=real, loss_mask=real & (np.arange(LENGTH) > 0),
        weight=weight)

  def pairs(self, seed, batch_size=8):
    """`PreferenceBatch`, annotated; the last two pairs are filler."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(PROMPT + 1, LENGTH + 1, (batch_size, 2, 1))
    real = np.arange(LENGTH) < lengths
    weight = np.ones(batch_size, np.float32)
    weight[-2:] = 0
    return types.PreferenceBatch(
        tokens=rng.integers(1, VOCAB, real.shape, np.int32),
        attention_mask=real, loss_mask=real & (np.arange(LENGTH) >= PROMPT),
        weight=weight, ref_logprobs=rng.normal(
            -3.0, 0.5, real.shape).astype(np.float32))

  def trajectory(self, seed, batch_size=8):
    """`Trajectory` as if annotated; the last two rows are filler."""
    rng = np.random.default_rng(seed)
    batch = self.tokens(seed, batch_size)
    real = batch.attention_mask | (np.arange(LENGTH) <= PROMPT)
    floats = lambda mean, scale: rng.normal(mean, scale, real.shape).astype(
        np.float32)
    return types.Trajectory(
        tokens=batch.tokens, attention_mask=real,
        response_mask=real & (np.arange(LENGTH) >= PROMPT),
        weight=batch.weight, sampler_logprobs=floats(-2.8, 0.1),
        logprobs=floats(-2.8, 0.1), values=floats(0, 0.1),
        advantages=floats(0, 1), returns=floats(0, 1))

  def prompts(self, step, batch_size=8):
    """`PromptBatch` padded on the left; the last row is filler."""
    rng = np.random.default_rng(step)
    lengths = rng.integers(1, PROMPT + 1, (batch_size, 1))
    mask = np.arange(PROMPT) >= PROMPT - lengths
    weight = np.ones(batch_size, np.float32)
    weight[-1:] = 0
    tokens = rng.integers(3, VOCAB, mask.shape, np.int32)
    return types.PromptBatch(
        tokens=np.where(mask, tokens, 0), attention_mask=mask,
        prompt_id=np.arange(batch_size, dtype=np.int32),
        sample_id=np.full(batch_size, step, np.int32), weight=weight)


@pytest.fixture(scope='session')
def tiny() -> Tiny:
  """One layer of width 16, random."""
  config = models.ModelConfig(
      vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
      num_heads=2, num_kv_heads=2, head_dim=8)
  model, scalar = models.CausalLM(config), models.ScalarModel(config)
  # Numpy, so that no test can spoil them for the next.
  params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
  scalar_params = jax.device_get(jax.jit(scalar.init)(jax.random.key(1)))
  return Tiny(model, scalar, params, scalar_params)


@pytest.fixture(scope='session')
def num_compiled():
  """`num_compiled()` is how many programs this process has compiled so far.

  Counted where a traced program is lowered: a jitted function's own count is
  of calling conventions, of which old versions of jax keep two for a PRNG key.
  """
  lowered = []

  def note(event, duration, **kwargs):
    if event == '/jax/core/compile/jaxpr_to_mlir_module_duration':
      lowered.append(duration)

  jax.monitoring.register_event_duration_secs_listener(note)
  return lambda: len(lowered)


@pytest.fixture(scope='session')
def assert_close():
  """Compares two trees leaf by leaf."""

  def check(got, expected, **tolerance):
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_allclose(
            a, b, err_msg=jax.tree_util.keystr(path), **tolerance),
        jax.device_get(got), jax.device_get(expected))

  return check
