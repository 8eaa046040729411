"""The HTTP side: OpenAI's completions, of our own sampler.

    GET  /health           {"status": "ok"}
    GET  /v1/models        the one that is served
    POST /v1/completions   prompt, max_tokens, temperature, seed, logprobs
    POST /v1/chat/completions   messages, and the same
    POST /v1/weights       {"folder": ...}: sample by these from now on

`prompt` is a text, a list of token ids, or a list of either; `messages` go
through the folder's chat template. A choice has `token_ids` and
`logprobs.token_logprobs` besides OpenAI's fields. There is no
authentication: it listens on 127.0.0.1 unless it is told otherwise.
"""

import http.server
import json
import math

from alignjax.serving.sampler import Draw
from alignjax.serving.sampler import Sampler
from alignjax.types import InputError

_MAX_BODY = 16 * 2**20   # Bytes of a request.
_MAX_TOKENS = 2**20      # Of a prompt and its response.


class _Refusal(Exception):
  """A request that cannot be met; says why."""


def make_server(
    sampler: Sampler, name: str, *, host: str = '127.0.0.1', port: int = 0,
) -> http.server.ThreadingHTTPServer:
  """A server that listens; `serve_forever` answers.

  Args:
    sampler: answers.
    name: the model's, in answers.
    host: address to listen on.
    port: of it; 0 is any that is free.

  Raises:
    InputError: the port is taken, or the address is not this machine's.
  """

  class Handler(_Handler):
    pass

  Handler.sampler, Handler.model = sampler, name
  try:
    return http.server.ThreadingHTTPServer((host, port), Handler)
  except OSError as error:
    raise InputError(f'port={port} of host={host} cannot be listened on '
                     f'({error.strerror}); choose another, or 0 for any that '
                     'is free') from error


