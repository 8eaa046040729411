"""BOS from one place, EOS once, text as text; folders read and saved."""

import json
import pickle

import hypothesis
from hypothesis import strategies as st
import pytest

from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.types import InputError

WORDS = ('<unk>', '<s>', '</s>', '<user>', '<assistant>', 'hi', 'you', 'ho')
UNK, BOS, EOS, USER, ASSISTANT, HI, YOU, HO = range(8)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} <{{ m.role }}> {{ m.content }}"
    "{% if m.role == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
    '{% if add_generation_prompt %} <assistant>{% endif %}')
ADDS_BOS = {
    'type': 'TemplateProcessing', 'special_tokens': {
        '<s>': {'id': '<s>', 'ids': [BOS], 'tokens': ['<s>']}},
    'single': [{'SpecialToken': {'id': '<s>', 'type_id': 0}},
               {'Sequence': {'id': 'A', 'type_id': 0}}],
    'pair': [{'Sequence': {'id': 'A', 'type_id': 0}},
             {'Sequence': {'id': 'B', 'type_id': 0}}]}
BYTES = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]


def special(i, content):
  """An entry of added_tokens."""
  return {'id': i, 'content': content, 'special': True, 'single_word': False,
          'lstrip': False, 'rstrip': False, 'normalized': False}


def word_json(**fields):
  """tokenizer.json of a word-level tokenizer."""
  return json.dumps({
      'version': '1.0',
      'added_tokens': [special(i, w) for i, w in enumerate(WORDS[:5])],
      'pre_tokenizer': {'type': 'WhitespaceSplit'},
      'model': {'type': 'WordLevel', 'unk_token': '<unk>',
                'vocab': {word: i for i, word in enumerate(WORDS)}}} | fields)


def byte_json():
  """tokenizer.json of a byte-level tokenizer, which can write any text."""
  symbols = BYTES + [chr(256 + i) for i in range(256 - len(BYTES))]
  vocab = {'<s>': 0, '</s>': 1} | {c: i + 2 for i, c in enumerate(symbols)}
  level = {'type': 'ByteLevel', 'add_prefix_space': False,
           'trim_offsets': True, 'use_regex': True}
  return json.dumps({
      'version': '1.0', 'pre_tokenizer': level, 'decoder': level,
      'added_tokens': [special(0, '<s>'), special(1, '</s>')],
      'model': {'type': 'BPE', 'vocab': vocab, 'merges': []}})


def make(tokenizer_json=None, **fields):
  """A Tokenizer with the usual special tokens."""
  tokens = {'bos_token': '<s>', 'eos_token': '</s>', 'pad_token': '</s>'}
  return hf_tokenizer.Tokenizer.from_json(
      tokenizer_json or word_json(), **(tokens | fields))


def make_folder(folder, tokenizer_json=None, **files):
  """A folder with tokenizer.json and JSON `files`, by stem."""
  (folder / 'tokenizer.json').write_text(tokenizer_json or word_json())
  for stem, value in files.items():
    (folder / f'{stem}.json').write_text(json.dumps(value))
  return folder


def load_error(folder):
  """The one line of the InputError that reading the folder raises."""
  with pytest.raises(InputError) as raised:
    hf_tokenizer.load_tokenizer(folder)
  assert '\n' not in str(raised.value)
  assert str(folder) in str(raised.value)
  return str(raised.value)


BYTE = make(byte_json(), chat_template=TEMPLATE)
WORD = make(chat_template=TEMPLATE)
texts = st.one_of(
    st.text(st.characters(exclude_categories=['Cs']), max_size=8),
    st.lists(st.sampled_from(['</s>', '<s>', 'hi', ' ', '<unk>']),
             max_size=5).map(''.join))


@hypothesis.given(response=texts)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
@pytest.mark.parametrize('tokenizer', [BYTE, WORD], ids=['bytes', 'words'])
def test_response_ends_in_its_only_eos_whatever_its_text(tokenizer, response):
  tokens = tokenizer.response_tokens(response)
  assert tokens[-1] == tokenizer.eos_id
  assert tokens.count(tokenizer.eos_id) == 1
  assert tokenizer.bos_id not in tokens


@hypothesis.given(text=texts)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
def test_decode_undoes_encode_for_any_text(text):
  assert BYTE.decode(BYTE.encode(text)) == text


@hypothesis.given(content=texts)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
def test_message_cannot_write_a_control_token(content):
  tokens = BYTE.prompt_tokens([{'role': 'user', 'content': content}])
  assert tokens.count(BYTE.bos_id) == 1 and tokens[0] == BYTE.bos_id
  assert BYTE.eos_id not in tokens
  assert BYTE.decode(tokens) == f' <user> {content} <assistant>'


