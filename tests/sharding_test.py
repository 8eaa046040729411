"""Meshes from text, rules into shardings, and one line where it cannot be."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from alignjax import models
from alignjax import sharding
from alignjax.types import InputError


@pytest.mark.parametrize('spec, shape', [
    ('data:-1', (8, 1, 1, 1)),
    ('data:8', (8, 1, 1, 1)),
    ('fsdp:-1', (1, 8, 1, 1)),
    ('data:2,fsdp:-1,tensor:2', (2, 2, 1, 2)),
    ('tensor:4, data:2', (2, 1, 1, 4)),  # In any order, with spaces.
    ('data:-1,fsdp:8', (1, 8, 1, 1)),
    ('sequence:4,fsdp:2', (1, 2, 4, 1)),
])
def test_a_mesh_has_four_axes_over_all_devices(spec, shape):
  mesh = sharding.make_mesh(spec)
  assert mesh.axis_names == ('data', 'fsdp', 'sequence', 'tensor')
  assert tuple(mesh.shape.values()) == shape
  assert mesh.axis_types == (AxisType.Auto,) * 4
  assert set(mesh.devices.ravel()) == set(jax.devices())
  assert sharding.num_batch_shards(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize('spec, named', [
    ('model:8', "'model'"),
    ('data:2,data:4', "'data' is repeated"),
    ('data:two', "'two'"),
    ('data', "''"),
    ('data:3', '8 devices'),
    ('data:-1,fsdp:-1', '8 devices'),
    ('data:-1,fsdp:3', '8 devices'),
    ('data:0', '8 devices'),
    ('data:-8,fsdp:-1', '8 devices'),
    ('', '8 devices'),
])
def test_a_mesh_that_cannot_be_is_refused_in_one_line(spec, named):
  with pytest.raises(InputError) as error:
    sharding.make_mesh(spec)
  assert repr(spec) in str(error.value) and named in str(error.value)
  assert '\n' not in str(error.value)


def test_rows_are_split_over_data_and_fsdp_and_not_over_tensor():
  mesh = sharding.make_mesh('data:2,fsdp:2,tensor:2')
  rows = sharding.put(np.arange(16).reshape(8, 2),
                      sharding.batch_sharding(mesh))
  shards = {tuple(s.data.ravel().tolist()) for s in rows.addressable_shards}
  assert shards == {(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11),
                    (12, 13, 14, 15)}
  whole = sharding.put(np.arange(3), sharding.replicated(mesh))
  assert all(s.data.shape == (3,) for s in whole.addressable_shards)


def specs_of(spec, **changes):
  config = dict(vocab_size=32, hidden_size=16, intermediate_size=24,
                num_layers=1, num_heads=4, num_kv_heads=2, head_dim=4)
  model = models.CausalLM(models.ModelConfig(**(config | changes)))
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  tree = sharding.tree_shardings(
      sharding.make_mesh(spec), model.axes(), shapes)
  return jax.tree.map(lambda s: s.spec, tree)


def test_the_rules_split_parameters_over_fsdp_and_tensor():
  specs = specs_of('data:2,fsdp:2,tensor:2')
  layer = specs['layers_0']
  assert specs['embed'] == PartitionSpec('tensor', 'fsdp')
  assert layer['query'] == PartitionSpec('fsdp', 'tensor', None)
  assert layer['key'] == PartitionSpec('fsdp', 'tensor', None)
  assert layer['out'] == PartitionSpec('tensor', None, 'fsdp')
  assert layer['down'] == PartitionSpec('tensor', 'fsdp')
  assert layer['mlp_norm'] == specs['final_norm'] == PartitionSpec(None)


def test_what_an_axis_does_not_divide_is_not_split():
  specs = specs_of('fsdp:2,tensor:4', vocab_size=30)
  assert specs['embed'] == PartitionSpec(None, 'fsdp')          # 30 / 4.
  assert specs['layers_0']['key'] == PartitionSpec('fsdp', None, None)  # 2.
  assert specs['layers_0']['query'] == PartitionSpec('fsdp', 'tensor', None)


def test_an_axis_of_one_device_is_not_named():
  specs = specs_of('data:2,sequence:4')
  assert specs['embed'] == PartitionSpec(None, 'sequence')
  assert specs['layers_0']['down'] == PartitionSpec(None, 'sequence')


def test_parameters_are_split_over_the_devices_that_share_a_row_too():
  specs = specs_of('fsdp:2,sequence:2,tensor:2')
  both = 'fsdp', 'sequence'
  assert specs['embed'] == PartitionSpec('tensor', both)
  assert specs['layers_0']['query'] == PartitionSpec(both, 'tensor', None)


def test_stacked_layers_keep_their_leading_dimension_whole():
  specs = specs_of('fsdp:4,tensor:2', scan_layers=True, num_layers=4)
  assert specs['layers']['gate'] == PartitionSpec(None, 'fsdp', 'tensor')


def test_no_mesh_axis_is_used_twice_in_one_array():
  mesh = sharding.make_mesh('fsdp:4,tensor:2')
  for axes, expected in (
      (('embed', 'embed'), ('fsdp', None)),
      (('batch', 'embed'), ('fsdp', None)),
      (('vocab', 'mlp'), ('tensor', None))):
    tree = sharding.tree_shardings(
        mesh, {'w': PartitionSpec(*axes)}, {'w': jnp.zeros((8, 8))})
    assert tree['w'].spec == PartitionSpec(*expected)
    sharding.put(jnp.zeros((8, 8)), tree['w'])  # jax accepts it too.
