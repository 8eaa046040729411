"""Rows of one batch become arrays, padded and masked.

Masks are made here, from lengths, so a pad id may be any id, EOS and 0
included. A batch of fewer rows than `batch_size` is filled up with rows of
weight 0. A filler row bears no loss and has one real token, a pad, so that no
softmax is ever taken over nothing.
"""

from collections.abc import Sequence

import numpy as np

from alignjax import types
from alignjax.data import tokenize


def collate_demonstrations(
    rows: Sequence[tokenize.TokenizedResponse],
    *,
    batch_size: int,
    length: int,
    pad_id: int = 0,
) -> types.TokenBatch:
  """Rows padded on the right to [batch_size, length].

    prompt 5 6, response 7 2:   tokens          5 6 7 2 0 0
                                attention_mask  1 1 1 1 . .
                                loss_mask       . . 1 1 . .
  """
  tokens, attention_mask, loss_mask = _blank(batch_size, length, pad_id)
  for i, row in enumerate(rows):
    end = len(row.tokens)
    tokens[i, :end] = row.tokens
    attention_mask[i, :end] = True
    if row.loss_mask is None:
      loss_mask[i, row.prompt_length : end] = True
    else:
      loss_mask[i, :end] = row.loss_mask
  attention_mask[len(rows):, 0] = True
  weight = _weight(len(rows), batch_size)
  weight[:len(rows)] *= [row.weight for row in rows]
  return types.TokenBatch(
      tokens=tokens,
      attention_mask=attention_mask,
      loss_mask=loss_mask,
      weight=weight,
  )


def collate_preferences(
    rows: Sequence[tokenize.TokenizedPair],
    *,
    batch_size: int,
    length: int,
    pad_id: int = 0,
) -> types.PreferenceBatch:
  """Pairs padded on the right to [batch_size, 2, length], chosen first.

  What the reference says of them comes along, if all rows have it.
  """
  sides = [
      collate_demonstrations(
          side, batch_size=batch_size, length=length, pad_id=pad_id
      )
      for side in ([row.chosen for row in rows], [row.rejected for row in rows])
  ]
  return types.PreferenceBatch(
      tokens=np.stack([side.tokens for side in sides], axis=1),
      attention_mask=np.stack([s.attention_mask for s in sides], axis=1),
      loss_mask=np.stack([side.loss_mask for side in sides], axis=1),
      strength=np.array(
          [row.strength for row in rows] + [0] * (batch_size - len(rows)),
          np.int32),
      weight=sides[0].weight,
      ref_logprobs=_references(rows, batch_size, length),
  )


def collate_unpaired(
    rows: Sequence[tokenize.TokenizedLabel],
    *,
    batch_size: int,
    length: int,
    pad_id: int = 0,
) -> types.UnpairedBatch:
  """Labelled rows padded on the right, and the same prompts mismatched.

    rows  x1 y1, x2 y2, x3 y3:   mismatched  x1 y2, x2 y3, x3 y1

  They are rolled within the batch, so that the rows may come in any order. A
  batch of one row has nothing to mismatch: its weight there is 0.
  """
  blank = dict(batch_size=batch_size, length=length, pad_id=pad_id)
  own = collate_demonstrations([row.row for row in rows], **blank)
  others = [rows[(i + 1) % len(rows)].row for i in range(len(rows))]
  mismatched = collate_demonstrations(
      [_mismatch(row.row, other, length)
       for row, other in zip(rows, others, strict=True)], **blank)
  if len(rows) < 2:
    mismatched = mismatched.replace(weight=np.zeros(batch_size, np.float32))
  desirable = np.zeros(batch_size, bool)
  desirable[:len(rows)] = [row.desirable for row in rows]
  return types.UnpairedBatch(
      tokens=own.tokens, attention_mask=own.attention_mask,
      loss_mask=own.loss_mask, weight=own.weight, desirable=desirable,
      mismatched=mismatched)


