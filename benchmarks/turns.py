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

# GRPO's settings that are no flags. So small a rate leaves the model as it is,
# so that losses of given responses can be compared at any step.
GRPO = {'clip': 0.2, 'learning_rate': 1e-9}

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
    check: a loss that must be the other's, where a step's is of what the two
      sampled; outside of what is timed.
  """

  step: Callable[[], float]
  prepare: Callable[[], None] = lambda: None
  check: Callable[[], float] | None = None


def score(responses) -> list[float]:
  """A reward for each response that tells them apart: its mean token."""
  return [float(sum(response)) / len(response) for response in responses]


def given(rows: list[dict], width: int, new: int, size: int = 2):
  """Batches to compare losses of, whatever the two sampled.

  A response weighs 1 if it was chosen and -1 if it was rejected; what the
  policy that sampled it and the reference say of it is what the model says of
  it behind a prompt whose first half is another's.

  Yields:
    Prompts and those prompts, `width` tokens each, responses of `new` tokens,
    and weights.
  """
  prompts = [row['prompt'][-width:] for row in rows]
  mixed = [a[:width // 2] + b[width // 2:] for a, b in zip(
      prompts[1:] + prompts[:1], prompts, strict=True)]
  for i in range(len(rows)):
    order = [(i + j) % len(rows) for j in range(size)]
    both = [(k, name) for k in order for name in ('chosen', 'rejected')]
    yield ([prompts[k] for k, _ in both],
           [mixed[k] for k, _ in both],
           [rows[k][name][:new] for k, name in both],
           [1.0 if name == 'chosen' else -1.0 for _, name in both])


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
  compared = lambda loss: loss if task.check is None else task.check()
  loss = task.step()
  first, began = time.monotonic() - started, time.monotonic()
  task.prepare()
  prepared = time.monotonic() - began
  say(first_step_seconds=first, prepare_seconds=prepared, loss=compared(loss))
  for line in sys.stdin:
    if line.strip() != 'step':
      break
    began, cpu = time.monotonic(), _cpu_seconds()
    loss = task.step()
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu
    say(seconds=seconds, cpu_seconds=cpu, loss=compared(loss))
  say(rss_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def _cpu_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime
