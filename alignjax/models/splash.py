"""Attention by JAX's splash kernel for TPUs: no score leaves the chip's cache.

The kernel (`jax.experimental.pallas.ops.tpu.splash_attention`) goes over tiles
of queries and keys, and skips those of which a row's mask shows nothing: above
the diagonal, of another document, of a sibling branch, before a window. It is
given the mask that `attention.attend` is given, so that packing, branches and
windows are what they are there. Under a mesh each device runs it on its rows
and heads, and on its part of the queries.

Elsewhere than on TPUs the kernel is interpreted, which is for tests.
"""

import functools

import jax
import jax.numpy as jnp

from alignjax import partitioning

_TILES = (512, 256, 128)  # The largest that divides what there is.


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array, *,
    scale: float | None = None, softcap: float | None = None,
) -> jax.Array:
  """What `attention.attend` computes, up to rounding.

  Args:
    query: [B, T, H, head_dim].
    key: [B, K, S, head_dim], K divides H.
    value: [B, K, S, head_dim].
    seen: [B, T, S] bool. A query that sees nothing gets any finite number.
    scale: of the scores; 1/√head_dim if None.
    softcap: c > 0 bounds the scores, as c tanh(score / c); None does not.

  Returns:
    [B, T, H, head_dim] as query. T and S need not divide into tiles.
  """
  scale = query.shape[-1] ** -0.5 if scale is None else scale
  local = functools.partial(_attend, scale=scale, softcap=softcap)
  mesh = partitioning.current_mesh()
  if mesh is None or mesh.size == 1:
    return local(query, key, value, seen)
  names = (('batch', 'length', 'heads', None),
           ('batch', 'kv_heads', None, None),
           ('batch', 'kv_heads', None, None), ('batch', 'length', None))
  specs = tuple(
      partitioning.spec(of, x.shape, mesh)
      for of, x in zip(names, (query, key, value, seen), strict=True))
  if specs[0][2] != specs[1][1]:  # All heads read key heads of their own part.
    part = jax.sharding.PartitionSpec
    specs = (part(*specs[0][:2], None, None), *(
        part(specs[1][0], None, None, None),) * 2, specs[3])
  return jax.shard_map(
      local, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(
          query, key, value, seen)


def _attend(query, key, value, seen, *, scale, softcap):
  """The same on one device."""
  length, heads, head_dim = query.shape[1:]
  seen = seen.at[..., 0].set(seen[..., 0] | ~jnp.any(seen, axis=-1))
  query, key, value = _padded(query, 1), _padded(key, 2), _padded(value, 2)
  seen = _padded(_padded(seen, 1), 2)
  num_kv_heads = key.shape[1]
  # [B, K, H / K, T, head_dim] and [B, K, S, head_dim]. The kernel scales by 1.
  query = (query * scale).astype(query.dtype).reshape(
      *query.shape[:2], num_kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)
  make = functools.partial(_kernel, softcap=softcap)

  def row(each):
    query, key, value, seen = each
    return jax.vmap(make(seen))(query, key, value)

  mixed = jax.lax.map(row, (query, key, value, seen))
  mixed = mixed.transpose(0, 3, 1, 2, 4)
  return mixed.reshape(*mixed.shape[:2], heads, head_dim)[:, :length]


def _kernel(seen: jax.Array, *, softcap: float | None):
  """The kernel of one row's mask [T, S], the same for all heads."""
  # Pallas takes a while to import, and few runs need it.
  from jax.experimental.pallas.ops.tpu import splash_attention as jax_splash
  queries, keys = (next(t for t in _TILES if n % t == 0) for n in seen.shape)
  kernel = jax_splash.make_splash_mqa_single_device(
      seen[None], attn_logits_soft_cap=softcap,
      interpret=partitioning.platform() != 'tpu',
      block_sizes=jax_splash.BlockSizes(
          block_q=queries, block_kv=keys, block_kv_compute=keys,
          block_q_dkv=queries, block_kv_dkv=keys, block_kv_dkv_compute=keys,
          block_q_dq=queries, block_kv_dq=keys))
  # A flag for the profiler, made an array on the way, that is asked as a bool.
  for name in ('fwd_mask_info', 'dq_mask_info', 'dkv_mask_info'):
    setattr(kernel, name,
            getattr(kernel, name)._replace(is_dynamic_mask=True))
  return kernel


def _padded(x: jax.Array, axis: int) -> jax.Array:
  """`x` with zeros up to a multiple of the smallest tile."""
  width = [(0, 0)] * x.ndim
  width[axis] = (0, -x.shape[axis] % _TILES[-1])
  return jnp.pad(x, width)
