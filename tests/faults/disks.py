"""Saves in a folder that has too little room for them."""

import pathlib
import random
import shutil
import subprocess

from alignjax import checkpoints
from alignjax.checkpoints import room as room_lib
from alignjax.errors import InputError
from tests.faults import damage


def fill_disks(root: pathlib.Path, count: int, draw: random.Random) -> dict:
  """Saves where there is too little room, then where there is enough."""
  intact = went_on = 0
  for i in range(count):
    root.mkdir()
    try:
      subprocess.run(
          ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', str(root)],
          capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
      root.rmdir()
      why = getattr(error, 'stderr', None) or str(error)
      raise InputError(f'full_disks={count}: {why.strip()}; only root may '
                       'mount a folder of limited size') from error
    try:
      ours = _fill_one(root, is_foreseen=i % 2 == 0, draw=draw)
    finally:
      subprocess.run(['umount', str(root)], check=True)
      root.rmdir()
    intact += ours[0]
    went_on += ours[1]
  return {'tried': count, 'intact': intact, 'went_on': went_on}


def _fill_one(root, *, is_foreseen: bool, draw) -> tuple[bool, bool]:
  """(step 1 loads after the failed save, step 2 does once there is room)."""
  checkpoints.save(root / 'run', 1, damage.state_of(1))
  room = draw.randrange(0, 20_000)  # Step 2 needs 34,000.
  (root / 'filler').write_bytes(bytes(max(
      0, shutil.disk_usage(root).free - room)))
  look = room_lib.check
  if not is_foreseen:  # As when another takes the room while we write.
    room_lib.check = lambda *args: None
  try:
    checkpoints.save(root / 'run', 2, damage.state_of(2))
    return False, False
  except checkpoints.SaveError as error:
    is_told = 'bytes' in str(error) and 'step_00000002' in str(error)
  finally:
    room_lib.check = look
  found = checkpoints.restore(root / 'run', damage.state_of(0))
  is_intact = is_told and found.step == 1 and damage.is_state(found.state, 1)
  (root / 'filler').unlink()
  checkpoints.save(root / 'run', 2, damage.state_of(2))
  found = checkpoints.restore(root / 'run', damage.state_of(0))
  return is_intact, found.step == 2 and damage.is_state(found.state, 2)
