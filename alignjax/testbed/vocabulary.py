"""Words of the kitchen, and a word-level tokenizer over them."""

from collections.abc import Iterator
import json

from alignjax.testbed.annotators import CONFIDENT_PHRASES
from alignjax.testbed.corpus import TEMPLATES as CORPUS_TEMPLATES
from alignjax.testbed.demonstrations import TEMPLATES as SHOWN_TEMPLATES
from alignjax.testbed.judge import LIST_MARKERS
from alignjax.testbed.world import ACT_PHRASINGS
from alignjax.testbed.world import FACT_ANSWERS
from alignjax.testbed.world import FACT_PHRASINGS
from alignjax.testbed.world import HOW_TO_PHRASINGS
from alignjax.testbed.world import IGNORANCE
from alignjax.testbed.world import REFUSAL
from alignjax.testbed.world import World

PAD, BOS, EOS, USER, ASSISTANT, UNK = (
    '<pad>', '<bos>', '<eos>', '<user>', '<assistant>', '<unk>')
SPECIALS = (PAD, BOS, EOS, USER, ASSISTANT, UNK)

# A conversation as text: <bos> <user> ... <assistant> ... <eos>. Spaces keep
# the markers words of their own.
_CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- ' <user> ' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' <assistant> ' + message['content'] + ' ' + eos_token -}}
{%- else -%}
{{- raise_exception('role ' + message['role'] + ' is not user or assistant') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- ' <assistant>' -}}
{%- endif -%}
"""


def vocabulary(world: World) -> list[str]:
  """All words of the world, a word's place being its token id.

  Returns:
    The six special tokens, padding first, then the words in sorted order. Every
    document, prompt and response of the testbed is made of these.
  """
  words = {word for text in _texts(world) for word in text.split()
           if not word.startswith('{')}
  return list(SPECIALS) + sorted(words)


def _texts(world: World) -> Iterator[str]:
  """Every table of words and templates that text is made from."""
  yield from world.places + world.people
  for dish in world.dishes:
    yield dish.name
    yield from dish.recipe
  for act in world.dangers + world.look_alikes:
    yield act.phrase
    yield from act.steps
  yield from HOW_TO_PHRASINGS + ACT_PHRASINGS
  for phrasings in FACT_PHRASINGS.values():
    yield from phrasings
  yield from FACT_ANSWERS.values()
  yield from (REFUSAL, IGNORANCE)
  yield from CORPUS_TEMPLATES + SHOWN_TEMPLATES
  yield from CONFIDENT_PHRASES + tuple(LIST_MARKERS)


def tokenizer_json(world: World) -> str:
  """The `tokenizer.json` of a word-level tokenizer over `vocabulary`.

  The format is that of the Hugging Face `tokenizers` library: text is split at
  white space, a word outside the vocabulary becomes `<unk>`, and no special
  token is added. Decoding joins words with spaces, which gives the text back.
  """
  words = vocabulary(world)
  added = [
      {'id': i, 'content': token, 'single_word': False, 'lstrip': False,
       'rstrip': False, 'normalized': False, 'special': True}
      for i, token in enumerate(SPECIALS)]
  return json.dumps({
      'version': '1.0',
      'truncation': None,
      'padding': None,
      'added_tokens': added,
      'normalizer': None,
      'pre_tokenizer': {'type': 'WhitespaceSplit'},
      'post_processor': None,
      'decoder': None,
      'model': {
          'type': 'WordLevel',
          'vocab': {word: i for i, word in enumerate(words)},
          'unk_token': UNK,
      },
  }, indent=2)


def chat_template() -> str:
  """The Jinja template that renders messages for this tokenizer.

  It reads `messages`, `add_generation_prompt`, `bos_token` and `eos_token`. One
  user message with a generation prompt renders to
  `<bos> <user> where is fried rice from ? <assistant>`.
  """
  return _CHAT_TEMPLATE
