"""The elements of one large JSON array, cut apart without reading it whole."""

from collections.abc import Iterator
import re
from typing import BinaryIO

_BOM = b'\xef\xbb\xbf'
_BLANK = b' \t\r\n'
_CHUNK = 2**16  # Bytes read at once, at least.

# A text is one token. A lone quote is the start of one that is not all there.
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|"'
_INSIDE = re.compile(_TEXT + rb'|[\[\]{}]', re.DOTALL)
_BETWEEN = re.compile(_TEXT + rb'|[\[\]{},]', re.DOTALL)


class BrokenArrayError(ValueError):
  """The array cannot be cut into elements; holds the number of the bad one."""

  def __init__(self, number: int, message: str):
    super().__init__(message)
    self.number = number


def split(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
  """Yields the bytes of each element; whether they are JSON is not checked.

  Args:
    file: One JSON array, at its start.
    max_bytes: The longest element. Memory holds at most twice as much.

  Raises:
    BrokenArrayError: No array; an element that is missing, too long or not all
      there; anything after the array.
  """
  data = file.read(_CHUNK).removeprefix(_BOM).lstrip(_BLANK)
  if not data.startswith(b'['):
    raise BrokenArrayError(
        1, 'the file is no JSON array; it must start with a bracket [.')
  start = at = 1  # The element's first byte; where the next token is sought.
  depth, number = 0, 1
  while True:
    token = (_INSIDE if depth else _BETWEEN).search(data, at)
    if token is None or token[0] == b'"':
      at = (len(data) if token is None else token.start()) - start
      data = data[start:]
      start = 0
      data += _more(file, len(data), number, max_bytes)
      continue
    at = token.end()
    if token[0] in (b'[', b'{'):
      depth += 1
    elif depth and token[0] in (b']', b'}'):
      depth -= 1
    elif not depth and token[0] in (b',', b']', b'}'):
      element = data[start:token.start()].strip(_BLANK)
      _check(element, token[0], number, max_bytes)
      if element:
        yield element
      if token[0] == b']':
        break
      start, number = at, number + 1
  _check_end(data[at:], file, number)


def _more(file: BinaryIO, held: int, number: int, max_bytes: int) -> bytes:
  """The next piece, as long as what is held: no byte is scanned often."""
  if held > max_bytes:
    raise _too_long(number, max_bytes)
  piece = file.read(min(max(_CHUNK, held), max(_CHUNK, max_bytes)))
  if not piece:
    raise BrokenArrayError(
        number,
        'the file ends within the array; its last bracket ] is missing; copy'
        ' or download the file again.',
    )
  return piece


def _check(element: bytes, ended_by: bytes, number: int, max_bytes: int):
  if len(element) > max_bytes:
    raise _too_long(number, max_bytes)
  if ended_by == b'}':
    raise BrokenArrayError(
        number, 'a bracket } closes what none opened; repair the JSON.')
  if not element and (ended_by == b',' or number > 1):
    raise BrokenArrayError(
        number, f'there is no element before the {ended_by.decode()}; remove'
        ' the comma that is too many.')


def _check_end(rest: bytes, file: BinaryIO, number: int):
  """BrokenArrayError unless nothing but blanks is left."""
  while rest or (rest := file.read(_CHUNK)):
    rest = rest.strip(_BLANK)
    if rest:
      shown = rest[:20].decode('utf-8', 'replace')
      raise BrokenArrayError(
          number,
          f'the JSON array is followed by {shown!r}; the file must hold one'
          ' array of objects, or one JSON object per line.',
      )


def _too_long(number: int, max_bytes: int) -> BrokenArrayError:
  return BrokenArrayError(
      number,
      f'the element has more than the limit of {max_bytes:,} bytes; check that'
      ' the array holds one record per element, and remove or split this one.',
  )
