"""The short form of faults.py, a few of each; it says how to run the long."""

import random

import pytest

from alignjax.errors import InputError
from tests import faults


@pytest.mark.parametrize('seed', [0, 1])
def test_every_damaged_file_is_named_and_the_step_before_is_taken(
    tmp_path, seed):
  counts = faults.corrupt(tmp_path, 15, random.Random(seed))
  assert counts == {'tried': 15, 'detected': 15, 'recovered': 15}


def test_a_full_disk_takes_nothing_and_a_save_succeeds_once_there_is_room(
    tmp_path):
  try:
    counts = faults.fill_disks(tmp_path / 'disk', 2, random.Random(0))
  except InputError as error:
    pytest.skip(str(error))
  assert counts == {'tried': 2, 'intact': 2, 'went_on': 2}


@pytest.mark.slow
def test_killed_and_terminated_runs_end_as_if_nothing_had_happened(tmp_path):
  runs = faults.Runs(tmp_path)
  counts = faults.kill(runs, 3, random.Random(0))
  assert counts['identical'] == 3
  counts = faults.terminate(runs, 3, random.Random(0))
  assert (counts['identical'], counts['lost_none']) == (3, 3)
  assert counts['seconds'] < 60  # About one, alone on two cores.
