"""Models that sentencepiece trained encode as it and transformers encode."""

import functools
import io
import json

import pytest

from alignjax.hf import engines
from alignjax.hf import sentencepiece as our_sentencepiece
from alignjax.hf import tokenizer as hf_tokenizer

pytestmark = pytest.mark.parity
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')
sentencepiece = pytest.importorskip(
    'sentencepiece', reason='sentencepiece is not installed')

CORPUS = [
    'the quick brown fox jumps over the lazy dog', 'how are you today?',
    'a man a plan  a canal panama', 'def f(x):\n    return x + 1',
    'naïve café 你好 世界', 'lots of   spaces', 'numbers 123 and 4567'] * 20
TEXTS = [
    'hello world', 'the  quick   brown', ' leading', '    four', 'trailing  ',
    'a\nb\n\nc\td', '🙂 emoji 🙂🙂', 'zebra ж unknown Ω', '你好 世界 日本', '',
    '  ',
    '</s> text <s>', 'x<b>y <b> foo', '<unk>', '▁ literal', '1234567 3.14',
    '\u200b zero', 'ﬁ Ⅷ ①', 'e\u0301']
LLAMA = dict(
    model_type='bpe', vocab_size=400, byte_fallback=True, split_digits=True,
    normalization_rule_name='identity', remove_extra_whitespaces=False)
KINDS = {
    'Llama': LLAMA,
    'Gemma': LLAMA | dict(
        add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        user_defined_symbols=['<start_of_turn>', '<end_of_turn>', '\n', '▁▁',
                              '▁▁▁', '▁▁▁▁', '<b>']),
    'BPE': dict(model_type='bpe', vocab_size=200, character_coverage=0.98),
    'unigram': dict(model_type='unigram', vocab_size=64,
                    character_coverage=0.98, user_defined_symbols=['<b>']),
    'unigram of bytes': dict(
        model_type='unigram', vocab_size=320, byte_fallback=True,
        normalization_rule_name='identity', remove_extra_whitespaces=False),
}


@functools.cache
def train(kind):
  """The bytes of a model."""
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(CORPUS), model_writer=out, minloglevel=2,
      **KINDS[kind])
  return out.getvalue()


def folder_of(kind, folder, **config):
  """A folder that holds the model and tokenizer_config.json."""
  (folder / 'tokenizer.model').write_bytes(train(kind))
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return folder


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_text_is_encoded_as_sentencepiece_encodes_it(kind, legacy, tmp_path):
  ours = hf_tokenizer.load_tokenizer(
      folder_of(kind, tmp_path, legacy=legacy))
  theirs = sentencepiece.SentencePieceProcessor(model_proto=train(kind))
  for text in TEXTS:
    due = theirs.encode(text)
    json_text = dict(ours.files)['tokenizer.json']
    engine = engines.literal_engine(json_text)
    assert engine.encode(text, add_special_tokens=False).ids == due, text
    if theirs.unk_id() not in due:
      assert ours.encode(text) == due
      assert ours.decode(due) == theirs.decode(due), text
  assert (ours.bos_id, ours.eos_id) == (theirs.bos_id(), theirs.eos_id())
  assert ours.vocab_size == theirs.vocab_size()


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_is_read_as_protobuf_reads_it(kind):
  from sentencepiece import sentencepiece_model_pb2

  proto = sentencepiece_model_pb2.ModelProto.FromString(train(kind))
  model = our_sentencepiece.read_model(train(kind), 'here')
  assert [tuple(piece) for piece in model.pieces] == [
      (piece.piece, piece.score, piece.type) for piece in proto.pieces]
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  assert model[1:] == (
      trainer.model_type,
      {'unk': trainer.unk_id, 'bos': trainer.bos_id, 'eos': trainer.eos_id,
       'pad': trainer.pad_id},
      trainer.byte_fallback, normalizer.precompiled_charsmap,
      normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces,
      normalizer.escape_whitespaces)


@pytest.mark.parametrize('kind,config', [
    ('Llama', dict(tokenizer_class='LlamaTokenizer', add_bos_token=True)),
    ('Llama', dict(tokenizer_class='LlamaTokenizer', add_bos_token=False)),
    ('Llama', dict(tokenizer_class='TokenizersBackend', add_bos_token=True,
                   legacy=True)),
    ('Gemma', dict(
        tokenizer_class='GemmaTokenizer', add_bos_token=True, bos_token='<s>',
        eos_token='</s>', unk_token='<unk>', pad_token='<pad>')),
    ('unigram of bytes', dict(
        tokenizer_class='TokenizersBackend', add_bos_token=True, legacy=True)),
])
def test_a_folder_reads_as_in_transformers_and_so_does_its_copy(
    kind, config, tmp_path):
  folder_of(kind, tmp_path, **config)
  ours = hf_tokenizer.load_tokenizer(tmp_path)
  ours.save(tmp_path / 'copy')
  engine = engines.engine(dict(ours.files)['tokenizer.json'])
  chats = ['<s>[INST] hi [/INST] hello </s>', 'a</s><s>b']
  # transformers' Llama drops a space at the beginning, which sentencepiece
  # keeps: see the test above.
  texts = [text for text in TEXTS if not text.startswith((' ', '▁'))] + chats
  for folder in (tmp_path, tmp_path / 'copy'):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (ours.bos_id, ours.eos_id) == (
        theirs.bos_token_id, theirs.eos_token_id)
    assert ours.add_bos == (theirs('a').input_ids[0] == theirs.bos_token_id)
    for text in texts:
      assert engine.encode(text).ids == theirs(text).input_ids, text