class _Handler(http.server.BaseHTTPRequestHandler):
  """One request."""

  sampler: Sampler
  model: str
  protocol_version = 'HTTP/1.1'

  def do_GET(self):
    """The paths that only tell."""
    answers = {
        '/health': {'status': 'ok'},
        '/v1/models': {'object': 'list', 'data': [
            {'id': self.model, 'object': 'model', 'owned_by': 'alignjax'}]}}
    if self.path in answers:
      self._answer(200, answers[self.path])
    else:
      self._refuse(404, f'{self.path} is not there; '
                        f'{", ".join(answers)} and POST /v1/completions are')

  def do_POST(self):
    """The paths that do something."""
    doers = {'/v1/completions': self._complete, '/v1/weights': self._load,
             '/v1/chat/completions': self._chat}
    try:
      body = self._body()
      if self.path not in doers:
        self._refuse(404, f'{self.path} is not there; POST goes to '
                          f'{" or ".join(doers)}')
        return
      self._answer(200, doers[self.path](body))
    except (_Refusal, InputError) as error:
      self._refuse(400, str(error))
    except (BrokenPipeError, ConnectionResetError):
      pass  # Nobody waits any more.
    except Exception as error:
      self._refuse(500, f'{type(error).__name__}: {error}')

  def log_message(self, *args):
    """Says nothing; a rollout asks a hundred times a second."""

  def _body(self) -> dict:
    """The JSON object that was sent."""
    try:
      length = int(self.headers.get('Content-Length', ''))
    except ValueError:
      raise _Refusal('no Content-Length; send one') from None
    if length > _MAX_BODY:
      self.close_connection = True
      raise _Refusal(f'a request of {length:,} bytes; {_MAX_BODY:,} are read')
    try:
      value = json.loads(self.rfile.read(length))
    except ValueError as error:
      raise _Refusal(f'the request is not JSON ({error})') from None
    if not isinstance(value, dict):
      raise _Refusal('the request is no JSON object')
    return value

  def _chat(self, body: dict) -> dict:
    """A completion behind the chat template, as OpenAI's chat writes it."""
    messages = body.get('messages')
    if not isinstance(messages, list) or not messages:
      raise _Refusal(f'messages={messages!r:.80} is no list of messages')
    if self.sampler.tokenizer.chat_template is None:
      raise _Refusal(f'{self.model} has no chat template; use /v1/completions')
    tokens = self.sampler.tokenizer.prompt_tokens(messages)
    answer = self._complete(body | {
        'prompt': [tokens],
        'max_tokens': body.get('max_completion_tokens',
                               body.get('max_tokens'))})
    for choice in answer['choices']:
      choice['message'] = {'role': 'assistant', 'content': choice.pop('text')}
    return answer | {'object': 'chat.completion'}

  def _complete(self, body: dict) -> dict:
    """Samples, and answers as OpenAI does."""
    prompts = self._prompts(body.get('prompt'))
    count = _number(body, 'n', 1, int, 1, 128)
    seed = _number(body, 'seed', 0, int, 0, 2**31 - 1)
    shared = dict(
        max_tokens=_number(body, 'max_tokens', 16, int, 1, _MAX_TOKENS),
        temperature=_number(body, 'temperature', 1.0, float, 0, 100))
    if body.get('stream'):
      raise _Refusal('stream=true is not served; leave it out')
    draws = [Draw(prompt, (seed + i) % 2**31, **shared)
             for prompt in prompts for i in range(count)]
    futures = [self.sampler.draw(draw) for draw in draws]
    choices = []
    for index, future in enumerate(futures):
      tokens, logprobs = future.result()
      decode = self.sampler.tokenizer.decode
      ended = tokens[-1:] == [self.sampler.tokenizer.eos_id]
      choices.append({
          'index': index, 'text': decode(tokens), 'token_ids': tokens,
          'finish_reason': 'stop' if ended else 'length',
          'logprobs': {'tokens': [f'token_id:{t}' for t in tokens],
                       'token_logprobs': logprobs}})
    written = sum(len(choice['token_ids']) for choice in choices)
    read = sum(len(prompt) for prompt in prompts)
    return {'object': 'text_completion', 'model': self.model,
            'choices': choices, 'usage': {
                'prompt_tokens': read, 'completion_tokens': written,
                'total_tokens': read + written}}

  def _prompts(self, given) -> list[tuple[int, ...]]:
    """Each prompt's token ids."""
    is_ids = isinstance(given, list) and given and all(
        isinstance(x, int) and not isinstance(x, bool) for x in given)
    several = [given] if isinstance(given, str) or is_ids else given
    if not isinstance(several, list) or not several:
      raise _Refusal(f'prompt={given!r:.80} is neither text nor token ids')
    prompts = []
    for each in several:
      ids = self.sampler.tokenizer.encode(each) if isinstance(
          each, str) else each
      size = self.sampler.config.vocab_size
      if not isinstance(ids, list) or not ids or not all(
          isinstance(t, int) and 0 <= t < size for t in ids):
        raise _Refusal(f'prompt={each!r:.80} has no tokens, or ids that are '
                       f'not below {size}')
      prompts.append(tuple(ids))
    return prompts

  def _load(self, body: dict) -> dict:
    """Loads weights."""
    folder = body.get('folder')
    if not isinstance(folder, str):
      raise _Refusal(f'folder={folder!r:.80} is no path')
    self.sampler.load(folder)
    return {'status': 'ok', 'folder': folder}

  def _refuse(self, status: int, message: str) -> None:
    """An error, as OpenAI writes it."""
    self._answer(status, {'error': {'message': message, 'code': status}})

  def _answer(self, status: int, value: dict) -> None:
    """Sends JSON."""
    text = json.dumps(value).encode()
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(text)))
    self.end_headers()
    self.wfile.write(text)


def _number(body: dict, name: str, default, kind, low, high):
  """A number of the request, in its range."""
  value = default if body.get(name) is None else body[name]
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not is_number or not math.isfinite(value) or not low <= value <= high or (
      kind is int and value != int(value)):
    raise _Refusal(f'{name}={value!r:.40} is not a number from {low} to {high}')
  return kind(value)
