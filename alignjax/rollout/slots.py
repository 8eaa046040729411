"""Sampling with fewer slots than prompts: who has ended makes room.

A batch that is sampled all at once lasts as long as its longest response. Here
S slots work through N prompts; where a response has ended, the next prompt
moves in, so that what decoding reads is mostly rows that still write:

    slot 0   a a a a a a b b b e e e e      5 prompts, 2 slots, 13 steps
    slot 1   c c d d d d d d d d d . .      in two batches of 2, and one: 16

The cache is S rows wide and not N. All slots write to one column at a time,
which goes round the R columns behind the prompts; a response is at most R
tokens, so no token that is still read is written over:

    column    0 ... P-1 | P ... P+R-1
              prompt    | step t, in column P + t mod R, of every slot

Prompts move in a few at a time, as the prefill has a shape. On a mesh each
device of the batch's axes has slots and a queue of its own, and nothing but
tokens moves between them.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignjax import partitioning
from alignjax import topologies
from alignjax.models import Cache
from alignjax.models import CausalLM
from alignjax.models import count_positions
from alignjax.models import make_cache
from alignjax.types import InputError
from alignjax.types import PromptBatch

# A prefill is of a fourth of the slots: a matmul worth its while, and few wait.
_PREFILLS = 4

# (hidden [S, D], keys [S], position [S]) to tokens and their logprobs, [S].
Draw = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class _Slots(NamedTuple):
  """The slots and their queues, [Q queues, S slots of each, ...]."""

  step: jax.Array      # [] decoding steps so far.
  taken: jax.Array     # [Q] prompts that have moved in.
  prompt: jax.Array    # [Q, S] which of its queue's a slot has.
  count: jax.Array     # [Q, S] tokens of its response that are kept.
  token: jax.Array     # [Q, S] the last of them.
  is_open: jax.Array   # [Q, S] whether it writes on.
  mask: jax.Array      # [Q, S, P + R] columns that it reads.
  places: jax.Array    # [Q, S, P + R] where they stand in its row.
  cache: Cache         # of Q · S rows.
  tokens: jax.Array    # [Q, M, R] responses, of the M prompts of a queue.
  logprobs: jax.Array  # [Q, M, R]


def sample(
    model: CausalLM, params, prompts: PromptBatch, keys: jax.Array, draw: Draw,
    *, num_slots: int, max_new_tokens: int, eos_id: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Samples a response to every prompt, `num_slots` at one time.

  A response is what sampling all at once gives, since a token's key is its
  row's own and knows nothing of slots.

  Args:
    model: the policy; not one that turns long rows otherwise (LongRoPE).
    params: its parameters.
    prompts: [N, P], padded on the left.
    keys: [N], a key for each response.
    draw: gives the next token.
    num_slots: Q · S; divides over the mesh's batch axes.
    max_new_tokens: R.
    eos_id: the token that ends a response.

  Returns:
    tokens [N, R], logprobs [N, R] and mask [N, R] of the responses.

  Raises:
    InputError: `num_slots` does not split over the mesh, or the model is one
      that decodes a row anew once it grows long.
  """
  if model.config.first_length is not None:
    raise InputError(
        f'num_slots={num_slots}: this model turns rows past '
        f'{model.config.first_length} tokens otherwise, and decodes them anew; '
        'sample all at once, with num_slots=0')
  num_queues = partitioning.num_shards('batch')
  topologies.check_slots(num_slots, num_queues)
  queued = lambda x: _pin(x.reshape(num_queues, -1, *x.shape[1:]))
  program = _Program(
      model, params, jax.tree.map(queued, prompts), queued(keys), draw,
      num_slots // num_queues, max_new_tokens, eos_id)
  end = jax.lax.while_loop(program.is_running, program.turn, program.start())
  flat = lambda x: x.reshape(-1, max_new_tokens)
  return flat(end.tokens), flat(end.logprobs), flat(end.logprobs != _UNWRITTEN)


_UNWRITTEN = 1.0  # No logprob is positive.


class _Program:
  """What the loops close over, and their bodies."""

  def __init__(self, model, params, prompts, keys, draw, size, room, eos_id):
    self._model, self._params, self._draw = model, params, draw
    self._prompts, self._keys = prompts, keys  # [Q, M, ...], [Q, M]
    self._room, self._eos_id = room, eos_id
    self._num_queues, self._most, self._width = prompts.tokens.shape
    self._size = size = min(size, self._most)
    self._at_once = math.ceil(size / _PREFILLS)

  def start(self) -> _Slots:
    """All slots free, nobody in."""
    lead, length = (self._num_queues, self._size), self._width + self._room
    out = self._num_queues, self._most, self._room
    zeros = lambda shape, dtype: _pin(jnp.zeros(shape, dtype))
    return _Slots(
        step=jnp.int32(0), taken=zeros(lead[:1], jnp.int32),
        prompt=zeros(lead, jnp.int32), count=zeros(lead, jnp.int32),
        token=zeros(lead, jnp.int32), is_open=zeros(lead, bool),
        mask=zeros((*lead, length), bool),
        places=zeros((*lead, length), jnp.int32),
        cache=make_cache(self._model.config, math.prod(lead), length),
        tokens=zeros(out, jnp.int32),
        logprobs=_pin(jnp.full(out, _UNWRITTEN, jnp.float32)))

  def is_running(self, s: _Slots) -> jax.Array:
    """Whether anybody writes or waits."""
    return jnp.any(s.is_open) | jnp.any(s.taken < self._most)

  def turn(self, s: _Slots) -> _Slots:
    """Lets prompts in, and decodes until the next can be."""
    return jax.lax.while_loop(
        lambda s: jnp.any(s.is_open) & ~jnp.any(self._has_room(s)),
        self._advance, self._fill(s))

  def _has_room(self, s: _Slots) -> jax.Array:
    """[Q] bool: whether a queue's next prompts find their slots free."""
    left = self._most - s.taken
    free = jnp.sum(~s.is_open, axis=1)
    return (left > 0) & (free >= jnp.minimum(left, self._at_once))

  def _fill(self, s: _Slots) -> _Slots:
    """Moves each queue's next prompts into slots that are free."""
    count, out_of_range = self._at_once, self._size
    nth = jnp.arange(count)
    free = jnp.argsort(s.is_open, axis=1)[:, :count]  # Stable: the free first.
    fits = nth < jnp.minimum(jnp.sum(~s.is_open, axis=1),
                             self._most - s.taken)[:, None]
    slot = jnp.where(fits, free, out_of_range)  # [Q, F]
    prompt = jnp.where(fits, s.taken[:, None] + nth, 0)
    batch = jax.tree.map(lambda x: _take(x, prompt), self._prompts)
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    tokens, mask = flat(batch.tokens), flat(batch.attention_mask)
    places = count_positions(mask)
    hidden, filled = self._model.decode(
        self._params, tokens, places, mask,
        make_cache(self._model.config, *tokens.shape), jnp.int32(0))
    first = jnp.zeros(slot.size, jnp.int32)
    token, logprob = self._draw(
        hidden[:, -1], flat(_take(self._keys, prompt)), first)
    queued = lambda x: x.reshape(*slot.shape, *x.shape[1:])
    wide = lambda x: jnp.pad(queued(x), ((0, 0), (0, 0), (0, self._room)))
    s = s._replace(
        taken=s.taken + jnp.sum(fits, axis=1), prompt=_put(
            s.prompt, slot, prompt),
        count=_put(s.count, slot, jnp.zeros_like(prompt)),
        is_open=_put(s.is_open, slot, batch.weight > 0),
        mask=_put(s.mask, slot, wide(mask)),
        places=_put(s.places, slot, wide(places)),
        cache=jax.tree.map(
            lambda whole, part: _put_rows(whole, part, slot), s.cache, filled))
    drawn = lambda x, like: _put(jnp.zeros_like(like), slot, queued(x))
    is_new = _put(jnp.zeros_like(s.is_open), slot, fits)
    return self._keep(s, drawn(token, s.token), drawn(
        logprob, s.token.astype(jnp.float32)), is_new & s.is_open)

  def _advance(self, s: _Slots) -> _Slots:
    """Decodes what every slot kept last, and draws the token after it."""
    column = self._width + s.step % self._room
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    place = jnp.sum(s.mask[..., :self._width], axis=-1) + s.count - 1
    # What a slot wrote there R steps ago, if anything, was another response's.
    write = lambda x, y: jax.lax.dynamic_update_slice(
        x, y[..., None].astype(x.dtype), (0, 0, column))
    mask, places = write(s.mask, s.is_open), write(s.places, place)
    hidden, cache = self._model.decode(
        self._params, flat(s.token)[:, None], flat(place)[:, None], flat(mask),
        s.cache, column, key_positions=flat(places))
    keys = _take(self._keys, s.prompt)
    token, logprob = self._draw(hidden[:, 0], flat(keys), flat(s.count))
    like = lambda x: _pin(x.reshape(s.token.shape))
    s = s._replace(step=s.step + 1, mask=mask, places=places, cache=cache)
    return self._keep(s, like(token), like(logprob), s.is_open)

  def _keep(self, s: _Slots, token, logprob, chosen) -> _Slots:
    """Writes the tokens drawn for the chosen slots, [Q, S]."""
    row = jnp.where(chosen, s.prompt, self._most)  # Past the end: dropped.
    write = jax.vmap(lambda out, row, at, x: out.at[row, at].set(
        x, mode='drop'))
    count = s.count + chosen
    goes_on = (token != self._eos_id) & (count < self._room)
    return s._replace(
        tokens=write(s.tokens, row, s.count, token),
        logprobs=write(s.logprobs, row, s.count, logprob),
        token=jnp.where(chosen, token, s.token), count=count,
        is_open=s.is_open & (goes_on | ~chosen))


def _pin(x: jax.Array) -> jax.Array:
  """[Q, ...] with each queue where its device is."""
  return partitioning.constrain(x, 'batch', *[None] * (x.ndim - 1))


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
  """[Q, M, ...] at [Q, F], each queue's own: [Q, F, ...]."""
  return _pin(jax.vmap(lambda x, i: x[i])(x, index))


def _put(x: jax.Array, slot: jax.Array, values: jax.Array) -> jax.Array:
  """[Q, S, ...] with [Q, F, ...] at slots [Q, F]; S and beyond are dropped."""
  return _pin(jax.vmap(lambda x, i, v: x.at[i].set(v, mode='drop'))(
      x, slot, values))


def _put_rows(cache: jax.Array, filled: jax.Array, slot: jax.Array):
  """A cache with rows of a shorter one at the slots' first columns.

  Args:
    cache: [..., Q · S, K, P + R, head_dim].
    filled: [..., Q · F, K, P, head_dim].
    slot: [Q, F].
  """
  lead = cache.ndim - 4  # 1 where layers are stacked.
  split = lambda x: x.reshape(*x.shape[:lead], slot.shape[0], -1,
                              *x.shape[lead + 1:])
  width = filled.shape[lead + 2]
  put = lambda x, i, v: x.at[i, :, :width].set(v, mode='drop')
  for _ in range(lead):
    put = jax.vmap(put, (0, None, 0))
  put = jax.vmap(put, (lead, 0, lead), lead)
  names = [None] * lead + ['batch', None, 'kv_heads', None, None]
  return partitioning.constrain(
      put(split(cache), slot, split(filled)), *names).reshape(cache.shape)
