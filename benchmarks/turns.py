"""How two programs take turns on one machine: a line in, a line out.

A worker is a process that has built a task and waits. `step` on its stdin makes
it take one training step and say what that took; while one works, the other
sleeps on its stdin and takes no CPU. Only the standard library is used, since
the workers of other libraries import it too.
"""

from collections.abc import Callable
import json
import os
import resource
import sys
import time
from typing import NamedTuple

# PPO's settings that are no flags. So cold, sampling is greedy; so small a rate
# leaves all epochs the same.
PPO = {'kl_coef': 0.05, 'gamma': 1.0, 'lam': 0.95, 'clip': 0.2,
       'temperature': 1e-7, 'learning_rate': 1e-9}


class Task(NamedTuple):
  """What a worker does at each turn.

  Attributes:
    step: takes one optimizer step and returns its loss once it is known.
    prepare: what else happens once in a run, such as compiling for shapes that
      come later; called after the first step.
  """

  step: Callable[[], float]
  prepare: Callable[[], None] = lambda: None


def serve(make_task: Callable[[dict], Task]) -> None:
  """Runs a worker: settings in argv[1], then a step for each line.

  Args:
    make_task: from the settings to what is done at each turn.
  """
  out = os.fdopen(os.dup(1), 'w', buffering=1)
  os.dup2(2, 1)  # What libraries print is no answer.
  say = lambda **said: print(json.dumps(said), file=out, flush=True)
  started = time.monotonic()
  with open(sys.argv[1], encoding='utf-8') as file:
    task = make_task(json.load(file))
  loss = task.step()
  first, began = time.monotonic() - started, time.monotonic()
  task.prepare()
  say(first_step_seconds=first, loss=loss,
      prepare_seconds=time.monotonic() - began)
  for line in sys.stdin:
    if line.strip() != 'step':
      break
    began, cpu = time.monotonic(), _cpu_seconds()
    loss = task.step()
    say(seconds=time.monotonic() - began, cpu_seconds=_cpu_seconds() - cpu,
        loss=loss)
  say(rss_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def _cpu_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime
