"""Claims about Parquet and Arrow files as records."""

import datetime
import decimal
import json

from hypothesis import given
from hypothesis import strategies as st
import pyarrow as pa
from pyarrow import parquet
import pytest

from alignjax import types
from alignjax.data import arrow

DAY = datetime.datetime(2024, 2, 29, 12, 30)
texts = st.text(st.characters(exclude_categories=['Cs']), max_size=8)


def write_stream(table, path, rows_per_batch=None):
  with pa.ipc.new_stream(path, table.schema) as writer:
    writer.write_table(table, max_chunksize=rows_per_batch)


def read_column(tmp_path, array, on_error=None) -> list:
  """The column as a stream gives it, which keeps every type."""
  path = tmp_path / 'rows.arrow'
  write_stream(pa.table({'x': array}), path)
  return [row['x'] for _, row in arrow.read_arrow(path, on_error)]


def error_of(read) -> str:
  with pytest.raises(types.InputError) as caught:
    list(read())
  message = str(caught.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize(
    ('array', 'expected'),
    [
        (pa.array(['a', None, 'é']), ['a', None, 'é']),
        (pa.array(['a', None], pa.large_string()), ['a', None]),
        (pa.array(['a', None], pa.string_view()), ['a', None]),
        (pa.array([b'\xc3\xa9', None]), ['é', None]),
        (pa.array([b'ab', None], pa.large_binary()), ['ab', None]),
        (pa.array([b'ab', None], pa.binary(2)), ['ab', None]),
        (pa.array(['a', 'b', None, 'a']).dictionary_encode(),
         ['a', 'b', None, 'a']),
        (pa.array([['a', 'b'], None, []]), [['a', 'b'], None, []]),
        (pa.array([['a'], None, ['b', None]], pa.large_list(pa.string())),
         [['a'], None, ['b', None]]),
        (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
         [[1, 2], None, [3, 4]]),
        (pa.array([[1], None, [2, 3]], pa.list_view(pa.int8())),
         [[1], None, [2, 3]]),
        (pa.array([{'a': 1, 'b': ['x']}, None, {'a': None, 'b': None}]),
         [{'a': 1, 'b': ['x']}, None, {'a': None, 'b': None}]),
        (pa.array([[{'role': 'user', 'content': 'x'}, None], [], None]),
         [[{'role': 'user', 'content': 'x'}, None], [], None]),
        (pa.array([[('a', 1.5)], None, []], pa.map_(pa.string(), pa.float32())),
         [{'a': 1.5}, None, {}]),
        (pa.nulls(2), [None, None]),
        (pa.array([True, None]), [True, None]),
        (pa.array([2**63, None], pa.uint64()), [2**63, None]),
        (pa.array([0.5, None], pa.float32()), [0.5, None]),
        (pa.array([0.5, None], pa.float16()), [0.5, None]),
        (pa.array([decimal.Decimal('1.25'), None]), [1.25, None]),
        (pa.array([DAY.date(), None]), ['2024-02-29', None]),
        (pa.array([DAY, None], pa.timestamp('s')),
         ['2024-02-29T12:30:00', None]),
        (pa.array([DAY, None], pa.timestamp('ms', 'Asia/Tokyo')),
         ['2024-02-29T12:30:00+00:00', None]),
        (pa.array([-1, 1_000_000_500], pa.timestamp('ns')),
         ['1969-12-31T23:59:59.999999999', '1970-01-01T00:00:01.0000005']),
        (pa.array([[DAY], None], pa.list_(pa.timestamp('us'))),
         [['2024-02-29T12:30:00'], None]),
        (pa.array([None, [b'\xc3\xa9']]), [None, ['é']]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{}', None])),
         ['{}', None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else '',
)
@pytest.mark.parametrize('start', [0, 1])
def test_a_column_is_what_json_would_have_given(
    tmp_path, array, expected, start):
  values = read_column(tmp_path, array.slice(start))
  assert values == expected[start:]
  assert json.loads(json.dumps(values)) == values
  assert [type(v) for v in values] == [type(v) for v in expected[start:]]


def test_run_ends_are_decoded():
  array = pa.RunEndEncodedArray.from_arrays([2, 3], ['a', 'b'])
  assert arrow._values(pa, array, 'x') == ['a', 'a', 'b']


@given(rows=st.lists(st.fixed_dictionaries({
    'text': texts | st.none(),
    'turns': st.lists(st.fixed_dictionaries({'role': texts, 'n': st.none()
                                             | st.integers(-9, 9)}),
                      max_size=3) | st.none(),
    'deep': st.lists(st.lists(st.booleans(), max_size=2), max_size=2),
}), min_size=1, max_size=6), size=st.integers(1, 3))
def test_nested_rows_come_back_as_they_were(tmp_path_factory, rows, size):
  folder = tmp_path_factory.mktemp('rows')
  schema = pa.schema({
      'text': pa.string(),
      'turns': pa.list_(pa.struct({'role': pa.string(), 'n': pa.int64()})),
      'deep': pa.list_(pa.list_(pa.bool_())),
  })
  table = pa.Table.from_pylist(rows, schema)
  write_stream(table, folder / 'a', size)
  parquet.write_table(table, folder / 'b', row_group_size=size)
  expected = list(enumerate(rows, 1))
  assert list(arrow.read_arrow(folder / 'a')) == expected
  assert list(arrow.read_parquet(folder / 'b')) == expected


@pytest.mark.parametrize(
    ('array', 'row', 'fragment'),
    [
        (pa.array([b'a', b'x\xff']), 2, "field 'x' is not UTF-8 at byte 2"),
        (pa.array([[{'img': b'\x89'}]]), 1, "field 'x.img' is not UTF-8"),
        (pa.array([0.0, float('nan')]), 2, "field 'x' is nan"),
        (pa.array([{'y': float('inf')}]), 1, "field 'x.y' is inf"),
        (pa.array([datetime.timedelta(1)]), 1, 'of the type duration[us]'),
        (pa.array([2**62], pa.timestamp('s')), 1, 'after the year 9999'),
        (pa.array([[(1, 'a')]], pa.map_(pa.int8(), pa.string())), 1,
         'is a map whose keys are no texts'),
        (pa.array([[('a', 1), ('a', 2)]], pa.map_(pa.string(), pa.int8())), 1,
         'holds a key twice'),
    ],
    ids=['binary', 'nested', 'nan', 'inf', 'duration', 'year', 'keys',
         'twice'],
)
def test_what_json_has_no_form_for_is_refused_with_its_row_and_field(
    tmp_path, array, row, fragment):
  message = error_of(lambda: read_column(tmp_path, array))
  assert message.startswith(f"{tmp_path / 'rows.arrow'}:{row}: ")
  assert fragment in message


def test_a_bad_row_is_found_among_many_and_others_are_read(tmp_path):
  data = [b'a'] * 1_000
  data[300] = data[999] = b'\xff'
  errors = []
  path = tmp_path / 'rows.parquet'
  parquet.write_table(pa.table({'x': data}), path)
  numbers = [n for n, _ in arrow.read_parquet(path, errors.append)]
  assert numbers == [n for n in range(1, 1_001) if n not in (301, 1_000)]
  assert [str(error).split(': ')[0] for error in errors] == [
      f'{path}:301', f'{path}:1000']


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
  path = tmp_path / 'rows'
  table = pa.table({'x': pa.array([b'a', b'\xff']).view(pa.string())})
  parquet.write_table(table, path)
  message = error_of(lambda: arrow.read_parquet(path))
  assert message.startswith(
      f"{path}:2: field 'x' is not UTF-8 at byte 1 (0xff)")
  write_stream(table, path)  # Arrow's own rule: such a file is damaged.
  assert 'Invalid UTF8' in error_of(lambda: arrow.read_arrow(path))


def test_what_the_caller_raises_for_a_bad_row_is_not_the_files_fault(tmp_path):
  def stop(error):
    raise OSError('the disk is full')

  path = tmp_path / 'rows'
  parquet.write_table(pa.table({'x': [b'\xff']}), path)
  with pytest.raises(OSError, match='the disk is full'):
    list(arrow.read_parquet(path, stop))


def test_two_columns_of_one_name_are_refused(tmp_path):
  path = tmp_path / 'rows.arrow'
  write_stream(pa.table([[1], [2]], names=['x', 'x']), path)
  assert 'the name of two columns' in error_of(lambda: arrow.read_arrow(path))


@pytest.mark.parametrize('kind', ['parquet', 'stream'])
@pytest.mark.parametrize('keep', [0, 4, 100, 0.5, -8, -1])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, kind, keep):
  table = pa.table({'x': [f'text {i}' for i in range(3_000)]})
  path = tmp_path / 'rows'
  if kind == 'parquet':
    parquet.write_table(table, path, row_group_size=500)
  else:
    write_stream(table, path, 500)
  data = path.read_bytes()
  path.write_bytes(data[:int(keep * len(data)) if keep == 0.5 else keep])
  read = arrow.read_parquet if kind == 'parquet' else arrow.read_arrow
  message = error_of(lambda: read(path))
  assert message.startswith(f'{path}: the ')
  assert 'cut off, damaged' in message and 'download the file again' in message


def test_damage_within_a_file_is_refused(tmp_path):
  path = tmp_path / 'rows.parquet'
  parquet.write_table(pa.table({'x': [f'{i}' for i in range(3_000)]}), path)
  data = bytearray(path.read_bytes())
  data[4:400] = b'\xff' * 396
  path.write_bytes(data)
  assert 'cut off, damaged' in error_of(lambda: arrow.read_parquet(path))


def test_offsets_that_lead_astray_are_refused(tmp_path):
  path = tmp_path / 'rows'
  write_stream(pa.table({'x': ['a' * 300, 'b']}), path)
  data = path.read_bytes()
  offsets = b''.join(n.to_bytes(4, 'little') for n in (0, 300, 301))
  assert data.count(offsets) == 1
  path.write_bytes(data.replace(offsets, offsets[:4] + b'\xff' * 3 + b'\x7f'
                                + offsets[8:]))
  assert 'cut off, damaged' in error_of(lambda: arrow.read_arrow(path))


def test_a_file_of_no_rows_is_refused(tmp_path):
  table = pa.table({'x': pa.array([], pa.string())})
  parquet.write_table(table, tmp_path / 'a')
  write_stream(table, tmp_path / 'b')
  assert 'has no rows' in error_of(lambda: arrow.read_parquet(tmp_path / 'a'))
  assert 'has no rows' in error_of(lambda: arrow.read_arrow(tmp_path / 'b'))


@pytest.mark.parametrize('group', [1_000, 20_000])
def test_a_parquet_file_does_not_lie_in_memory_whole(tmp_path, group):
  path = tmp_path / 'rows.parquet'
  parquet.write_table(
      pa.table({'x': ['y' * 1_000] * 20_000}), path, row_group_size=group,
      use_dictionary=False, compression='none')
  before, most = pa.total_allocated_bytes(), 0
  for number, _ in arrow.read_parquet(path):
    if number % 100 == 0:
      most = max(most, pa.total_allocated_bytes() - before)
  assert number == 20_000
  assert most < path.stat().st_size // 4


def test_the_columns_of_messages_are_messages_and_other_columns_stay(tmp_path):
  """As a `Sequence` of objects lies in files that `datasets` wrote."""
  row = {
      'messages': {'role': ['user', 'assistant'], 'content': ['q', 'r']},
      'labels': {'name': ['spam'], 'value': [0.5]},
      'one': {'role': 'user', 'content': 'q'},
      'empty': {'from': [], 'value': []},
      'ragged': {'role': ['user'], 'content': ['q', 'r']},
  }
  path = tmp_path / 'rows.arrow'
  write_stream(pa.Table.from_pylist([row]), path)
  ((_, record),) = arrow.read_arrow(path)
  assert record == row | {
      'messages': [{'role': 'user', 'content': 'q'},
                   {'role': 'assistant', 'content': 'r'}],
      'empty': []}
