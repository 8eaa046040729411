"""The annotation server: who may come in, what is saved, what is not."""

import json
import random

import pytest

pytest.importorskip('starlette')
pytest.importorskip('httpx2')

from starlette import testclient

from alignjax import annotating
from alignjax import feedback
from alignjax.types import InputError

ITEMS = [feedback.Item(f'i{n}', f'prompt {n}', ('a', 'b', 'c'))
         for n in range(4)]
RUBRIC = feedback.Rubric('r', 'ranking', 'Rank.')


@pytest.fixture
def store(tmp_path):
  opened = annotating.Store(ITEMS, tmp_path / 'answers.jsonl')
  yield opened
  opened.close()


@pytest.fixture
def client(store):
  return testclient.TestClient(
      annotating.make_app(store, RUBRIC), base_url='http://127.0.0.1')


def rank(client, annotator='ines', item='i0', ranks=(0, 1, 2), **more):
  return client.post('/api/answer', json={
      'annotator': annotator, 'item': item, 'ranks': list(ranks), **more})


def test_ranks_of_the_page_s_places_are_kept_in_the_items_order(client, store):
  shown = client.get('/api/item?annotator=ines').json()
  best = shown['responses'].index('c')
  ranks = [1, 1, 1]
  ranks[best] = 0
  assert rank(client, ranks=ranks).json()['saved']
  answer, = store.answers()
  assert answer.ranks == (1, 1, 0)
  again = client.get('/api/item?annotator=ines&item=i0').json()
  assert again['answer']['ranks'] == ranks


def test_annotators_see_the_responses_in_orders_of_their_own(store):
  orders = {tuple(store.order(f'annotator {n}', ITEMS[0])) for n in range(30)}
  assert len(orders) == 6


def test_an_answer_that_is_sent_twice_is_written_once(client, store, tmp_path):
  assert rank(client).json()['news'] and not rank(client).json()['news']
  assert len((tmp_path / 'answers.jsonl').read_text().splitlines()) == 1


def test_of_two_answers_the_last_one_counts(client, store):
  rank(client, ranks=[0, 1, 2])
  rank(client, ranks=[2, 2, 0])
  assert len(store.answers()) == 1
  assert sorted(store.answers()[0].ranks) == [0, 2, 2]


def test_items_come_in_order_until_all_are_answered_or_skipped(client):
  for n in range(4):
    assert client.get('/api/item?annotator=joss').json()['item'] == f'i{n}'
    body = {'annotator': 'joss', 'item': f'i{n}', 'skip': True}
    assert client.post('/api/answer', json=body).json()['done'] == n + 1
  assert client.get('/api/item?annotator=joss').json()['item'] is None


def test_a_store_goes_on_after_a_kill_in_the_middle_of_a_line(tmp_path):
  path = tmp_path / 'answers.jsonl'
  store = annotating.Store(ITEMS, path)
  store.save({'item': 'i0', 'annotator': 'x', 'ranks': [0, 1, 2]})
  store.close()
  with path.open('ab') as file:
    file.write(b'{"item": "i1", "annot')
  store = annotating.Store(ITEMS, path)
  store.save({'item': 'i1', 'annotator': 'x', 'ranks': [0, 1, 2]})
  store.close()
  assert [json.loads(line)['item'] for line in path.read_text().splitlines()
          ] == ['i0', 'i1']


def test_two_servers_cannot_write_to_one_file(store, tmp_path):
  with pytest.raises(InputError, match='another server'):
    annotating.Store(ITEMS, tmp_path / 'answers.jsonl')


def test_a_thumb_is_no_ranking(client, store):
  body = {'annotator': 'x', 'item': 'i0', 'good': True}
  assert client.post('/api/answer', json=body).status_code == 400
  assert not store.answers()


def test_without_the_token_nobody_comes_in(store):
  client = testclient.TestClient(
      annotating.make_app(store, RUBRIC, token='secret'),
      base_url='http://10.0.0.1')
  assert client.get('/').status_code == 403
  assert client.get('/?token=wrong').status_code == 403
  assert client.get('/?token=secret').status_code == 200
  assert client.get('/api/item?annotator=x',
                    headers={'X-Token': 'secret'}).status_code == 200


@pytest.mark.parametrize('headers', [
    {'host': 'evil.example'}, {'sec-fetch-site': 'cross-site'}])
def test_other_sites_cannot_ask_through_a_browser(client, headers):
  assert client.get('/api/answers.jsonl', headers=headers).status_code == 403


def test_two_hundred_malformed_requests_change_no_answer(client, store):
  rank(client)
  before = store.answers()
  rng = random.Random(0)
  junk = [None, True, -1, 1e400, 'x', '', [], {}, [0], [0, 1], [0, 1, None],
          [0, 1, 'a'], [[0], 1, 2], {'a': 1}, 'i0', 'i9', '\x00', 'é' * 200,
          '\ud800']
  for n in range(200):
    fields = rng.sample(['annotator', 'item', 'ranks', 'good', 'skip',
                         'seconds'], rng.randint(0, 6))
    body = {field: rng.choice(junk) for field in fields}
    if n % 4 == 0:
      content = rng.randbytes(rng.randint(0, 300))
    elif n % 4 == 1:
      content = json.dumps(body).encode()[:rng.randint(0, 60)]
    else:
      # Right but for one field.
      whole = {'annotator': 'ines', 'item': 'i1', 'ranks': [0, 1, 2]}
      field = rng.choice(['annotator', 'item', 'ranks'])
      whole[field] = rng.choice([x for x in junk if not (
          (field == 'annotator' and isinstance(x, str)) or
          (field == 'item' and x == 'i0'))])
      content = json.dumps(whole).encode()
    kind = rng.choice(['application/json'] * 4 + ['text/plain', ''])
    path = rng.choice(['/api/answer'] * 8 + ['/api/nothing', '/'])
    answer = client.request(
        rng.choice(['POST'] * 8 + ['PUT', 'GET']), path, content=content,
        headers={'content-type': kind})
    assert answer.status_code < 500
  assert store.answers() == before
