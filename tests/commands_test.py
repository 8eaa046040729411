"""Commands over a tiny folder: what is written, where, and what is refused."""

import json

import jax
import numpy as np
import pytest

from alignjax import cli
from alignjax import commands
from alignjax import hf
from alignjax.models import CausalLM
from alignjax.models import ModelConfig

WORDS = ('<unk>', '<s>', '</s>', '<user>', '<system>', '<assistant>',
         'a', 'b', 'c', 'd', 'e', 'f', ':', 'Human:', 'Assistant:')
TEMPLATE = (
    '{{ bos_token }}{% for m in messages %} <{{ m.role }}> {{ m.content }}'
    "{% if m.role == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
    '{% if add_generation_prompt %} <assistant>{% endif %}')
CONFIG = ModelConfig(
    vocab_size=len(WORDS), hidden_size=8, intermediate_size=12, num_layers=1,
    num_heads=4, num_kv_heads=2, head_dim=4, max_positions=64,
    tie_embeddings=False)
MODEL = CausalLM(CONFIG)
# Far from uniform, so that no two continuations score alike.
PARAMS = jax.tree.map(lambda x: 2.0 * x, MODEL.init(jax.random.key(3)))
PAIRS = [
    {'chosen': '\n\nHuman: a b\n\nAssistant: c d e',
     'rejected': '\n\nHuman: a b\n\nAssistant: d'},
    {'chosen': '\n\nHuman: e\n\nAssistant: b b',  # The prompts differ.
     'rejected': '\n\nHuman: f f f f\n\nAssistant: c'},
    {'chosen': '\n\nHuman: a\n\nAssistant: f',    # The responses are equal.
     'rejected': '\n\nHuman: a\n\nAssistant: f'},
]


def make_tokenizer():
  """Words to ids by their place in WORDS, with a chat template."""
  added = [{'id': i, 'content': word, 'special': True, 'single_word': False,
            'lstrip': False, 'rstrip': False, 'normalized': False}
           for i, word in enumerate(WORDS[:6])]
  text = json.dumps({
      'version': '1.0', 'added_tokens': added,
      'pre_tokenizer': {'type': 'WhitespaceSplit'},
      'model': {'type': 'WordLevel', 'unk_token': '<unk>',
                'vocab': {word: i for i, word in enumerate(WORDS)}}})
  return hf.Tokenizer.from_json(
      text, bos_token='<s>', eos_token='</s>', pad_token='</s>',
      chat_template=TEMPLATE)


