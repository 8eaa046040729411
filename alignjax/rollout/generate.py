"""The jitted sampler: prefill, then a cached loop until every row has ended."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from alignjax import logprobs as logprobs_lib
from alignjax import partitioning
from alignjax import sharding
from alignjax.models import CausalLM
from alignjax.models import count_positions
from alignjax.models import make_cache
from alignjax.rollout import sampling
from alignjax.types import PromptBatch
from alignjax.types import Trajectory


def make_generate(
    model: CausalLM,
    *,
    max_new_tokens: int,
    eos_id: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    mesh: jax.sharding.Mesh | None = None,
    param_shardings=None,
) -> Callable[[object, PromptBatch, jax.Array], Trajectory]:
  """Returns the jitted `generate(params, prompts, key) -> Trajectory`.

  A row ends with the first EOS it draws, which is part of the response; the
  columns after it are not in any mask. The loop ends when all rows have.

  Args:
    model: the policy.
    max_new_tokens: R, the longest response, EOS included.
    eos_id: the token that ends a response.
    temperature: divides the logits; 0 is greedy.
    top_k: sample among the k likeliest; 0 is all.
    top_p: sample among the likeliest that reach probability p.
    mesh: pins the rows of prompts and trajectories to its batch axes.
    param_shardings: of `params`, with `mesh`; None replicates them.
  """

  def generate(params, prompts, key):
    batch, width = prompts.tokens.shape
    length = width + max_new_tokens
    keys = sampling.row_keys(key, prompts.prompt_id, prompts.sample_id)
    unembedding = model.unembedding(params)

    def draw(hidden, position):
      logits = partitioning.constrain(logprobs_lib.logits(
          hidden, unembedding, softcap=model.config.logit_softcap),
          'batch', 'vocab')
      at = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
      return sampling.sample(at, logits, temperature=temperature, top_k=top_k,
                             top_p=top_p)

    pad = ((0, 0), (0, max_new_tokens))
    mask = jnp.pad(prompts.attention_mask, pad)
    hidden, cache = model.decode(
        params, prompts.tokens, count_positions(prompts.attention_mask), mask,
        make_cache(model.config, batch, length), jnp.int32(0))
    lengths = jnp.sum(prompts.attention_mask, axis=1, dtype=jnp.int32)
    token, logprob = draw(hidden[:, -1], jnp.int32(0))
    start = dict(
        i=jnp.int32(0), token=token, logprob=logprob, mask=mask, cache=cache,
        is_open=prompts.weight > 0, tokens=jnp.pad(prompts.tokens, pad),
        logprobs=jnp.zeros((batch, length), jnp.float32))

    keep = functools.partial(_keep, width=width, eos_id=eos_id)

    def advance(s):
      """Decodes what was kept last and draws the token after it."""
      hidden, cache = _decode(
          model, params, lengths + s['i'] - 1, width + s['i'] - 1, s)
      token, logprob = draw(hidden, s['i'])
      return keep(s | dict(token=token, logprob=logprob, cache=cache))

    is_running = lambda s: (s['i'] < max_new_tokens) & jnp.any(s['is_open'])
    end = jax.lax.while_loop(is_running, advance, keep(start))
    return Trajectory(
        tokens=end['tokens'], attention_mask=end['mask'],
        response_mask=end['mask'] & (jnp.arange(length) >= width),
        weight=prompts.weight, sampler_logprobs=end['logprobs'])

  if mesh is None:
    return jax.jit(generate)
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  return partitioning.jit(
      generate, mesh, out_shardings=rows,
      in_shardings=(param_shardings or whole, rows, whole))


def _decode(model, params, positions, column, s):
  """[B, D] hidden states of the tokens kept last, and the cache with them."""

  def one(s):
    hidden, cache = model.decode(
        params, s['token'][:, None], positions[:, None], s['mask'], s['cache'],
        column)
    return hidden[:, 0], cache

  def anew(s):
    hidden, cache = model.decode(
        params, s['tokens'], count_positions(s['mask']), s['mask'], s['cache'],
        jnp.int32(0))
    return jax.lax.dynamic_index_in_dim(hidden, column, 1, False), cache

  first_length = model.config.first_length
  if first_length is None:
    return one(s)
  # Past it, the tokens that are in the cache turn otherwise too.
  return jax.lax.cond(jnp.any(positions == first_length), anew, one, s)


def _keep(s, *, width, eos_id):
  """Writes the drawn token into the rows that are still open."""
  put = lambda array, x: jax.lax.dynamic_update_slice(
      array, x[:, None], (0, width + s['i']))
  is_open = s['is_open']
  return s | dict(
      tokens=put(s['tokens'], jnp.where(is_open, s['token'], 0)),
      mask=put(s['mask'], is_open),
      logprobs=put(s['logprobs'], jnp.where(is_open, s['logprob'], 0.0)),
      is_open=is_open & (s['token'] != eos_id), i=s['i'] + 1)


def has_ended(trajectory: Trajectory, *, eos_id: int) -> jax.Array:
  """[B] bool: whether the response wrote EOS before its length ran out."""
  wrote = trajectory.response_mask & (trajectory.tokens == eos_id)
  return jnp.any(wrote, axis=1)
