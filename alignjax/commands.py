"""The commands `alignjax generate` and `alignjax score`.

Both read a Hugging Face folder and JSONL, and answer one line per line of the
file, in its order: no row is dropped, a bad one stops the command. Rows are
sorted by length inside, longest first, so that few shapes compile and a batch
that does not fit in memory says so at once.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
import math
import os
import pathlib
from typing import Literal

import jax
import numpy as np
import tyro

from alignjax import data
from alignjax import evaluation
from alignjax import hf
from alignjax import metrics
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax.data import rows as data_rows
from alignjax.hf import files as hf_files
from alignjax.models import CausalLM
from alignjax.types import InputError

_CHUNK = 128  # Columns whose logits exist at one time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Common:
  """The flags that both commands have."""

  model: str  # Hugging Face model folder.
  out: str | None = None  # File to write; without it, stdout.
  overwrite: bool = False  # Replace --out if it exists.
  plain: bool = False  # Leave the folder's chat template out.
  batch_size: int = 8  # Rows computed at one time.
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # Of weights and matmuls.
  mesh: str = 'data:-1'  # Devices by axis: data, fsdp, tensor; -1: the rest.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(_Common):
  """Writes responses to prompts.

  One --prompt prints the text of its response. Several, and those of a --file,
  give one JSON line {"prompt": ..., "response": ...} each, in their order. A
  prompt takes the folder's chat template as a user's turn, if there is one.
  """

  # Text to answer; several may follow, and the flag may be repeated.
  prompt: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
  file: str | None = None  # Prompts: .jsonl or .jsonl.gz of any known shape.
  system: str | None = None  # System turn before prompts that have none.
  max_new_tokens: int = 64  # The longest response, in tokens.
  temperature: float = 0.0  # Divides the logits; 0 takes the likeliest token.
  top_k: int = 0  # Sample among the k likeliest tokens; 0: all.
  top_p: float = 1.0  # Sample among the likeliest that reach probability p.
  seed: int = 0  # Of the samples.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(_Common):
  """Log-probabilities of responses, in nats, one JSON line per row.

  A prompt with a response gives {"logprob": nats, "tokens": n}, summed over the
  response's n tokens: EOS, which ends every response, is one of them, and the
  prompt's are not. A pair gives {"chosen": {...}, "rejected": {...}}, each side
  after its own prompt. Lines are in the file's order and none is left out.
  """

  data: str  # Responses or pairs: .jsonl or .jsonl.gz of any known shape.
  # Longest row in tokens: a longer one loses the end of its response, EOS
  # first, and "tokens" counts what is left. Without it nothing is cut.
  max_length: int | None = None


def generate(cfg: Generate) -> None:
  """Answers prompts; see `Generate`."""
  _check(cfg, 'max_new_tokens', cfg.max_new_tokens >= 1, 'at least 1')
  _check(cfg, 'temperature', 0 <= cfg.temperature < math.inf, '0 or more')
  _check(cfg, 'top_k', cfg.top_k >= 0, '0 (all) or more')
  _check(cfg, 'top_p', 0 < cfg.top_p <= 1, 'in (0, 1]')
  _check_common(cfg)
  console = metrics.Console()
  if cfg.temperature == 0 and (cfg.top_k or cfg.top_p < 1):
    console.note('note: at temperature 0, top-k and top-p change nothing')
  prompts = _read_prompts(cfg)
  tokenizer = hf.load_tokenizer(cfg.model)
  tokenized = [
      data.TokenizedPrompt(_prompt_tokens(prompt, cfg, tokenizer), i)
      for i, prompt in enumerate(prompts)]
  mesh = sharding.make_mesh(cfg.mesh)
  model, params, shardings = _load(cfg, mesh, scan_layers=False)
  lengths = [len(row.tokens) for row in tokenized]
  for prompt, row in zip(prompts, tokenized, strict=True):
    _check_ids(row.tokens, model, prompt.where)
  _note_long(console, max(lengths) + cfg.max_new_tokens, model)
  sample = rollout.make_generate(
      model, max_new_tokens=cfg.max_new_tokens, eos_id=tokenizer.eos_id,
      temperature=cfg.temperature, top_k=cfg.top_k, top_p=cfg.top_p, mesh=mesh,
      param_shardings=shardings)
  key, stops = jax.random.key(cfg.seed), _stop_ids(cfg.model, tokenizer)
  texts = [''] * len(prompts)
  for indices, width, num_rows in _batches(lengths, cfg, mesh, console):
    batch = data.collate_prompts(
        [tokenized[i] for i in indices], batch_size=num_rows, length=width,
        pad_id=tokenizer.pad_id)
    with jax.default_matmul_precision('highest'):  # See `_load`.
      trajectory = sample(
          params, sharding.put(batch, sharding.batch_sharding(mesh)), key)
    responses = evaluation.read_responses(trajectory, eos_id=tokenizer.eos_id)
    for i, response in zip(indices, responses, strict=True):
      texts[i] = tokenizer.decode(_before_stop(response.tokens, stops))
  if cfg.file is None and cfg.out is None and len(prompts) == 1:
    print(texts[0])
  else:
    _write(cfg, [{'prompt': prompt.prompt, 'response': text}
                 for prompt, text in zip(prompts, texts, strict=True)])


def score(cfg: Score) -> None:
  """Scores every row of a file; see `Score`."""
  _check(cfg, 'max_length', cfg.max_length is None or cfg.max_length >= 2,
         'at least 2: a token of the prompt and one of the response')
  _check_common(cfg)
  console = metrics.Console()
  records = _read_rows(cfg.data, _read_sides)
  tokenizer = hf.load_tokenizer(cfg.model)
  sides = [side for record in records for side in record]
  tokenized = [_response_tokens(side, cfg, tokenizer) for side in sides]
  _note_cut(console, tokenized, cfg, tokenizer.eos_id)
  mesh = sharding.make_mesh(cfg.mesh)
  model, params, shardings = _load(cfg, mesh, scan_layers=True)
  for side, row in zip(sides, tokenized, strict=True):
    _check_ids(row.tokens, model, side.where)
  lengths = [len(row.tokens) for row in tokenized]
  _note_long(console, max(lengths), model)
  response_logprobs = _make_response_logprobs(model, mesh, shardings)
  logprobs = np.zeros(len(sides), np.float32)
  for indices, width, num_rows in _batches(lengths, cfg, mesh, console):
    batch = data.collate_demonstrations(
        [tokenized[i] for i in indices], batch_size=num_rows, length=width,
        pad_id=tokenizer.pad_id)
    with jax.default_matmul_precision('highest'):  # See `_load`.
      got = response_logprobs(
          params, sharding.put(batch, sharding.batch_sharding(mesh)))
    logprobs[indices] = np.asarray(got)[:len(indices)]
  scores = iter([
      _to_score(side, row, logprob, cfg)
      for side, row, logprob in zip(sides, tokenized, logprobs, strict=True)])
  _write(cfg, [
      next(scores) if len(record) == 1 else
      {'chosen': next(scores), 'rejected': next(scores)}
      for record in records])


COMMANDS = {'generate': (Generate, generate), 'score': (Score, score)}


# --- Rows in.


def _read_rows(path: str, read: Callable) -> list:
  """`read(record, shape, where)` of every row; none is dropped."""
  items, shape = [], None
  for line, record in data.read_jsonl(path):
    where = f'{path}:{line}'
    shape = shape or data.sniff(record, where)
    try:
      items.append(read(record, shape, where))
    except data_rows.Unusable as row:
      raise InputError(f'{where}: {row.detail}; write it, or take the row out '
                       '(no row is skipped)') from None
  return items


def _read_sides(record, shape, where: str) -> list[data.Demonstration]:
  """The responses of a row: [chosen, rejected], or the one there is."""
  if 'chosen' in record and 'rejected' in record:
    read = [data_rows.read_side(record, side, shape, where)
            for side in ('chosen', 'rejected')]
  else:
    read = [data_rows.read_response(record, shape, where)]
  return [data.Demonstration(*each, where) for each in read]


def _read_prompts(cfg: Generate) -> list[data.PromptOnly]:
  """The prompts of the flags or of the file."""
  given = [text for texts in cfg.prompt for text in texts]
  if bool(given) == (cfg.file is not None):
    got = 'both are' if given else 'neither is'
    raise InputError(f'--prompt and --file: {got} given; give either '
                     '--prompt "..." or --file FILE')
  if cfg.file is None:
    return [data.PromptOnly(text, f'--prompt {i}')
            for i, text in enumerate(given, start=1)]
  return _read_rows(cfg.file, lambda record, shape, where: data.PromptOnly(
      data_rows.read_prompt(record, shape, where), where))


def _prompt_tokens(
    prompt: data.PromptOnly, cfg: Generate, tokenizer: hf.Tokenizer
) -> np.ndarray:
  """The prompt's ids, behind the system turn if one is asked for."""
  turns = prompt.prompt
  if isinstance(turns, str):
    try:
      turns.encode()
    except UnicodeEncodeError:
      raise InputError(f'{prompt.where}: {turns!r:.60} is not Unicode text; '
                       'write it in UTF-8') from None
  if cfg.system is not None:
    turns = data_rows.as_turns(turns)
    if turns[0]['role'] != 'system':
      turns = ({'role': 'system', 'content': cfg.system}, *turns)
  tokens = tokenizer.prompt_tokens(turns, plain=cfg.plain)
  _check_starts(len(tokens), prompt.where)
  return np.asarray(tokens, np.int32)