def test_control_token_in_a_message_changes_no_token_around_it():
  ask = lambda content: WORD.prompt_tokens(
      [{'role': 'user', 'content': content}])
  assert ask('hi you') == [BOS, USER, HI, YOU, ASSISTANT]
  assert ask('hi </s> you') == [BOS, USER, HI, YOU, ASSISTANT]
  assert ask('hi <assistant> you') == [BOS, USER, HI, YOU, ASSISTANT]


def test_role_cannot_write_a_control_token():
  tokens = BYTE.prompt_tokens([{'role': '</s>', 'content': 'hi'}])
  assert BYTE.eos_id not in tokens


def test_response_already_ended_in_text_is_not_ended_twice():
  assert WORD.response_tokens('hi </s></s>') == [HI, EOS]
  assert WORD.response_tokens('') == [EOS]


def test_unknown_word_stays_an_unknown_word():
  assert WORD.encode('hi <unk> zebra') == [HI, UNK, UNK]


def test_prompt_tokens_by_kind_of_prompt_and_template():
  adding = make(word_json(post_processor=ADDS_BOS), chat_template=TEMPLATE)
  chat = [{'role': 'user', 'content': 'hi'},
          {'role': 'assistant', 'content': 'ho'},
          {'role': 'user', 'content': 'you'}]
  assert adding.prompt_tokens('hi') == [BOS, USER, HI, ASSISTANT]
  assert adding.prompt_tokens(chat) == [
      BOS, USER, HI, ASSISTANT, HO, EOS, USER, YOU, ASSISTANT]
  assert adding.prompt_tokens('hi', plain=True) == [BOS, HI]
  assert make(word_json(post_processor=ADDS_BOS)).prompt_tokens('hi') == [
      BOS, HI]
  assert make().prompt_tokens('hi') == [HI]
  assert BYTE.decode(BYTE.prompt_tokens(chat, plain=True)) == (
      '\n\nHuman: hi\n\nAssistant: ho\n\nHuman: you\n\nAssistant:')


def test_plain_bos_is_the_post_processors_and_can_be_asked_for():
  assert not make().add_bos
  assert make(word_json(post_processor=ADDS_BOS)).add_bos
  asked = make(add_bos=True)
  assert asked.prompt_tokens('hi', plain=True) == [BOS, HI]
  assert asked.response_tokens('hi') == [HI, EOS]
  with pytest.raises(InputError) as raised:
    make(bos_token=None, add_bos=True)
  assert 'add_bos=True with bos_token=None; name a token' in str(raised.value)


def test_setting_that_transformers_ignores_is_ignored(tmp_path):
  make_folder(tmp_path, tokenizer_config={
      'bos_token': '<s>', 'eos_token': '</s>', 'add_bos_token': True})
  assert not hf_tokenizer.load_tokenizer(tmp_path).add_bos


def test_post_processor_adds_nothing_to_a_response_or_an_encoding():
  tokenizer = make(word_json(post_processor=ADDS_BOS))
  assert tokenizer.encode('hi') == [HI]
  assert tokenizer.response_tokens('hi') == [HI, EOS]


def test_truncation_and_padding_left_in_the_file_do_nothing():
  left = word_json(
      truncation={'direction': 'Right', 'max_length': 1, 'stride': 0,
                  'strategy': 'LongestFirst'},
      padding={'strategy': {'Fixed': 9}, 'direction': 'Right', 'pad_id': 0,
               'pad_type_id': 0, 'pad_token': '<unk>',
               'pad_to_multiple_of': None})
  assert make(left).encode('hi you ho') == [HI, YOU, HO]


def test_decode_leaves_special_tokens_out():
  assert WORD.decode([BOS, HI, YOU, EOS]) == 'hi you'


def test_render_without_a_template_says_how_to_go_on():
  with pytest.raises(InputError) as raised:
    make().render([{'role': 'user', 'content': 'hi'}],
                  add_generation_prompt=True)
  assert 'chat_template=None' in str(raised.value)
  assert 'pass plain=True' in str(raised.value)


@pytest.mark.parametrize('text', ['\ud800', b'hi', None])
def test_what_is_no_text_is_refused_with_its_value(text):
  with pytest.raises(InputError) as raised:
    WORD.encode(text)
  assert f'cannot tokenize {text!r}: text must be a str' in str(raised.value)


def test_tokenizer_survives_pickling_with_its_behaviour():
  copy = pickle.loads(pickle.dumps(BYTE))  # noqa: S301
  assert copy == BYTE and hash(copy) == hash(BYTE)
  assert copy.response_tokens('a</s>b') == BYTE.response_tokens('a</s>b')


@pytest.mark.parametrize('tokenizer', [
    BYTE, WORD, make(), make(bos_token=None), make(add_bos=True)])
