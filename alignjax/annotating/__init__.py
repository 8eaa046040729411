"""A local page on which people rank, choose, or give thumbs."""

from alignjax.annotating.app import make_app
from alignjax.annotating.store import Store

__all__ = ['Store', 'make_app']