TOKENIZER = make_tokenizer()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A model folder of PARAMS."""
  path = tmp_path_factory.mktemp('model')
  hf.save_model(path, CONFIG, PARAMS, tokenizer=TOKENIZER)
  return str(path)


def write_rows(path, rows):
  """A JSONL file of the rows."""
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def read_rows(text):
  """The objects of JSONL text."""
  return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def call(monkeypatch, capsys):
  """Calls `alignjax ...` in this process: (status, stdout, stderr)."""

  def run(*args):
    monkeypatch.setattr('sys.argv', ['alignjax', *map(str, args)])
    status = 0
    try:
      cli.main()
    except SystemExit as stop:
      status = stop.code
    return status, *capsys.readouterr()

  return run


@jax.jit
def logits_of(tokens, mask):
  """[1, T, V], the unembedding written out."""
  with jax.default_matmul_precision('highest'):
    return MODEL.hidden(PARAMS, tokens, mask) @ PARAMS['unembed'].T


def next_logprobs(tokens):
  """[T, V] log-probabilities after each token, without alignjax.logprobs."""
  row = np.zeros((1, 96), np.int32)
  row[0, :len(tokens)] = tokens
  logits = logits_of(row, np.arange(96)[None] < len(tokens))[0, :len(tokens)]
  logits = np.asarray(logits, np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def argmax_response(prompt, count):
  """The likeliest token, again and again, over whole rows."""
  tokens = list(prompt)
  while len(tokens) < len(prompt) + count:
    tokens.append(int(next_logprobs(tokens)[-1].argmax()))
    if tokens[-1] == TOKENIZER.eos_id:
      break
  return tokens[len(prompt):]


def expected_score(prompt, response, plain=False):
  """What `score` should say of one response."""
  before = TOKENIZER.prompt_tokens(prompt, plain=plain)
  after = TOKENIZER.response_tokens(response)
  logprobs = next_logprobs(before + after)[len(before) - 1:-1]
  return {'logprob': pytest.approx(
      logprobs[range(len(after)), after].sum(), abs=2e-4),
          'tokens': len(after)}


# --- generate


def test_greedy_responses_are_the_argmax_loop_in_the_order_asked(folder, call):
  prompts = ['a', 'f e d c b a', 'b c']
  status, out, _ = call('generate', '--model', folder, '--max-new-tokens', 6,
                        '--prompt', *prompts[:2], '--prompt', prompts[2])
  due = [argmax_response(TOKENIZER.prompt_tokens(prompt), 6)
         for prompt in prompts]
  assert len({tuple(response) for response in due}) == 3
  assert status == 0
  assert read_rows(out) == [
      {'prompt': prompt, 'response': TOKENIZER.decode(response)}
      for prompt, response in zip(prompts, due)]


def test_one_prompt_prints_its_response_alone(folder, call):
  status, out, err = call('generate', '--model', folder, '--prompt', 'b c',
                          '--system', 'f', '--max-new-tokens', 5)
  due = argmax_response(TOKENIZER.prompt_tokens(
      [{'role': 'system', 'content': 'f'},
       {'role': 'user', 'content': 'b c'}]), 5)
  assert (status, out, err) == (0, TOKENIZER.decode(due) + '\n', '')


def test_plain_leaves_the_template_out(folder, call):
  _, out, _ = call('generate', '--model', folder, '--prompt', 'd a', '--plain',
                   '--max-new-tokens', 5)
  due = argmax_response(TOKENIZER.encode('d a'), 5)
  assert out == TOKENIZER.decode(due) + '\n'
  assert due != argmax_response(TOKENIZER.prompt_tokens('d a'), 5)


def test_prompts_of_a_file_are_answered_with_their_own_turns(
    folder, call, tmp_path):
  turns = [{'role': 'system', 'content': 'e'}, {'role': 'user', 'content': 'a'}]
  path = write_rows(tmp_path / 'in.jsonl', [{'prompt': turns},
                                            {'prompt': 'c'}])
  out = tmp_path / 'out.jsonl'
  status, printed, _ = call(
      'generate', '--model', folder, '--file', path, '--out', out,
      '--system', 'f', '--max-new-tokens', 3, '--batch-size', 1)
  asked = [turns, [{'role': 'system', 'content': 'f'},
                   {'role': 'user', 'content': 'c'}]]
  responses = [TOKENIZER.decode(argmax_response(TOKENIZER.prompt_tokens(p), 3))
               for p in asked]
  assert (status, printed) == (0, '')
  assert read_rows(out.read_text()) == [
      {'prompt': turns, 'response': responses[0]},
      {'prompt': 'c', 'response': responses[1]}]


def test_every_end_id_of_the_folder_ends_a_response(folder, call, tmp_path):
  due = argmax_response(TOKENIZER.prompt_tokens('b c'), 5)
  end = next(t for t in due if t != due[0])
  hf.save_model(tmp_path, CONFIG, PARAMS, tokenizer=TOKENIZER,
                generation={'eos_token_id': [TOKENIZER.eos_id, end]})
  _, out, _ = call('generate', '--model', tmp_path, '--prompt', 'b c',
                   '--max-new-tokens', 5)
  assert out == TOKENIZER.decode(due[:due.index(end)]) + '\n'


def test_samples_are_drawn_by_the_seed(folder, call):
  args = ('generate', '--model', folder, '--temperature', 2, '--prompt',
          'a', 'b', 'c', 'd', '--max-new-tokens', 8, '--seed')
  first, again, other = (call(*args, seed)[1] for seed in (1, 1, 2))
  assert first == again != other


# --- score


def test_scores_are_the_summed_logprobs_in_the_order_of_the_file(
    folder, call, tmp_path):
  rows = [{'prompt': 'a b', 'response': 'c'},
          {'prompt': 'a', 'response': 'd e f ' * 10},
          {'prompt': 'f', 'response': 'b b'},
          {'prompt': 'c ' * 20, 'response': 'a'}]
  path = write_rows(tmp_path / 'rows.jsonl', rows)
  status, out, _ = call('score', '--model', folder, '--data', path,
                        '--batch-size', 2)
  assert status == 0
  assert read_rows(out) == [
      expected_score(row['prompt'], row['response']) for row in rows]
  assert read_rows(out)[0]['tokens'] == 2  # c and EOS.


def test_pairs_are_scored_each_side_after_its_own_prompt(
    folder, call, tmp_path):
  path = write_rows(tmp_path / 'pairs.jsonl', PAIRS)
  out = tmp_path / 'scores.jsonl'
  status, printed, _ = call('score', '--model', folder, '--data', path,
                            '--out', out)
  assert (status, printed) == (0, '')
  assert read_rows(out.read_text()) == [
      {'chosen': expected_score('a b', 'c d e'),
       'rejected': expected_score('a b', 'd')},
      {'chosen': expected_score('e', 'b b'),
       'rejected': expected_score('f f f f', 'c')},
      {'chosen': expected_score('a', 'f'),
       'rejected': expected_score('a', 'f')}]


def test_max_length_cuts_the_end_and_counts_what_is_left(
    folder, call, tmp_path):
  path = write_rows(tmp_path / 'rows.jsonl', [
      {'prompt': 'a', 'response': 'b c d'}, {'prompt': 'a', 'response': 'b'}])
  prompt = TOKENIZER.prompt_tokens('a')
  status, out, err = call('score', '--model', folder, '--data', path,
                          '--max-length', len(prompt) + 2)
  due = next_logprobs([*prompt, *TOKENIZER.encode('b c')])[len(prompt) - 1:-1]
  assert status == 0
  got = read_rows(out)
  assert got[0] == {'tokens': 2, 'logprob': pytest.approx(
      due[[0, 1], TOKENIZER.encode('b c')].sum(), abs=1e-4)}
  assert got[1] == expected_score('a', 'b')
  assert '1 of 2 responses lost their end' in err


def test_bfloat16_scores_are_near(folder, call, tmp_path):
  path = write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a b', 'response': 'c d e'}])
  _, out, _ = call('score', '--model', folder, '--data', path,
                   '--dtype', 'bfloat16')
  due = expected_score('a b', 'c d e')['logprob'].expected
  got = read_rows(out)[0]['logprob']
  assert got != pytest.approx(due, abs=1e-4)  # It is not float32's.
  assert got == pytest.approx(due, rel=0.05)


def test_rows_longer_than_the_model_was_trained_for_are_noted(
    folder, call, tmp_path):
  path = write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a', 'response': 'b ' * 70}])
  status, _, err = call('score', '--model', folder, '--data', path)
  assert status == 0 and 'the model was trained for 64' in err


# --- What is refused


def check_refused(result, *words):
  """Status 2, one line on stderr with these words, nothing on stdout."""
  status, out, err = result
  assert status == 2 and out == ''
  assert err.startswith('error: ') and err.count('\n') == 1, err
  for word in words:
    assert word in err


@pytest.mark.parametrize('row, words', [
    ({'prompt': 'a', 'response': ' '}, ['rows.jsonl:2', 'empty response']),
    ({'prompt': 'a'}, ['rows.jsonl:2', "'response' is missing"]),
    ({'prompt': ' ', 'response': 'b'}, ['rows.jsonl:2', 'empty prompt']),
    ({'prompt': 'a', 'response': None}, ['rows.jsonl:2', 'null']),
])
def test_bad_row_stops_the_command_and_leaves_the_old_file(
    folder, call, tmp_path, row, words):
  path = write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a', 'response': 'b'}, row])
  out = tmp_path / 'out.jsonl'
  out.write_text('old')
  check_refused(call('score', '--model', folder, '--data', path, '--out', out,
                     '--overwrite'), *words)
  assert out.read_text() == 'old'


def test_file_that_exists_is_kept_unless_overwrite_is_given(
    folder, call, tmp_path):
  path = write_rows(tmp_path / 'rows.jsonl', [{'prompt': 'a', 'response': 'b'}])
  out = tmp_path / 'out.jsonl'
  out.write_text('old')
  args = ('score', '--model', folder, '--data', path, '--out', out)
  check_refused(call(*args), 'out.jsonl exists', '--overwrite')
  assert out.read_text() == 'old'
  assert call(*args, '--overwrite')[0] == 0
  assert read_rows(out.read_text()) == [expected_score('a', 'b')]


def test_places_that_cannot_be_written_are_refused_first(
    folder, call, tmp_path):
  args = ('score', '--model', folder, '--data', 'missing.jsonl', '--overwrite')
  check_refused(call(*args, '--out', tmp_path), 'is not a file')
  check_refused(call(*args, '--out', '/dev/null'), 'is not a file')
  check_refused(call(*args, '--out', tmp_path / 'no' / 'out'),
                'is not a folder that can be written to')


def test_prompt_without_room_for_a_response_is_refused(folder, call, tmp_path):
  path = write_rows(tmp_path / 'rows.jsonl',
                    [{'prompt': 'a b c d', 'response': 'b'}])
  length = len(TOKENIZER.prompt_tokens('a b c d'))
  check_refused(
      call('score', '--model', folder, '--data', path, '--max-length', length),
      'rows.jsonl:1', f'max_length={length}', f'{length + 1} or more')


def test_prompts_without_a_response_cannot_be_scored(folder, call, tmp_path):
  path = write_rows(tmp_path / 'rows.jsonl', [{'prompt': 'a'}])
  check_refused(call('score', '--model', folder, '--data', path),
                'rows.jsonl:1', 'response')


def test_tokenizer_of_another_model_is_refused(call, tmp_path):
  config = ModelConfig(
      vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1,
      num_heads=2, num_kv_heads=2, head_dim=4)
  hf.save_model(tmp_path / 'model', config,
                CausalLM(config).init(jax.random.key(0)))
  TOKENIZER.save(tmp_path / 'model')
  path = write_rows(tmp_path / 'rows.jsonl', [{'prompt': 'a', 'response': 'e'}])
  args = ('--model', tmp_path / 'model')
  check_refused(call('score', *args, '--data', path),
                'rows.jsonl:1', 'gives id 10', 'vocab_size=8')
  check_refused(call('generate', *args, '--prompt', 'e'),
                '--prompt 1', 'gives id 10', 'vocab_size=8')


def test_weights_that_are_not_finite_are_no_score(call, tmp_path):
  params = PARAMS | {'final_norm': PARAMS['final_norm'] * np.inf}
  hf.save_model(tmp_path / 'model', CONFIG, params, tokenizer=TOKENIZER)
  path = write_rows(tmp_path / 'rows.jsonl', [{'prompt': 'a', 'response': 'b'}])
  status, out, err = call('score', '--model', tmp_path / 'model',
                          '--data', path)
  assert (status, out) == (2, '') and 'log-probability is nan' in err


@pytest.mark.parametrize('args, words', [
    ([], ['neither', '--prompt', '--file']),
    (['--prompt'], ['neither']),
    (['--prompt', 'a', '--file', 'x.jsonl'], ['both', '--file']),
    (['--prompt', '', '--plain'], ['--prompt 1', 'no tokens']),
    (['--prompt', '\udcff'], ['--prompt 1', 'Unicode']),
    (['--prompt', 'a', '--temperature', '-1'], ['temperature=-1.0']),
    (['--prompt', 'a', '--temperature', 'nan'], ['temperature=nan']),
    (['--prompt', 'a', '--top-p', '0'], ['top_p=0.0', '--top-p']),
    (['--prompt', 'a', '--top-k', '-1'], ['top_k=-1']),
    (['--prompt', 'a', '--max-new-tokens', '0'], ['max_new_tokens=0']),
    (['--prompt', 'a', '--batch-size', '0'], ['batch_size=0']),
    (['--prompt', 'a', '--mesh', 'rows:2'], ['mesh=', "'rows'"]),
    (['--prompt', 'a', '--model', 'nowhere'], ['nowhere is not a folder']),
])
def test_flags_that_make_no_sense_are_refused(folder, call, args, words):
  check_refused(call('generate', '--model', folder, *args), *words)


# --- Few shapes


def test_widths_are_few_and_hold_at_most_half_as_much_again():
  widths = [commands._bucket(length) for length in range(1, 1025)]
  assert all(w >= length for length, w in enumerate(widths, start=1))
  assert all(w < 1.5 * length for length, w in enumerate(widths, start=1)
             if length > 24)
  assert sorted(set(widths)) == [
      24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
