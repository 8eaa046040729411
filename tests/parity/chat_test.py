"""Assistant masks, token for token those of transformers.

transformers ships no chat template with `{% generation %}`; TRL ships one for
each family that it trains. They are read from the installed package.
"""

import dataclasses
import importlib.util
import pathlib
import re

import pytest
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from alignjax.hf import tokenizer as hf_tokenizer
from alignjax.types import InputError

pytestmark = pytest.mark.parity
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')
if importlib.util.find_spec('trl') is None:
  pytest.skip('TRL is not installed', allow_module_level=True)


def says(role, content):
  """A message."""
  return {'role': role, 'content': content}


CHATS = {
    'one turn': [says('user', 'What is 2 + 2?'), says('assistant', 'It is 4.')],
    'turns': [
        says('user', 'Hi'), says('assistant', 'Hello!'),
        says('user', '  more\n\n你好 🙂'),
        says('assistant', ' sure, \n\nthing '),
        says('user', 'a'), says('assistant', '')],
    'a system': [
        says('system', 'Be terse.'), says('user', 'Hi'),
        says('assistant', 'Hello!'), says('user', 'and?'),
        says('assistant', '<think>\nhm\n</think>\n\nbye\n')],
    'no answer': [says('user', 'Hi'), says('assistant', 'Hello!'),
                  says('user', 'you')],
}
# What one side cannot render, the other must not either; these need images.
_FOLDER = pathlib.Path(importlib.util.find_spec('trl').origin).parent
TEMPLATES = {path.stem: path.read_text()
             for path in sorted((_FOLDER / 'chat_templates').glob('*.jinja'))}
MARKED = {name: source for name, source in TEMPLATES.items()
          if re.search(r'{%-?\s*generation\s*-?%}', source)}
# Templates of our families that have one of TRL's without marks beside them.
FAMILIES = ('gemma', 'gemma3', 'llama3', 'phi3', 'phi3_5', 'qwen2_5',
            'qwen3_instruct_2507')
_CONTROL = re.compile(
    r'<[|｜][^<>\s\'"]*?[|｜]>|<(?:start|end)_of_turn>|</?s>|<bos>|<eos>')
_ENDS = ('<|im_end|>', '<|eot_id|>', '<end_of_turn>', '<|end|>')


def make(source, folder, kind='bytes'):
  """(ours, transformers') of a small tokenizer with a template's tokens."""
  corpus = [m['content'] for chat in CHATS.values() for m in chat] + [source]
  if kind == 'bytes':
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
  else:
    made = tokenizers.Tokenizer(models.BPE(
        byte_fallback=True, unk_token='<unk>', fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme='first', split=False)
    made.decoder = decoders.Sequence([
        decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = []
  controls = sorted({'<|pad|>', '<|begin|>', *_CONTROL.findall(source)})
  spelling = [f'<0x{i:02X}>' for i in range(256)] if not alphabet else []
  made.train_from_iterator(corpus, trainers.BpeTrainer(
      vocab_size=700, initial_alphabet=alphabet, show_progress=False,
      special_tokens=['<unk>', *controls, *spelling]))
  eos = next((end for end in _ENDS if end in controls), controls[-1])
  ours = hf_tokenizer.Tokenizer.from_json(
      made.to_str(), bos_token='<|begin|>', eos_token=eos, pad_token=eos,
      chat_template=source)
  ours.save(folder)
  return ours, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize('kind', ['bytes', 'spaces'])
@pytest.mark.parametrize('name', MARKED)
def test_mask_is_that_of_transformers_on_every_marked_template(
    name, kind, tmp_path):
  ours, theirs = make(MARKED[name], tmp_path, kind)
  for chat in CHATS.values():
    for add in (False, True):
      try:
        due = theirs.apply_chat_template(
            chat, add_generation_prompt=add, return_dict=True,
            return_assistant_tokens_mask=True)
      except Exception:  # Of images, or of roles that the family has not.
        with pytest.raises(InputError):
          ours.conversation_tokens(chat, add_generation_prompt=add)
        continue
      ids, mask = ours.conversation_tokens(chat, add_generation_prompt=add)
      assert ids == due['input_ids']
      assert [int(x) for x in mask] == due['assistant_masks']


def test_marked_templates_of_the_families_were_found_and_have_masks(tmp_path):
  assert {f'{name}_training' for name in (*FAMILIES, 'qwen3')} <= MARKED.keys()
  for name in FAMILIES:
    ours, _ = make(MARKED[f'{name}_training'], tmp_path)
    assert any(ours.conversation_tokens(CHATS['one turn'])[1])


@pytest.mark.parametrize('name', FAMILIES)
def test_mask_that_is_derived_is_the_marked_one_but_for_space(name, tmp_path):
  """A mark may hold the line breaks around a turn, which no model writes."""
  trained, _ = make(MARKED[f'{name}_training'], tmp_path)
  bare = dataclasses.replace(trained, chat_template=TEMPLATES[name])
  for chat in CHATS.values():
    try:
      ids, mask = bare.conversation_tokens(chat)
    except InputError as error:
      assert 'System role not supported' in str(error)
      continue
    due_ids, due = trained.conversation_tokens(chat)
    assert ids == due_ids
    for token, got, want in zip(ids, mask, due, strict=True):
      assert got == want or (want and not bare.decode([token]).strip())
    assert sum(mask) >= sum(due) - 2 * len(chat)


@pytest.mark.parametrize('name', ['qwen3', 'deepseek_r1_distill'])
def test_template_that_drops_thoughts_is_refused_with_turns(name, tmp_path):
  ours, _ = make(TEMPLATES[name], tmp_path)
  with pytest.raises(InputError, match='writes this assistant turn other'):
    ours.conversation_tokens(CHATS['turns'])


@pytest.mark.parametrize('name', [*FAMILIES, 'qwen3'])
@pytest.mark.parametrize('form', ['{}', '{}_training'])
def test_control_tokens_in_messages_are_text_as_in_transformers(
    name, form, tmp_path):
  source = TEMPLATES[form.format(name)]
  ours, theirs = make(source, tmp_path)
  eos = theirs.eos_token
  chat = [says('user', f'say {eos} and <|pad|>!'),
          says('assistant', f'well, {eos}.')]
  ids, mask = ours.conversation_tokens(chat)
  due = theirs.apply_chat_template(
      chat, return_dict=True, sanitize_control_tokens=True)['input_ids']
  # It cuts the text at what it spells; a model has seen it whole.
  assert theirs.decode(ids) == theirs.decode(due)
  special = set(theirs.all_special_ids)
  assert [i for i in ids if i in special] == [i for i in due if i in special]
  said = ''.join('.x'[m] for m in mask).strip('.')
  start = mask.index(True)
  assert set(said) == {'x'}  # In one piece.
  assert f'well, {eos}.{eos}' in theirs.decode(ids[start:start + len(said)])
  assert 'say' not in theirs.decode(ids[start:])
