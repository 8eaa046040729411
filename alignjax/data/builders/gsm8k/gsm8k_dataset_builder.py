"""GSM8K: grade school problems with worked answers."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """Files that name neither config are main."""

  BUILDER_CONFIGS = base.configs('main', 'socratic')
  DEFAULT_BUILDER_CONFIG_NAME = 'main'
  FEATURES = {
      'question': base.TEXT,
      'answer': base.TEXT,
  }
  DESCRIPTION = 'Problems of two to eight steps, with worked answers.'
  HOMEPAGE = 'https://github.com/openai/grade-school-math'
  LICENSE = 'MIT'
