"""Anthropic HH-RLHF: transcripts, one preferred."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """A config per folder of the release; one must be named."""

  BUILDER_CONFIGS = base.configs(
      'harmless_base', 'helpful_base', 'helpful_online',
      'helpful_rejection_sampled',
  )
  FEATURES = {
      'chosen': base.TEXT,
      'rejected': base.TEXT,
  }
  DESCRIPTION = 'Pairs of transcripts; people preferred the first.'
  HOMEPAGE = 'https://github.com/anthropics/hh-rlhf'
  LICENSE = 'MIT'
