"""Claims about reading files of records."""

import gzip
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from alignjax import types
from alignjax.data import records

texts = st.text(st.characters(exclude_categories=['Cs']), max_size=12)


def read(path):
  return list(records.read_jsonl(path))


def error_of(path) -> str:
  """The one line that a person sees."""
  with pytest.raises(types.InputError) as caught:
    read(path)
  message = str(caught.value)
  assert '\n' not in message
  return message


def test_lines_are_numbered_from_one_and_blank_lines_count(write):
  path = write(b'{"a": 1}\n\n  \n{"a": 2}\n')
  assert read(path) == [(1, {'a': 1}), (4, {'a': 2})]


def test_a_last_line_needs_no_newline(write):
  assert read(write(b'{"a": 1}\n{"a": 2}')) == [(1, {'a': 1}), (2, {'a': 2})]


def test_a_byte_order_mark_is_no_part_of_the_data(write):
  assert read(write(b'\xef\xbb\xbf{"a": 1}\n')) == [(1, {'a': 1})]


def test_crlf_ends_a_line_and_stays_inside_text(write):
  path = write(b'{"a": "x\\r\\ny"}\r\n{"a": "z"}\r\n')
  assert read(path) == [(1, {'a': 'x\r\ny'}), (2, {'a': 'z'})]


def test_unicode_line_separators_do_not_end_a_line(write):
  path = write('{"a": "x\u2028y\x85zw"}\n'.encode())
  assert read(path) == [(1, {'a': 'x\u2028y\x85zw'})]


@given(rows=st.lists(st.dictionaries(texts, texts, max_size=3), min_size=1,
                     max_size=4), packed=st.booleans(), escape=st.booleans())
def test_what_was_written_is_read(tmp_path_factory, rows, packed, escape):
  data = ''.join(
      json.dumps(row, ensure_ascii=escape) + '\n' for row in rows
  ).encode()
  path = tmp_path_factory.mktemp('rows') / 'rows.jsonl'
  path.write_bytes(gzip.compress(data) if packed else data)
  assert [row for _, row in read(path)] == rows


def test_a_line_of_ten_megabytes_is_read(write):
  assert len(read(write([{'a': 'x' * 10_000_000}]))[0][1]['a']) == 10_000_000


def test_gzip_is_known_by_its_bytes_not_its_name(write):
  assert read(write(gzip.compress(b'{"a": 1}\n'))) == [(1, {'a': 1})]


def test_a_whole_character_written_as_a_pair_is_text(write):
  assert read(write(b'{"a": "\\ud83d\\ude00"}\n')) == [(1, {'a': '\U0001f600'})]


@pytest.mark.parametrize(
    ('line', 'fragments'),
    [
        (b'{"a": 1', ['\'{"a": 1\' is not JSON', 'at character',
                     'one JSON object']),
        (b'hello', ["'hello' is not JSON", 'value at character 1']),
        (b'[1, 2]', ['[1, 2] is not a JSON object', '{"prompt"']),
        (b'null', ['null is not a JSON object']),
        (b'"text"', ['"text" is not a JSON object']),
        (b'{"a": NaN}', ['NaN is no JSON value, write null']),
        (b'{"a": -Infinity}', ['-Infinity is no JSON value']),
        (b'{"a": "\xff"}', ['byte 8 of the line (0xff)', 'save the file as']),
        (b'{"a": ' + b'[' * 100_000, ['is not JSON']),
        (b'{"a": ' + b'9' * 5_000 + b'}', ['is not JSON']),
        (b'{"b": "\\ud83d x"}', ['field "b"', '\\ud83d', 'write the whole']),
        (b'{"c": [{"d": "\\uDE00"}]}', ['field "c"', '\\ude00']),
    ],
)
def test_a_bad_line_is_refused_with_its_place(write, line, fragments):
  path = write(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
  message = error_of(path)
  assert message.startswith(f'{path}:2: ')
  assert len(message) < len(str(path)) + 300
  for fragment in fragments:
    assert fragment in message


def test_rows_before_a_bad_line_are_still_given(write):
  rows = records.read_jsonl(write(b'{"a": 1}\nx\n'))
  assert next(rows) == (1, {'a': 1})
  with pytest.raises(types.InputError):
    next(rows)


def test_a_missing_file_is_named(tmp_path):
  message = error_of(tmp_path / 'no.jsonl')
  assert message.startswith(f"{tmp_path / 'no.jsonl'}: there is no such file")
  assert 'give the path' in message


def test_a_folder_is_no_file(tmp_path):
  assert 'cannot be read' in error_of(tmp_path)


@pytest.mark.parametrize(
    'data', [b'', b'\n \n', b'\xef\xbb\xbf', gzip.compress(b'')],
    ids=['nothing', 'blank', 'mark', 'gzip'])  # gzip's bytes hold the time.
def test_an_empty_file_is_refused(write, data):
  path = write(data)
  assert error_of(path).startswith(f'{path}: the file is empty')


@pytest.mark.parametrize('cut', [3, 40, -4])
def test_gzip_cut_off_is_refused(write, cut):
  data = gzip.compress(b''.join(b'{"a": %d}\n' % i for i in range(2_000)))
  path = write(data[:cut], 'rows.jsonl.gz')
  message = error_of(path)
  assert 'the gzip data is cut off or damaged' in message
  assert 'copy or download the file again' in message


def test_a_flipped_bit_in_gzip_is_refused(write):
  data = bytearray(gzip.compress(b'{"a": "some text here"}\n' * 50))
  data[-6] ^= 1  # In the checksum.
  assert 'cut off or damaged' in error_of(write(bytes(data)))


def test_a_plain_file_called_gz_is_refused(write):
  path = write(b'{"a": 1}\n', 'rows.jsonl.gz')
  assert 'the data is not gzip' in error_of(path)


def test_a_long_value_is_shown_shortened():
  assert len(records.show('x' * 1_000)) < 50
