"""`alignjax generate`: responses to prompts."""

import dataclasses
import math
import pathlib

import jax
import numpy as np
import tyro

from alignjax import data
from alignjax import evaluation
from alignjax import hf
from alignjax import metrics
from alignjax import rollout
from alignjax import sharding
from alignjax.commands import common
from alignjax.data import rows as data_rows
from alignjax.hf import files as hf_files
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(common.Common):
  """Writes responses to prompts.

  One --prompt prints the text of its response. Several, and those of a --file,
  give one JSON line {"prompt": ..., "response": ...} each, in their order. A
  prompt takes the folder's chat template as a user's turn, if there is one.
  """

  # Text to answer; several may follow, and the flag may be repeated.
  prompt: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
  file: str | None = None  # Prompts: JSONL, Parquet ... of any known shape.
  system: str | None = None  # System turn before prompts that have none.
  max_new_tokens: int = 64  # The longest response, in tokens.
  temperature: float = 0.0  # Divides the logits; 0 takes the likeliest token.
  top_k: int = 0  # Sample among the k likeliest tokens; 0: all.
  top_p: float = 1.0  # Sample among the likeliest that reach probability p.
  seed: int = 0  # Of the samples.


def generate(cfg: Generate) -> None:
  """Answers prompts; see `Generate`."""
  common.check(cfg, 'max_new_tokens', cfg.max_new_tokens >= 1, 'at least 1')
  common.check(cfg, 'temperature', 0 <= cfg.temperature < math.inf, '0 or more')
  common.check(cfg, 'top_k', cfg.top_k >= 0, '0 (all) or more')
  common.check(cfg, 'top_p', 0 < cfg.top_p <= 1, 'in (0, 1]')
  common.check_common(cfg)
  console = metrics.Console()
  if cfg.temperature == 0 and (cfg.top_k or cfg.top_p < 1):
    console.note('note: at temperature 0, top-k and top-p change nothing')
  prompts = _read_prompts(cfg)
  tokenizer = hf.load_tokenizer(cfg.model)
  tokenized = [
      data.TokenizedPrompt(_prompt_tokens(prompt, cfg, tokenizer), i)
      for i, prompt in enumerate(prompts)]
  mesh = sharding.make_mesh(cfg.mesh)
  model, params, shardings = common.load(cfg, mesh, scan_layers=False)
  lengths = [len(row.tokens) for row in tokenized]
  for prompt, row in zip(prompts, tokenized, strict=True):
    common.check_ids(row.tokens, model, prompt.where)
  common.note_long(console, max(lengths) + cfg.max_new_tokens, model)
  sample = rollout.make_generate(
      model, max_new_tokens=cfg.max_new_tokens, eos_id=tokenizer.eos_id,
      temperature=cfg.temperature, top_k=cfg.top_k, top_p=cfg.top_p, mesh=mesh,
      param_shardings=shardings)
  key, stops = jax.random.key(cfg.seed), _stop_ids(cfg.model, tokenizer)
  texts = [''] * len(prompts)
  for indices, width, num_rows in common.batches(lengths, cfg, mesh, console):
    batch = data.collate_prompts(
        [tokenized[i] for i in indices], batch_size=num_rows, length=width,
        pad_id=tokenizer.pad_id)
    with jax.default_matmul_precision('highest'):  # See `common.load`.
      trajectory = sample(
          params, sharding.put(batch, sharding.batch_sharding(mesh)), key)
    responses = evaluation.read_responses(trajectory, eos_id=tokenizer.eos_id)
    for i, response in zip(indices, responses, strict=True):
      texts[i] = tokenizer.decode(_before_stop(response.tokens, stops))
  if cfg.file is None and cfg.out is None and len(prompts) == 1:
    print(texts[0])
  else:
    common.write(cfg, [{'prompt': prompt.prompt, 'response': text}
                 for prompt, text in zip(prompts, texts, strict=True)])


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
  read = lambda record, shape, where: data.PromptOnly(
      data_rows.read_prompt(record, shape, where), where)
  return common.read_rows(cfg.file, read)


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
  common.check_starts(len(tokens), prompt.where)
  return np.asarray(tokens, np.int32)


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
