"""Alpaca: instructions, inputs and outputs."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """One file. Some copies hold the rendered prompt too, as `text`."""

  FEATURES = {
      'instruction': base.TEXT,
      'input': base.TEXT,
      'output': base.TEXT,
  }
  NULLABLE = (
      'text',
  )
  DESCRIPTION = 'Instructions and responses written by text-davinci-003.'
  HOMEPAGE = 'https://github.com/tatsu-lab/stanford_alpaca'
  LICENSE = 'CC BY-NC 4.0'
