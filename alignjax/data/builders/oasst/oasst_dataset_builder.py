"""OpenAssistant: messages one by one, or whole conversation trees."""

from alignjax.data.builders import base

# All else of a message may be null, and is left out in some releases.
_MESSAGE = ('message_id', 'text', 'role')
_NULLABLE = (
    'parent_id', 'user_id', 'created_date', 'lang', 'review_count',
    'review_result', 'deleted', 'rank', 'synthetic', 'model_name', 'detoxify',
    'message_tree_id', 'tree_state', 'emojis', 'labels', 'events', 'replies',
)


class Builder(base.RecordsBuilder):
  """Files name their config: oasst_ready.messages, oasst_ready.trees.

  A tree is an object within objects to any depth, which features cannot
  describe: its `prompt` is held as JSON.
  """

  BUILDER_CONFIGS = base.configs('messages', 'trees')
  DEFAULT_BUILDER_CONFIG_NAME = 'messages'
  DESCRIPTION = 'Conversations that volunteers wrote and ranked, as trees.'
  HOMEPAGE = 'https://huggingface.co/datasets/OpenAssistant/oasst1'
  LICENSE = 'Apache-2.0'

  def schema(self) -> base.Schema:
    if self.builder_config.name == 'trees':
      return base.Schema(
          {'message_tree_id': base.TEXT}, ('tree_state', 'prompt', 'origin'))
    return base.Schema(dict.fromkeys(_MESSAGE, base.TEXT), _NULLABLE)
