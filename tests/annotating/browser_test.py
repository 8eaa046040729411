"""Two people rank 20 items in a real browser, and the server is killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from alignjax import feedback

pytestmark = pytest.mark.browser

sync_api = pytest.importorskip('playwright.sync_api')
pytest.importorskip('uvicorn')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
NUM_ITEMS, NUM_RESPONSES = 20, 4
ORDER = (2, 0, 3, 1)  # Places, the best first; what both press.


def start(folder, port):
  """A server process that answers."""
  process = subprocess.Popen(
      [sys.executable, '-m', 'alignjax', 'annotate', '--items',
       f'{folder}/items.jsonl', '--answers', f'{folder}/answers.jsonl',
       '--port', str(port)], stderr=subprocess.PIPE)
  deadline = time.monotonic() + 60
  while time.monotonic() < deadline and process.poll() is None:
    try:
      urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=5).close()
      return process
    except (urllib.error.URLError, OSError):
      time.sleep(0.1)
  raise AssertionError(process.stderr.read().decode())


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.wait()


@pytest.fixture
def folder(tmp_path):
  with (tmp_path / 'items.jsonl').open('w') as file:
    for n in range(NUM_ITEMS):
      file.write(json.dumps({
          'id': f'i{n}', 'prompt': f'question {n}',
          'responses': [f'response {n} {k}' for k in range(NUM_RESPONSES)]})
          + '\n')
  return tmp_path


def open_page(browser, port, name):
  page = browser.new_page()
  page.goto(f'http://127.0.0.1:{port}/')
  page.fill('#name', name)
  page.keyboard.press('Enter')
  page.wait_for_selector('.card')
  return page


def rank_one(page):
  """Ranks the item that is shown, by keys alone; what was ranked how."""
  item = page.get_attribute('#work', 'data-item')
  texts = page.locator('.card .text').all_text_contents()
  for place in ORDER:
    page.keyboard.press(str(place + 1))
  page.keyboard.press('Enter')
  return item, [texts[place] for place in ORDER]


def wait_for_next(page, item):
  page.wait_for_function(
      'item => document.getElementById("work").dataset.item !== item', arg=item,
      timeout=60_000)


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine')
def test_no_answer_is_lost_or_doubled_when_the_server_is_killed(folder):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  server = start(folder, port)
  pressed = {}
  try:
    with sync_api.sync_playwright() as playwright:
      browser = playwright.chromium.launch(
          executable_path=CHROMIUM, args=['--no-sandbox'])
      pages = {name: open_page(browser, port, name)
               for name in ('ines', 'joss')}
      for n in range(NUM_ITEMS):
        if n == NUM_ITEMS // 2:
          kill(server)
        now = {}
        for name, page in pages.items():  # Both press before either is heard.
          item, texts = rank_one(page)
          pressed[name, item], now[name] = texts, item
        if n == NUM_ITEMS // 2:
          time.sleep(1)
          server = start(folder, port)
        for name, page in pages.items():
          wait_for_next(page, now[name])
      for page in pages.values():
        assert 'All 20 items are done' in page.text_content('#prompt')
      if target := os.environ.get('ALIGNJAX_SCREENSHOT'):
        pages['ines'].keyboard.press('b')
        pages['ines'].screenshot(path=target)
      browser.close()
  finally:
    kill(server)

  lines = (folder / 'answers.jsonl').read_text().splitlines()
  assert len(lines) == 2 * NUM_ITEMS == len(pressed)  # Not even a repetition.
  items = {item.id: item for item in feedback.read_items(
      folder / 'items.jsonl')}
  for answer in feedback.read_answers(
      [folder / 'answers.jsonl'], list(items.values())):
    responses = items[answer.item].responses
    best_first = [responses[i] for i in sorted(
        range(NUM_RESPONSES), key=answer.ranks.__getitem__)]
    assert best_first == pressed[answer.annotator, answer.item]