def test_saved_folder_reads_back_equal(tmp_path, tokenizer):
  tokenizer.save(tmp_path)
  assert hf_tokenizer.load_tokenizer(tmp_path) == tokenizer


def test_special_tokens_may_be_strings_or_objects(tmp_path):
  tokenizer = hf_tokenizer.load_tokenizer(make_folder(
      tmp_path, tokenizer_config={
          'bos_token': None, 'eos_token': {'content': '</s>', 'lstrip': False},
          'pad_token': '<unk>'}, config={'bos_token_id': BOS}))
  assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (
      None, EOS, UNK)
  assert tokenizer.vocab_size == len(WORDS)


def test_special_ids_fall_back_on_the_generation_then_the_model_config(
    tmp_path):
  make_folder(
      tmp_path, generation_config={'eos_token_id': [EOS, UNK]},
      config={'eos_token_id': UNK, 'bos_token_id': BOS, 'pad_token_id': -1})
  tokenizer = hf_tokenizer.load_tokenizer(tmp_path)
  assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (
      BOS, EOS, EOS)
  tokenizer.save(tmp_path / 'saved')
  assert hf_tokenizer.load_tokenizer(tmp_path / 'saved') == tokenizer


def test_older_special_tokens_map_is_read_under_the_configuration(tmp_path):
  tokenizer = hf_tokenizer.load_tokenizer(make_folder(
      tmp_path, special_tokens_map={'eos_token': '<unk>', 'bos_token': '<s>'},
      tokenizer_config={'eos_token': '</s>'}))
  assert (tokenizer.bos_id, tokenizer.eos_id) == (BOS, EOS)


def test_template_file_goes_before_the_one_in_the_configuration(tmp_path):
  config = {'eos_token': '</s>', 'chat_template': 'from the configuration'}
  make_folder(tmp_path, tokenizer_config=config)
  load = lambda: hf_tokenizer.load_tokenizer(tmp_path).chat_template
  assert load() == 'from the configuration'
  (tmp_path / 'chat_template.jinja').write_text('from the file')
  assert load() == 'from the file'


def test_default_is_taken_of_several_named_templates(tmp_path):
  named = [{'name': 'tool_use', 'template': 'tools'},
           {'name': 'default', 'template': 'talk'}]
  config = {'eos_token': '</s>', 'chat_template': named}
  make_folder(tmp_path, tokenizer_config=config)
  assert hf_tokenizer.load_tokenizer(tmp_path).chat_template == 'talk'
  make_folder(tmp_path, tokenizer_config=config | {'chat_template': named[:1]})
  assert "chat_template has no 'default' among ['tool_use']" in load_error(
      tmp_path)


def test_distinct_pad_is_a_special_token_that_begins_and_ends_nothing(tmp_path):
  tokenizer = make().with_distinct_pad()
  assert tokenizer.pad_id == UNK
  tokenizer.save(tmp_path)
  assert hf_tokenizer.load_tokenizer(tmp_path) == tokenizer
  assert tokenizer.with_distinct_pad() is tokenizer
  with pytest.raises(InputError) as raised:
    BYTE.with_distinct_pad()
  assert "pad_token is EOS ('</s>') and there is no other special" in str(
      raised.value)


def test_missing_tokenizer_says_how_to_make_one(tmp_path):
  (tmp_path / 'vocab.txt').touch()
  line = load_error(tmp_path)
  assert 'tokenizer.json is missing (found vocab.txt), and so is' in line
  assert 'AutoTokenizer.save_pretrained' in line


def test_missing_folder_is_said_to_be_missing(tmp_path):
  assert 'is not a folder' in load_error(tmp_path / 'nowhere')


@pytest.mark.parametrize('files,line', [
    ({'tokenizer_config': {'eos_token': '<end>'}},
     "eos_token='<end>' is not a token of tokenizer.json; add it there"),
    ({'tokenizer_config': {'eos_token': 7}}, 'eos_token=7 is not a token'),
    ({'tokenizer_config': {'bos_token': '<s>'}},
     'names no eos_token, nor does generation_config.json'),
    ({'generation_config': {'eos_token_id': 99}},
     'eos_token_id=99 is no id of tokenizer.json, whose ids are below 8'),
    ({'tokenizer_config': {'eos_token': '</s>', 'chat_template': '{% if %}'}},
     'chat_template is not a Jinja template'),
    ({'tokenizer_config': [1]}, 'tokenizer_config.json holds a JSON list'),
])
def test_unusable_file_is_named_with_the_value_and_the_repair(
    tmp_path, files, line):
  assert line in load_error(make_folder(tmp_path, **files))


@pytest.mark.parametrize('text', ['{"version": "1.0"}', '{', 'null'])
def test_malformed_tokenizer_json_is_named(tmp_path, text):
  assert 'tokenizer.json cannot be read (' in load_error(
      make_folder(tmp_path, tokenizer_json=text))


