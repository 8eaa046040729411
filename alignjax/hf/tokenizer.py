"""Text to token ids and back: tokenizer.json, its special tokens, its template.

A `Tokenizer` holds the text of its files and nothing else, so that it can be
hashed, compared, pickled to data workers and saved again. Three rules that
training depends on:

  - BOS comes from one place. A rendered chat writes its own; a plain prompt
    gets one if the tokenizer itself would add it; a response never gets one.
  - EOS ends a response exactly once.
  - Text is text. A control token written out inside a message or a response,
    such as `</s>`, is spelled with ordinary tokens: data cannot end a turn.
"""

from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
import re

import tokenizers
import tokenizers.processors

from alignjax.hf import chat
from alignjax.hf import files as hf_files
from alignjax.types import InputError

Prompt = str | Sequence[chat.Message]

FILES = ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json',
         'chat_template.jinja')
_STAND_IN = 0xF0000  # Plane 15, private use: no text assigns it a meaning.


@functools.lru_cache(maxsize=16)
def _engine(tokenizer_json: str, literal: bool) -> tokenizers.Tokenizer:
  """The compiled tokenizer; `literal` spells control tokens out."""
  engine = tokenizers.Tokenizer.from_str(tokenizer_json)
  engine.no_truncation()  # A folder may carry the settings of its last use.
  engine.no_padding()
  engine.encode_special_tokens = literal
  return engine


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A Hugging Face fast tokenizer with its special tokens and chat template.

  `pad_id` may equal `eos_id`: masks are made where tokens are made, never by
  comparing with an id.
  """

  vocab_size: int            # Ids are in [0, vocab_size).
  bos_id: int | None         # None if the tokenizer has no BOS.
  eos_id: int                # Ends a response.
  pad_id: int                # Fills rows; never looked for.
  chat_template: str | None  # Jinja source; None for a base model.
  add_bos: bool              # Whether a plain prompt begins with BOS.
  files: tuple[tuple[str, str], ...] = dataclasses.field(repr=False)

  @classmethod
  def from_folder(cls, folder: str | os.PathLike) -> 'Tokenizer':
    """Reads the tokenizer of a Hugging Face model folder.

    Special tokens come from `tokenizer_config.json` (or the older
    `special_tokens_map.json`), else as ids from `generation_config.json`, else
    `config.json`. A missing pad token becomes EOS.

    Args:
      folder: holds `tokenizer.json` and the files beside it.

    Raises:
      InputError: if a file is missing or malformed, or no EOS is named.
    """
    folder = pathlib.Path(folder)
    if not (folder / 'tokenizer.json').is_file():
      hf_files.require_folder(folder)
      raise InputError(
          f'{folder}/tokenizer.json is missing (found '
          f'{hf_files.listing(folder)}); alignjax reads fast tokenizers only: '
          'save one with transformers AutoTokenizer.save_pretrained')
    texts = {name: hf_files.read_text(folder / name)
             for name in FILES if (folder / name).is_file()}
    ids = {}
    for name in ('config.json', 'generation_config.json'):
      if (folder / name).is_file():
        found = hf_files.read_json(folder / name)
        ids |= {k: v for k, v in found.items() if v is not None}
    return _build(texts, ids, where=str(folder))

  @classmethod
  def from_json(
      cls,
      tokenizer_json: str,
      *,
      bos_token: str | None,
      eos_token: str,
      pad_token: str,
      chat_template: str | None = None,
      add_bos: bool = False,
  ) -> 'Tokenizer':
    """A tokenizer from the text of a `tokenizer.json`.

    Args:
      tokenizer_json: the JSON text, as `tokenizers.Tokenizer.to_str` gives it.
      bos_token: the token that begins a text, or None.
      eos_token: the token that ends a response.
      pad_token: the token that fills rows.
      chat_template: Jinja source of the chat template, or None.
      add_bos: make the tokenizer put BOS before a plain text; else its
        post-processor stays as it is.

    Raises:
      InputError: if the text is malformed or a token is not in it.
    """
    config = {'tokenizer_class': 'PreTrainedTokenizerFast',
              'bos_token': bos_token, 'eos_token': eos_token,
              'pad_token': pad_token}
    if chat_template is not None:
      config['chat_template'] = chat_template
    if add_bos:
      tokenizer_json = _with_bos(tokenizer_json, bos_token)
    texts = {'tokenizer.json': tokenizer_json,
             'tokenizer_config.json': hf_files.to_json(config)}
    return _build(texts, {}, where='from_json')

  def encode(self, text: str) -> list[int]:
    """The ids of `text` as text: no special token is added or recognised."""
    try:
      ids = _engine(self._json, True).encode(text, add_special_tokens=False).ids
    except TypeError:
      raise InputError(
          f'cannot tokenize {text!r:.80}: text must be a str of valid Unicode; '
          'drop bytes and lone surrogates') from None
    return [i for i in ids if i not in self._control_ids]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`, special tokens left out."""
    return _engine(self._json, True).decode(
        [int(i) for i in ids], skip_special_tokens=True)

  def render(
      self, messages: Sequence[chat.Message], *, add_generation_prompt: bool
  ) -> str:
    """The chat as one string, by the tokenizer's own template.

    Args:
      messages: `{'role': ..., 'content': ...}` mappings, oldest first.
      add_generation_prompt: whether to end where the assistant's words begin.

    Raises:
      InputError: if there is no template, a message is malformed, or the
        template refuses the conversation.
    """
    if self.chat_template is None:
      raise InputError(
          'chat_template=None: this tokenizer cannot render messages; pass '
          'plain=True for a transcript or load one that has a chat template')
    return chat.render(
        self.chat_template, chat.check_messages(messages),
        add_generation_prompt=add_generation_prompt,
        bos_token=self._text(self.bos_id), eos_token=self._text(self.eos_id),
        pad_token=self._text(self.pad_id))

  def prompt_tokens(self, prompt: Prompt, *, plain: bool = False) -> list[int]:
    """The ids after which the model answers.

    With a chat template a string is one user message, and the chat is rendered
    up to the assistant's turn. Without one, or with `plain`, a string is taken
    as it is and messages become a transcript (`chat.transcript`); BOS comes
    first if the tokenizer would add it.

      prompt                  template, not plain     plain or no template
      'hi'                    <s>[INST]hi[/INST]      <s>hi
      [{user: hi}]            <s>[INST]hi[/INST]      <s>⏎⏎Human: hi⏎⏎Assistant:

    Args:
      prompt: a string, or `{'role': ..., 'content': ...}` mappings.
      plain: leave the chat template out, for a base model.

    Returns:
      At most one BOS, and no EOS but the template's own.
    """
    if self.chat_template is None or plain:
      text = prompt if isinstance(prompt, str) else chat.transcript(prompt)
      bos = [self.bos_id] if self.add_bos else []
      return bos + self.encode(text)
    if isinstance(prompt, str):
      prompt = [{'role': 'user', 'content': prompt}]
    return self._rendered_tokens(chat.check_messages(prompt))

  def response_tokens(self, response: str) -> list[int]:
    """The ids of a response and one EOS, also if its text ends in EOS's."""
    eos = self._text(self.eos_id)
    while isinstance(response, str) and response.endswith(eos):
      response = response.removesuffix(eos)
    return self.encode(response) + [self.eos_id]

  def save(self, folder: str | os.PathLike) -> None:
    """Writes the tokenizer's files into `folder`, each one whole or not.

    Files of another tokenizer that this one does not have are removed.
    """
    for name, text in self.files:
      hf_files.write_bytes(pathlib.Path(folder) / name, text.encode())
    for name in set(FILES) - {name for name, _ in self.files}:
      (pathlib.Path(folder) / name).unlink(missing_ok=True)

  def with_distinct_pad(self) -> 'Tokenizer':
    """This tokenizer, padding with another special token if pad is EOS.

    For readers that tell padding by its id. The lowest special id that is
    neither BOS nor EOS is taken.
    """
    if self.pad_id != self.eos_id:
      return self
    free = set(self._specials.values()) - {self.bos_id, self.eos_id}
    if not free:
      raise InputError(
          f'pad_token is EOS ({self._text(self.eos_id)!r}) and there is no '
          'other special token; add one to tokenizer.json')
    texts, pad = dict(self.files), {'pad_token': self._text(min(free))}
    for name in ('special_tokens_map.json', 'tokenizer_config.json'):
      if name in texts:
        config = hf_files.parse_json(texts[name], name)
        texts[name] = hf_files.to_json(config | pad)
    return dataclasses.replace(
        self, pad_id=min(free), files=tuple(texts.items()))

  @property
  def _json(self) -> str:
    return dict(self.files)['tokenizer.json']

  def _text(self, token_id: int | None) -> str | None:
    """How a special token is written; None for none."""
    if token_id is None:
      return None
    return _engine(self._json, False).id_to_token(token_id)

  @functools.cached_property
  def _specials(self) -> dict[str, int]:
    """Text to id of every token that a template may mean, longest first."""
    added = _engine(self._json, False).get_added_tokens_decoder()
    texts = {token.content: i for i, token in added.items() if token.special}
    for i in (self.bos_id, self.eos_id, self.pad_id):
      texts |= {} if i is None else {self._text(i): i}
    return dict(sorted(texts.items(), key=lambda item: -len(item[0])))

  @functools.cached_property
  def _control_ids(self) -> frozenset[int]:
    """Ids that no text may produce: the specials, the unknown word aside."""
    unk = getattr(_engine(self._json, False).model, 'unk_token', None)
    unknown = self._specials.get(unk)
    return frozenset(self._specials.values()) - ({unknown} - {self.eos_id})

  def _rendered_tokens(self, messages: list[dict[str, str]]) -> list[int]:
    """Ids of a rendered prompt, where contents cannot write control tokens."""
    render = functools.partial(self.render, add_generation_prompt=True)
    any_special = re.compile('|'.join(map(re.escape, self._specials)))
    if not any(any_special.search(m[field]) for m in messages for field in m):
      return _engine(self._json, False).encode(
          render(messages), add_special_tokens=False).ids
    # Someone wrote a control token: let a stand-in pass through the template,
    # then encode what lies between the template's own control tokens.
    texts = list(self._specials)
    stand_in = {text: chr(_STAND_IN + i) for i, text in enumerate(texts)}
    hide = lambda text: any_special.sub(
        lambda found: stand_in[found.group()], text)
    hidden = [{field: hide(m[field]) for field in m} for m in messages]
    restore = {ord(char): text for text, char in stand_in.items()}
    ids = []
    for piece in re.split(f'({any_special.pattern})', render(hidden)):
      if piece in self._specials:
        ids.append(self._specials[piece])
      elif piece:
        ids.extend(self.encode(piece.translate(restore)))
    return ids


