"""Parameters that nobody trains, in the dtype that they are multiplied in."""

import chex
import jax

from alignjax.models.quantize import is_quantized


def freeze(params: chex.ArrayTree, dtype: str) -> chex.ArrayTree:
  """The tree with every leaf that is only ever cast to `dtype` cast now.

  A model with activations of `dtype` says the very same of it: matrices,
  embeddings and biases are cast before they are used. Norms, whose scales are
  used in float32, stay. With bfloat16 that halves a frozen model.

  Args:
    params: a decoder's or a scalar model's, or a part; arrays or quantized
      leaves, which stay.
    dtype: `ModelConfig.dtype` of the model that will read it.
  """

  def cast(path, x):
    is_norm = getattr(path[-1], 'key', '').removesuffix('_bias').endswith(
        'norm')
    if is_norm or is_quantized(x) or x.dtype == dtype:
      return x  # The same array: roles that share one go on sharing it.
    return x.astype(dtype)

  return jax.tree.map_with_path(
      cast, params, is_leaf=is_quantized)
