"""Self-instruct: the seed tasks."""

import tensorflow_datasets as tfds

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """One file, which is train."""

  FEATURES = {
      'id': base.TEXT,
      'name': base.TEXT,
      'instruction': base.TEXT,
      'instances': tfds.features.Sequence(
          {'input': base.TEXT, 'output': base.TEXT}),
      'is_classification': base.BOOL,
  }
  DESCRIPTION = 'Tasks that people wrote, with an instance or more each.'
  HOMEPAGE = 'https://github.com/yizhongw/self-instruct'
  LICENSE = 'Apache-2.0'
