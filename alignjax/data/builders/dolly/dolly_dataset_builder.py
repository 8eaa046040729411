"""Dolly 15k: instructions that people wrote and answered."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """One file, which is train."""

  FEATURES = {
      'instruction': base.TEXT,
      'context': base.TEXT,
      'response': base.TEXT,
      'category': base.TEXT,
  }
  DESCRIPTION = 'Instructions and responses by employees of Databricks.'
  HOMEPAGE = 'https://huggingface.co/datasets/databricks/databricks-dolly-15k'
  LICENSE = 'CC BY-SA 3.0'
