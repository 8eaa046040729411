"""A tokenizer whose chat template tells the model which class to write as."""

import dataclasses
import json

from alignjax.hf import files as hf_files
from alignjax.hf.tokenizer import Tokenizer
from alignjax.types import InputError

# The template goes on with these messages in place of the ones it was given.
_PREFIX = """\
{%%- set ns = namespace(found=false, messages=[]) -%%}
{%%- for m in messages -%%}
{%%- if m['role'] == 'user' and not ns.found -%%}
{%%- set ns.found = true -%%}
{%%- set ns.messages = ns.messages + [
  {'role': m['role'], 'content': %s + m['content']}] -%%}
{%%- else -%%}
{%%- set ns.messages = ns.messages + [m] -%%}
{%%- endif -%%}
{%%- endfor -%%}
{%%- set messages = ns.messages -%%}
"""


def condition(tokenizer: Tokenizer, prefix: str) -> Tokenizer:
  """The tokenizer, whose chats' first user turn begins with `prefix`.

  What C-RLFT's class token is at inference: a folder saved with it asks its
  model for the class that `prefix` names, whoever loads it.

  Args:
    tokenizer: with a chat template.
    prefix: plain text, such as 'experts '.

  Raises:
    InputError: the tokenizer has no chat template to write it into.
  """
  if tokenizer.chat_template is None:
    raise InputError(
        'chat_template=None: a class is named in the chat template, and this '
        'tokenizer has none; use a model that has one')
  template = _PREFIX % json.dumps(prefix) + tokenizer.chat_template
  texts = dict(tokenizer.files)
  if 'chat_template.jinja' in texts:
    texts['chat_template.jinja'] = template
  else:
    config = hf_files.parse_json(
        texts['tokenizer_config.json'], 'tokenizer_config.json')
    texts['tokenizer_config.json'] = hf_files.to_json(
        config | {'chat_template': template})
  return dataclasses.replace(
      tokenizer, chat_template=template, files=tuple(texts.items()))
