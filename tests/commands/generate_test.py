"""`alignjax generate`: what is written, where, and what is refused."""

import pytest

from alignjax import hf
from tests.commands import tiny


def test_greedy_responses_are_the_argmax_loop_in_the_order_asked(folder, call):
  prompts = ['a', 'f e d c b a', 'b c']
  status, out, _ = call('generate', '--model', folder, '--max-new-tokens', 6,
                        '--prompt', *prompts[:2], '--prompt', prompts[2])
  due = [tiny.argmax_response(tiny.TOKENIZER.prompt_tokens(prompt), 6)
         for prompt in prompts]
  assert len({tuple(response) for response in due}) == 3
  assert status == 0
  assert tiny.read_rows(out) == [
      {'prompt': prompt, 'response': tiny.TOKENIZER.decode(response)}
      for prompt, response in zip(prompts, due)]


def test_one_prompt_prints_its_response_alone(folder, call):
  status, out, err = call('generate', '--model', folder, '--prompt', 'b c',
                          '--system', 'f', '--max-new-tokens', 5)
  due = tiny.argmax_response(tiny.TOKENIZER.prompt_tokens(
      [{'role': 'system', 'content': 'f'},
       {'role': 'user', 'content': 'b c'}]), 5)
  assert (status, out, err) == (0, tiny.TOKENIZER.decode(due) + '\n', '')


def test_plain_leaves_the_template_out(folder, call):
  _, out, _ = call('generate', '--model', folder, '--prompt', 'd a', '--plain',
                   '--max-new-tokens', 5)
  due = tiny.argmax_response(tiny.TOKENIZER.encode('d a'), 5)
  assert out == tiny.TOKENIZER.decode(due) + '\n'
  assert due != tiny.argmax_response(tiny.TOKENIZER.prompt_tokens('d a'), 5)


def test_prompts_of_a_file_are_answered_with_their_own_turns(
    folder, call, tmp_path):
  turns = [{'role': 'system', 'content': 'e'}, {'role': 'user', 'content': 'a'}]
  path = tiny.write_rows(tmp_path / 'in.jsonl', [{'prompt': turns},
                                            {'prompt': 'c'}])
  out = tmp_path / 'out.jsonl'
  status, printed, _ = call(
      'generate', '--model', folder, '--file', path, '--out', out,
      '--system', 'f', '--max-new-tokens', 3, '--batch-size', 1)
  asked = [turns, [{'role': 'system', 'content': 'f'},
                   {'role': 'user', 'content': 'c'}]]
  prompts = [tiny.TOKENIZER.prompt_tokens(prompt) for prompt in asked]
  responses = [tiny.TOKENIZER.decode(tiny.argmax_response(prompt, 3))
               for prompt in prompts]
  assert (status, printed) == (0, '')
  assert tiny.read_rows(out.read_text()) == [
      {'prompt': turns, 'response': responses[0]},
      {'prompt': 'c', 'response': responses[1]}]


def test_every_end_id_of_the_folder_ends_a_response(folder, call, tmp_path):
  due = tiny.argmax_response(tiny.TOKENIZER.prompt_tokens('b c'), 5)
  end = next(t for t in due if t != due[0])
  hf.save_model(tmp_path, tiny.CONFIG, tiny.PARAMS, tokenizer=tiny.TOKENIZER,
                generation={'eos_token_id': [tiny.TOKENIZER.eos_id, end]})
  _, out, _ = call('generate', '--model', tmp_path, '--prompt', 'b c',
                   '--max-new-tokens', 5)
  assert out == tiny.TOKENIZER.decode(due[:due.index(end)]) + '\n'


def test_samples_are_drawn_by_the_seed(folder, call):
  args = ('generate', '--model', folder, '--temperature', 2, '--prompt',
          'a', 'b', 'c', 'd', '--max-new-tokens', 8, '--seed')
  first, again, other = (call(*args, seed)[1] for seed in (1, 1, 2))
  assert first == again != other


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
  tiny.check_refused(call('generate', '--model', folder, *args), *words)
