"""alignjax: pure JAX for aligning language models with human feedback.

Nothing is imported here: a program pays for the floors that it uses.

    from alignjax import losses
    from alignjax.train import make_step
"""

__version__ = '0.1.0'