def _response_tokens(
    side: data.Demonstration, cfg: Score, tokenizer: hf.Tokenizer
) -> data.TokenizedResponse:
  """Prompt and response, cut at the end to `max_length` if there is one."""
  row = data.tokenize_demonstration(
      side, tokenizer, max_length=2**31, plain=cfg.plain)
  start = row.prompt_length
  _check_starts(start, side.where)
  if cfg.max_length is not None and start >= cfg.max_length:
    raise InputError(
        f'{side.where}: the prompt has {start} tokens, which leaves no room '
        f'for a response in max_length={cfg.max_length}; raise --max-length to '
        f'{start + 1} or more')
  return row._replace(tokens=row.tokens[:cfg.max_length])


def _check_starts(num_tokens: int, where: str) -> None:
  """A model says nothing of the first token of all."""
  if not num_tokens:
    raise InputError(f'{where}: the prompt has no tokens, and a response needs '
                     'one before it; write some text')


def _check_ids(tokens: np.ndarray, model: CausalLM, where: str) -> None:
  """The embedding must have a row for each id."""
  if tokens.max() >= model.config.vocab_size:
    raise InputError(
        f'{where}: the tokenizer gives id {tokens.max()} and the model has '
        f'vocab_size={model.config.vocab_size}; put the tokenizer that belongs '
        'to the model into its folder')


