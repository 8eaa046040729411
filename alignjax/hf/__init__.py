"""Hugging Face model folders, in and out: weights, configuration, tokenizer.

Local files only; nothing is downloaded, nothing is unpickled.
"""

from alignjax.hf.condition import condition
from alignjax.hf.config import config_to_hf
from alignjax.hf.config import read_config
from alignjax.hf.lazy import LazyModel
from alignjax.hf.lazy import Leaf
from alignjax.hf.lazy import open_model
from alignjax.hf.peft import check_adapters
from alignjax.hf.peft import load_adapters
from alignjax.hf.peft import save_adapters
from alignjax.hf.tokenizer import load_tokenizer
from alignjax.hf.tokenizer import Tokenizer
from alignjax.hf.weights import load_model
from alignjax.hf.weights import load_reward_model
from alignjax.hf.weights import save_model
from alignjax.hf.weights import save_weights
from alignjax.hf.weights import stack_layers
from alignjax.hf.weights import unstack_layers

__all__ = ['LazyModel', 'Leaf', 'Tokenizer', 'check_adapters',
           'condition', 'config_to_hf',
           'load_adapters', 'load_model', 'load_reward_model',
           'load_tokenizer', 'open_model', 'read_config', 'save_adapters',
           'save_model', 'save_weights', 'stack_layers', 'unstack_layers']
