"""Names and rules; what travels inside a program, and that it changes nothing.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from alignjax import logprobs
from alignjax import partitioning
from alignjax import sharding
from alignjax.models import transformer
from alignjax.plan import collectives

MESHES = ('data:8', 'fsdp:8', 'data:2,fsdp:4', 'fsdp:4,tensor:2')


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def placed(mesh, x, *names):
  spec = partitioning.spec(names, x.shape, mesh)
  return jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))


def test_outside_of_a_program_of_ours_nothing_is_done():
  x = jnp.ones((8, 4))
  assert partitioning.current_mesh() is None
  assert partitioning.constrain(x, 'batch', None) is x
  assert partitioning.reshard(x, ('batch', None), (None, 'embed')) is x
  assert partitioning.whole(x, 'float32', 'embed', None) is x
  assert not partitioning.splits_weights()


def test_no_axis_is_taken_twice_and_none_that_does_not_divide():
  mesh = sharding.make_mesh('fsdp:4,tensor:2')
  spec = lambda names, shape: partitioning.spec(names, shape, mesh)
  assert spec(('vocab', 'embed'), (64, 16)) == PartitionSpec('tensor', 'fsdp')
  assert spec(('vocab', 'embed'), (63, 16)) == PartitionSpec(None, 'fsdp')
  assert spec(partitioning.UNEMBEDDING, (64, 16)) == PartitionSpec(
      ('tensor', 'fsdp'), None)
  assert spec(partitioning.UNEMBEDDING, (63, 16)) == PartitionSpec(
      None, 'fsdp')
  assert spec(('embed', None), (16, 3)) == PartitionSpec('fsdp', None)


def test_jit_s_mesh_is_gone_after_tracing():
  mesh, seen = sharding.make_mesh('fsdp:8'), []

  def look(x):
    seen.append(partitioning.current_mesh())
    return x

  partitioning.jit(look, mesh)(jnp.ones(()))
  assert seen == [mesh] and partitioning.current_mesh() is None


@pytest.mark.parametrize('rows', [1, 16])
@pytest.mark.parametrize('spec', MESHES)
@pytest.mark.parametrize('axes, shape, inputs', [
    (('embed', 'mlp'), (32, 48), 1), (('mlp', 'embed'), (48, 32), 1),
    (('embed', 'heads', 'head_dim'), (32, 4, 8), 1),
    (('heads', 'head_dim', 'embed'), (4, 8, 32), 2)])
def test_whichever_travels_the_product_and_its_gradients_are_the_same(
    axes, shape, inputs, spec, rows):
  """One token of 8 rows moves to the kernel, 16 tokens have it come to them."""
  mesh = sharding.make_mesh(spec)
  x = normal(0, 8, rows, int(np.prod(shape[:inputs])))
  kernel = 0.2 * normal(1, *shape)
  plain = lambda x, k: transformer.project(
      x, k.reshape(-1, *k.shape[inputs:]))
  loss = lambda f: lambda x, k: jnp.sum(jnp.sin(f(x, k)))
  wanted = jax.value_and_grad(loss(plain), (0, 1))(x, kernel)
  ours = lambda x, k: transformer.multiply(x, k, axes, inputs)
  got = partitioning.jit(jax.value_and_grad(loss(ours), (0, 1)), mesh)(
      placed(mesh, x, 'batch', None, None), placed(mesh, kernel, *axes))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-5), got, wanted)


def test_one_token_a_row_leaves_the_kernel_where_it_is():
  mesh = sharding.make_mesh('fsdp:8')
  kernel = placed(mesh, normal(1, 64, 512), 'embed', 'mlp')
  multiply = partitioning.jit(
      lambda x, k: transformer.multiply(x, k, ('embed', 'mlp'), 1), mesh)

  def sent(length):
    x = placed(mesh, normal(0, 8, length, 64), 'batch', None, None)
    text = multiply.lower(x, kernel).compile().as_text()
    return sum(each.bytes for each in collectives.count(text).values())

  assert sent(1) < kernel.nbytes / 4
  assert sent(256) >= kernel.nbytes  # Gathered, and x stays.


@pytest.mark.parametrize('spec', MESHES)
@pytest.mark.parametrize('vocab, length', [(64, 2), (64, 40), (63, 2)])
def test_logprobs_are_the_same_whether_states_or_the_table_are_gathered(
    vocab, length, spec):
  mesh = sharding.make_mesh(spec)
  hidden, table = normal(0, 8, length + 1, 16), normal(1, vocab, 16)
  tokens = jax.random.randint(jax.random.key(2), (8, length + 1), 0, vocab)
  loss = lambda h, w, t: jnp.sum(logprobs.token_logprobs(
      h, w, t, chunk_size=2))
  wanted = jax.value_and_grad(loss, (0, 1))(hidden, table, tokens)
  got = partitioning.jit(jax.value_and_grad(loss, (0, 1)), mesh)(
      placed(mesh, hidden, 'batch', None, None),
      placed(mesh, table, *partitioning.UNEMBEDDING),
      placed(mesh, tokens, 'batch', None))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-5), got, wanted)


def test_logits_are_never_gathered_over_the_vocabulary():
  mesh = sharding.make_mesh('fsdp:8')
  loss = lambda h, w, t: jnp.sum(logprobs.token_logprobs(h, w, t))
  text = partitioning.jit(jax.grad(loss, (0, 1)), mesh).lower(
      placed(mesh, normal(0, 8, 5, 16), 'batch', None, None),
      placed(mesh, normal(1, 4_096, 16), *partitioning.UNEMBEDDING),
      placed(mesh, jnp.zeros((8, 5), jnp.int32), 'batch', None)
  ).compile().as_text()
  most = 8 * 4 * 16 * 4  # All states, in float32; all logits are 256 times it.
  for kind, each in collectives.count(text).items():
    assert each.bytes <= 4 * most, kind
