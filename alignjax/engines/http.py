"""An engine behind an OpenAI-compatible server, such as `alignjax serve`.

Prompts go as token ids to `/v1/completions`, one request each with its own
`seed`, several at one time. Besides OpenAI's fields the server must give back
token ids: vLLM's `return_token_ids`, or its `return_tokens_as_token_ids`. At a
temperature other than 1 it must report logprobs of what it drew from (vLLM:
`--logprobs-mode processed_logprobs`).

Weights are handed over as a folder that both can read, by
`POST /v1/weights {"folder": ...}`, which `alignjax serve` has. Where a server
has no such path, give it another way (`reload`).
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import json

from alignjax.endpoint import Endpoint
from alignjax.engines.protocol import Drawn
from alignjax.types import InputError


class HttpEngine:
  """Samples through a server."""

  def __init__(
      self, url: str, *, timeout: float = 600.0, retries: int = 3,
      workers: int = 32, reload: Callable[[str, str], None] | None = None):
    """Asks the server for its model, and so whether it is there.

    Args:
      url: of the server, without `/v1`.
      timeout: seconds that an answer may take.
      retries: how often a request is repeated that met no server, or one in
        trouble; see `Endpoint`.
      workers: requests at one time.
      reload: `(url, folder)` has the server load a folder.

    Raises:
      InputError: there is no server, or it has no model.
    """
    self._endpoint = Endpoint(
        url, name='engine', timeout=timeout, retries=retries,
        advice='start it (alignjax serve --model DIR), and go on with --resume')
    self._url = self._endpoint.url
    self._workers, self._reload = workers, reload
    models = self._endpoint.ask('/v1/models').get('data')
    if not models or not isinstance(models[0].get('id'), str):
      raise InputError(f'engine={url} lists no model at /v1/models; start it '
                       'with one')
    self.model = models[0]['id']

  def load(self, folder: str) -> None:
    """Has the server sample by the weights in a folder."""
    if self._reload is not None:
      self._reload(self._url, folder)
    else:
      self._endpoint.ask('/v1/weights', {'folder': folder})

  def draw(
      self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *,
      max_new_tokens: int, temperature: float, eos_id: int) -> list[Drawn]:
    """One response to each prompt, in their order."""
    shared = {
        'model': self.model, 'max_tokens': max_new_tokens, 'n': 1,
        'temperature': temperature, 'top_p': 1.0, 'logprobs': 1,
        'return_token_ids': True, 'return_tokens_as_token_ids': True,
        'stop_token_ids': [eos_id], 'skip_special_tokens': False}

    def one(prompt, seed):
      return self._drawn(self._endpoint.ask('/v1/completions', shared | {
          'prompt': list(prompt), 'seed': seed}))

    with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
      return list(pool.map(one, prompts, seeds))

  def _drawn(self, answer: dict) -> Drawn:
    """The tokens and logprobs of an answer."""
    try:
      (choice,) = answer['choices']
      logprobs = choice['logprobs']['token_logprobs']
      tokens = choice.get('token_ids')
      if tokens is None:
        tokens = [_token_id(text) for text in choice['logprobs']['tokens']]
      return Drawn([int(t) for t in tokens], [float(x) for x in logprobs])
    except (KeyError, TypeError, ValueError) as error:
      raise InputError(
          f'engine={self._url} answers without what training needs: token ids '
          'and their logprobs in one choice (vLLM: return_token_ids); got '
          f'{json.dumps(answer)[:200]}') from error


def _token_id(text: str) -> int:
  """The id in 'token_id:123', vLLM's way to write a token."""
  name, _, number = text.partition(':')
  if name != 'token_id':
    raise ValueError(text)
  return int(number)
