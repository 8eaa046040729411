"""What names the processes of a run; the rest needs two of them (hosts_test).
"""

import jax
import numpy as np
import pytest

from alignjax import distributed
from alignjax import sharding
from alignjax.errors import InputError

NAMES = ('COORDINATOR', 'NUM_PROCESSES', 'PROCESS_ID')


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
  for name in (*NAMES, 'TIMEOUT'):
    monkeypatch.delenv(f'ALIGNJAX_{name}', raising=False)


def test_alone_nothing_is_started_and_nobody_is_waited_for(monkeypatch):
  monkeypatch.setattr(distributed, '_is_cluster', lambda: False)
  distributed.start()
  distributed.wait_for_all('anything')
  done = []
  distributed.by_first(lambda: done.append(1))
  assert done == [1] and distributed.is_first()
  x = np.arange(4.0)
  put = sharding.put({'x': x}, sharding.replicated(sharding.make_mesh()))
  np.testing.assert_array_equal(sharding.to_host(put)['x'], x)


@pytest.mark.parametrize('given, says', [
    (('host:1', '2', ''), 'ALIGNJAX_PROCESS_ID: not set'),
    (('', '2', '0'), 'ALIGNJAX_COORDINATOR: not set'),
    (('host:1', 'two', '0'), 'NUM_PROCESSES=two'),
    (('host:1', '2', '2'), 'count from 0'),
    (('host:1', '2', '-1'), 'PROCESS_ID=-1')])
def test_half_a_description_is_refused(given, says, monkeypatch):
  for name, value in zip(NAMES, given, strict=True):
    if value:
      monkeypatch.setenv(f'ALIGNJAX_{name}', value)
  with pytest.raises(InputError, match=says):
    distributed.start()


def test_a_timeout_is_a_number(monkeypatch):
  assert distributed.timeout() == 60
  monkeypatch.setenv('ALIGNJAX_TIMEOUT', 'soon')
  with pytest.raises(InputError, match='ALIGNJAX_TIMEOUT=soon'):
    distributed.timeout()


def test_a_device_s_error_is_passed_on_at_once_where_nobody_else_is():
  error = jax.errors.JaxRuntimeError('down')
  with pytest.raises(jax.errors.JaxRuntimeError, match='down'):
    with distributed.naming():
      raise error
