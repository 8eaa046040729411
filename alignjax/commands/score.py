"""`alignjax score`: log-probabilities of responses."""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import numpy as np

from alignjax import data
from alignjax import hf
from alignjax import metrics
from alignjax import partitioning
from alignjax import scoring
from alignjax import sharding
from alignjax.commands import common
from alignjax.data import rows as data_rows
from alignjax.models import CausalLM
from alignjax.types import InputError

_CHUNK = 128  # Columns whose logits exist at one time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(common.Common):
  """Log-probabilities of responses, in nats, one JSON line per row.

  A prompt with a response gives {"logprob": nats, "tokens": n}, summed over the
  response's n tokens: EOS, which ends every response, is one of them, and the
  prompt's are not. A pair gives {"chosen": {...}, "rejected": {...}}, each side
  after its own prompt. Lines are in the file's order and none is left out.
  """

  data: str  # Responses or pairs: JSONL, Parquet ... of any known shape.
  # Longest row in tokens: a longer one loses the end of its response, EOS
  # first, and "tokens" counts what is left. Without it nothing is cut.
  max_length: int | None = None


def score(cfg: Score) -> None:
  """Scores every row of a file; see `Score`."""
  common.check(cfg, 'max_length', cfg.max_length is None or cfg.max_length >= 2,
         'at least 2: a token of the prompt and one of the response')
  common.check_common(cfg)
  console = metrics.Console()
  records = common.read_rows(cfg.data, _read_sides)
  tokenizer = hf.load_tokenizer(cfg.model)
  sides = [side for record in records for side in record]
  tokenized = [_response_tokens(side, cfg, tokenizer) for side in sides]
  _note_cut(console, tokenized, cfg, tokenizer.eos_id)
  mesh = sharding.make_mesh(cfg.mesh)
  model, params, shardings = common.load(cfg, mesh, scan_layers=True)
  for side, row in zip(sides, tokenized, strict=True):
    common.check_ids(row.tokens, model, side.where)
  lengths = [len(row.tokens) for row in tokenized]
  common.note_long(console, max(lengths), model)
  response_logprobs = _make_response_logprobs(model, mesh, shardings)
  logprobs = np.zeros(len(sides), np.float32)
  for indices, width, num_rows in common.batches(lengths, cfg, mesh, console):
    batch = data.collate_demonstrations(
        [tokenized[i] for i in indices], batch_size=num_rows, length=width,
        pad_id=tokenizer.pad_id)
    with jax.default_matmul_precision('highest'):  # See `common.load`.
      got = response_logprobs(
          params, sharding.put(batch, sharding.batch_sharding(mesh)))
    logprobs[indices] = np.asarray(got)[:len(indices)]
  scores = iter([
      _to_score(side, row, logprob, cfg)
      for side, row, logprob in zip(sides, tokenized, logprobs, strict=True)])
  common.write(cfg, [
      next(scores) if len(record) == 1 else
      {'chosen': next(scores), 'rejected': next(scores)}
      for record in records])


def _read_sides(record, shape, where: str) -> list[data.Demonstration]:
  """The responses of a row: [chosen, rejected], or the one there is."""
  if 'chosen' in record and 'rejected' in record:
    read = [data_rows.read_side(record, side, shape, where)
            for side in ('chosen', 'rejected')]
  else:
    read = [data_rows.read_response(record, shape, where)]
  return [data.Demonstration(*each, where) for each in read]


def _response_tokens(
    side: data.Demonstration, cfg: Score, tokenizer: hf.Tokenizer
) -> data.TokenizedResponse:
  """Prompt and response, cut at the end to `max_length` if there is one."""
  row = data.tokenize_demonstration(
      side, tokenizer, max_length=2**31, plain=cfg.plain)
  start = row.prompt_length
  common.check_starts(start, side.where)
  if cfg.max_length is not None and start >= cfg.max_length:
    raise InputError(
        f'{side.where}: the prompt has {start} tokens, which leaves no room '
        f'for a response in max_length={cfg.max_length}; raise --max-length to '
        f'{start + 1} or more')
  return row._replace(tokens=row.tokens[:cfg.max_length])


def _note_cut(
    console: metrics.Console, rows: Sequence[data.TokenizedResponse],
    cfg: Score, eos_id: int,
) -> None:
  """Says how many responses were cut: those that do not end in EOS."""
  num_cut = sum(row.tokens[-1] != eos_id for row in rows)
  if num_cut:
    console.note(f'note: {num_cut} of {len(rows)} responses lost their end, '
                 f'EOS too, at max_length={cfg.max_length}')


def _make_response_logprobs(model: CausalLM, mesh, shardings) -> Callable:
  """Returns the jitted `(params, batch) -> [B]` nats of each response."""

  def response_logprobs(params, batch):
    return scoring.response_logprobs(
        model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        chunk_size=_CHUNK)

  by_row = sharding.batch_sharding(mesh)
  return partitioning.jit(
      response_logprobs, mesh, in_shardings=(shardings, by_row),
      out_shardings=by_row)


def _to_score(
    side: data.Demonstration, row: data.TokenizedResponse, logprob, cfg: Score
) -> dict:
  """What is written of one response."""
  if not np.isfinite(logprob):
    raise InputError(
        f'{side.where}: the log-probability is {logprob}, which no JSON can '
        f'say; check the weights of {cfg.model}, or use --dtype float32')
  return {'logprob': round(float(logprob), 6),
          'tokens': len(row.tokens) - row.prompt_length}