def load_tokenizer(folder: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a Hugging Face model folder."""
  return Tokenizer.from_folder(folder)


def _build(texts: dict[str, str], ids: dict, *, where: str) -> Tokenizer:
  """Resolves the special tokens of files already read."""
  engine = _parse(texts['tokenizer.json'], where)
  config_path = f'{where}: tokenizer_config.json'
  config = {}
  for name in ('special_tokens_map.json', 'tokenizer_config.json'):
    if name in texts:
      config |= hf_files.parse_json(texts[name], f'{where}/{name}')
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
    texts = texts | {'tokenizer_config.json': config_json}
  return Tokenizer(
      vocab_size=size, bos_id=bos, eos_id=eos, pad_id=pad,
      chat_template=_chat_template(texts, config, config_path),
      add_bos=_adds_bos(engine, bos),
      files=tuple(texts.items()))


def _parse(tokenizer_json: str, where: str) -> tokenizers.Tokenizer:
  """The engine, or one line that says why there is none."""
  try:
    return _engine(tokenizer_json, False)
  except Exception as error:  # The library raises nothing narrower.
    raise InputError(
        f'{where}: tokenizer.json cannot be read ({error}); write it again '
        'with tokenizers.Tokenizer.save') from error


def _special_id(
    engine: tokenizers.Tokenizer,
    config: dict,
    ids: dict,
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
    token_id = engine.token_to_id(token) if isinstance(token, str) else None
    if token_id is None:
      raise InputError(
          f'{where}: {field}={token!r} is not a token of tokenizer.json; add '
          'it there or name one that is')
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


def _chat_template(texts: dict, config: dict, where: str) -> str | None:
  """The Jinja source: its own file, else the configuration's default one."""
  source = texts.get('chat_template.jinja', config.get('chat_template'))
  if isinstance(source, list):
    named = {entry.get('name'): entry.get('template') for entry in source}
    source = named.get('default')
    if source is None:
      raise InputError(
          f"{where}: chat_template has no 'default' among {sorted(named)}; "
          'name one of them default')
  if source is not None:
    chat.check_template(source, where)
  return source


def _adds_bos(engine: tokenizers.Tokenizer, bos: int | None) -> bool:
  """Whether the tokenizer itself puts BOS before a plain text.

  Its post-processor decides, as in transformers 5: `add_bos_token` in
  tokenizer_config.json has no say beside a tokenizer.json.
  """
  return bos is not None and engine.encode('a').ids[:1] == [bos]


def _with_bos(tokenizer_json: str, bos_token: str | None) -> str:
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