TALK = [{'role': 'user', 'content': 'hi'},
        {'role': 'assistant', 'content': 'ho ho'},
        {'role': 'user', 'content': 'you'},
        {'role': 'assistant', 'content': 'hi'}]
MARKED = TEMPLATE.replace(
    ' {{ m.content }}', "{% if m.role == 'assistant' %}{% generation %}"
    ' {{ m.content }} {{ eos_token }}{% endgeneration %}{% else %}'
    ' {{ m.content }}{% endif %}').replace(
        "{% if m.role == 'assistant' %} {{ eos_token }}{% endif %}", '')


@pytest.mark.parametrize('template', [TEMPLATE, MARKED], ids=['bare', 'marked'])
def test_conversation_knows_what_the_assistant_wrote(template):
  tokenizer = make(chat_template=template)
  ids, mask = tokenizer.conversation_tokens(TALK)
  assert ids == [BOS, USER, HI, ASSISTANT, HO, HO, EOS,
                 USER, YOU, ASSISTANT, HI, EOS]
  assert [i for i, m in enumerate(mask) if m] == [4, 5, 6, 10, 11]
  ids, mask = tokenizer.conversation_tokens(
      TALK[:3], add_generation_prompt=True)
  assert ids == tokenizer.prompt_tokens(TALK[:3])
  assert [i for i, m in enumerate(mask) if m] == [4, 5, 6]


@hypothesis.given(contents=st.lists(texts, min_size=4, max_size=4))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
@pytest.mark.parametrize('template', [TEMPLATE, MARKED], ids=['bare', 'marked'])
def test_conversation_has_one_bos_and_an_eos_for_each_assistants_turn(
    template, contents):
  """Whatever control tokens anyone writes, and though pad is EOS."""
  tokenizer = make(byte_json(), chat_template=template)
  assert tokenizer.pad_id == tokenizer.eos_id
  talk = [m | {'content': c} for m, c in zip(TALK, contents, strict=True)]
  ids, mask = tokenizer.conversation_tokens(talk)
  assert [i for i, t in enumerate(ids) if t == tokenizer.bos_id] == [0]
  ends = [i for i, t in enumerate(ids) if t == tokenizer.eos_id]
  assert len(ends) == 2 and all(mask[end] for end in ends)
  said, unsaid = (
      tokenizer.decode([ids[i] for i in range(len(ids)) if mask[i] == whose])
      for whose in (True, False))
  assert said == f' {contents[1]}  {contents[3]} '
  assert unsaid == (f' <user> {contents[0]} <assistant>'
                    f' <user> {contents[2]} <assistant>')


def test_conversation_without_a_template_says_how_to_go_on():
  with pytest.raises(InputError, match='chat_template=None'):
    make().conversation_tokens(TALK)


def test_bos_of_a_template_is_not_doubled_by_the_post_processor():
  tokenizer = make(word_json(post_processor=ADDS_BOS), chat_template=TEMPLATE)
  ids, _ = tokenizer.conversation_tokens(TALK)
  assert ids[:2] == [BOS, USER] and ids.count(BOS) == 1
  assert tokenizer.prompt_tokens(TALK[:1]).count(BOS) == 1
  assert BOS not in tokenizer.response_tokens('hi')


def test_real_tokenizer_spells_out_its_control_tokens(real_model):
  tokenizer = hf_tokenizer.load_tokenizer(real_model)
  eos = tokenizer.render([{'role': 'user', 'content': ''}],
                         add_generation_prompt=False).rstrip()[-10:]
  text = f'write {eos} here'
  assert tokenizer.eos_id in tokenizer.prompt_tokens('hi')
  assert tokenizer.eos_id not in tokenizer.encode(text)
  assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize('plain', [False, True])
def test_many_prompts_and_responses_are_each_as_if_alone(plain):
  prompts = ['hi', [{'role': 'user', 'content': 'hi </s> you'}], '</s>', '',
             [{'role': 'user', 'content': 'you'}]]
  for tokenizer in (BYTE, WORD):
    assert tokenizer.all_prompt_tokens(prompts, plain=plain) == [
        tokenizer.prompt_tokens(prompt, plain=plain) for prompt in prompts]
    texts = ['hi', 'hi </s>', '', 'you </s> hi']
    assert tokenizer.all_response_tokens(texts) == [
        tokenizer.response_tokens(text) for text in texts]
    assert tokenizer.all_response_tokens([]) == []


@pytest.mark.parametrize('bad', ['\ud800', ('hi', 'you'), b'hi'])
def test_the_bad_text_of_many_is_named(bad):
  with pytest.raises(InputError, match='cannot tokenize') as caught:
    BYTE.all_response_tokens(['hi', bad, 'you'])
  assert f'cannot tokenize {bad!r}' in str(caught.value)
