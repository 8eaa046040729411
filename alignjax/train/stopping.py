"""What ends a run from outside, or should have: signals and stalls."""

import contextlib
import faulthandler
import os
import signal
import sys
import threading

from alignjax import distributed
from alignjax.errors import Stopped
from alignjax.train.loop import SaveCheckpoints
from alignjax.types import InputError

_STALL = 'ALIGNJAX_STALL'


class StopOnSignal:
  """Saves and ends a run after the step in which SIGTERM or SIGINT came.

  What a machine's owner sends before he takes it away. A second signal ends
  the run at once. Of several processes, one that is told is enough: they
  agree on a step.
  """

  def __init__(self, save: SaveCheckpoints, name: str):
    """Takes over both signals, on the main thread, until `close`."""
    self._save, self._name, self._signal, self._before = save, name, 0, {}
    self._agree = distributed.agreement()
    if threading.current_thread() is threading.main_thread():
      self._before = {number: signal.signal(number, self._note)
                      for number in (signal.SIGTERM, signal.SIGINT)}

  def __call__(self, step, state, metrics, tokens):
    del metrics, tokens
    if not self._agree(step, bool(self._signal)):
      return
    is_saved = 'is' if self._save.save(step, state) else 'could NOT be'
    number = signal.Signals(self._signal or signal.SIGTERM)
    raise Stopped(
        f'{number.name}: stopped after step {step}, which {is_saved} saved; '
        'the same command with --resume goes on', 128 + number)

  def close(self):
    """Gives the signals back."""
    for number, before in self._before.items():
      signal.signal(number, before if before is not None else signal.SIG_DFL)
    self._before = {}

  def _note(self, number, frame):
    del frame
    if self._signal:
      raise KeyboardInterrupt
    self._signal = number
    text = f'{signal.Signals(number).name}: {self._name} ends with this step\n'
    os.write(2, text.encode())  # A handler may not print: a print may be on.


class DumpWhenStalled:
  """Writes where every thread stands when no step ends for a long time.

  The runtime's own thread writes it, so that a step that hangs outside of
  Python is seen too. It ends nothing: some steps are long.
  """

  def __init__(self):
    """Waits ALIGNJAX_STALL seconds for each step, default 1800; 0 never."""
    text = os.environ.get(_STALL, '1800')
    try:
      self._seconds = float(text)
    except ValueError:
      raise InputError(f'{_STALL}={text} is no number of seconds; write one '
                       'such as 1800') from None
    self._wait()

  def __call__(self, step, state, metrics, tokens):
    self._wait()

  def close(self):
    """Waits no longer."""
    faulthandler.cancel_dump_traceback_later()

  def _wait(self):
    if self._seconds > 0:
      with contextlib.suppress(OSError, ValueError, AttributeError):
        faulthandler.dump_traceback_later(
            self._seconds, repeat=True, file=sys.__stderr__)
