"""A tokenizer of whole words, and files to read."""

import json

import pytest


class WordTokenizer:
  """One id per word, given out as words appear; pad is EOS, on purpose."""

  eos_id = 0
  pad_id = 0
  bos_id = 1
  user_id = 2
  assistant_id = 3

  def __init__(self):
    self.words = {}

  def encode(self, text):
    return [
        self.words.setdefault(word, 10 + len(self.words))
        for word in text.split()
    ]

  def prompt_tokens(self, prompt, *, plain=False):
    if plain:
      assert isinstance(prompt, str)
      return [self.bos_id] + self.encode(prompt)
    if isinstance(prompt, str):
      prompt = [{'role': 'user', 'content': prompt}]
    ids = [self.bos_id]
    for message in prompt:
      ids.append(
          self.user_id if message['role'] == 'user' else self.assistant_id
      )
      ids.extend(self.encode(message['content']))
    return ids + [self.assistant_id]

  def conversation_tokens(self, messages, *, add_generation_prompt=False):
    assert add_generation_prompt
    mask = [False]
    for message in messages:
      words = len(message['content'].split())
      mask += [False] + [message['role'] == 'assistant'] * words
    return self.prompt_tokens(messages), mask + [False]

  def response_tokens(self, response):
    return self.encode(response) + [self.eos_id]


@pytest.fixture(scope='session')
def tokenizer():
  return WordTokenizer()


@pytest.fixture
def write(tmp_path):
  """Writes a file of records, or of bytes; returns its path."""

  def write_file(content, name='rows.jsonl'):
    path = tmp_path / name
    if not isinstance(content, bytes):
      content = ''.join(json.dumps(r) + '\n' for r in content).encode()
    path.write_bytes(content)
    return path

  return write_file
