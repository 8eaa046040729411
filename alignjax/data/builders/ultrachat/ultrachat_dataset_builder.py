"""UltraChat 200k: chats of several turns."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """Files name their config: train_sft, test_gen."""

  BUILDER_CONFIGS = base.configs('sft', 'gen')
  DEFAULT_BUILDER_CONFIG_NAME = 'sft'
  FEATURES = {
      'prompt': base.TEXT,
      'prompt_id': base.TEXT,
      'messages': base.MESSAGES,
  }
  DESCRIPTION = 'Chats of several turns, written by ChatGPT.'
  HOMEPAGE = 'https://huggingface.co/datasets/HuggingFaceH4/ultrachat_200k'
  LICENSE = 'MIT'
