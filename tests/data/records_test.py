"""Claims about reading files of records."""

import gzip
import json
import os
import tracemalloc

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


def peak_of(function) -> int:
  """The most bytes that Python held during a call."""
  tracemalloc.start()
  try:
    function()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('end', [b'\n', b'\r\n', b''])
@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(write, mark, end):
  line = b'{"a": "xxxx"}'
  path = write(mark + line + end + (line + end if end else b''))
  assert [n for n, _ in records.read_jsonl(path, max_bytes=len(line))] == (
      [1, 2] if end else [1])
  with pytest.raises(types.InputError) as caught:
    list(records.read_jsonl(path, max_bytes=len(line) - 1))
  assert str(caught.value).startswith(f'{path}:1: the line has ')


def test_a_long_line_is_refused_with_its_size_limit_and_repair(write):
  line = json.dumps({'a': 'x' * 500}).encode()
  path = write(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
  with pytest.raises(types.InputError) as caught:
    list(records.read_jsonl(path, max_bytes=100))
  assert str(caught.value) == (
      f'{path}:2: the line has {len(line)} bytes, more than the limit of 100;'
      ' check that each line is one record, and remove or split this one.')


def test_carriage_returns_at_the_limit_do_not_end_a_line(write):
  path = write(b'{"a": 1}' + b'\r' * 40 + b' {"a": 2}\n{"a": 3}\n')
  errors = []
  rows = list(records.read_jsonl(path, errors.append, max_bytes=8))
  assert rows == [(2, {'a': 3})]
  assert len(errors) == 1 and f'{path}:1: the line has' in str(errors[0])


@pytest.mark.parametrize('read_', [records.read_jsonl, records.read_json_array])
def test_gzip_of_one_endless_record_does_not_fill_memory(write, read_):
  limit = 2**16
  start = b'[{"a": "' if read_ is records.read_json_array else b'{"a": "'
  path = write(gzip.compress(start + b'x' * (64 * limit), compresslevel=1))

  def refuse():
    with pytest.raises(types.InputError, match='more than') as caught:
      list(read_(path, max_bytes=limit))
    assert f'{limit:,}' in str(caught.value)

  refuse()  # What is made once is not counted.
  assert peak_of(refuse) < 10 * limit + 2**21


def test_reading_goes_on_after_a_bad_line_if_asked_to(write):
  long = b'{"a": "' + b'x' * 100 + b'"}'
  path = write(b'{"a": 1}\nx\n\n' + long + b'\n[]\n{"a": 2}\n' + long)
  errors = []
  rows = list(records.read_jsonl(path, errors.append, max_bytes=50))
  assert rows == [(1, {'a': 1}), (6, {'a': 2})]
  places = [str(error).split(': ')[0] for error in errors]
  assert places == [f'{path}:{line}' for line in (2, 4, 5, 7)]
  assert all(isinstance(error, types.InputError) for error in errors)


def test_a_damaged_file_is_refused_even_if_bad_lines_are_skipped(write):
  data = gzip.compress(b''.join(b'{"a": %d}\n' % i for i in range(2_000)))
  errors = []
  with pytest.raises(types.InputError, match='cut off or damaged'):
    list(records.read_jsonl(write(data[:-4]), errors.append))
  assert not errors


def test_what_the_caller_raises_for_a_bad_line_stops_the_reading(write):
  def stop(error):
    raise KeyError(str(error))

  with pytest.raises(KeyError, match='is not JSON'):
    list(records.read_jsonl(write(b'x\n{"a": 1}\n'), stop))


@given(rows=st.lists(st.dictionaries(texts, st.recursive(
    texts | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=5)), min_size=1, max_size=4),
       packed=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_an_array_is_read_as_its_elements(
    tmp_path_factory, rows, packed, indent):
  data = json.dumps(rows, ensure_ascii=False, indent=indent).encode()
  path = tmp_path_factory.mktemp('rows') / 'rows.json'
  path.write_bytes(gzip.compress(data) if packed else data)
  assert list(records.read_json_array(path)) == list(enumerate(rows, 1))


def test_a_large_array_is_read_a_piece_at_a_time(write):
  row = json.dumps({'a': 'x' * 1_000}).encode()
  path = write(b'[' + b',\n'.join([row] * 4_000) + b']')

  def read_all():
    assert sum(1 for _ in records.read_json_array(path)) == 4_000

  assert peak_of(read_all) < path.stat().st_size // 4


@pytest.mark.parametrize(
    ('data', 'place', 'fragment'),
    [
        (b'[{"a": 1}, {"a": 2}', 2, 'ends within the array'),
        (b'[{"a": 1}, {"a": "x', 2, 'ends within the array'),
        (b'[{"a": 1},', 2, 'ends within the array'),
        (b'[{"a": 1}, ]', 2, 'no element before the ]'),
        (b'[{"a": 1}, , {"a": 2}]', 2, 'no element before the ,'),
        (b'[,]', 1, 'no element before the ,'),
        (b'[{"a": 1}] {"a": 2}', 1, 'the JSON array is followed by'),
        (b'[{"a": 1}}', 1, 'a bracket } closes what none opened'),
        (b'[{"a": 1} {"a": 2}]', 1, 'is not JSON (Extra data'),
        (b'[{"a": 1}, 7]', 2, '7 is not a JSON object; each element'),
        (b'[{"a": 1}, {"a": NaN}]', 2, 'NaN is no JSON value'),
        (b'[{"a": 1}, {"a": "\xff"}]', 2, 'byte 8 of the element'),
        (b'{"a": 1}', 1, 'is no JSON array'),
    ],
)
def test_a_bad_array_is_refused_with_its_element(write, data, place, fragment):
  path = write(data, 'rows.json')
  with pytest.raises(types.InputError) as caught:
    list(records.read_json_array(path))
  message = str(caught.value)
  assert message.startswith(f'{path}:{place}: ')
  assert fragment in message and '\n' not in message


@pytest.mark.parametrize('data', [b'[]', b' [ \n ] \n'])
def test_an_empty_array_is_refused(write, data):
  with pytest.raises(types.InputError, match='the array is empty'):
    list(records.read_json_array(write(data, 'rows.json')))


def test_a_bad_element_is_skipped_if_asked_to(write):
  errors = []
  path = write(b'[{"a": 1}, 7, {"a": [1 2]}, {"a": 2}]')
  assert list(records.read_json_array(path, errors.append)) == [
      (1, {'a': 1}), (4, {'a': 2})]
  places = [str(error).split(': ')[0] for error in errors]
  assert places == [f'{path}:2', f'{path}:3']


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
        (b'{"a": ' + b'[' * 100_000, ['is not JSON', 'nested too deeply']),
        (b'{"a": ' + b'9' * 5_000 + b'}', [
            'a number has more than 4,300 digits', 'write it as text']),
        (b'{"a": 1e999}', ['1e999 is too large for a number']),
        (b'{"a": 1, "b": 2, "a": 1}', ['the key "a" stands twice']),
        (b'{"c": [{"d": 1, "d": null}]}', ['the key "d" stands twice']),
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


def test_a_pipe_is_refused_because_its_start_would_be_lost(tmp_path):
  path = tmp_path / 'pipe'
  os.mkfifo(path)
  assert 'can be read only once' in error_of(path)


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
