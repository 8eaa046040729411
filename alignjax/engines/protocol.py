"""What an engine is, and how an iteration samples through one.

    params ─► folder ─► engine.load        every `sync_every` iterations
    prompts, seeds ─► engine.draw ─► tokens, logprobs ─► Trajectory

The engine's logprobs are those of the behaviour policy. Training recomputes the
old logprobs by its own forward, so what another program, another precision or
older weights make of a token is the weight π_old / π_engine of
`losses.importance_weights`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from alignjax import sharding
from alignjax.rollout import sampling
from alignjax.types import InputError
from alignjax.types import PromptBatch
from alignjax.types import Trajectory


class Drawn(NamedTuple):
  """One sampled response."""

  tokens: list[int]       # EOS included, if it was drawn.
  logprobs: list[float]   # Of each, in nats, as the engine drew it.


class Engine(Protocol):
  """A program that samples."""

  def load(self, folder: str) -> None:
    """Samples by the weights in a Hugging Face folder from now on."""

  def draw(
      self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *,
      max_new_tokens: int, temperature: float, eos_id: int) -> list[Drawn]:
    """One response to each prompt, a function of the prompt and its seed."""


def make_engine_generate(
    engine: Engine, hand_over: Callable[[object], None], *,
    max_new_tokens: int, eos_id: int, mesh: jax.sharding.Mesh,
    temperature: float = 1.0, sync_every: int = 1,
) -> Callable[[object, PromptBatch, jax.Array], Trajectory]:
  """Returns `generate(params, prompts, key) -> Trajectory`, as the sampler's.

  A row's seed is folded from (key, prompt id, sample id), so a response does
  not depend on its place in the batch.

  Args:
    engine: samples.
    hand_over: gives it the parameters; called at the first and then at every
      `sync_every`th call. In between the engine's weights are older.
    max_new_tokens: R, the longest response, EOS included.
    eos_id: the token that ends a response.
    mesh: whose batch axes split the rows.
    temperature: divides the logits.
    sync_every: calls for which weights are kept, ≥ 1.
  """
  calls = 0
  rows = sharding.batch_sharding(mesh)

  @jax.jit
  def seeds_of(key, prompts):
    keys = sampling.row_keys(key, prompts.prompt_id, prompts.sample_id)
    return jax.vmap(jax.random.bits)(keys) >> 1  # 31 bits, for all servers.

  def generate(params, prompts, key):
    nonlocal calls
    if calls % sync_every == 0:
      hand_over(params)
    calls += 1
    seeds, host = jax.device_get((seeds_of(key, prompts), prompts))
    real = np.flatnonzero(host.weight > 0)
    drawn = engine.draw(
        [host.tokens[i][host.attention_mask[i]].tolist() for i in real],
        seeds[real].tolist(), max_new_tokens=max_new_tokens,
        temperature=temperature, eos_id=eos_id)
    return sharding.put(_trajectory(host, real, drawn, max_new_tokens), rows)

  return generate


def _trajectory(prompts: PromptBatch, real: np.ndarray,
                drawn: Sequence[Drawn], max_new_tokens: int) -> Trajectory:
  """The rows [B, P + R] of prompts with their responses, on the host."""
  if len(drawn) != len(real):
    raise InputError(f'the engine gave {len(drawn)} responses to {len(real)} '
                     'prompts; it must answer each once')
  width = prompts.tokens.shape[1]
  pad = ((0, 0), (0, max_new_tokens))
  tokens, mask = (np.pad(x, pad) for x in (
      prompts.tokens, prompts.attention_mask))
  logprobs = np.zeros(tokens.shape, np.float32)
  for i, each in zip(real, drawn, strict=True):
    length = len(each.tokens)
    if not 0 < length <= max_new_tokens or length != len(each.logprobs):
      raise InputError(
          f'the engine gave a response of {length} tokens with '
          f'{len(each.logprobs)} logprobs; max_new_tokens={max_new_tokens}, '
          'and each token needs one')
    tokens[i, width:width + length] = each.tokens
    logprobs[i, width:width + length] = each.logprobs
    mask[i, width:width + length] = True
  return Trajectory(
      tokens=tokens, attention_mask=mask,
      response_mask=mask & (np.arange(tokens.shape[1]) >= width),
      weight=prompts.weight, sampler_logprobs=logprobs)
