"""Records are encoded in chunks, ahead, and none of that shows."""

import threading

import pytest

from alignjax import types
from alignjax.data import encoding
from alignjax.data import formats
from alignjax.data import tokenize

COUNT = 2 * encoding._CHUNK + 45  # Chunks, and a part of one.


def demonstrations(count=COUNT):
  return [formats.Demonstration(
      'a ' * (1 + i % 7), 'b ' * (1 + i % 3), f'f:{i}') for i in range(count)]


def test_ids_are_those_of_one_text_at_a_time_in_the_records_order(tokenizer):
  records = demonstrations()
  found = list(encoding.encoded(
      records, tokenizer, responses=lambda r: (r.response, r.prompt)))
  assert [one.record for one in found] == records
  for record, prompt, responses in found:
    assert prompt == tokenizer.prompt_tokens(record.prompt)
    assert responses == [tokenizer.response_tokens(record.response),
                         tokenizer.response_tokens(record.prompt)]


@pytest.fixture
def batched(tokenizer):
  """The tokenizer, with what encodes many at once; `sizes` of the calls."""
  class Batched(type(tokenizer)):
    sizes = []

    def all_prompt_tokens(self, prompts, *, plain=False):
      self.sizes.append(len(prompts))
      return [self.prompt_tokens(p, plain=plain) for p in prompts]

    def all_response_tokens(self, responses):
      return [self.response_tokens(r) for r in responses]

  made = Batched()
  made.encode('a b bad')  # It numbers words as it meets them.
  return made


def test_many_at_once_are_asked_where_a_tokenizer_can(batched):
  one = [batched.prompt_tokens(r.prompt) + batched.response_tokens(r.response)
         for r in demonstrations()]
  many, _ = tokenize.tokenize_demonstrations(
      demonstrations(), batched, max_length=30)
  assert [row.tokens.tolist() for row in many] == one
  assert sorted(batched.sizes) == [45, encoding._CHUNK, encoding._CHUNK]


def test_a_tokenizer_of_one_text_is_asked_by_whoever_takes_the_rows(tokenizer):
  asked = []

  class Watched(type(tokenizer)):
    def prompt_tokens(self, prompt, *, plain=False):
      asked.append(threading.get_ident())
      return super().prompt_tokens(prompt, plain=plain)

  rows = encoding.encoded(demonstrations(), Watched())
  next(rows)
  assert asked == [threading.get_ident()]  # And for no record but the first.


@pytest.mark.parametrize('is_for_many', [False, True])
@pytest.mark.parametrize('at', [0, 3, encoding._CHUNK, COUNT - 1])
def test_all_before_a_text_that_has_no_ids_are_there(
    tokenizer, batched, at, is_for_many):
  class Picky(type(batched if is_for_many else tokenizer)):
    def response_tokens(self, response):
      if response == 'bad':
        raise types.InputError("cannot tokenize 'bad'")
      return super().response_tokens(response)

  records = demonstrations()
  records[at] = formats.Demonstration('a', 'bad', 'f:bad')
  found = []
  with pytest.raises(types.InputError, match="'bad'"):
    found.extend(one.record for one in encoding.encoded(
        records, Picky(), responses=lambda r: (r.response,)))
  # `extend` keeps what came before the error.
  assert found == records[:at]


def test_the_first_bad_record_is_named_whatever_is_wrong_with_it(tokenizer):
  class Leaky(type(tokenizer)):
    def encode(self, text):
      return [self.eos_id if word == 'EOS' else 9 for word in text.split()]

  records = demonstrations(9)
  records[2] = formats.Demonstration('a ' * 50, 'b', 'f:long')
  records[5] = formats.Demonstration('a', 'b EOS c', 'f:leaky')
  with pytest.raises(types.InputError, match='f:long'):
    tokenize.tokenize_demonstrations(records, Leaky(), max_length=30)
  with pytest.raises(types.InputError, match='f:leaky'):
    tokenize.tokenize_demonstrations(
        records, Leaky(), max_length=30, long_prompts='drop')
