"""UltraFeedback, binarized: a pair of chats with the scores of both."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """Files name their config: train_prefs, test_sft."""

  BUILDER_CONFIGS = base.configs(
      'prefs', 'sft', 'gen',
  )
  DEFAULT_BUILDER_CONFIG_NAME = 'prefs'
  FEATURES = {
      'prompt': base.TEXT,
      'prompt_id': base.TEXT,
      'chosen': base.MESSAGES,
      'rejected': base.MESSAGES,
      'messages': base.MESSAGES,
      'score_chosen': base.FLOAT,
      'score_rejected': base.FLOAT,
  }
  DESCRIPTION = 'Pairs of chats with the scores that GPT-4 gave them.'
  HOMEPAGE = 'https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized'
  LICENSE = 'MIT'
