"""Ranges of settings: the borders, and one line for what lies outside."""

import dataclasses
import importlib
import math
import pathlib

import pytest

from alignjax import settings
from alignjax.types import InputError

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = [importlib.import_module(f'experiments.{path.stem}')
           for path in sorted((ROOT / 'experiments').glob('*.py'))
           if path.stem != '__init__']


@pytest.mark.parametrize('name, good, bad', [
    ('num_steps', [1, 10**9], [0, -1]),
    ('max_length', [2], [1]),
    ('learning_rate', [1e-9, 1.0], [0.0, -1e-3, math.inf, math.nan]),
    ('kl_coef', [0.0, 0.3], [-0.1, math.inf, math.nan]),
    ('kl_horizon', [1.0, math.inf], [0.0, math.nan]),
    ('lam', [0.0, 1.0], [-0.01, 1.01]),
    ('label_smoothing', [0.0, 0.49], [0.5, -0.1]),
    ('beta', [0.01], [0.0, -1.0]),
    ('seed', [0], [-1]),
])
def test_a_range_holds_its_borders_and_nothing_beyond(name, good, bad):
  for value in good:
    settings.check({name: value}, 1)
  for value in bad:
    with pytest.raises(InputError, match=f'^{name}={value} is out of range; '):
      settings.check({name: value}, 1)


@pytest.mark.parametrize('name, rule', [
    ('num_steps', 'at least 1'),
    ('beta', 'above 0 and finite'),
    ('gamma', 'at least 0 and at most 1'),
    ('label_smoothing', 'at least 0 and below 0.5'),
])
def test_the_rule_is_said_in_words(name, rule):
  assert str(settings.RANGES[name]) == rule


def test_a_setting_left_open_passes():
  settings.check({'num_steps': None, 'batch_size': None}, 8)


def test_slots_and_columns_split_over_the_mesh_or_the_nearest_is_named():
  settings.check({'num_slots': 16, 'batch_size': 32, 'max_length': 48}, 8, 4)
  with pytest.raises(InputError, match=r'num_slots=12 .* multiple of 8'):
    settings.check({'num_slots': 12, 'batch_size': 32}, 8)
  with pytest.raises(InputError, match=r'max_length=50 .* 48 or 52'):
    settings.check({'max_length': 50}, 8, 4)


@pytest.mark.parametrize('given, shards, multiple', [
    ({'batch_size': 6}, 4, 4),
    ({'batch_size': 12, 'num_minibatches': 2}, 4, 8),
    ({'batch_size': 16, 'num_minibatches': 2, 'num_microbatches': 4}, 4, 32),
    ({'batch_size': 16, 'num_samples': 3}, 8, 24),
])
def test_a_batch_that_does_not_split_is_told_what_does(given, shards, multiple):
  with pytest.raises(InputError, match=f'use a multiple of {multiple}$'):
    settings.check(given, shards)
  settings.check(given | {'batch_size': multiple}, shards)


def test_a_response_must_leave_room_for_a_prompt():
  settings.check({'max_new_tokens': 31, 'max_length': 32}, 1)
  with pytest.raises(InputError, match='max_new_tokens=32 leaves no room'):
    settings.check({'max_new_tokens': 32, 'max_length': 32}, 1)


def test_every_number_of_every_script_has_a_range():
  free = {'length_bias', 'confidence_bias', 'list_bias'}  # Any taste will do.
  numbers = {
      field.name for script in SCRIPTS if hasattr(script, 'Config')
      for field in dataclasses.fields(script.Config)
      if any(kind in str(field.type) for kind in ('int', 'float'))
      and 'Literal' not in str(field.type)  # 'int8' is no number.
      and 'tuple' not in str(field.type)}  # Scripts check those themselves.
  assert numbers - free == settings.RANGES.keys()
