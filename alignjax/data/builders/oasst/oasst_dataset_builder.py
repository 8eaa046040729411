"""OpenAssistant: the messages of conversation trees."""

from alignjax.data.builders import base


class Builder(base.RecordsBuilder):
  """One row per message. The nested files of whole trees have no features."""

  FEATURES = {
      'message_id': base.TEXT,
      'text': base.TEXT,
      'role': base.TEXT,
      'lang': base.TEXT,
      'message_tree_id': base.TEXT,
      'tree_state': base.TEXT,
  }
  NULLABLE = (
      'parent_id',
      'user_id',
      'created_date',
      'review_count',
      'review_result',
      'deleted',
      'rank',
      'synthetic',
      'model_name',
      'detoxify',
      'emojis',
      'labels',
  )
  DESCRIPTION = 'Messages that volunteers wrote and ranked, as trees.'
  HOMEPAGE = 'https://huggingface.co/datasets/OpenAssistant/oasst1'
  LICENSE = 'Apache-2.0'
