"""What the files of a tokenizer say: its tokens, and what each is for.

A folder has `tokenizer.json`, or else the `tokenizer.model` of sentencepiece,
which becomes one; and beside it JSON that names special tokens and the chat
template.
"""

from collections.abc import Mapping
import pathlib
from typing import NamedTuple

import tokenizers
import tokenizers.processors

from alignjax.hf import chat
from alignjax.hf import engines
from alignjax.hf import files as hf_files
from alignjax.hf import sentencepiece
from alignjax.types import InputError

CONFIGS = ('special_tokens_map.json', 'tokenizer_config.json')
MODEL = 'tokenizer.model'
FILES = ('tokenizer.json', *CONFIGS, 'chat_template.jinja', MODEL)


class Facts(NamedTuple):
  """What the files say, resolved; see `Tokenizer`."""

  vocab_size: int
  bos_id: int | None
  eos_id: int
  pad_id: int
  chat_template: str | None
  add_bos: bool
  files: tuple[tuple[str, str | bytes], ...]


def read_folder(folder: pathlib.Path) -> Facts:
  """The files of a folder, and what they say."""
  names = [name for name in FILES if (folder / name).is_file()]
  if not {'tokenizer.json', MODEL} & set(names):
    hf_files.require_folder(folder)
    raise InputError(
        f'{folder}/tokenizer.json is missing (found '
        f'{hf_files.listing(folder)}), and so is {MODEL}; copy one of them, or '
        'save one with transformers AutoTokenizer.save_pretrained')
  files = {name: hf_files.read_text(folder / name)
           for name in names if name != MODEL}
  if MODEL in names:  # Kept as it is, for those who read nothing else.
    files[MODEL] = (folder / MODEL).read_bytes()
  ids = {}
  for name in ('config.json', 'generation_config.json'):
    if (folder / name).is_file():
      found = hf_files.read_json(folder / name)
      ids |= {k: v for k, v in found.items() if v is not None}
  if 'tokenizer.json' not in files:
    where = f'{folder}/{MODEL}'
    model = sentencepiece.read_model(files[MODEL], where)
    config = read_config(files, str(folder))
    try:
      made = sentencepiece.to_tokenizer_json(model, config, where)
    except InputError:
      raise
    except Exception as error:  # Of the library, or of a config's odd value.
      raise InputError(
          f'{where}: no tokenizer can be made of it and of '
          f'tokenizer_config.json ({error!s:.200}); copy both again, or take '
          'the tokenizer.json of the same model') from error
    files = {'tokenizer.json': made} | files
    ids = {f'{name}_token_id': i for name, i in model.ids.items()} | ids
  return resolve(files, ids, where=str(folder))


def _check_paths(config: Mapping, where: str) -> None:
  """Refuses a path that climbs out of the folder, though none is followed.

  An absolute one is what transformers leaves of the machine that saved it.
  """
  for name, value in config.items():
    if isinstance(value, str) and name.endswith('_file') and (
        '..' in pathlib.PurePath(value).parts):
      raise InputError(
          f'{where}: {name}={value!r:.80} leaves the folder; a tokenizer is '
          'one folder: copy it from where it was published')


def read_config(files: Mapping[str, str | bytes], where: str) -> dict:
  """`tokenizer_config.json`, over what only the older file has."""
  config = {}
  for name in CONFIGS:
    if name in files:
      config |= hf_files.parse_json(files[name], f'{where}/{name}')
      _check_paths(config, f'{where}/{name}')
  return config


def resolve(
    files: dict[str, str | bytes], ids: Mapping[str, int], *, where: str
) -> Facts:
  """What files already read say.

  Args:
    files: by name, with `tokenizer.json`.
    ids: `bos_token_id` and so on, for tokens that no text names.
    where: names the folder in errors.
  """
  engine = _parse(files['tokenizer.json'], where)
  config_path = f'{where}: tokenizer_config.json'
  config = read_config(files, where)
  size = 1 + max(engine.get_vocab(with_added_tokens=True).values())
  bos, eos, pad = (
      _special_id(engine, config, ids, name, config_path, size)
      for name in ('bos', 'eos', 'pad'))
  if eos is None:
    raise InputError(
        f'{config_path} names no eos_token, nor does generation_config.json '
        'name an eos_token_id; responses would never end: add one')
  pad = eos if pad is None else pad
  missing = {f'{name}_token': engine.id_to_token(i)
             for name, i in (('bos', bos), ('eos', eos), ('pad', pad))
             if i is not None and config.get(f'{name}_token') is None}
  if missing:  # Saved again, the folder must say what it was taken to say.
    config_json = hf_files.to_json(config | missing)
    files = files | {'tokenizer_config.json': config_json}
  return Facts(
      vocab_size=size, bos_id=bos, eos_id=eos, pad_id=pad,
      chat_template=_chat_template(files, config, config_path),
      add_bos=_adds_bos(engine, bos, where),
      files=tuple((name, files[name]) for name in FILES if name in files))


