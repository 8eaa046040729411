"""Several processes, one program: finding each other, agreeing, and noticing.

Every process runs the same script over all devices. Each puts its own part of
every batch on its own devices; arrays, metrics and decisions are the run's. The
first process writes what is not a checkpoint, and the others wait for it.

    ALIGNJAX_COORDINATOR=host:port   of the first process
    ALIGNJAX_NUM_PROCESSES=N
    ALIGNJAX_PROCESS_ID=0 ... N - 1

Without these, what jax finds by itself is used: TPU VMs, GKE, Slurm, Open MPI.
A process that says nothing for ALIGNJAX_TIMEOUT seconds (default 60) ends the
others, which name it.
"""

import atexit
from collections.abc import Callable, Iterator
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import sys
import threading
import time

import jax
from jax._src import clusters
from jax._src import distributed as jax_distributed

from alignjax.errors import InputError

_PREFIX = 'ALIGNJAX_'
_NAMES = ('COORDINATOR', 'NUM_PROCESSES', 'PROCESS_ID')
_AHEAD = 4  # Steps between asking to end and ending.
_FAILED = 70  # Exit status where another process is gone: EX_SOFTWARE.
_turns = itertools.count()
_handlers: list = []
_left = threading.Event()
_libc = ctypes.CDLL(None)


def start() -> None:
  """Joins the run's other processes, where there are any; once a process.

  Call before any array is made.

  Raises:
    InputError: some of the variables are given and some are not, one is no
      number, or the others did not come in time.
  """
  if jax_distributed.global_state.client is not None:
    return
  given = {name: os.environ[_PREFIX + name] for name in _NAMES
           if os.environ.get(_PREFIX + name)}
  if given:
    settings = _settings(given)
  elif _is_cluster():
    settings = {}
  else:
    return
  # Without it the client ends the process itself, with a page of C++.
  jax.config.update('jax_enable_recoverability', True)
  # It would catch SIGTERM and do nothing: stopping is ours.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
        **settings, initialization_timeout=int(max(timeout(), 1)),
        # Later than the watch below, which says it in one line.
        heartbeat_timeout_seconds=int(max(4 * timeout(), 1)))
  except RuntimeError as error:
    raise InputError(
        f'processes: {_line(error)}; start all of them within '
        f'{_PREFIX}TIMEOUT={timeout():g} seconds, with one '
        f'{_PREFIX}COORDINATOR that all can reach') from error
  if jax.process_count() > 1:
    _Watch().start()
    atexit.register(_leave)  # Before jax's own, which waits for nobody.
    _name_who_is_gone_when_aborted(
        jax_distributed.global_state.coordinator_address)


def timeout() -> float:
  """Seconds after which a process that says nothing is given up."""
  text = os.environ.get(_PREFIX + 'TIMEOUT', '60')
  try:
    return float(text)
  except ValueError:
    raise InputError(f'{_PREFIX}TIMEOUT={text} is no number of seconds; write '
                     'one such as 60') from None


def is_first() -> bool:
  """Whether this process is the one that writes and decides."""
  return jax.process_index() == 0


def by_first(act: Callable[[], None]) -> None:
  """Calls `act` on the first process; returns on all when it is done.

  What it raises there, all raise: an InputError with its text.
  """
  if jax.process_count() == 1:
    act()
    return
  client, key = _client(), f'alignjax/by_first/{next(_turns)}'
  if is_first():
    try:
      act()
    except BaseException as error:
      client.key_value_set(key, f'x{_line(error)}')
      raise
    client.key_value_set(key, '.')
    return
  said = client.blocking_key_value_get(key, 24 * 3_600_000)
  if said != '.':
    raise InputError(said[1:])


def wait_for_all(what: str) -> None:
  """Returns when every process is here.

  Raises:
    InputError: one did not come in time; it is named.
  """
  if jax.process_count() == 1:
    return
  try:
    _client().wait_at_barrier(
        f'alignjax/{what}/{next(_turns)}', int(1_000 * timeout()))
  except Exception as error:  # Of the runtime's own type.
    raise InputError(f'{what}: not every process came within {timeout():g} '
                     f'seconds: {_line(error)}') from error


def agreement() -> Callable[[int, bool], bool]:
  """Returns `at(step, wants) -> bool`: whether all processes end at this step.

  Call it after each step. Alone, a process ends where it wants to. Of several,
  the first that wants to names a step a few ahead: none is further than the
  collectives of a step let it be.
  """
  if jax.process_count() == 1:
    return lambda step, wants: wants
  key, said = f'alignjax/stop/{next(_turns)}', []

  def at(step: int, wants: bool) -> bool:
    if wants and not said:
      said.append(step)
      with contextlib.suppress(Exception):  # Another was first.
        _client().key_value_set(key, str(step + _AHEAD))
    try:
      agreed = int(_client().key_value_try_get(key))
    except Exception:  # Nobody has said anything.
      return False
    return step >= agreed

  return at


