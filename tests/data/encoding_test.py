"""Records are encoded in chunks, ahead, and none of that shows."""

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


def test_many_at_once_are_asked_where_a_tokenizer_can(tokenizer):
  class Batched(type(tokenizer)):
    sizes = []

    def all_prompt_tokens(self, prompts, *, plain=False):
      self.sizes.append(len(prompts))
      return [self.prompt_tokens(p, plain=plain) for p in prompts]

    def all_response_tokens(self, responses):
      return [self.response_tokens(r) for r in responses]

  one, many = (tokenize.tokenize_demonstrations(
      demonstrations(), each, max_length=30)[0]
               for each in (tokenizer, Batched()))
  assert [row.tokens.tolist() for row in one] == [
      row.tokens.tolist() for row in many]
  assert sorted(Batched.sizes) == [45, encoding._CHUNK, encoding._CHUNK]


@pytest.mark.parametrize('at', [0, 3, encoding._CHUNK, COUNT - 1])
def test_all_before_a_text_that_has_no_ids_are_there(tokenizer, at):
  class Picky(type(tokenizer)):
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