def _parse(tokenizer_json: str, where: str) -> tokenizers.Tokenizer:
  """The engine, or one line that says why there is none."""
  try:
    return engines.engine(tokenizer_json)
  except Exception as error:  # The library raises nothing narrower.
    raise InputError(
        f'{where}: tokenizer.json cannot be read ({error!s:.200}); '
        'write it again with tokenizers.Tokenizer.save') from error


def _special_id(
    engine: tokenizers.Tokenizer,
    config: dict,
    ids: Mapping[str, int],
    name: str,
    where: str,
    size: int,
) -> int | None:
  """The id of 'bos', 'eos' or 'pad': by its text, else by an id in a config."""
  field = f'{name}_token'
  token = config.get(field)
  if isinstance(token, dict):
    token = token.get('content')
  if token is not None:
    try:
      token_id = engine.token_to_id(token)
    except (TypeError, UnicodeEncodeError):  # No text, or half a character.
      token_id = None
    if token_id is None:
      raise InputError(
          f'{where}: {field}={token!r:.80} is not a token of tokenizer.json; '
          'add it there or name one that is')
    return token_id
  if field in config and name == 'bos':
    return None  # Null says that there is none, whatever config.json says.
  token_id = ids.get(f'{field}_id')
  if isinstance(token_id, list):
    token_id = token_id[0] if token_id else None
  if token_id is None or token_id == -1:  # -1: Llama's way to say none.
    return None
  if engine.id_to_token(token_id) is None:
    raise InputError(
        f'{where}: {field}_id={token_id} is no id of tokenizer.json, whose ids '
        f'are below {size}; correct generation_config.json')
  return token_id


def _chat_template(files: dict, config: dict, where: str) -> str | None:
  """The Jinja source: its own file, else the configuration's default one."""
  source = files.get('chat_template.jinja', config.get('chat_template'))
  if isinstance(source, list):
    named = {str(entry.get('name')): entry.get('template') for entry in source
             if isinstance(entry, dict)}
    source = named.get('default')
    if source is None:
      raise InputError(
          f"{where}: chat_template has no 'default' among {sorted(named)}; "
          'name one of them default')
  if source is not None:
    chat.check_template(source, where)
  return source


def _adds_bos(
    engine: tokenizers.Tokenizer, bos: int | None, where: str) -> bool:
  """Whether the tokenizer itself puts BOS before a plain text.

  Its post-processor decides, as in transformers 5: `add_bos_token` in
  tokenizer_config.json has no say beside a tokenizer.json, but writes the
  post-processor of one that is made from sentencepiece.
  """
  try:
    return bos is not None and engine.encode('a').ids[:1] == [bos]
  except Exception as error:  # Such as a text's unknown token, unnamed.
    raise InputError(f'{where}: tokenizer.json cannot tokenize "a" '
                     f'({error!s:.200}); write it again with '
                     'tokenizers.Tokenizer.save') from error


def with_bos(tokenizer_json: str, bos_token: str | None) -> str:
  """The tokenizer with a post-processor that puts BOS first."""
  engine = _parse(tokenizer_json, 'from_json')
  bos = engine.token_to_id(bos_token) if bos_token else None
  if bos is None:
    raise InputError(f'add_bos=True with bos_token={bos_token!r}; name a token '
                     'of tokenizer.json')
  changed = tokenizers.Tokenizer.from_str(tokenizer_json)
  changed.post_processor = tokenizers.processors.TemplateProcessing(
      single=[bos_token, '$A'], special_tokens=[(bos_token, bos)])
  return changed.to_str()
