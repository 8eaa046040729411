"""Text to token ids and back: the tokenizer, its special tokens, its template.

A `Tokenizer` holds the text of its files and nothing else, so that it can be
hashed, compared, pickled to data workers and saved again. Three rules that
training depends on:

  - BOS comes from one place. A rendered chat writes its own; a plain prompt
    gets one if the tokenizer itself would add it; a response never gets one.
  - EOS ends a response exactly once.
  - Text is text. A control token written out inside a message or a response,
    such as `</s>`, is spelled with ordinary tokens: data cannot end a turn.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import os
import pathlib

from alignjax.hf import chat
from alignjax.hf import engines
from alignjax.hf import files as hf_files
from alignjax.hf import tokenizer_files
from alignjax.hf import turns
from alignjax.types import InputError

Prompt = str | Sequence[chat.Message]
FILES = tokenizer_files.FILES  # All that a tokenizer may have in a folder.


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
  files: tuple[tuple[str, str | bytes], ...] = dataclasses.field(repr=False)

  @classmethod
  def from_folder(cls, folder: str | os.PathLike) -> 'Tokenizer':
    """Reads the tokenizer of a Hugging Face model folder.

    Special tokens come from `tokenizer_config.json` (or the older
    `special_tokens_map.json`), else as ids from `generation_config.json`, else
    `config.json`. A missing pad token becomes EOS.

    Args:
      folder: holds `tokenizer.json`, or the `tokenizer.model` of
        sentencepiece, and the files beside it.

    Raises:
      InputError: if a file is missing or malformed, or no EOS is named.
    """
    return cls(*tokenizer_files.read_folder(pathlib.Path(folder)))

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
      tokenizer_json = tokenizer_files.with_bos(tokenizer_json, bos_token)
    texts = {'tokenizer.json': tokenizer_json,
             'tokenizer_config.json': hf_files.to_json(config)}
    return cls(*tokenizer_files.resolve(texts, {}, where='from_json'))

  def encode(self, text: str) -> list[int]:
    """The ids of `text` as text: no special token is added or recognised."""
    return self._encode_all([text])[0]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`, special tokens left out."""
    return engines.engine(self._json).decode(
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
    return self._render(
        chat.check_messages(messages), add_generation_prompt).text

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
    return self.all_prompt_tokens([prompt], plain=plain)[0]

  def all_prompt_tokens(
      self, prompts: Sequence[Prompt], *, plain: bool = False
  ) -> list[list[int]]:
    """`prompt_tokens` of each, encoded at once; see `engines.encode_all`."""
    if self.chat_template is None or plain:
      bos = [self.bos_id] if self.add_bos else []
      return [bos + ids for ids in self._encode_all(
          [prompt if isinstance(prompt, str) else chat.transcript(prompt)
           for prompt in prompts])]
    chats = [self._hide([{'role': 'user', 'content': prompt}]
                        if isinstance(prompt, str) else prompt)
             for prompt in prompts]
    texts = [self._render(hidden.messages, True).text for hidden in chats]
    usual = iter(_encode_all(engines.engine(self._json), [
        text for text, hidden in zip(texts, chats, strict=True)
        if hidden.first is None]))
    return [next(usual) if hidden.first is None
            else self._encode_chat(text, hidden.first).ids
            for text, hidden in zip(texts, chats, strict=True)]

  def conversation_tokens(
      self, messages: Sequence[chat.Message], *,
      add_generation_prompt: bool = False,
  ) -> tuple[list[int], list[bool]]:
    """The ids of a whole chat, and which of them the assistant wrote.

      <s>[INST] hi [/INST] hello </s><s>[INST] you [/INST] ho </s>
                           ^^^^^ ^^^^                      ^^ ^^^^

    If the template marks the assistant's words with `{% generation %}`, what
    it marks is the assistant's. Else a turn is all that the template writes
    after it would have let the model answer, to the token that ends the turn
    (`turns.assistant_spans`). A token belongs to whom any of its characters
    does. No id is compared: pad may be EOS.

    Args:
      messages: `{'role': ..., 'content': ...}` mappings, oldest first.
      add_generation_prompt: whether to end where the assistant's words begin;
        the ids are then those of `prompt_tokens(messages)`.

    Returns:
      The ids and a mask of the same length.

    Raises:
      InputError: if there is no template, or it neither marks an assistant's
        turn nor writes it as the model would, with a token to end it.
    """
    hidden = self._hide(messages)
    rendered = self._render(hidden.messages, add_generation_prompt)
    spans = rendered.spans
    if not chat.compile_template(self.chat_template).marks_generation:
      spans = turns.assistant_spans(
          lambda some, add: self._render(some, add).text, hidden.messages,
          rendered.text, engines.any_of(self._specials))
    encoded = self._encode_chat(rendered.text, hidden.first)
    return encoded.ids, turns.mask(encoded.offsets, spans)

  def response_tokens(self, response: str) -> list[int]:
    """The ids of a response and one EOS, also if its text ends in EOS's."""
    return self.all_response_tokens([response])[0]

  def all_response_tokens(self, responses: Sequence[str]) -> list[list[int]]:
    """`response_tokens` of each, encoded at once."""
    eos = self._text(self.eos_id)

    def bare(text: str) -> str:
      while isinstance(text, str) and text.endswith(eos):
        text = text.removesuffix(eos)
      return text

    return [ids + [self.eos_id]
            for ids in self._encode_all([*map(bare, responses)])]

  def save(self, folder: str | os.PathLike) -> None:
    """Writes the tokenizer's files into `folder`, each one whole or not.

    Files of another tokenizer that this one does not have are removed.
    """
    for name, content in self.files:
      hf_files.write_bytes(
          pathlib.Path(folder) / name,
          content if isinstance(content, bytes) else content.encode())
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
    for name in tokenizer_files.CONFIGS:
      if name in texts:
        config = hf_files.parse_json(texts[name], name)
        texts[name] = hf_files.to_json(config | pad)
    return dataclasses.replace(
        self, pad_id=min(free), files=tuple(texts.items()))

  @property
  def vocabulary(self) -> dict[str, int]:
    """Token to id, of every token."""
    return engines.engine(self._json).get_vocab()

  @property
  def _json(self) -> str:
    return dict(self.files)['tokenizer.json']

  def _text(self, token_id: int | None) -> str | None:
    """How a special token is written; None for none."""
    if token_id is None:
      return None
    return engines.engine(self._json).id_to_token(token_id)

  @functools.cached_property
  def _specials(self) -> dict[str, int]:
    """Text to id of every token that a template may mean, longest first."""
    added = engines.engine(self._json).get_added_tokens_decoder()
    texts = {token.content: i for i, token in added.items() if token.special}
    for i in (self.bos_id, self.eos_id, self.pad_id):
      texts |= {} if i is None else {self._text(i): i}
    return dict(sorted(texts.items(), key=lambda item: -len(item[0])))

  @functools.cached_property
  def _control_ids(self) -> frozenset[int]:
    """Ids that no text may produce: the specials, the unknown word aside."""
    unknown = engines.unknown_id(self._json)
    return frozenset(self._specials.values()) - ({unknown} - {self.eos_id})

  def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
    """Each as text: no special token is added or recognised."""
    never = self._control_ids
    return [ids if never.isdisjoint(ids) else [i for i in ids if i not in never]
            for ids in _encode_all(engines.literal_engine(self._json), texts)]

  def _hide(self, messages: Sequence[chat.Message]) -> engines.Hidden:
    """Checked messages without control tokens."""
    return engines.hide(chat.check_messages(messages), self._specials)

  def _render(
      self, messages: list[dict[str, str]], add_generation_prompt: bool
  ) -> chat.Rendered:
    """Checked messages by the template."""
    if self.chat_template is None:
      raise InputError(
          'chat_template=None: this tokenizer cannot render messages; pass '
          'plain=True for a transcript or load one that has a chat template')
    return chat.render(
        self.chat_template, messages,
        add_generation_prompt=add_generation_prompt,
        bos_token=self._text(self.bos_id), eos_token=self._text(self.eos_id),
        pad_token=self._text(self.pad_id))

  def _encode_chat(self, text: str, first: int | None) -> engines.Encoded:
    """A rendered chat; `first` is the first stand-in, of `engines.hide`."""
    with _naming(text):
      return engines.encode_chat(
          self._json, text, self._specials, self._control_ids, first)


def _encode_all(made, texts: Sequence[str]) -> list[list[int]]:
  """The ids of each; an InputError names the text that has none."""
  try:
    return engines.encode_all(made, texts)
  except Exception:  # As an engine has it; it does not say of which text.
    found = []
    for text in texts:
      with _naming(text):
        found += engines.encode_all(made, [text])
    return found


@contextlib.contextmanager
def _naming(text: str) -> Iterator[None]:
  """Turns what an engine says of a text into one line."""
  try:
    yield
  except TypeError:
    raise InputError(
        f'cannot tokenize {text!r:.80}: text must be a str of valid Unicode; '
        'drop bytes and lone surrogates') from None
  except Exception as error:  # Such as a word that there is no token for.
    raise InputError(f'cannot tokenize {text!r:.80} ({error!s:.200}); write '
                     'tokenizer.json again') from error


def load_tokenizer(folder: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a Hugging Face model folder."""
  return Tokenizer.from_folder(folder)
