"""Where samples will be read, planned before anything is sampled.

How long prompts are is known ahead, and a response takes its longest at most:
so rows are filled on the host like any other batch's (`data.layout`), with the
responses' places blank, and the device writes into them what it samples.

    prompts     . . 5 6      row     5 6 _ _ 6 _ _ 7 8 9 _ _ 9 _ _
                . 7 8 9              two responses of up to two tokens to each
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from alignjax import types
from alignjax.data import layout as layout_lib

# At which attention costs a token about as much as all else, where shapes are
# chosen; on two CPU cores and 135M parameters it is 3,000, of larger models
# more.
_DEAR_COLUMNS = 4_096


def make_prompt_layout(
    layout: Literal['padded', 'packed', 'branched'], *, max_new_tokens: int,
    num_cells: int = 1, num_samples: int = 1,
    like: Sequence[types.PromptBatch] = (),
) -> Callable[[types.PromptBatch], types.PromptBatch]:
  """Returns the function that plans where prompts will be read with responses.

  Prompts are known before anything is sampled, and a response takes its
  `max_new_tokens` at most: so rows are filled on the host, ahead of time, and
  what was sampled is written into them on the device (`rollout.fill_rows`). The
  sampler is told in how many columns all prompts are, by quarters of P.

  Args:
    layout: 'packed' lays several prompts into a row, each with its responses as
      branches. The others plan nothing here.
    max_new_tokens: R, the columns left to each response.
    num_cells: C, parts that share no row; minibatches are made of whole ones.
    num_samples: K, rows of the batch, side by side, of one prompt.
    like: batches of the run, not planned yet. Rows are then as many and as long
      as nine tenths of these need, and as cost least: most batches are of one
      shape, which compiles once.

  Returns:
    From prompts [B, P] to the same with `width`, and with `rows`, whose `index`
    is of the columns P + R of a trajectory.

  Raises:
    InputError: by the function, where B does not split into `num_cells` of
      whole groups.
  """
  if layout != 'packed':
    return lambda prompts: prompts
  at_least = _typical_shape(like, max_new_tokens, num_cells, num_samples)

  def plan(prompts: types.PromptBatch) -> types.PromptBatch:
    size, width = prompts.tokens.shape
    # A response that no other has: what a group shares is its prompt.
    own = np.broadcast_to(
        -1 - np.arange(size)[:, None], (size, max_new_tokens))
    is_response = np.arange(width + max_new_tokens) >= width
    behind = lambda x, y: np.concatenate([x, y], axis=1)
    rows = layout_lib.make_rows(
        behind(prompts.tokens, own.astype(np.int32)),
        behind(prompts.attention_mask, np.ones(own.shape, bool)),
        prompts.weight > 0, group=num_samples, num_cells=num_cells,
        at_least=at_least[:2],
        loss_mask=np.broadcast_to(is_response, (size, len(is_response))))
    longest = max(
        at_least[2], int(np.max(np.sum(prompts.attention_mask, axis=1))))
    return prompts.replace(rows=rows, width=min(
        width, layout_lib.round_up(longest, -(-width // layout_lib.NUM_PARTS))))

  return plan


def _typical_shape(
    batches: Sequence[types.PromptBatch], max_new_tokens: int, num_cells: int,
    num_samples: int) -> tuple[int, int, int]:
  """Rows of a cell, their columns, and columns of prompts; see `like`."""
  if not batches or len(batches[0].tokens) % (num_cells * num_samples):
    return 1, 1, 1  # The layout itself refuses what does not split.
  most_of = lambda sizes: sorted(sizes)[-(-9 * len(sizes) // 10) - 1]
  lengths = [np.sum(batch.attention_mask, axis=1)[::num_samples]
             for batch in batches]
  # With several responses each repeats the prompt's last token.
  repeats = num_samples > 1
  behind = num_samples * (max_new_tokens + repeats) - repeats
  blocks = [(own + behind).reshape(num_cells, -1) for own in lengths]
  shortest = batches[0].tokens.shape[1] + max_new_tokens
  longest = most_of([int(np.max(own)) for own in blocks])

  def rows_of(columns: int) -> int:
    return most_of([
        max(1 + max(row for row, _ in layout_lib.first_fit(cell, columns))
            for cell in np.minimum(own, columns)) for own in blocks])

  step = -(-shortest // layout_lib.NUM_PARTS)
  row_step = -(-blocks[0].shape[1] // layout_lib.NUM_STEPS)
  choices = [
      (layout_lib.round_up(rows_of(columns), row_step), columns)
      for columns in range(shortest, 4 * shortest + step, step)
      if columns >= min(longest, 4 * shortest)]
  cost = lambda rows, columns: rows * columns * (1 + columns / _DEAR_COLUMNS)
  return *min(choices, key=lambda choice: cost(*choice)), most_of(
      [int(np.max(own)) for own in lengths])
