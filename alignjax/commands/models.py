"""What a model folder holds, by its small files and its tensors' headers.

No weights are read, so that a folder of 70 billion takes as long as a tiny one.
"""

from collections import Counter
from collections.abc import Mapping
import contextlib
import dataclasses
import math
import pathlib
import re
from typing import Any

from alignjax import checkpoints
from alignjax import hf
from alignjax.commands import opening
from alignjax.hf import files as hf_files
from alignjax.hf import shards
from alignjax.models import ModelConfig
from alignjax.types import InputError

Facts = dict[str, Any]  # What JSON can hold.

# In the name of a tensor, or of a leaf.
_LAYER = re.compile(r"(?:^|\.)(\d+)\.|\['layers_(\d+)'\]")
_DTYPES = {'F64': 'float64', 'F32': 'float32', 'F16': 'float16',
           'BF16': 'bfloat16', 'I64': 'int64', 'I32': 'int32', 'I8': 'int8',
           'U8': 'uint8', 'BOOL': 'bool', 'F8_E4M3': 'float8_e4m3',
           'F8_E5M2': 'float8_e5m2'}
_EMBEDDINGS = ('embed', 'wte.', 'wpe.', 'lm_head')
_SAVED = re.compile(r'(\w+)\[([\d, ]*)\]')


def describe_model(folder: pathlib.Path) -> Facts:
  """Facts of a model folder, a Hugging Face one or one that convert wrote."""
  config = hf_files.read_json(folder / 'config.json')
  facts: Facts = {
      'kind': 'reward model' if opening.is_reward_folder(folder)
              else 'language model',
      'folder': str(folder), 'family': config.get('model_type'),
      'architectures': config.get('architectures')}
  problems = []
  with _noting(problems):
    facts['shape'] = _shape(hf.read_config(folder))
  if config.get('quantization_config'):
    method = config['quantization_config'].get('quant_method', 'unnamed')
    facts['quantized'] = str(method)
  with _noting(problems):
    facts['weights'] = _weights(folder)
  if 'shape' in facts and 'weights' in facts and _is_hf(folder):
    with _noting(problems), hf.open_model(folder, check_values=False):
      pass  # Every tensor is there and has the shape that config.json implies.
  with _noting(problems):
    facts['tokenizer'] = describe_tokenizer(folder, config.get('vocab_size'))
  facts['stops'] = _stops(folder, config)
  return facts | {'problems': problems}


def describe_adapter(folder: pathlib.Path) -> Facts:
  """Facts of an adapter folder in PEFT's format."""
  fields = hf_files.read_json(folder / 'adapter_config.json')
  problems = []
  facts: Facts = {
      'kind': 'adapter', 'folder': str(folder),
      'peft_type': fields.get('peft_type'),
      'base': fields.get('base_model_name_or_path'),
      'task': fields.get('task_type'), 'rank': fields.get('r'),
      'alpha': fields.get('lora_alpha'),
      'rank_stabilised': bool(fields.get('use_rslora')),
      'targets': fields.get('target_modules'),
      'has_head': bool(fields.get('modules_to_save'))}
  with _noting(problems):
    facts['weights'] = _totals(
        shards.peek(folder / 'adapter_model.safetensors'),
        [folder / 'adapter_model.safetensors'])
  with _noting(problems):
    hf.check_adapters(folder)
  base = pathlib.Path(facts['base'] or '')
  if not (facts['base'] and (base / 'config.json').is_file()):
    problems.append(f'its base {facts["base"]!r} is no folder here; convert '
                    '--merge needs one, as --base')
  return facts | {'problems': problems}


def describe_tokenizer(folder: pathlib.Path, model_vocab: int | None) -> Facts:
  """Facts of the tokenizer of a folder, and a chat as its template writes it.
  """
  tokenizer = hf.load_tokenizer(folder)
  special = special_texts(tokenizer)
  named = {name: token for name, token in (
      ('bos', tokenizer.bos_id), ('eos', tokenizer.eos_id),
      ('pad', tokenizer.pad_id)) if token is not None}
  facts: Facts = {
      'vocab_size': tokenizer.vocab_size, 'model_vocab_size': model_vocab,
      'named': {name: {'id': token, 'text': special.get(token)}
                for name, token in named.items()},
      'special': [{'id': token, 'text': text}
                  for token, text in sorted(special.items())],
      'adds_bos': tokenizer.add_bos,
      'has_chat_template': tokenizer.chat_template is not None}
  if tokenizer.chat_template is not None:
    turns = [{'role': 'user', 'content': 'Hello'},
             {'role': 'assistant', 'content': 'Hello! How can I help?'},
             {'role': 'user', 'content': 'Name a prime.'}]
    try:
      facts['chat_example'] = tokenizer.render(
          turns, add_generation_prompt=True)
    except InputError as error:
      facts['chat_problem'] = str(error)
  return facts


