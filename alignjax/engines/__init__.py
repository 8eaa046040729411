"""Other programs that sample for a policy that is trained here."""

from alignjax.engines.http import HttpEngine
from alignjax.engines.protocol import Drawn
from alignjax.engines.protocol import Engine
from alignjax.engines.protocol import make_engine_generate

__all__ = ['Drawn', 'Engine', 'HttpEngine', 'make_engine_generate']
