"""Rows of ids become batches, in an order that is a function of (seed, step).

Batch `step` of a run depends on the rows, the seed and `step`, and on nothing
that happened before: a run that stopped after `step` batches goes on with
`start=step`, bit for bit, and has no other data state to save.

An epoch holds every row exactly once. Rows are shuffled, sorted into the
shortest bucket that holds them, cut into batches of `batch_size`, and the
batches are shuffled over all buckets. The last batch of a bucket is filled up
with rows of weight 0 (see collate.py).

  rows of 3, 7, 4, 2, 8 tokens, batch_size 2, buckets 4 and 8

    bucket 4   [row 3, row 0]  [row 2, filler]
    bucket 8   [row 1, row 4]
"""

from collections.abc import Callable, Iterator, Sequence
import sys
import threading
from typing import Any

import numpy as np

from alignjax import types
from alignjax.data import collate as collation
from alignjax.data import stream
from alignjax.data import tokenize


def demonstration_batches(
    rows: Sequence[tokenize.TokenizedResponse],
    *,
    batch_size: int,
    max_length: int,
    seed: int = 0,
    pad_id: int = 0,
    buckets: Sequence[int] = (),
    start: int = 0,
    num_epochs: int | None = None,
    shuffle: bool = True,
    layout: Callable[[Any], Any] | None = None,
) -> Iterator[types.TokenBatch]:
  """Batches for SFT and pretraining, padded on the right.

  Args:
    rows: From `tokenize_demonstrations` or `pack_documents`.
    batch_size: Rows per batch, over all devices.
    max_length: Tokens per row of a batch; no row may be longer.
    seed: Gives the order.
    pad_id: Fills what no mask covers; any id will do.
    buckets: Shorter lengths that a batch may have instead, such as (128, 256).
      Each is one more compilation of the step and less padding.
    start: The step to begin at.
    num_epochs: Passes over the rows; None never ends.
    shuffle: False keeps the rows' order within a bucket, for evaluation.
    layout: What each batch becomes; `make_layout`'s.

  Returns:
    An iterator of `TokenBatch` with numpy leaves. `loss_mask` covers exactly
    the responses' tokens.

  Raises:
    InputError: No rows, a row over `max_length`, a setting out of range.
  """
  collate = lambda chosen, length, epoch: collation.collate_demonstrations(
      chosen, batch_size=batch_size, length=length, pad_id=pad_id)

  return make_batches(
      rows, collate, length_of=lambda row: len(row.tokens),
      batch_size=batch_size, max_length=max_length, seed=seed,
      buckets=buckets, start=start, num_epochs=num_epochs, shuffle=shuffle,
      layout=layout,
  )


def preference_batches(
    rows: Sequence[tokenize.TokenizedPair],
    *,
    batch_size: int,
    max_length: int,
    seed: int = 0,
    pad_id: int = 0,
    buckets: Sequence[int] = (),
    start: int = 0,
    num_epochs: int | None = None,
    shuffle: bool = True,
    layout: Callable[[Any], Any] | None = None,
) -> Iterator[types.PreferenceBatch]:
  """Batches of pairs, padded on the right; see `demonstration_batches`.

  `batch_size` counts pairs. A pair goes where its longer response fits.
  """
  collate = lambda chosen, length, epoch: collation.collate_preferences(
      chosen, batch_size=batch_size, length=length, pad_id=pad_id)

  return make_batches(
      rows, collate,
      length_of=lambda r: max(len(r.chosen.tokens), len(r.rejected.tokens)),
      batch_size=batch_size, max_length=max_length, seed=seed,
      buckets=buckets, start=start, num_epochs=num_epochs, shuffle=shuffle,
      layout=layout,
  )


def unpaired_batches(
    rows: Sequence[tokenize.TokenizedLabel],
    *,
    batch_size: int,
    max_length: int,
    seed: int = 0,
    pad_id: int = 0,
    buckets: Sequence[int] = (),
    start: int = 0,
    num_epochs: int | None = None,
    shuffle: bool = True,
    layout: Callable[[Any], Any] | None = None,
) -> Iterator[types.UnpairedBatch]:
  """Batches of labelled responses; see `demonstration_batches`."""
  collate = lambda chosen, length, epoch: collation.collate_unpaired(
      chosen, batch_size=batch_size, length=length, pad_id=pad_id)

  return make_batches(
      rows, collate, length_of=lambda row: len(row.row.tokens),
      batch_size=batch_size, max_length=max_length, seed=seed,
      buckets=buckets, start=start, num_epochs=num_epochs, shuffle=shuffle,
      layout=layout,
  )


def ranking_batches(
    rows: Sequence[tokenize.TokenizedRanking],
    *,
    batch_size: int,
    max_length: int,
    seed: int = 0,
    pad_id: int = 0,
    buckets: Sequence[int] = (),
    start: int = 0,
    num_epochs: int | None = None,
    shuffle: bool = True,
    layout: Callable[[Any], Any] | None = None,
) -> Iterator[types.RankingBatch]:
  """Batches of rankings, all as wide as the widest; `batch_size` prompts."""
  num_ranked = max((len(row.rows) for row in rows), default=0)

  collate = lambda chosen, length, epoch: collation.collate_rankings(
      chosen, batch_size=batch_size, length=length, num_ranked=num_ranked,
      pad_id=pad_id)

  return make_batches(
      rows, collate,
      length_of=lambda row: max(len(r.tokens) for r in row.rows),
      batch_size=batch_size, max_length=max_length, seed=seed,
      buckets=buckets, start=start, num_epochs=num_epochs, shuffle=shuffle,
      layout=layout,
  )


def prompt_batches(
    rows: Sequence[tokenize.TokenizedPrompt],
    *,
    batch_size: int,
    max_length: int,
    num_samples: int = 1,
    seed: int = 0,
    pad_id: int = 0,
    buckets: Sequence[int] = (),
    start: int = 0,
    num_epochs: int | None = None,
    shuffle: bool = True,
    layout: Callable[[Any], Any] | None = None,
) -> Iterator[types.PromptBatch]:
  """Batches of prompts, padded on the LEFT; see `demonstration_batches`.

  Args:
    rows: From `tokenize_prompts`.
    batch_size: Rows per batch, samples included: `batch_size / num_samples`
      different prompts.
    max_length: Tokens per prompt of a batch.
    num_samples: Rows that each prompt gets, side by side, so that `[B]` seen
      as `[B / num_samples, num_samples]` has a prompt per line. `sample_id`
      counts on over the epochs, so that later samples are drawn anew.
    seed: Gives the order.
    pad_id: Fills what no mask covers.
    buckets: Shorter lengths that a batch may have instead.
    start: The step to begin at.
    num_epochs: Passes over the prompts; None never ends.
    shuffle: False keeps the prompts' order within a bucket.
    layout: What each batch becomes; `make_layout`'s.

  Returns:
    An iterator of `PromptBatch` with numpy leaves.
  """
  _check_at_least('num_samples', num_samples, 1)
  if batch_size % num_samples:
    raise types.InputError(
        f'batch_size={batch_size} does not hold whole groups of'
        f' num_samples={num_samples}; use a multiple of {num_samples}.'
    )

  def collate(chosen, length, epoch):
    return collation.collate_prompts(
        chosen, batch_size=batch_size, length=length, pad_id=pad_id,
        num_samples=num_samples, first_sample_id=epoch * num_samples,
    )

  return make_batches(
      rows, collate, length_of=lambda row: len(row.tokens),
      batch_size=batch_size // num_samples, max_length=max_length, seed=seed,
      buckets=buckets, start=start, num_epochs=num_epochs, shuffle=shuffle,
      layout=layout,
  )


def make_batches(
    rows: Sequence[Any],
    collate: Callable[[list[Any], int, int], Any],
    *,
    length_of: Callable[[Any], int],
    batch_size: int,
    max_length: int,
    seed: int = 0,
    buckets: Sequence[int] = (),
    start: int = 0,
    num_epochs: int | None = None,
    shuffle: bool = True,
    layout: Callable[[Any], Any] | None = None,
) -> Iterator[Any]:
  """The stream of `collate(rows of one batch, length, epoch)` from `start` on.

  The next few batches are made on two threads while the step runs. The
  arguments that `demonstration_batches` has too mean the same here.
  """
  if layout is not None:
    pad = collate
    collate = lambda chosen, length, epoch: layout(pad(chosen, length, epoch))
  source = BatchSource(
      rows, collate, length_of=length_of, batch_size=batch_size,
      max_length=max_length, seed=seed, buckets=buckets,
      num_epochs=num_epochs, shuffle=shuffle,
  )
  _check_at_least('start', start, 0)
  return stream.Stream(source, start)


class BatchSource:
  """Batches by step: `source[step]` is the same whenever it is asked for."""

  def __init__(
      self,
      rows: Sequence[Any],
      collate: Callable[[list[Any], int, int], Any],
      *,
      length_of: Callable[[Any], int],
      batch_size: int,
      max_length: int,
      seed: int = 0,
      buckets: Sequence[int] = (),
      num_epochs: int | None = None,
      shuffle: bool = True,
  ):
    _check_at_least('batch_size', batch_size, 1)
    _check_at_least('seed', seed, 0)
    if num_epochs is not None:
      _check_at_least('num_epochs', num_epochs, 1)
    self._rows = rows
    self._collate = collate
    self._batch_size = batch_size
    self._seed = seed
    self._num_epochs = num_epochs
    self._shuffle = shuffle
    self._lengths = _bucket_lengths(buckets, max_length)
    self._bucket_of = _assign_buckets(
        [length_of(row) for row in rows], self._lengths
    )
    self.num_steps_per_epoch = _num_batches(self._bucket_of, batch_size)
    self._plans: dict[int, list[tuple[int, np.ndarray]]] = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    """Steps in all; as good as endless without `num_epochs`."""
    if self._num_epochs is None:
      return sys.maxsize
    return self._num_epochs * self.num_steps_per_epoch

  def __getitem__(self, step: int) -> Any:
    """The batch of one step."""
    epoch, index = divmod(step, self.num_steps_per_epoch)
    bucket, members = self._plan(epoch)[index]
    chosen = [self._rows[i] for i in members]
    return self._collate(chosen, self._lengths[bucket], epoch)

  def rows_of(self, step: int) -> list[int]:
    """The numbers, from 0, of the rows in the batch of a step."""
    epoch, index = divmod(step, self.num_steps_per_epoch)
    return self._plan(epoch)[index][1].tolist()

  def _plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
    """The (bucket, rows) of every batch of an epoch, in order."""
    with self._lock:
      if epoch not in self._plans:
        # At the border the threads work on two epochs; older ones are past.
        self._plans = {e: p for e, p in self._plans.items() if e == epoch - 1}
        self._plans[epoch] = self._make_plan(epoch)
      return self._plans[epoch]

  def _make_plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
    num_rows, num_batches = len(self._bucket_of), self.num_steps_per_epoch
    order, batch_order = np.arange(num_rows), np.arange(num_batches)
    if self._shuffle:
      # Raw bits of a counter-based generator: numpy may change how it shuffles
      # between versions, but never these.
      bits = np.random.Philox(np.random.SeedSequence((self._seed, epoch)))
      order = np.argsort(bits.random_raw(num_rows), kind='stable')
      batch_order = np.argsort(bits.random_raw(num_batches), kind='stable')
    batches = []
    for bucket in range(len(self._lengths)):
      members = order[self._bucket_of[order] == bucket]
      for first in range(0, len(members), self._batch_size):
        batches.append((bucket, members[first : first + self._batch_size]))
    return [batches[i] for i in batch_order]


def num_steps_per_epoch(
    lengths: Sequence[int],
    *,
    batch_size: int,
    max_length: int,
    buckets: Sequence[int] = (),
) -> int:
  """Batches in one pass over rows of these lengths, in tokens."""
  _check_at_least('batch_size', batch_size, 1)
  bucket_of = _assign_buckets(lengths, _bucket_lengths(buckets, max_length))
  return _num_batches(bucket_of, batch_size)


def check_batch_size(batch_size: int, shards: int):
  """InputError unless a batch splits evenly over the data shards."""
  _check_at_least('batch_size', batch_size, 1)
  if batch_size % shards:
    raise types.InputError(
        f'batch_size={batch_size} does not split over {shards} data shards; use'
        f' a multiple of {shards}.'
    )


def _bucket_lengths(buckets: Sequence[int], max_length: int) -> list[int]:
  """The lengths that a batch may have, ascending; the last is max_length."""
  _check_at_least('max_length', max_length, 1)
  for bucket in buckets:
    if not 1 <= bucket <= max_length:
      raise types.InputError(
          f'buckets={tuple(buckets)} holds {bucket}; a bucket is a length from'
          f' 1 to max_length={max_length}; take it out.'
      )
  return sorted({*buckets, max_length})


def _assign_buckets(
    lengths: Sequence[int], bucket_lengths: Sequence[int]
) -> np.ndarray:
  """The index of the shortest bucket that holds each row."""
  lengths = np.asarray(lengths, np.int64)
  if not len(lengths):
    raise types.InputError('there are no rows to make batches of; give some.')
  if lengths.max() > bucket_lengths[-1]:
    row = int(np.argmax(lengths > bucket_lengths[-1]))
    raise types.InputError(
        f'row {row} has {lengths[row]} tokens, more than'
        f' max_length={bucket_lengths[-1]}; use the max_length that the rows'
        ' were tokenized with.'
    )
  return np.searchsorted(np.asarray(bucket_lengths), lengths)


def _num_batches(bucket_of: np.ndarray, batch_size: int) -> int:
  counts = np.bincount(bucket_of)
  return int(np.sum(-(-counts // batch_size)))


def _check_at_least(name: str, value: int, least: int):
  if value < least:
    raise types.InputError(
        f'{name}={value} is out of range; use {least} or more.'
    )
