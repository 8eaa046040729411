"""Judges: exact mirror images, verdicts out of prose, servers in trouble."""

import http.server
import json
import threading
import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from alignjax import feedback
from alignjax.endpoint import Endpoint
from alignjax.types import InputError

_texts = st.text('ab ', max_size=4)
_comparisons = st.lists(
    st.builds(feedback.Comparison, _texts, _texts, _texts), min_size=1,
    max_size=6)


def swayed(comparisons):
  """Likes long texts, and a good deal more what stands first."""
  return [0.1 * (len(c.a) - len(c.b)) + 0.7 + 0.013 * len(c.prompt)
          for c in comparisons]


@hypothesis.given(_comparisons)
def test_swapping_the_responses_swaps_the_verdict_exactly(comparisons):
  judge = feedback.both_orders(swayed)
  mirrored = [feedback.Comparison(c.prompt, c.b, c.a) for c in comparisons]
  for one, other in zip(judge(comparisons), judge(mirrored), strict=True):
    assert one.margin == -other.margin
    assert one.score == 1 - other.score
  together = judge(comparisons + mirrored)
  count = len(comparisons)
  assert [v.margin for v in together[:count]] == [
      -v.margin for v in together[count:]]


def test_what_stands_first_cancels():
  verdict, = feedback.both_orders(swayed)([
      feedback.Comparison('p', 'aaa', 'b')])
  assert verdict.margin == pytest.approx(0.2)
  assert verdict.first > 0 > verdict.second


def test_a_score_judges_by_its_difference():
  judge = feedback.score_judge(lambda prompts, texts: [len(t) for t in texts])
  verdicts = judge([feedback.Comparison('p', 'aa', 'b'),
                    feedback.Comparison('p', 'a', 'b')])
  assert [v.margin for v in verdicts] == [1, 0]
  assert [v.score for v in verdicts] == [1, 0.5]


def test_a_label_judge_reads_the_log_odds_of_both_orders():
  def label_logprobs(prompts):
    first = [p.index('good') < p.index('bad') for p in prompts]
    return np.log([[0.9, 0.1] if f else [0.4, 0.6] for f in first])

  judge = feedback.label_judge(
      label_logprobs, lambda c: f'{c.a} {c.b}')
  verdict, = judge([feedback.Comparison('p', 'good', 'bad')])
  assert verdict.margin == pytest.approx(
      (np.log(9) - np.log(4 / 6)) / 2)


@pytest.mark.parametrize('text, margin', [
    ('A', 1), ('b.', -1), ('**T**', 0), ('[[B]]', -1), ('Response A', 1),
    ('Both are fine, but the better is B', -1), ('The answer is: A.', 1),
    ('Verdict: T', 0), ('I think [[A]] ... no, [[B]]', -1),
    ('A is a letter', None), ('', None), ('Both are bad', None),
    ('Absolutely', None)])
def test_verdicts_are_read_and_prose_is_none(text, margin):
  assert feedback.parse_verdict(text) == margin


class Server:
  """A chat server that answers by a list of (status, text), the last for ever.
  """

  def __init__(self, answers):
    self.answers, self.bodies, self.times = list(answers), [], []
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_POST(self):
        length = int(self.headers['Content-Length'])
        outer.bodies.append(json.loads(self.rfile.read(length)))
        status, text = (outer.answers.pop(0) if len(outer.answers) > 1
                        else outer.answers[0])
        value = text if isinstance(text, bytes) else json.dumps(
            {'choices': [{'message': {'content': text}}]}).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(value)))
        if status == 429:
          self.send_header('Retry-After', '0.01')
        self.end_headers()
        self.wfile.write(value)

      def log_message(self, *args):
        pass

    self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.url = f'http://127.0.0.1:{self.server.server_port}/v1'
    threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve():
  servers = []

  def start(*answers):
    servers.append(Server(answers))
    return servers[-1]

  yield start
  for each in servers:
    each.server.shutdown()
    each.server.server_close()


def judge_of(server, path, **settings):
  endpoint = Endpoint(server.url, name='judge', retries=3, pause=0.01,
                      timeout=10)
  return feedback.EndpointJudge(
      endpoint, 'm', 'Be good.', cache=path, workers=1, **settings)


COMPARISONS = [feedback.Comparison(f'p{n}', 'x', 'y') for n in range(5)]


def test_a_server_that_is_overloaded_or_broken_is_asked_again(serve, tmp_path):
  server = serve((429, 'later'), (500, 'oh'), (503, 'oh'), (200, 'A'))
  verdicts = judge_of(server, tmp_path / 'c')(COMPARISONS[:1])
  # A in either order: the position decides, and so nothing is decided.
  assert verdicts[0].margin == 0 and len(server.bodies) == 5


def test_a_refusal_is_final(serve, tmp_path):
  server = serve((401, 'no key'))
  with pytest.raises(InputError, match=r'judge=.* refuses \(401\).*no key'):
    judge_of(server, tmp_path / 'c')(COMPARISONS[:1])
  assert len(server.bodies) <= 2  # Once for each order.


def test_prose_is_asked_again_and_then_named(serve, tmp_path):
  server = serve((200, 'Well, that depends.'))
  with pytest.raises(InputError, match=r"no verdict on 'p0'.*that depends"):
    judge_of(server, tmp_path / 'c')(COMPARISONS[:1])
  assert len(server.bodies) in (3, 6)  # The other order may have begun.
  assert [body['seed'] for body in server.bodies[:3]] == [0, 1, 2]


def test_a_run_that_stopped_does_not_ask_again(serve, tmp_path):
  first = serve(*[(200, 'A')] * 6, (400, 'enough'))
  with pytest.raises(InputError, match='enough'):
    judge_of(first, tmp_path / 'c')(COMPARISONS)
  assert len(first.bodies) >= 7
  with (tmp_path / 'c').open('ab') as file:
    file.write(b'{"key": "half')  # And was killed as it wrote.
  second = serve((200, 'A'))
  verdicts = judge_of(second, tmp_path / 'c')(COMPARISONS)
  assert len(verdicts) == 5 and len(second.bodies) == 4
  third = serve((500, 'gone'))
  assert judge_of(third, tmp_path / 'c')(COMPARISONS) == verdicts
  assert not third.bodies


def test_a_server_that_is_gone_is_named(tmp_path):
  endpoint = Endpoint('http://127.0.0.1:9', name='judge', retries=1, pause=0.01,
                      advice='go on with --resume')
  judge = feedback.EndpointJudge(endpoint, 'm', 'r', cache=tmp_path / 'c')
  with pytest.raises(InputError, match=r'asked 2 times; go on with --resume'):
    judge(COMPARISONS[:1])


@pytest.mark.parametrize('answer', [b'<html>', b'[]', b'{}',
                                    b'{"choices": [{"message": {}}]}'])
def test_another_kind_of_server_is_named(serve, answer, tmp_path):
  server = serve((200, answer))
  with pytest.raises(InputError, match='judge='):
    judge_of(server, tmp_path / 'c')(COMPARISONS[:1])


def test_requests_are_spaced_by_the_rate(serve):
  server = serve((200, 'A'))
  endpoint = Endpoint(server.url, per_minute=60 / 0.05)
  started = time.monotonic()
  for _ in range(5):
    endpoint.ask('/v1/chat/completions', {})
  assert time.monotonic() - started >= 4 * 0.05
