"""Files with something wrong in them, and what becomes of who reads them.

Each mutant is a good sample of a parser in which bytes, or values of its JSON,
were changed. It must be refused in one line or be read whole: a traceback, a
silent acceptance or a read of more than `LIMIT` seconds is counted against us.
The reading is done by another process, which a crash or a hang takes along.
"""

import json
import multiprocessing
import pathlib
import random
import shutil
import sys
import tempfile
import traceback

from alignjax.errors import InputError
from tests.data import mutations_test as records

LIMIT = 5.0  # Seconds that a read may take.
_TOKENS = (
    b'\x00', b'\xff', b'\xed\xa0\xbd', b'"', b'{', b'}', b'[', b']', b',', b':',
    b'\\', b'\\ud83d', b'-1', b'0', b'1e999', b'NaN', b'null', b'true',
    b'9' * 400, b'[' * 3_000, b'../../../etc/passwd', b'{{', b'%}', b'\n',
    b'{% for i in range(10**9) %}x{% endfor %}', b'{{ "".__class__ }}',
    b'2147483648', b'F64', b'\xe2\x80\xa8')


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
  """One to three changes of bytes."""
  out = bytearray(content)
  for _ in range(draw.randint(1, 3)):
    at = draw.randrange(len(out) + 1)
    end = min(len(out), at + draw.choice((1, 2, 8, 64)))
    how = draw.randrange(6)
    if how == 0 and at < len(out):
      out[at] ^= 1 << draw.randrange(8)
    elif how == 1:
      out[at:at] = draw.choice(_TOKENS)
    elif how == 2:
      del out[at:end]
    elif how == 3:
      out[at:at] = out[at:end]
    elif how == 4:
      out[at:end] = draw.choice(_TOKENS)
    else:
      del out[at:]
  return bytes(out)


def mutate_json(value, draw: random.Random):
  """One or two changes of what stands at places that are drawn."""
  for _ in range(draw.randint(1, 2)):
    paths = [path for path in records.places(value) if path]
    if paths:
      value = records.change(value, draw.choice(paths), draw.choice(
          records.HOWS), draw.choice(records.VALUES))
  return value


def mutate(content: bytes, name: str, draw: random.Random) -> bytes:
  """A mutant: of the bytes, or, where a file is JSON, of what they say."""
  if draw.randrange(3) == 0:
    return mutate_bytes(content, draw)
  suffix = pathlib.Path(name).suffix
  if suffix == '.json':
    return json.dumps(mutate_json(json.loads(content), draw)).encode()
  if suffix == '.jsonl':
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(mutate_json(json.loads(lines[at]), draw)).encode()
    return b'\n'.join(lines) + b'\n'
  if suffix == '.safetensors':
    size = int.from_bytes(content[:8], 'little')
    header = json.dumps(mutate_json(
        json.loads(content[8:8 + size]), draw)).encode()
    return len(header).to_bytes(8, 'little') + header + content[8 + size:]
  return mutate_bytes(content, draw)


def try_one(name: str, seed: str, samples: pathlib.Path) -> tuple[str, str]:
  """(outcome, what was said) of one mutant of a parser's sample.

  Outcomes are 'refused', 'read', and what must not be: 'traceback', 'silent'
  and 'unclear', a refusal of more or less than one line.
  """
  from tests.faults import parsers
  parser, draw = parsers.PARSERS[name], random.Random(seed)
  sample = samples / name.replace(' ', '_')
  if not sample.exists():
    sample.mkdir(parents=True)
    parser.make(sample)
    parser.read(copied(sample))  # The sample itself is good.
  folder = copied(sample)
  path = folder / draw.choice(parser.files)
  path.write_bytes(mutate(path.read_bytes(), path.name, draw))
  try:
    parser.read(folder)
  except InputError as error:
    text = str(error)
    is_clear = len(text.splitlines()) == 1 and len(text) < 1_500 and (
        text.isprintable())
    return ('refused' if is_clear else 'unclear'), text
  except parsers.Silent as error:
    return 'silent', str(error)
  except BaseException:  # A panic of a library is one, too.
    return 'traceback', traceback.format_exc()
  finally:
    shutil.rmtree(folder)
  return 'read', ''


def copied(sample: pathlib.Path) -> pathlib.Path:
  """A copy of a folder, beside it."""
  folder = pathlib.Path(tempfile.mkdtemp(dir=sample.parent, prefix='mutant_'))
  shutil.copytree(sample, folder, dirs_exist_ok=True)
  return folder


def _serve(connection, samples: pathlib.Path) -> None:
  """Tries what it is sent, until it is sent None."""
  from tests.faults import parsers
  connection.send(sorted(parsers.PARSERS))
  while task := connection.recv():
    connection.send(try_one(*task, samples))


class Reader:
  """Another process that reads mutants; a new one after a crash or a hang."""

  def __init__(self, samples: pathlib.Path):
    """Starts it."""
    self._samples = samples
    self._start()

  def read(self, name: str, seed: str, limit: float) -> tuple[str, str]:
    """What `try_one` returns, or 'hang' or 'crash'."""
    self._connection.send((name, seed))
    try:
      if self._connection.poll(limit):
        return self._connection.recv()
      outcome = 'hang'
    except EOFError:
      outcome = 'crash'
    self.close()
    self._start()
    return outcome, ''

  def close(self) -> None:
    """Ends it, whatever it does."""
    self._process.kill()
    self._process.join()

  def _start(self) -> None:
    context = multiprocessing.get_context('spawn')
    self._connection, theirs = context.Pipe()
    self._process = context.Process(
        target=_serve, args=(theirs, self._samples), daemon=True)
    self._process.start()
    theirs.close()
    self.parsers = self._connection.recv()


BAD = ('traceback', 'silent', 'unclear', 'hang', 'crash')


def run(root: pathlib.Path, count: int, seed: int) -> dict:
  """Tries mutants of all parsers in turn, and counts outcomes."""
  counts = {'tried': count, 'refused': 0, 'read': 0} | dict.fromkeys(BAD, 0)
  if not count:
    return counts
  root.mkdir(parents=True, exist_ok=True)
  reader, met = Reader(root), set()
  for i in range(count):
    name = reader.parsers[i % len(reader.parsers)]
    # The first of each makes its sample, and may compile.
    limit = LIMIT if name in met else 12 * LIMIT
    met.add(name)
    outcome, said = reader.read(name, f'{seed} {i}', limit)
    counts[outcome] += 1
    if outcome in BAD:
      print(f'{outcome}: {name}, seed {seed} {i}: {said}', file=sys.stderr)
  reader.close()
  return counts
