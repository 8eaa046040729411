"""Which responses share a row: what a model reads of a batch.

A batch has each response in a row of its own, padded to its length, and losses
see nothing else. A layout says what the model reads instead (`types.Rows`):

  two responses, 7 8 9 and 4, to the prompt 5 6

    padded     5 6 7 8 9 . . .     packed    5 6 7 8 9 5 6 4
               5 6 4 . . . . .     segments  1 1 1 1 1 2 2 2

    branched   5 6 7 8 9 6 4 .     what both begin with is read once, but for
    segments   1 1 1 1 1 1 1 1     its last token, with which each branch
    branches   0 1 1 1 1 2 2 2     begins: so each predicts its own next token
    positions  0 1 2 3 4 1 2 0

Each response sees its own tokens only, at the positions that they have alone,
so that losses and gradients are those of the padded batch, up to rounding. A
batch holds the same responses in the same step under every layout.

Rows are filled within a cell, a part of the batch that goes to one device and
one microbatch (`types.split_cells`). Prompts, or responses where nothing is
shared, are laid into its rows longest first, each where there is first room.

A shape compiles once. To keep shapes few, rows are as long as the batch's, or
by quarters of that longer, where a prompt's branches together are; and their
number in a cell is rounded up to eighths of the prompts (packed: responses)
that it holds. So is the number of tokens that bear loss, to quarters of all
columns; the others are read, but not unembedded.
"""

from collections.abc import Callable, Sequence
import itertools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from alignjax import types

Layout = Literal['padded', 'packed', 'branched']

NUM_STEPS = 8  # Of the number of rows.
NUM_PARTS = 4  # Of a length, and of the columns of which some bear loss.


class _Block(NamedTuple):
  """Responses that share what they begin with, as they lie in a row."""

  tokens: np.ndarray     # [L] int32
  branches: np.ndarray   # [L] 0 for what is shared.
  positions: np.ndarray  # [L]
  places: list[tuple[int, np.ndarray]]  # (response, [its tokens] in 0 ... L-1).


def make_layout(
    layout: Layout, *, num_cells: int = 1, num_samples: int = 1,
    process_index: int = 0, process_count: int = 1,
) -> Callable[[Any], Any]:
  """Returns the function that lays a batch out.

  Args:
    layout: 'padded' leaves a batch as it is. 'packed' lays several responses
      into a row. 'branched' reads what the responses to a prompt begin with
      once; where a batch has one response to each prompt, it is 'packed'.
    num_cells: C, parts that share no row: a multiple of the devices that a
      batch is spread over, times the microbatches that it is cut into. More
      cells leave more room unused.
    num_samples: rows of the batch, side by side, that answer one prompt; for
      trajectories. [B, K, T] batches hold a prompt in each row.
    process_index: which of the processes this one is.
    process_count: processes that a batch is spread over. Each is given its own
      contiguous part, as `jax.make_array_from_process_local_data` takes it on a
      mesh in the order of `jax.devices()`. Every process lays the whole batch
      out, since the number of rows is one for all.

  Returns:
    From a batch of numpy arrays to the same batch with `rows`, in cells; of
    which this process has its part.

  Raises:
    InputError: by the function, where B does not split into `num_cells`, or
      what leads the batch not into `process_count`.
  """

  def attach(batch):
    group = num_samples if layout == 'branched' else 1
    if batch.tokens.ndim == 3 and layout == 'branched':
      group = batch.tokens.shape[1]
    return batch.replace(rows=make_rows(
        batch.tokens, batch.attention_mask, _exists(batch), group=group,
        num_cells=num_cells, loss_mask=_loss_mask(batch)))

  def lay_out(batch):
    if layout != 'padded':
      if isinstance(batch, types.UnpairedBatch):
        # Its other rows are read by themselves, by the annotator.
        batch = batch.replace(mismatched=attach(batch.mismatched))
      batch = types.split_cells(attach(batch))
    return _own_part(batch, process_index, process_count)

  return lay_out