def _leave() -> None:
  """Ends the connection, the first process last: it serves the others."""
  try:
    wait_for_all('leave')
    if is_first():
      for i in range(1, jax.process_count()):
        _client().blocking_key_value_get(f'alignjax/left/{i}', 10_000)
      time.sleep(0.5)  # What they say last is no key.
    else:
      _client().key_value_set(f'alignjax/left/{jax.process_index()}', '.')
  except Exception as error:  # They are gone, and so are we.
    print(f'note: {_line(error)[:200]}', file=sys.stderr)
  _left.set()
  jax.distributed.shutdown()


class _Watch(threading.Thread):
  """Says that this process lives, and ends it when another does not."""

  def __init__(self):
    super().__init__(daemon=True, name='alignjax-watch')
    self._seen = {i: ('', time.monotonic()) for i in range(jax.process_count())
                  if i != jax.process_index()}
    self._hosts: dict[int, str] = {}

  def run(self):
    """Beats four times in the time that a process is given."""
    own, beats = jax.process_index(), itertools.count()
    host, answered = socket.gethostname(), time.monotonic()
    while not _left.is_set():
      try:
        _client().key_value_set(f'alignjax/alive/{own}',
                                f'{next(beats)} {host}', True)
        for i in self._seen:
          self._look(i)
        answered = time.monotonic()
      except Exception:  # The first process keeps these; it may be gone.
        if time.monotonic() - answered > timeout():
          _end(0, self._hosts.get(0, ''))
      if self.silent:
        _end(*self.silent[0])
      time.sleep(timeout() / 4)

  @property
  def silent(self) -> list[tuple[int, str]]:
    """(process, host) of those that said nothing for too long."""
    return [(i, self._hosts.get(i, '')) for i, (_, since) in self._seen.items()
            if time.monotonic() - since > timeout()]

  def _look(self, i: int) -> None:
    """Notes whether a process has said anything new."""
    for key, value in _client().key_value_dir_get('alignjax/alive/'):
      if key.rpartition('/')[2] == str(i) and value != self._seen[i][0]:
        self._seen[i] = value, time.monotonic()
        self._hosts[i] = value.partition(' ')[2]


@contextlib.contextmanager
def naming() -> Iterator[None]:
  """Gives the watch time to name who is gone, where a device says it first."""
  try:
    yield
  except jax.errors.JaxRuntimeError:
    if jax.process_count() > 1:
      time.sleep(1.5 * timeout())
    raise


def _name_who_is_gone_when_aborted(address: str) -> None:
  """Ends this process with one line where the runtime would with a page.

  Its client aborts in C++ at once when the service that the first process runs
  goes away, so that the watch has no time to notice.
  """
  host, _, port = address.rpartition(':')

  def aborted(number: int) -> None:
    try:
      socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
      _end(0, host, 'is gone')
    # A broken connection to another may have thrown: the watch names it.
    time.sleep(1.5 * timeout())
    _libc.signal(number, None)  # Aborted for a reason of its own.

  aborted = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
  _handlers.append(aborted)  # C keeps no reference.
  _libc.signal(signal.SIGABRT, aborted)


def _end(i: int, host: str, what: str = '') -> None:
  """Ends this process, which may be waiting for the other on a device."""
  where = f' on {host}' if host else ''
  what = what or f'has said nothing for {timeout():g} seconds'
  print(f'error: process {i} of {jax_distributed.global_state.num_processes}'
        f'{where} {what}; this one, {jax_distributed.global_state.process_id}, '
        'ends. The same command on all of them with --resume goes on from the '
        'last checkpoint', file=sys.stderr, flush=True)
  os._exit(_FAILED)  # Nothing else ends a thread that waits for a device.


def _client():
  return jax_distributed.global_state.client


def _is_cluster() -> bool:
  """Whether jax finds more than one process by itself."""
  for cluster in clusters.ClusterEnv._cluster_types:
    if not cluster.opt_in_only_method and cluster.is_env_present():
      try:
        return cluster.get_process_count() > 1
      except Exception:  # A lone TPU VM without its metadata server.
        return False
  return False


def _settings(given: dict[str, str]) -> dict:
  """What `jax.distributed.initialize` is called with."""
  missing = [_PREFIX + name for name in _NAMES if name not in given]
  if missing:
    raise InputError(f'{", ".join(missing)}: not set, and '
                     f'{_PREFIX}{next(iter(given))} is; set all of '
                     f'{", ".join(_PREFIX + name for name in _NAMES)}, or none')
  for name in _NAMES[1:]:
    if not given[name].isdigit():
      raise InputError(f'{_PREFIX}{name}={given[name]} is no whole number')
  count, own = int(given['NUM_PROCESSES']), int(given['PROCESS_ID'])
  if own >= count:
    raise InputError(f'{_PREFIX}PROCESS_ID={own} is not below '
                     f'{_PREFIX}NUM_PROCESSES={count}; they count from 0')
  return dict(coordinator_address=given['COORDINATOR'], num_processes=count,
              process_id=own)


def _line(error: BaseException) -> str:
  return ' '.join(str(error).split())
