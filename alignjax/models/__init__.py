"""Decoders of the Llama family and the heads that stand on them."""

from alignjax.models.attention import count_positions
from alignjax.models.attention import visible
from alignjax.models.cache import Cache
from alignjax.models.cache import cache_behind
from alignjax.models.cache import make_cache
from alignjax.models.config import ModelConfig
from alignjax.models.frozen import freeze
from alignjax.models.language import CausalLM
from alignjax.models.language import ScalarModel

__all__ = ['Cache', 'CausalLM', 'ModelConfig', 'ScalarModel',
           'cache_behind', 'count_positions', 'freeze', 'make_cache', 'visible']