def special_texts(tokenizer: hf.Tokenizer) -> dict[int, str]:
  """{id: text} of the tokens that are written out nowhere in a text."""
  text = dict(tokenizer.files).get('tokenizer.json')
  if text is None:
    return {}
  content = hf_files.parse_json(text, 'tokenizer.json')
  found = {token['id']: token['content']
           for token in content.get('added_tokens') or ()
           if token.get('special')}
  named = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} - {None}
  vocabulary = content.get('model', {}).get('vocab')
  if named - set(found) and isinstance(vocabulary, Mapping):
    found |= {i: word for word, i in vocabulary.items() if i in named}
  return found


@contextlib.contextmanager
def _noting(problems: list[str]):
  """Takes down what is wrong and goes on."""
  try:
    yield
  except InputError as error:
    if str(error) not in problems:
      problems.append(str(error))


def _is_hf(folder: pathlib.Path) -> bool:
  return opening.kind_of(folder) == 'hf'


def _shape(config: ModelConfig) -> Facts:
  """The configuration, layers of one kind together."""
  kinds = [config.attention_of(i) for i in range(config.num_layers)]
  return {
      'layers': config.num_layers, 'hidden_size': config.hidden_size,
      'intermediate_size': config.intermediate_size,
      'heads': config.num_heads, 'kv_heads': config.num_kv_heads,
      'head_dim': config.head_dim, 'vocab_size': config.vocab_size,
      'max_positions': config.max_positions,
      'tied_embeddings': config.tie_embeddings,
      'activation': config.activation, 'gated_mlp': config.gated_mlp,
      'norm': config.norm, 'norms': config.norms, 'qk_norm': config.qk_norm,
      'attention_bias': config.attention_bias, 'mlp_bias': config.mlp_bias,
      'attention': [
          {'layers': [i for i, of in enumerate(kinds) if of == k],
           'window': kind.window,
           'rope': None if kind.rope is None else {
               'theta': kind.rope.theta, 'fraction': kind.rope.fraction,
               'scaling': _scaling(kind.rope.scaling)}}
          for k, kind in enumerate(config.attention) if k in kinds]}


def _scaling(scaling) -> Facts | None:
  """RoPE's scaling by name, and its numbers; long lists are left out."""
  if scaling is None:
    return None
  numbers = {name: value for name, value in dataclasses.asdict(scaling).items()
             if not isinstance(value, (tuple, list))}
  return {'kind': type(scaling).__name__.lower()} | numbers


def _weights(folder: pathlib.Path) -> Facts:
  """Counts and dtypes by the headers, or by a checkpoint's manifest."""
  saved = checkpoints.describe_saved(folder)
  if saved is not None:
    tensors = {}
    for name, described in saved[1].items():
      dtype, shape = _SAVED.fullmatch(described).groups()
      tensors[name] = dtype, tuple(map(int, filter(None, shape.split(','))))
    step = folder / f'step_{saved[0]:08d}'
    paths = [path for path in step.rglob('*') if path.is_file()]
    return _totals(tensors, paths)
  with contextlib.ExitStack() as stack:
    opened = shards.open_all(folder, stack)
    tensors, paths = {}, set()
    for name, (file, path) in opened.items():
      header = file.get_slice(name)
      tensors[name] = header.get_dtype(), tuple(header.get_shape())
      paths.add(path)
  return _totals(tensors, sorted(paths))


def _totals(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    paths: list[pathlib.Path],
) -> Facts:
  """Parameters in all, of the embeddings and of a layer."""
  sizes = {name: math.prod(shape) for name, (_, shape) in tensors.items()}
  dtypes, layers = Counter(), Counter()
  for name, (dtype, _) in tensors.items():
    dtypes[_DTYPES.get(dtype, dtype)] += sizes[name]
    if layer := _LAYER.search(name):
      layers[layer[1] or layer[2]] += sizes[name]
  return {
      'tensors': len(tensors), 'parameters': sum(sizes.values()),
      'embedding_parameters': sum(
          size for name, size in sizes.items()
          if any(word in name for word in _EMBEDDINGS)
          and not _LAYER.search(name)),
      'layer_parameters': sorted(set(layers.values())),
      'dtypes': dict(dtypes.most_common()), 'files': len(paths),
      'bytes': sum(path.stat().st_size for path in paths)}


def _stops(folder: pathlib.Path, config: Mapping) -> list[int]:
  """Every id that ends a response, by generation_config.json."""
  path = folder / 'generation_config.json'
  fields = hf_files.read_json(path) if path.is_file() else config
  ids = fields.get('eos_token_id')
  return ids if isinstance(ids, list) else [] if ids is None else [ids]
