"""The page's server: who may come in, what is asked, what is saved.

    GET  /                     the page
    GET  /api/item             the next item for ?annotator=NAME, or ?item=ID
    POST /api/answer           {annotator, item, ranks | good | skip, seconds}
    GET  /api/answers.jsonl    all answers that count

Ranks are sent in the order in which the page showed the responses. Requests
must name this machine as their host, and come with the token if there is one.
"""

from collections.abc import Callable
import hmac
import ipaddress
import json
import math
import pathlib

from starlette import applications
from starlette import requests
from starlette import responses
from starlette import routing

from alignjax import feedback
from alignjax.annotating.store import Store
from alignjax.types import InputError

_PAGE = pathlib.Path(__file__).with_name('page.html')
_MAX_BODY = 2**16  # Bytes of an answer.
_MAX_NAME = 80     # Characters of an annotator's name.
_POLICY = ("default-src 'none'; style-src 'unsafe-inline'; "
           "script-src 'unsafe-inline'; connect-src 'self'; "
           "form-action 'none'; base-uri 'none'; frame-ancestors 'none'")


class _Refusal(Exception):
  """A request that cannot be met; has a status and says why."""

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


def make_app(store: Store, rubric: feedback.Rubric, *,
             token: str = '') -> applications.Starlette:
  """The application.

  Args:
    store: keeps the items and answers.
    rubric: is shown; its task decides what the page asks for.
    token: that every request must carry, as ?token= or a header X-Token; ''
      asks for none, and then only requests to a loopback host are met.

  Returns:
    An ASGI application. Whatever is sent to it, it answers with 200 to 499 and
    changes answers by a whole, valid one only.
  """

  async def page(request):
    del request
    return responses.HTMLResponse(
        _PAGE.read_text('utf-8'),
        headers={'Content-Security-Policy': _POLICY,
                 'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store'})

  async def item(request):
    annotator = _name(request.query_params.get('annotator'))
    wanted = request.query_params.get('item')
    found = store.item(wanted) if wanted else store.next_item(annotator)
    if wanted and found is None:
      raise _Refusal(404, 'there is no such item')
    return responses.JSONResponse(
        _shown(store, rubric, annotator, found), headers=_FRESH)

  async def answer(request):
    body = await _body(request)
    annotator = _name(body.get('annotator'))
    name = body.get('item')
    found = store.item(name) if isinstance(name, str) else None
    if found is None:
      raise _Refusal(404, 'there is no such item')
    record = {'item': found.id, 'annotator': annotator} | {
        key: body[key] for key in ('good', 'skip') if key in body}
    if 'ranks' in body:
      record['ranks'] = _in_order(
          body['ranks'], store.order(annotator, found))
    _check_task(record, rubric.task)
    try:
      news = store.save(record, _seconds(body.get('seconds')))
    except InputError as error:
      raise _Refusal(400, str(error)) from None
    return responses.JSONResponse(
        {'saved': True, 'news': news, 'done': store.count(annotator),
         'total': len(store.items)}, headers=_FRESH)

  async def export(request):
    del request
    lines = ''.join(json.dumps(each.record(), ensure_ascii=False) + '\n'
                    for each in store.answers())
    return responses.PlainTextResponse(
        lines, media_type='application/x-ndjson', headers=_FRESH)

  return applications.Starlette(routes=[
      routing.Route('/', _guarded(page, token)),
      routing.Route('/api/item', _guarded(item, token)),
      routing.Route('/api/answer', _guarded(answer, token), methods=['POST']),
      routing.Route('/api/answers.jsonl', _guarded(export, token))])


_FRESH = {'Cache-Control': 'no-store'}


def _guarded(handler: Callable, token: str) -> Callable:
  """The handler, for those who may come in; refusals become answers."""

  async def handle(request):
    try:
      _admit(request, token)
      return await handler(request)
    except _Refusal as refusal:
      return responses.JSONResponse(
          {'error': str(refusal)}, status_code=refusal.status)

  return handle


def _shown(store, rubric, annotator, item) -> dict:
  """What the page shows: an item as this annotator sees it, or an end."""
  shown = {
      'task': rubric.task, 'total': len(store.items),
      'done': store.count(annotator), 'item': None,
      'rubric': {'name': rubric.name, 'instructions': rubric.instructions,
                 'criteria': [[c.name, c.question] for c in rubric.criteria]}}
  if item is None:
    return shown
  order = store.order(annotator, item)
  ids = [each.id for each in store.items]
  at = ids.index(item.id)
  said = store.answer(annotator, item.id)
  ranks = said and said.ranks
  prompt = item.prompt
  return shown | {
      'item': item.id, 'number': at + 1,
      'previous': ids[at - 1] if at else None,
      'following': ids[at + 1] if at + 1 < len(ids) else None,
      'prompt': [{'role': 'user', 'content': prompt}] if isinstance(
          prompt, str) else list(prompt),
      'responses': [item.responses[i] for i in order],
      'answer': None if said is None else (
          {'ranks': [ranks[i] for i in order]} if ranks else
          {'skip': True} if said.good is None else {'good': said.good})}


def _in_order(ranks, order: list[int]):
  """Ranks of the page's places as ranks of the item's responses."""
  if not isinstance(ranks, list) or len(ranks) != len(order):
    raise _Refusal(400, f'ranks must be a list of {len(order)} numbers')
  found = [None] * len(order)
  for place, response in enumerate(order):
    found[response] = ranks[place]
  return found


def _check_task(record: dict, task: str) -> None:
  """A thumb is no ranking."""
  kind = 'good' if task == 'thumb' else 'ranks'
  if ('good' if kind == 'ranks' else 'ranks') in record:
    raise _Refusal(400, f'this task asks for {kind}')


def _admit(request: requests.Request, token: str) -> None:
  """Turns away who has no business here."""
  if token:
    given = request.headers.get('x-token') or request.query_params.get(
        'token', '')
    if not hmac.compare_digest(given.encode(), token.encode()):
      raise _Refusal(403, 'the token is missing or wrong; open the page by the '
                          'address that the server printed')
  elif not _is_loopback(request.url.hostname):
    raise _Refusal(403, 'without a token this page is for this machine alone')
  if request.headers.get('sec-fetch-site', 'none') not in (
      'none', 'same-origin'):
    raise _Refusal(403, 'another site asks; open the page itself')


def _is_loopback(host: str | None) -> bool:
  """Whether a name means this machine; others can be made to point here."""
  try:
    return host == 'localhost' or ipaddress.ip_address(host or '').is_loopback
  except ValueError:
    return False


async def _body(request: requests.Request) -> dict:
  """The JSON object that was sent."""
  kind = request.headers.get('content-type', '').split(';')[0].strip()
  if kind != 'application/json':
    raise _Refusal(415, 'send application/json')
  text = b''
  async for chunk in request.stream():
    text += chunk
    if len(text) > _MAX_BODY:
      raise _Refusal(413, f'an answer has at most {_MAX_BODY} bytes')
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    raise _Refusal(400, 'the answer is not JSON') from None
  if not isinstance(value, dict):
    raise _Refusal(400, 'the answer is no JSON object')
  return value


def _name(value) -> str:
  """An annotator's name."""
  text = value.strip() if isinstance(value, str) else ''
  if not 0 < len(text) <= _MAX_NAME or not text.isprintable():
    raise _Refusal(400, f'annotator must be a name of 1 to {_MAX_NAME} '
                        'characters')
  return text


def _seconds(value) -> float | None:
  """How long an answer took, if it is told and can be."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return float(value) if is_number and math.isfinite(value) and (
      0 <= value < 1e7) else None
