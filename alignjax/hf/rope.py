"""Rotary positions as config.json writes them, in the ways of its versions.

Transformers 5 writes one object `rope_parameters`; before, `rope_theta` and the
object `rope_scaling` stood beside each other. Both are read, and both written.
"""

import dataclasses
import math

from alignjax.hf.fields import Fields
from alignjax.models import rope

KINDS = ('default', 'linear', 'llama3', 'yarn', 'longrope')


def read(
    fields: Fields, head_dim: int, *, layer_type: str | None = None,
    theta: str = 'rope_theta', fraction: str = 'partial_rotary_factor',
) -> rope.Rope:
  """The rotary positions that a file describes.

  Args:
    fields: of the file.
    head_dim: dimensions of a head.
    layer_type: whose entry counts, where `rope_parameters` has one per type.
    theta: the field beside `rope_scaling` that holds the base.
    fraction: the field that holds the share of dimensions that turn.

  Raises:
    InputError: a kind of scaling that is not computed here, or a bad number.
  """
  own = _object(fields, layer_type)
  found = dict(own.values)
  for name, outer in (('rope_theta', theta),
                      ('partial_rotary_factor', fraction)):
    if found.get(name) is None:
      found[name] = fields.get(outer)
  if found['partial_rotary_factor'] is None:
    found['partial_rotary_factor'] = 1.0
  if found['rope_theta'] is None:
    found['rope_theta'] = 10_000.0
    # Beside the object, an error names the field where the file has it.
  elif own.get('rope_theta') is None:
    fields.number(theta)
  own = dataclasses.replace(own, values=found)
  plain = rope.Rope(own.number('rope_theta'),
                    own.number('partial_rotary_factor'))
  turning = plain.num_turning(head_dim)
  if plain.fraction > 1 or turning % 2 or turning < 2:
    raise own.bad('partial_rotary_factor',
                  f'of head_dim={head_dim} leaves {turning} dimensions to '
                  'turn; RoPE turns pairs of them')
  return dataclasses.replace(plain, scaling=_scaling(fields, own, turning // 2))


def write(config: rope.Rope, *, theta: str = 'rope_theta') -> dict:
  """The fields of a file, for transformers 5 and before."""
  scaling = _scaling_fields(config.scaling)
  whole = {'rope_theta': config.theta, **scaling}
  if config.fraction != 1.0:
    whole['partial_rotary_factor'] = config.fraction
  before = {'rope_scaling': scaling} if config.scaling else {}
  return {'rope_parameters': whole, theta: config.theta, **before}


def _object(fields: Fields, layer_type: str | None) -> Fields:
  """The object that says most: `rope_scaling`, else `rope_parameters`."""
  for name in ('rope_scaling', 'rope_parameters'):
    own = fields.inside(name)
    if layer_type is not None and layer_type in own.values:
      own = own.inside(layer_type)
    if own.values:
      return own
  return fields.inside('rope_parameters')


def _scaling(fields: Fields, own: Fields, half: int) -> rope.Scaling | None:
  kind = own.get('rope_type') or own.get('type') or 'default'
  if kind == 'yarn' and own.get('short_factor'):
    kind = 'longrope'  # What Phi-3's first files call it.
  first = (fields.get('original_max_position_embeddings')
           or own.get('original_max_position_embeddings')
           or fields.get('max_position_embeddings'))
  own = dataclasses.replace(
      own, defaults={'original_max_position_embeddings': first})
  match kind:
    case 'default':
      return None
    case 'linear':
      return rope.Linear(own.number('factor'))
    case 'llama3':
      return rope.Llama3(
          own.number('factor'), own.number('low_freq_factor'),
          own.number('high_freq_factor'),
          own.count('original_max_position_embeddings'))
    case 'yarn':
      return _yarn(fields, own)
    case 'longrope' | 'su':
      length = own.count('original_max_position_embeddings')
      factor = own.optional_number('factor') or (
          fields.number('max_position_embeddings') / length)
      sharper = math.sqrt(1 + math.log(factor) / math.log(length)) if (
          factor > 1) else 1.0
      return rope.LongRope(
          own.numbers('short_factor', half), own.numbers('long_factor', half),
          length, own.optional_number('attention_factor') or sharper)
    case _:
      name = 'rope_type' if own.get('rope_type') else 'type'
      raise own.bad(name, f'is not supported; use one of {", ".join(KINDS)}')


def _yarn(fields: Fields, own: Fields) -> rope.Yarn:
  length = own.count('original_max_position_embeddings')
  factor = own.optional_number('factor') or (
      fields.number('max_position_embeddings') / length)
  scale = lambda m: 0.1 * m * math.log(factor) + 1.0 if factor > 1 else 1.0
  sharper = scale(1.0)
  if own.get('mscale') and own.get('mscale_all_dim'):
    sharper = scale(own.number('mscale')) / scale(own.number('mscale_all_dim'))
  return rope.Yarn(
      factor, length, own.optional_number('attention_factor') or sharper,
      own.optional_number('beta_fast') or 32.0,
      own.optional_number('beta_slow') or 1.0, own.get('truncate') is not False)


def _scaling_fields(scaling: rope.Scaling | None) -> dict:
  match scaling:
    case None:
      return {'rope_type': 'default'}
    case rope.Linear(factor):
      return {'rope_type': 'linear', 'factor': factor}
    case rope.Llama3(factor, low, high, length):
      return {'rope_type': 'llama3', 'factor': factor, 'low_freq_factor': low,
              'high_freq_factor': high,
              'original_max_position_embeddings': length}
    case rope.Yarn():
      return {'rope_type': 'yarn', 'factor': scaling.factor,
              'attention_factor': scaling.attention_factor,
              'beta_fast': scaling.beta_fast, 'beta_slow': scaling.beta_slow,
              'truncate': scaling.truncate,
              'original_max_position_embeddings': scaling.original_length}
    case rope.LongRope():
      return {'rope_type': 'longrope', 'short_factor': list(scaling.short),
              'long_factor': list(scaling.long),
              'attention_factor': scaling.attention_factor,
              'original_max_position_embeddings': scaling.original_length}
