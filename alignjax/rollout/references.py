"""What a reference says of pairs, asked before training and not beside it."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np

from alignjax import sharding
from alignjax.data import TokenizedPair
from alignjax.data import TokenizedResponse
from alignjax.rollout.score import Annotate
from alignjax.types import PreferenceBatch


def pairs_with_reference(
    annotate: Annotate, batches: Iterable[PreferenceBatch],
    rows: Iterable[Sequence[TokenizedPair]], *, mesh: jax.sharding.Mesh,
) -> list[TokenizedPair]:
  """The pairs of some batches, with the reference's logprobs of their tokens.

  Batches that are made of these pairs have `ref_logprobs`, and need no
  annotator: of the same batches as here they are the same to the bit.

  Args:
    annotate: `make_reference`'s.
    batches: on the host, in any layout.
    rows: the pairs of each batch, in its order.
    mesh: whose batch axes split the batches.
  """
  place = sharding.batch_sharding(mesh)
  found = []
  for batch, pairs in zip(batches, rows):
    said = sharding.to_host(
        annotate(None, sharding.put(batch, place)).ref_logprobs)
    said = said.reshape(-1, *said.shape[-2:])  # Cells follow each other.
    found += [
        pair._replace(chosen=_with(pair.chosen, logprobs[0]),
                      rejected=_with(pair.rejected, logprobs[1]))
        for pair, logprobs in zip(pairs, said)]
  return found


def _with(response: TokenizedResponse, logprobs: np.ndarray):
  """The response, and what is said of its own columns."""
  return response._replace(
      ref_logprobs=np.array(logprobs[:len(response.tokens)]))
