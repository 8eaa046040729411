"""The jitted sampler: prefill, then a cached loop until every row has ended.

Where a batch is sampled in fewer slots than it has prompts, the loop is that of
`rollout.slots`; responses are the same.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from alignjax import logprobs as logprobs_lib
from alignjax import partitioning
from alignjax import sharding
from alignjax.models import cache_behind
from alignjax.models import CausalLM
from alignjax.models import count_positions
from alignjax.models import make_cache
from alignjax.models import ModelConfig
from alignjax.rollout import sampling
from alignjax.rollout import slots
from alignjax.types import InputError
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
    num_samples: int = 1,
    num_slots: int = 0,
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
    num_samples: K; rows come in groups of K, side by side, of one prompt each,
      which is then read and held once for all K. The responses are those of
      K = 1. In slots, or where a mesh splits groups, every row has its own.
    num_slots: responses that are sampled at one time; where one ends, the next
      prompt moves in. 0, or the batch's size and more, samples all at once.
    mesh: pins the rows of prompts and trajectories to its batch axes.
    param_shardings: of `params`, with `mesh`; None replicates them.
  """

  def generate(params, prompts, key):
    policy = model
    if partitioning.platform() == 'cpu':
      policy, params = model.unrolled(params)
    keys = sampling.row_keys(key, prompts.prompt_id, prompts.sample_id)
    unembedding = policy.unembedding(params)

    def draw(hidden, keys, position):
      logits = logprobs_lib.logits(
          hidden, unembedding, softcap=model.config.logit_softcap)
      for vocabulary in ('vocab_shard', 'vocab'):  # One axis moves at a time.
        logits = partitioning.constrain(logits, 'batch', vocabulary)
      at = jax.vmap(jax.random.fold_in)(keys, position)
      return sampling.sample(at, logits, temperature=temperature, top_k=top_k,
                             top_p=top_p)

    settings = dict(max_new_tokens=max_new_tokens, eos_id=eos_id)
    read = _narrowed(prompts)
    if 0 < num_slots < len(prompts.tokens):
      written = slots.sample(policy, params, read, keys, draw,
                             num_slots=num_slots, **settings)
    else:
      written = _sample_together(
          policy, params, read, keys, draw, num_samples=num_samples,
          **settings)
    return _trajectory(prompts, *written)

  if mesh is None:
    return jax.jit(generate)
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  return partitioning.jit(
      generate, mesh, out_shardings=rows,
      in_shardings=(param_shardings or whole, rows, whole))


def _narrowed(prompts: PromptBatch) -> PromptBatch:
  """The prompts without columns in which there is none."""
  if prompts.width is None:
    return prompts
  own = slice(prompts.tokens.shape[1] - prompts.width, None)
  return prompts.replace(tokens=prompts.tokens[:, own],
                         attention_mask=prompts.attention_mask[:, own])


def _trajectory(prompts, tokens, logprobs, mask) -> Trajectory:
  """Prompts with the responses behind them, [B, R] each."""
  behind = lambda x, y: jnp.concatenate([x, y], axis=1)
  nothing = lambda dtype: jnp.zeros(prompts.tokens.shape, dtype)
  return Trajectory(
      tokens=behind(prompts.tokens, tokens),
      attention_mask=behind(prompts.attention_mask, mask),
      response_mask=behind(nothing(bool), mask), weight=prompts.weight,
      sampler_logprobs=behind(
          nothing(jnp.float32), jnp.where(mask, logprobs, 0.0)))


def _sample_together(model, params, prompts, keys, draw, *, num_samples,
                     max_new_tokens, eos_id):
  """(tokens, logprobs, mask), [B, R] each, of all rows at one time."""
  batch, width = prompts.tokens.shape
  length = width + max_new_tokens
  pad = ((0, 0), (0, max_new_tokens))
  mask = jnp.pad(prompts.attention_mask, pad)
  last, cache = _prefill(model, params, prompts, mask, num_samples)
  lengths = jnp.sum(prompts.attention_mask, axis=1, dtype=jnp.int32)
  each = lambda i: jnp.broadcast_to(i, batch)
  token, logprob = draw(last, keys, each(jnp.int32(0)))
  start = dict(
      i=jnp.int32(0), token=token, logprob=logprob, mask=mask, cache=cache,
      is_open=prompts.weight > 0, tokens=jnp.pad(prompts.tokens, pad),
      logprobs=jnp.zeros((batch, length), jnp.float32))

  keep = functools.partial(_keep, width=width, eos_id=eos_id)

  def advance(s):
    """Decodes what was kept last and draws the token after it."""
    hidden, cache = _decode(
        model, params, lengths + s['i'] - 1, width + s['i'] - 1, s)
    token, logprob = draw(hidden, keys, each(s['i']))
    return keep(s | dict(token=token, logprob=logprob, cache=cache))

  is_running = lambda s: (s['i'] < max_new_tokens) & jnp.any(s['is_open'])
  end = jax.lax.while_loop(is_running, advance, keep(start))
  return tuple(end[name][:, width:] for name in ('tokens', 'logprobs', 'mask'))


def _prefill(model, params, prompts, mask, num_samples):
  """[B, D] last hidden states of the prompts, and a cache with all of them.

  Args:
    model: the policy.
    params: its parameters.
    prompts: [B, P]; each `num_samples` rows, side by side, are the same.
    mask: [B, P + R], of the cache's columns.
    num_samples: K.
  """
  batch, length = mask.shape
  if batch % num_samples:
    raise InputError(
        f'{batch} rows are not in groups of num_samples={num_samples}; sample '
        f'a multiple of {num_samples}')
  width = prompts.tokens.shape[1]
  if not reads_prompts_once(
      model.config, batch, num_samples, partitioning.num_shards('batch')):
    hidden, cache = model.decode(
        params, prompts.tokens, count_positions(prompts.attention_mask), mask,
        make_cache(model.config, batch, length), jnp.int32(0))
    return hidden[:, -1], cache
  tokens, seen = (x.reshape(-1, num_samples, width)[:, 0]
                  for x in (prompts.tokens, prompts.attention_mask))
  hidden, cache = model.decode(
      params, tokens, count_positions(seen), seen,
      make_cache(model.config, len(tokens), width), jnp.int32(0))
  last = jnp.broadcast_to(
      hidden[:, -1:], (len(tokens), num_samples, hidden.shape[-1]))
  return (last.reshape(batch, -1),
          cache_behind(cache, num_samples, length - width))


def reads_prompts_once(
    config: ModelConfig, batch_size: int, num_samples: int, num_shards: int
) -> bool:
  """Whether the samples of a prompt share what is remembered of it.

  A group lies on one device, or all rows are read where they lie; and a model
  that decodes a long row anew has to find its prompt there.

  Args:
    config: of the model.
    batch_size: rows, samples included.
    num_samples: of each prompt.
    num_shards: into which the rows are split.
  """
  return (num_samples > 1 and config.first_length is None
          and batch_size // num_samples % num_shards == 0)


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
