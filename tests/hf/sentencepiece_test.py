"""Models of sentencepiece: what a piece becomes, and what is refused."""

import json
import struct

import pytest
import tokenizers

from alignjax.hf import engines
from alignjax.hf import sentencepiece
from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.types import InputError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
BPE = 2
PIECES = [
    ('<unk>', 0, UNKNOWN), ('<s>', 0, CONTROL), ('</s>', 0, CONTROL),
    ('<0x0A>', 0, BYTE), ('<b>', 0, USER), ('▁', -9, NORMAL),
    ('a', -9, NORMAL), ('b', -9, NORMAL), ('c', -9, NORMAL),
    ('ab', -2, NORMAL), ('bc', -1, NORMAL), ('▁a', -3, NORMAL),
    ('abc', -4, NORMAL), ('<', -9, NORMAL), ('/', -9, NORMAL),
    ('s', -9, NORMAL), ('>', -9, NORMAL), ('cc', -1, UNUSED)]
IDS = {text: i for i, (text, _, _) in enumerate(PIECES)}


def varint(value):
  """A number as protocol buffers write it."""
  value &= (1 << 64) - 1
  out = b''
  while value > 127:
    out += bytes([value & 127 | 128])
    value >>= 7
  return out + bytes([value])


def field(number, value):
  """A field of a message."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  if isinstance(value, float):
    return varint(number << 3 | 5) + struct.pack('<f', value)
  return varint(number << 3 | 2) + varint(len(value)) + value


def model_bytes(trainer=((3, BPE),), normalizer=((4, 0),), pieces=PIECES):
  """A tokenizer.model with these fields of its two specs."""
  message = b''.join(
      field(1, field(1, text.encode()) + field(2, float(score)) + (
          b'' if kind == NORMAL else field(3, kind)))
      for text, score, kind in pieces)
  for number, spec in ((2, trainer), (3, normalizer)):
    message += field(number, b''.join(field(*entry) for entry in spec))
  return message + field(4, b'what a later version added')


def engine(config=None, **settings):
  """The engine of a model."""
  model = sentencepiece.read_model(model_bytes(**settings), 'here')
  return tokenizers.Tokenizer.from_str(
      sentencepiece.to_tokenizer_json(model, config or {}, 'here'))


def tokens(text, config=None, **settings):
  """The tokens of a text, no BOS before it."""
  return engine(config, **settings).encode(
      text, add_special_tokens=False).tokens


def test_the_best_pair_is_merged_first():
  assert tokens('abc') == ['▁a', 'bc']  # And 'bc' goes before 'ab'.
  assert tokens('cabab') == ['▁', 'c', 'ab', 'ab']


def test_a_model_says_what_it_is():
  model = sentencepiece.read_model(model_bytes(
      trainer=[(3, BPE), (35, 1), (40, 7), (41, 5), (42, 6), (43, -1)],
      normalizer=[(2, b'map'), (3, 0), (4, 0), (5, 0)]), 'here')
  assert model.ids == {'unk': 7, 'bos': 5, 'eos': 6, 'pad': -1}
  assert model[2:] == (model.ids, True, b'map', False, False, False)
  assert model.pieces[9] == ('ab', -2.0, NORMAL) and len(model.pieces) == 18
  default = sentencepiece.read_model(model_bytes((), ()), 'here')
  assert default.kind == 1
  assert default.ids == {'unk': 0, 'bos': 1, 'eos': 2, 'pad': -1}
  assert default[3:] == (False, b'', True, True, True)


def test_a_user_defined_piece_is_found_whole_and_a_control_piece_is_special():
  assert tokens('a<b>a') == ['▁a', '<b>', 'a']
  assert tokens('</s>a') == ['</s>', 'a']
  added = engine().get_added_tokens_decoder()
  assert {t.content for t in added.values() if t.special} == {
      '<unk>', '<s>', '</s>'}
  assert engine().decode([IDS['▁a'], IDS['</s>'], IDS['bc']]) == 'abc'


def test_what_has_no_piece_is_bytes_if_there_are_any_and_else_unknown():
  assert tokens('a\n\n') == ['▁a', '<unk>']
  assert tokens('a\n\n', trainer=[(3, BPE), (35, 1)]) == [
      '▁a', '<0x0A>', '<0x0A>']
  assert engine(trainer=[(3, BPE), (35, 1)]).decode([IDS['<0x0A>']]) == '\n'


def test_an_unused_piece_is_never_found():
  assert tokens('cc') == ['▁', 'c', 'c']
  assert tokens('cc', trainer=[(3, 1)]) == ['▁', 'c', 'c']


def test_spaces_stay_or_go_as_the_model_says():
  assert tokens(' a  c') == ['▁', '▁a', '▁', '▁', 'c']
  one_space = dict(normalizer=[(4, 1)])
  for legacy in (False, True):
    assert tokens('  a  c ', {'legacy': legacy}, **one_space) == [
        '▁a', '▁', 'c']
    assert tokens('   ', {'legacy': legacy}, **one_space) == []
  assert tokens('a c', normalizer=[(3, 0), (4, 0)]) == ['a', '▁', 'c']
  assert tokens('a c', {'add_prefix_space': False}) == ['a', '▁', 'c']


def test_a_space_stands_before_the_first_text_or_if_legacy_before_each():
  assert tokens('<s>a</s>c') == ['<s>', 'a', '</s>', 'c']
  assert tokens('<s>a</s>c', {'legacy': True}) == [
      '<s>', '▁a', '</s>', '▁', 'c']
  assert tokens('a<b>c', {'legacy': True}) == ['▁a', '<b>', 'c']
  assert tokens('<b>', {'legacy': True}) == ['<b>']


def test_unigram_takes_the_likeliest_pieces_and_spells_control_tokens():
  settings = dict(trainer=[(3, 1)])
  assert tokens('cabc', **settings) == ['▁', 'c', 'abc']
  json_text = engine(**settings).to_str()
  spelled = engines.literal_engine(json_text).encode(
      '</s>', add_special_tokens=False).tokens
  assert spelled == ['▁', '<', '/', 's', '>']


def folder_of(tmp_path, config=None, **settings):
  """A folder with tokenizer.model and perhaps tokenizer_config.json."""
  (tmp_path / 'tokenizer.model').write_bytes(model_bytes(**settings))
  if config is not None:
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  return tmp_path


def test_a_folder_with_a_model_alone_is_a_tokenizer(tmp_path):
  found = hf_tokenizer.load_tokenizer(folder_of(tmp_path))
  assert (found.bos_id, found.eos_id, found.pad_id) == (1, 2, 2)
  assert found.add_bos and found.vocab_size == len(PIECES)
  assert found.prompt_tokens('abc', plain=True) == [
      1, IDS['▁a'], IDS['bc']]
  assert found.response_tokens('c</s>c') == [
      IDS[t] for t in ('▁', 'c', '<', '/', 's', '>', 'c', '</s>')]


def test_the_configuration_is_heard_beside_a_model(tmp_path):
  found = hf_tokenizer.load_tokenizer(folder_of(tmp_path, {
      'add_bos_token': False, 'eos_token': '<b>', 'pad_token': '<unk>',
      'chat_template': '{{ messages[0].content }}'}))
  assert not found.add_bos and found.prompt_tokens('a', plain=True) == [
      IDS['▁a']]
  assert (found.bos_id, found.eos_id, found.pad_id) == (1, 4, 0)
  assert found.prompt_tokens('ab') == [IDS['▁'], IDS['ab']]


def test_added_tokens_rename_pieces_and_follow_them(tmp_path):
  token = lambda content, special: {
      'content': content, 'special': special, 'normalized': False,
      'lstrip': False, 'rstrip': False, 'single_word': False}
  n = len(PIECES)
  config = {'added_tokens_decoder': {
      4: token('<turn>', True), n: token('<x>', True),
      n + 1: token('ac', False)}}
  found = hf_tokenizer.load_tokenizer(folder_of(tmp_path, config))
  assert found.vocab_size == n + 2
  assert tokens('<turn>c<x>ac', config) == ['<turn>', 'c', '<x>', 'ac']
  assert n not in found.encode('<x>') and n + 1 in found.encode('ac')
  config['added_tokens_decoder'][n + 3] = token('<y>', True)
  with pytest.raises(InputError) as raised:
    hf_tokenizer.load_tokenizer(folder_of(tmp_path, config))
  assert f"gives '<y>' the id {n + 3}, and {n + 2} is the next" in str(
      raised.value)


def test_a_saved_folder_reads_back_equal_with_the_model_in_it(tmp_path):
  found = hf_tokenizer.load_tokenizer(folder_of(tmp_path))
  found.save(tmp_path / 'out')
  names = {path.name for path in (tmp_path / 'out').iterdir()}
  assert names == {
      'tokenizer.json', 'tokenizer.model', 'tokenizer_config.json'}
  assert (tmp_path / 'out' / 'tokenizer.model').read_bytes() == model_bytes()
  again = hf_tokenizer.load_tokenizer(tmp_path / 'out')
  assert again == found
  plain = hf_tokenizer.Tokenizer.from_json(
      engine().to_str(), bos_token='<s>', eos_token='</s>', pad_token='</s>')
  plain.save(tmp_path / 'out')
  assert not (tmp_path / 'out' / 'tokenizer.model').exists()


@pytest.mark.parametrize('content', [
    b'', b'IQ== 0\nIg== 1\n', model_bytes()[:-40], b'\x0a\xff\xff\xff\xff\x7f',
    field(1, field(1, b'\xff')), field(1, field(2, 1.0)), b'\x80' * 99,
    field(1, 7)])
def test_what_is_no_model_is_named(tmp_path, content):
  (tmp_path / 'tokenizer.model').write_bytes(content)
  with pytest.raises(InputError) as raised:
    hf_tokenizer.load_tokenizer(tmp_path)
  assert 'tokenizer.model is not a sentencepiece model' in str(raised.value)
  assert 'take the tokenizer.json' in str(raised.value)


@pytest.mark.parametrize('trainer', [((3, 3),), ((3, 4),), ((3, 2), (24, 1))])
def test_a_model_of_another_kind_is_refused(tmp_path, trainer):
  with pytest.raises(InputError, match='splits text by words or characters'):
    hf_tokenizer.load_tokenizer(folder_of(tmp_path, trainer=trainer))