def _own_part(batch: Any, index: int, count: int) -> Any:
  """The part of a batch that one of `count` processes holds."""
  size = batch.weight.shape[0]
  if size % count:
    raise types.InputError(
        f'a batch of {size} parts does not split over {count} processes; use a '
        f'batch_size, or num_cells, that is a multiple of {count}.')
  own = slice(index * (size // count), (index + 1) * (size // count))
  return jax.tree.map(lambda x: x[own], batch)


def make_rows(
    tokens: np.ndarray, attention_mask: np.ndarray, exists: np.ndarray, *,
    group: int = 1, num_cells: int = 1, at_least: tuple[int, int] = (1, 1),
    loss_mask: np.ndarray | None = None,
) -> types.Rows:
  """What a model reads of responses, in as few rows as they fit into.

  Args:
    tokens: [B, ..., T] int32, padded on either side.
    attention_mask: [B, ..., T] bool, real tokens.
    exists: [B, ...] bool; the others are not read at all.
    group: responses, side by side, that may share what they begin with.
    num_cells: C; divides B, and a group is within one cell.
    at_least: rows and columns of a cell.
    loss_mask: [B, ..., T] bool, tokens that anyone asks for; None is all.

  Returns:
    Rows of the given responses, of [C, M, S].
  """
  size, length = tokens.shape[0], tokens.shape[-1]
  per_cell = exists.size // num_cells
  if size % num_cells or per_cell % group:
    raise types.InputError(
        f'batch_size={size} does not split into num_cells={num_cells} of whole '
        f'groups of {group}; use a multiple of '
        f'{num_cells * max(1, group * size // exists.size)}.')
  flat_tokens, flat_mask = (
      x.reshape(num_cells, per_cell, length) for x in (tokens, attention_mask))
  blocks = [
      [_make_block(cell_tokens, cell_mask, members)
       for members in _groups(cell_exists, group)]
      for cell_tokens, cell_mask, cell_exists in zip(
          flat_tokens, flat_mask, exists.reshape(num_cells, -1), strict=True)]
  lengths = [[len(block.tokens) for block in cell] for cell in blocks]
  longest = max(itertools.chain([length, at_least[1]], *lengths))
  num_columns = length + round_up(longest - length, -(-length // NUM_PARTS))
  placed = [first_fit(cell, num_columns) for cell in lengths]
  used = max(at_least[0], 1 + max(
      (row for cell in placed for row, _ in cell), default=0))
  most = per_cell // group
  num_rows = min(round_up(used, -(-most // NUM_STEPS)), most)
  rows = _blank(num_cells, num_rows, num_columns, flat_tokens.shape)
  for cell in range(num_cells):
    # From left to right, as what is written last lies under the padding too.
    for i in sorted(range(len(placed[cell])), key=placed[cell].__getitem__):
      _write(rows, cell, blocks[cell][i], placed[cell][i], flat_mask[cell])
  rows.attention_mask[..., 0] = True  # No softmax is taken over nothing.
  if loss_mask is not None:
    bears = loss_mask & attention_mask & exists[..., None]
    rows = rows.replace(wanted=_wanted(
        rows.index, bears.reshape(rows.index.shape), num_rows * num_columns))
  return rows.replace(index=rows.index.reshape(
      num_cells, size // num_cells, *tokens.shape[1:]))


def _wanted(
    index: np.ndarray, bears: np.ndarray, num_columns: int
) -> np.ndarray | None:
  """[C, N]: each cell's columns that are in `index` where a token bears loss.

  Args:
    index: [C, B / C, T], a column for each token.
    bears: the same of bool. A text's first token, which nothing predicts, never
      does.
    num_columns: of a cell; also what N is filled up with.

  Returns:
    None if nearly all columns are wanted.
  """
  bears[..., 0] = False
  found = [np.unique(at[is_wanted])
           for at, is_wanted in zip(index, bears, strict=True)]
  step = -(-num_columns // NUM_PARTS)
  count = round_up(max(1, *map(len, found)), step)
  if count >= num_columns:
    return None
  wanted = np.full((len(index), count), num_columns, np.int32)
  for row, columns in zip(wanted, found, strict=True):
    row[:len(columns)] = columns
  return wanted


def fill_of(batch: Any) -> tuple[int, int, float]:
  """(rows, columns, share of real tokens) of what a model reads of a batch."""
  read = batch if batch.rows is None else batch.rows
  *leading, columns = read.tokens.shape
  return int(np.prod(leading)), columns, float(np.mean(read.attention_mask))


def describe_layout(batch: Any) -> str:
  """One line on how full the rows are that a model reads."""
  rows, columns, share = fill_of(batch)
  text = f'{rows} rows of {columns} tokens, {share:.0%} real'
  if batch.rows is None:
    return text
  rows, columns, share = fill_of(batch.replace(rows=None))
  return f'{text}, instead of {rows} of {columns}, {share:.0%} real'


def _exists(batch: Any) -> np.ndarray:
  """[B, ...] bool: the responses that a model has to read."""
  exists = batch.weight > 0
  if batch.tokens.ndim == 3:
    exists = np.broadcast_to(exists[:, None], batch.tokens.shape[:2])
  if isinstance(batch, types.RankingBatch):
    exists = exists & batch.mask
  return exists


def _loss_mask(batch: Any) -> np.ndarray | None:
  """[B, ..., T] bool, the tokens that bear loss; None for rewards' batches."""
  if isinstance(batch, types.RankingBatch):
    return None
  if isinstance(batch, types.Trajectory):
    return batch.response_mask
  return batch.loss_mask


def _groups(exists: np.ndarray, group: int) -> list[list[int]]:
  """The numbers of a cell's responses, by group; only those that exist."""
  found = [np.flatnonzero(row) for row in exists.reshape(-1, group)]
  return [[group * i + int(k) for k in members]
          for i, members in enumerate(found) if len(members)]


def _make_block(
    tokens: np.ndarray, attention_mask: np.ndarray, members: Sequence[int]
) -> _Block:
  """The responses `members` of a cell, behind what all of them begin with.

  The first continues the trunk. Every other one repeats the trunk's last token,
  and its columns up to there are read in the first.
  """
  texts = [tokens[i][attention_mask[i]] for i in members]
  shared = _shared_length(texts)
  trunk = max(shared - 1, 0) if len(texts) > 1 else 0
  end = len(texts[0])
  parts, positions = [texts[0]], [np.arange(end)]
  branches = [np.arange(end) >= trunk if len(texts) > 1 else np.zeros(end)]
  places = [(members[0], np.arange(end))]
  for branch, (member, text) in enumerate(zip(members[1:], texts[1:]), start=2):
    own = np.arange(trunk, len(text))
    places.append((member, np.concatenate(
        [np.arange(shared), end + own[shared - trunk:] - trunk])))
    parts.append(text[trunk:])
    branches.append(np.full(len(own), branch))
    positions.append(own)
    end += len(own)
  return _Block(np.concatenate(parts), np.concatenate(branches),
                np.concatenate(positions), places)


def _shared_length(texts: Sequence[np.ndarray]) -> int:
  """How many tokens all texts begin with."""
  shortest = min(map(len, texts))
  differs = np.zeros(shortest, bool)
  for text in texts[1:]:
    differs |= text[:shortest] != texts[0][:shortest]
  return int(np.argmax(differs)) if differs.any() else shortest


def first_fit(
    lengths: Sequence[int], num_columns: int
) -> list[tuple[int, int]]:
  """(row, column) of each block, the longest first, where there is room."""
  used = np.zeros(len(lengths), np.int64)
  places = [(0, 0)] * len(lengths)
  for i in np.argsort([-length for length in lengths], kind='stable'):
    row = int(np.argmax(used + lengths[i] <= num_columns))
    places[i] = row, int(used[row])
    used[row] += lengths[i]
  return places


def round_up(count: int, step: int) -> int:
  """The next multiple of `step`."""
  return -(-count // step) * step


def _blank(num_cells, num_rows, num_columns, shape) -> types.Rows:
  """Rows that hold nothing, for responses of the shape [C, B / C · K, T]."""
  read = num_cells, num_rows, num_columns
  zeros = lambda dtype: np.zeros(read, dtype)
  return types.Rows(
      tokens=zeros(np.int32), attention_mask=zeros(bool),
      segments=zeros(np.int32), branches=zeros(np.int32),
      positions=zeros(np.int32), index=np.zeros(shape, np.int32))


def _write(rows: types.Rows, cell, block: _Block, place, mask) -> None:
  """Puts a block into its row, and notes where its responses are read."""
  row, column = place
  own = slice(column, column + len(block.tokens))
  rows.tokens[cell, row, own] = block.tokens
  rows.attention_mask[cell, row, own] = True
  rows.positions[cell, row, own] = block.positions
  # Padding belongs to the last text, and sees it, as in a row of its own.
  rows.segments[cell, row, column:] = rows.segments[cell, row, column - 1] + 1
  rows.branches[cell, row, column:] = block.branches[-1]
  rows.branches[cell, row, own] = block.branches
  start = row * rows.tokens.shape[-1] + column
  for response, places in block.places:
    rows.index[cell, response, mask[response]] = start + places
