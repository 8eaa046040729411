"""A small OpenAI-compatible server of our own sampler."""

from alignjax.serving.sampler import Draw
from alignjax.serving.sampler import Sampler
from alignjax.serving.server import make_server

__all__ = ['Draw', 'Sampler', 'make_server']
