"""JSON over HTTP with patience: what fails for now is asked again.

A server that is not there, one that is overloaded (429), too slow (408) or
broken (5xx) may be well in a moment; any other refusal is final. Between tries
the pause doubles, unless the server says how long (`Retry-After`).
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request

from alignjax.types import InputError

_LONGEST_PAUSE = 60.0  # Seconds between two tries.
_PASSING = (408, 429)  # Refusals that a moment may undo, besides 5xx.


class Endpoint:
  """A server that answers JSON objects."""

  def __init__(
      self, url: str, *, name: str = 'endpoint', timeout: float = 600.0,
      retries: int = 3, pause: float = 0.5, per_minute: float = float('inf'),
      api_key: str = '', advice: str = 'start it, and go on with --resume'):
    """Remembers how to ask; nothing is sent yet.

    Args:
      url: of the server, with or without `/v1` at its end.
      name: the flag that gave the url, for errors.
      timeout: seconds that an answer may take.
      retries: how often a request is repeated.
      pause: seconds before the first repetition; doubled each time.
      per_minute: requests at most, evenly spaced, of all threads together.
      api_key: sent as a bearer token, if any.
      advice: what an error says may be done about a server that is gone.
    """
    self.url = url.rstrip('/').removesuffix('/v1')
    self._name, self._timeout, self._retries = name, timeout, retries
    self._pause, self._gap = pause, 60.0 / per_minute
    self._api_key, self._advice = api_key, advice
    self._lock, self._next = threading.Lock(), 0.0

  def ask(self, path: str, body: dict | None = None) -> dict:
    """The JSON object of an answer; repeats what may pass.

    Raises:
      InputError: the server refuses, is not there after all tries, or answers
        something else than a JSON object; it names the server and the reason.
    """
    for attempt in range(self._retries + 1):
      self._wait_turn()
      asked_to_wait = 0.0
      try:
        return self._once(path, body)
      except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors='replace')
        if error.code < 500 and error.code not in _PASSING:
          raise InputError(f'{self._name}={self.url}{path} refuses '
                           f'({error.code}): {said}') from None
        reason = f'{error.code}: {said}'
        asked_to_wait = _seconds(error.headers.get('Retry-After'))
      except (urllib.error.URLError, http.client.HTTPException,
              OSError) as error:
        reason = str(getattr(error, 'reason', error)) or type(error).__name__
      if attempt < self._retries:
        pause = asked_to_wait or self._pause * 2**attempt
        time.sleep(min(pause, _LONGEST_PAUSE))
    raise InputError(
        f'{self._name}={self.url}{path} does not answer ({reason}), asked '
        f'{self._retries + 1} times; {self._advice}')

  def _wait_turn(self) -> None:
    """Sleeps until the next request is due."""
    with self._lock:
      now = time.monotonic()
      turn = max(now, self._next)
      self._next = turn + self._gap
    if turn > now:
      time.sleep(turn - now)

  def _once(self, path: str, body: dict | None) -> dict:
    """One request."""
    headers = {'Content-Type': 'application/json'}
    if self._api_key:
      headers['Authorization'] = f'Bearer {self._api_key}'
    request = urllib.request.Request(
        self.url + path, headers=headers,
        data=None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=self._timeout) as answer:
      text = answer.read()
    try:
      value = json.loads(text)
    except ValueError:
      value = None
    if not isinstance(value, dict):
      raise InputError(
          f'{self._name}={self.url}{path} answers {text[:80]!r}, which is no '
          'JSON object; is it an OpenAI-compatible server?')
    return value


def _seconds(text: str | None) -> float:
  """A `Retry-After` of seconds; 0 for none, or for a date."""
  try:
    return max(0.0, float(text or 0))
  except ValueError:
    return 0.0
