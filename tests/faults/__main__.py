"""Breaks runs and what they read on purpose, and counts what came of it.

  python -m tests.faults --kills 50 --terms 5 --corruptions 200 --full-disks 20
    --mutations 1000

Kills: SFT, DPO and PPO runs of the testbed get SIGKILL in a step, a rollout, a
save or the comparison at their end, and are resumed; metrics, model and figures
must be those of a run that nothing befell, byte for byte. Terms: the same with
SIGTERM, which must leave a checkpoint of the very step. Corruptions: a
checkpoint's file has a bit flipped, is cut, zeroed in part, deleted, or changes
places with another; the restore must name it and take the step before. Full
disks: a save in a folder with too little room (a mounted tmpfs; root only) must
leave the step before, and succeed once there is room. Mutations: a
file of every kind that is read has something wrong in it; who reads it must
refuse it in one line or read it whole, within 5 seconds.
"""

import dataclasses
import json
import pathlib
import random
import sys
import tempfile

from alignjax import cli
from alignjax.errors import InputError
from tests.faults import damage
from tests.faults import disks
from tests.faults import mutations
from tests.faults import runs as runs_lib
from tests.faults import soak


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """How often each is tried."""

  kills: int = 0        # SIGKILLs, over SFT, DPO and PPO in turn.
  terms: int = 0        # SIGTERMs, likewise.
  corruptions: int = 0  # Files of a checkpoint that are damaged.
  full_disks: int = 0   # Saves without room.
  mutations: int = 0    # Files with something wrong, over all parsers.
  soak: int = 0         # Steps of one long run of SFT.
  seed: int = 0         # Of the moments and of the damage.
  json: str = ''        # File for the result.


# What must be as many as were tried.
_ALL = ('identical', 'detected', 'recovered', 'intact', 'went_on', 'lost_none',
        'flat')


def main(cfg: Config) -> None:
  """Tries them and prints the counts; status 1 if one was not survived.

  What is quick goes first, and the file has what was tried so far.
  """
  for name, value in dataclasses.asdict(cfg).items():
    if isinstance(value, int) and value < 0:
      raise InputError(f'{name}={value} is less than none; use 0 or more')
  draw, result = random.Random(cfg.seed), {}

  def note(name: str, counts: dict) -> None:
    result[name] = counts
    if cfg.json:
      pathlib.Path(cfg.json).write_text(json.dumps(result, indent=1) + '\n')

  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    note('full_disks', disks.fill_disks(root / 'disk', cfg.full_disks, draw))
    note('corruptions', damage.corrupt(root / 'bits', cfg.corruptions, draw))
    note('mutations', mutations.run(root / 'mutants', cfg.mutations, cfg.seed))
    runs = runs_lib.Runs(root) if cfg.kills or cfg.terms else None
    note('kills', runs_lib.kill(runs, cfg.kills, draw))
    note('terms', runs_lib.terminate(runs, cfg.terms, draw))
    note('soak', soak.run(cfg.soak))
  print(json.dumps(result, indent=1))
  if any(counts.get(name, counts['tried']) != counts['tried']
         for counts in result.values() for name in _ALL) or any(
             result['mutations'][name] for name in mutations.BAD):
    sys.exit(1)


if __name__ == '__main__':
  cli.run(main, Config)