def collate_rankings(
    rows: Sequence[tokenize.TokenizedRanking],
    *,
    batch_size: int,
    length: int,
    num_ranked: int,
    pad_id: int = 0,
) -> types.RankingBatch:
  """Rankings padded to [batch_size, num_ranked, length] on the right."""
  filler = tokenize.TokenizedResponse(np.zeros(0, np.int32), 0)
  mask = np.zeros((batch_size, num_ranked), bool)
  ranks = np.zeros((batch_size, num_ranked), np.int32)
  flat = [filler] * (batch_size * num_ranked)
  for i, row in enumerate(rows):
    count = len(row.rows)
    flat[i * num_ranked : i * num_ranked + count] = row.rows
    mask[i, :count] = True
    ranks[i, :count] = row.ranks
  own = collate_demonstrations(
      flat, batch_size=len(flat), length=length, pad_id=pad_id)
  shape = (batch_size, num_ranked, length)
  attention_mask = own.attention_mask.reshape(shape)
  attention_mask[~mask, 0] = True
  return types.RankingBatch(
      tokens=own.tokens.reshape(shape), attention_mask=attention_mask,
      ranks=ranks, mask=mask, weight=_weight(len(rows), batch_size))


def collate_prompts(
    rows: Sequence[tokenize.TokenizedPrompt],
    *,
    batch_size: int,
    length: int,
    pad_id: int = 0,
    num_samples: int = 1,
    first_sample_id: int = 0,
) -> types.PromptBatch:
  """Prompts padded on the left to [batch_size, length].

    prompts 5 6 and 7:   tokens  0 5 6    attention_mask  . 1 1
                                 0 0 7                    . . 1
  """
  tokens, attention_mask, _ = _blank(batch_size, length, pad_id)
  prompt_id = np.zeros(batch_size, np.int32)
  for i, row in enumerate(rows):
    group = slice(i * num_samples, (i + 1) * num_samples)
    tokens[group, length - len(row.tokens):] = row.tokens
    attention_mask[group, length - len(row.tokens):] = True
    prompt_id[group] = row.prompt_id
  num_real = len(rows) * num_samples
  attention_mask[num_real:, -1] = True
  sample_id = first_sample_id + np.arange(batch_size) % num_samples
  return types.PromptBatch(
      tokens=tokens,
      attention_mask=attention_mask,
      prompt_id=prompt_id,
      sample_id=sample_id.astype(np.int32),
      weight=_weight(num_real, batch_size),
  )


def _references(
    rows: Sequence[tokenize.TokenizedPair], batch_size: int, length: int
) -> np.ndarray | None:
  """[batch_size, 2, length] nats, 0 for padding; None unless all are known."""
  said = [[side.ref_logprobs for side in (row.chosen, row.rejected)]
          for row in rows]
  if not said or any(each is None for pair in said for each in pair):
    return None
  logprobs = np.zeros((batch_size, 2, length), np.float32)
  for i, pair in enumerate(said):
    for k, each in enumerate(pair):
      logprobs[i, k, :len(each)] = each
  return logprobs


def _mismatch(
    row: tokenize.TokenizedResponse, other: tokenize.TokenizedResponse,
    length: int,
) -> tokenize.TokenizedResponse:
  """The prompt of one row with the response of another, cut to `length`."""
  tokens = np.concatenate(
      [row.tokens[:row.prompt_length], other.tokens[other.prompt_length:]])
  return tokenize.TokenizedResponse(tokens[:length], row.prompt_length)


def _blank(
    batch_size: int, length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Tokens that are all padding, and two masks that hold nothing."""
  shape = (batch_size, length)
  return np.full(shape, pad_id, np.int32), np.zeros(shape, bool), np.zeros(
      shape, bool
  )


def _weight(num_real: int, batch_size: int) -> np.ndarray:
  return (np.arange(batch_size) < num_real).astype(np.float32)