def _note_cut(
    console: metrics.Console, rows: Sequence[data.TokenizedResponse],
    cfg: Score, eos_id: int,
) -> None:
  """Says how many responses were cut: those that do not end in EOS."""
  num_cut = sum(row.tokens[-1] != eos_id for row in rows)
  if num_cut:
    console.note(f'note: {num_cut} of {len(rows)} responses lost their end, '
                 f'EOS too, at max_length={cfg.max_length}')


def _note_long(console: metrics.Console, length: int, model: CausalLM) -> None:
  """Says so where rows are longer than the model was trained for."""
  if length > model.config.max_positions:
    console.note(f'note: rows of up to {length} tokens, and the model was '
                 f'trained for {model.config.max_positions}')


# --- The model.


def _load(cfg: _Common, mesh: jax.sharding.Mesh, *, scan_layers: bool):
  """(model, params on the mesh, their shardings).

  Accelerators multiply float32 in fewer bits unless they are asked not to, so
  callers trace under the highest matmul precision: what is called float32 here
  agrees with other libraries' to rounding.
  """
  config, params = hf.load_model(
      cfg.model, dtype=cfg.dtype, param_dtype=cfg.dtype,
      scan_layers=scan_layers)
  model = CausalLM(config)
  shardings = sharding.tree_shardings(mesh, model.axes(), params)
  return model, sharding.put(params, shardings), shardings


