"""The short form of `python -m tests.faults`: a few of each."""

import random

import pytest

from alignjax.errors import InputError
from tests.faults import damage
from tests.faults import disks
from tests.faults import mutations
from tests.faults import runs as runs_lib


@pytest.mark.parametrize('seed', [0, 1])
def test_every_damaged_file_is_named_and_the_step_before_is_taken(
    tmp_path, seed):
  counts = damage.corrupt(tmp_path, 15, random.Random(seed))
  assert counts == {'tried': 15, 'detected': 15, 'recovered': 15}


def test_a_full_disk_takes_nothing_and_a_save_succeeds_once_there_is_room(
    tmp_path):
  try:
    counts = disks.fill_disks(tmp_path / 'disk', 2, random.Random(0))
  except InputError as error:
    pytest.skip(str(error))
  assert counts == {'tried': 2, 'intact': 2, 'went_on': 2}


@pytest.mark.slow
def test_killed_and_terminated_runs_end_as_if_nothing_had_happened(tmp_path):
  runs = runs_lib.Runs(tmp_path)
  counts = runs_lib.kill(runs, 3, random.Random(0))
  assert counts['identical'] == 3
  counts = runs_lib.terminate(runs, 3, random.Random(0))
  assert (counts['identical'], counts['lost_none']) == (3, 3)
  assert counts['seconds'] < 60  # About one, alone on two cores.


def test_nothing_that_is_wrong_in_a_file_passes_or_breaks_its_reader(tmp_path):
  counts = mutations.run(tmp_path, 300, seed=0)
  assert counts['refused'] + counts['read'] == 300
  assert min(counts['refused'], counts['read']) > 50  # Or it shows little.