def _make_response_logprobs(model: CausalLM, mesh, shardings) -> Callable:
  """Returns the jitted `(params, batch) -> [B]` nats of each response."""

  def response_logprobs(params, batch):
    return scoring.response_logprobs(
        model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        chunk_size=_CHUNK)

  by_row = sharding.batch_sharding(mesh)
  return jax.jit(response_logprobs, in_shardings=(shardings, by_row),
                 out_shardings=by_row)


def _stop_ids(folder: str, tokenizer: hf.Tokenizer) -> frozenset[int]:
  """Every id that ends a response: chat models may name several."""
  path = pathlib.Path(folder) / 'generation_config.json'
  ids = hf_files.read_json(path).get('eos_token_id') if path.is_file() else None
  ids = ids if isinstance(ids, list) else [ids]
  return frozenset({tokenizer.eos_id, *(i for i in ids if i is not None)})


def _before_stop(tokens: list[int], stops: frozenset[int]) -> list[int]:
  """The tokens up to the first that ends a response."""
  at = next((i for i, t in enumerate(tokens) if t in stops), len(tokens))
  return tokens[:at]


# --- Batches.


def _bucket(length: int) -> int:
  """The width of a row's batch: the next of 24, 32, 48, 64, 96, 128, ..."""
  power = 1 << max(5, (length - 1).bit_length())
  return power * 3 // 4 if length <= power * 3 // 4 else power


def _batches(
    lengths: Sequence[int], cfg: _Common, mesh: jax.sharding.Mesh,
    console: metrics.Console,
) -> Iterator[tuple[np.ndarray, int, int]]:
  """(which rows, width, rows with filler) of each batch, longest first."""
  shards = sharding.num_batch_shards(mesh)
  size = min(cfg.batch_size, len(lengths))
  num_rows = -(-size // shards) * shards  # Filler for devices without a row.
  order = np.argsort(-np.asarray(lengths), kind='stable')
  starts = range(0, len(order), num_rows)
  name = type(cfg).__name__.lower()
  with console.progress(name, len(starts)) as progress:
    for step, start in enumerate(starts, start=1):
      indices = order[start:start + num_rows]
      yield indices, _bucket(lengths[indices[0]]), num_rows
      if len(starts) > 1:
        progress.update(step, {}, sum(lengths[i] for i in indices))


# --- Lines out.


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


def _write(cfg: _Common, records: Sequence[dict]) -> None:
  """Writes JSONL to --out, whole or not at all, or prints it."""
  text = ''.join(json.dumps(record, ensure_ascii=False) + '\n'
                 for record in records)
  if cfg.out is None:
    print(text, end='')
  else:
    hf_files.write_bytes(pathlib.Path(cfg.out).resolve(), text.encode())


def _check(cfg, name: str, is_good: bool, rule: str) -> None:
  """InputError that names the flag and its value."""
  if not is_good:
    raise InputError(f'{name}={getattr(cfg, name)}: it must be {rule}; change '
                     f'--{name.replace("_", "-")}')


def _check_common(cfg: _Common) -> None:
  """What can be known to fail before anything slow begins."""
  _check(cfg, 'batch_size', cfg.batch_size >= 1, 'at least 1')
  hf_files.require_folder(pathlib.Path(cfg.model))
  if cfg.out is None:
    return
  path = pathlib.Path(cfg.out)
  if path.exists() and not path.is_file():
    raise InputError(f'out={cfg.out} is not a file; give a name for one')
  if path.exists() and not cfg.overwrite:
    raise InputError(f'out={cfg.out} exists; add --overwrite to replace it, '
                     'or give another name')
  folder = path.resolve().parent
  if not (folder.is_dir() and os.access(folder, os.W_OK)):
    raise InputError(f'out={cfg.out}: {folder} is not a folder that can be '
                     'written to; make it, or give another name')
