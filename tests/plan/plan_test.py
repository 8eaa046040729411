"""Plans: the run's own programs, over shapes; what does not exist is named."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from alignjax import hf
from alignjax import plan
from alignjax import sharding
from alignjax import topologies
from alignjax import train
from alignjax.commands import plan as command
from alignjax.models import CausalLM
from alignjax.models import presets
from alignjax.plan import cost
from alignjax.plan import programs
from alignjax.types import InputError

TINY = dataclasses.replace(
    presets.PRESETS['smollm2-135m'], vocab_size=64, hidden_size=16,
    intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
    scan_layers=True, remat=True)
SHAPE = plan.Shape(rows=16, length=32, chunk_size=None)
CPUS = plan.parse_topology('cpu:8')


@pytest.mark.parametrize('name, count', [
    ('llama-2-7b', 6_738_415_616), ('llama-2-70b', 68_976_648_192),
    ('llama-3.2-1b', 1_235_814_400), ('smollm2-135m', 134_515_008)])
def test_presets_have_the_parameters_of_their_namesakes(name, count):
  assert presets.count_parameters(presets.PRESETS[name]) == count


def test_parameters_are_counted_as_the_model_has_them():
  for tied in (True, False):
    config = dataclasses.replace(TINY, tie_embeddings=tied)
    params = jax.eval_shape(CausalLM(config).init, jax.random.key(0))
    assert presets.count_parameters(config) == sum(
        x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize('method, names', [
    ('sft', ['train_step']), ('reward', ['train_step']),
    ('dpo', ['reference', 'train_step']),
    ('kto', ['reference', 'train_step']),
    ('ppo', ['generate', 'reward', 'annotate', 'update']),
    ('grpo', ['generate', 'reward', 'annotate', 'update'])])
def test_every_program_is_compiled_and_weighed(method, names):
  found = plan.plan(method, TINY, SHAPE, plan.parse_topology('cpu:8'))
  assert [p.name for p in found] == names
  for program in found:
    assert program.is_compiled and program.fits
    assert program.temporaries_gib > 0
    assert program.peak_gib == pytest.approx(
        sum(program.roles.values()) + program.temporaries_gib)


def test_roles_weigh_what_their_shards_hold():
  found, = plan.plan('sft', TINY, SHAPE, plan.parse_topology('cpu:8'),
                     'data:8')
  count = presets.count_parameters(TINY)
  assert found.roles['policy'] * cost.GIB == 4 * count  # On every chip, whole.
  assert found.roles['optimizer'] * cost.GIB == pytest.approx(
      8 * count, rel=0.01)
  split, = plan.plan('sft', TINY, SHAPE, plan.parse_topology('cpu:8'))
  assert split.roles['policy'] < found.roles['policy'] / 4


@pytest.mark.parametrize('method', ['dpo', 'kto', 'ppo', 'grpo'])
def test_adapters_share_one_frozen_base_in_the_dtype_of_activations(method):
  config = dataclasses.replace(TINY, dtype='bfloat16', tie_embeddings=False)
  shape = SHAPE._replace(lora_rank=1)
  whole = plan.plan(method, config, SHAPE, CPUS)[-1]
  found = plan.plan(method, config, shape, CPUS)[-1]
  assert 'reference' not in found.roles and 'base' not in whole.roles
  # All but the norms, whose scales stay float32, is in 2 bytes and not in 4.
  assert found.roles['base'] == pytest.approx(
      whole.roles['policy'] / 2, rel=0.1)
  assert found.roles['base'] == whole.roles['reference']
  assert found.roles['policy'] < whole.roles['policy']
  assert found.roles['optimizer'] < whole.roles['optimizer']


@pytest.mark.parametrize('kind, share', [
    ('int8', 1 / 2), ('nf4', 9 / 32)])  # 4 bits, and a float32 for 64 of them.
def test_a_quantized_base_is_a_half_or_a_quarter_of_bfloat16(kind, share):
  config = dataclasses.replace(
      TINY, dtype='bfloat16', hidden_size=64, intermediate_size=512,
      head_dim=16)
  shape = SHAPE._replace(lora_rank=1)
  base = plan.plan('ppo', config, shape, CPUS, 'data:8')[-1].roles['base']
  found = plan.plan(
      'ppo', config, shape._replace(quantize=kind), CPUS, 'data:8')[-1]
  table = 64 * 64 * 2 / plan.cost.GIB  # Stays as it is.
  assert (found.roles['base'] - table) / (base - table) == pytest.approx(
      share, rel=0.1)


def test_without_a_critic_there_is_none():
  whole = plan.plan('ppo', TINY, SHAPE, CPUS)[-1]
  found = plan.plan('grpo', TINY, SHAPE, CPUS)[-1]
  assert 'value' in whole.roles and 'value' not in found.roles
  assert found.roles['optimizer'] == pytest.approx(
      whole.roles['optimizer'] / 2, rel=0.02)
  with pytest.raises(InputError, match='use 4 or 8'):
    plan.plan('grpo', TINY, SHAPE._replace(rows=6),
              plan.parse_topology('cpu:2'))


def test_slots_are_the_cache_s_rows():
  at_once, = (p for p in plan.plan('ppo', TINY, SHAPE, CPUS)
              if p.name == 'generate')
  in_slots, = (p for p in plan.plan('ppo', TINY, SHAPE._replace(num_slots=8),
                                    CPUS) if p.name == 'generate')
  assert in_slots.roles['kv_cache'] == at_once.roles['kv_cache'] / 2


def test_a_rollout_s_cache_is_a_role_and_lies_with_its_rows():
  generate = plan.plan('ppo', TINY, SHAPE, CPUS)[0]
  rows_a_chip = SHAPE.rows // 8
  assert generate.roles['kv_cache'] * cost.GIB == (
      2 * TINY.num_layers * rows_a_chip * SHAPE.length * 2 * 4 * 4)


def test_what_is_remembered_of_a_prompt_is_shared_by_its_samples():
  chip = plan.parse_topology('cpu:2')
  own = plan.plan('ppo', TINY, SHAPE, chip)[0].roles['kv_cache']
  shared = plan.plan('grpo', TINY, SHAPE, chip)[0]
  # Half of a row is a prompt, and four samples share one.
  assert shared.roles['kv_cache'] == own * (1 / 2 + 1 / 2 / 4)
  assert shared.temporaries_gib > 0


def test_a_branched_pair_is_one_row_and_needs_less_than_two():
  shape = SHAPE._replace(length=64, rows=32)
  padded = plan.plan('dpo', TINY, shape, CPUS)[-1]
  branched = plan.plan(
      'dpo', TINY, shape._replace(layout='branched'), CPUS)[-1]
  assert branched.tflops == pytest.approx(padded.tflops / 2)
  assert branched.temporaries_gib < 0.8 * padded.temporaries_gib
  sft = plan.plan('sft', TINY, shape._replace(rows=16), CPUS)[-1]
  assert branched.peak_gib < 1.5 * sft.peak_gib  # Of as many tokens.


def test_a_reference_that_was_asked_before_lies_beside_nothing():
  beside = plan.plan('dpo', TINY, SHAPE, CPUS)
  asked, step = plan.plan(
      'dpo', TINY, SHAPE._replace(precompute_reference=True), CPUS)
  weights = beside[1].roles['reference']
  assert beside[1].peak_gib - step.peak_gib == pytest.approx(weights)
  assert asked.roles.keys() == {'reference', 'batch'}
  assert asked.peak_gib < beside[0].peak_gib - weights


def test_an_update_of_two_models_needs_what_one_model_s_needs():
  """They take turns, and no state is held twice."""
  config = dataclasses.replace(
      TINY, hidden_size=64, intermediate_size=128, head_dim=16)
  shape = SHAPE._replace(rows=8, length=16, num_minibatches=2)
  chip = plan.parse_topology('cpu:1')
  ppo, grpo = (plan.plan(method, config, shape, chip)[-1]
               for method in ('ppo', 'grpo'))
  assert ppo.temporaries_gib < 1.1 * grpo.temporaries_gib
  assert grpo.temporaries_gib < 4 * grpo.roles['policy']


def test_an_iteration_is_planned_as_it_is_run():
  """The planned update takes what a real iteration hands it."""
  mesh = sharding.make_mesh('fsdp:8')
  found = {p.name: p for p in programs.of_method('ppo', TINY, SHAPE, mesh)}
  fill = lambda tree: jax.tree.map(_filled, tree)
  params, prompts, _ = fill(found['generate'].arguments)
  trajectory = found['generate'].function(params, prompts, jax.random.key(0))
  planned = found['reward'].arguments[1]
  assert trajectory.tokens.sharding.is_equivalent_to(planned.sharding, 2)
  judge = fill(found['reward'].arguments[0])
  reward = found['reward'].function(
      judge, trajectory.tokens, trajectory.attention_mask, None)
  _, frozen, critic, coef, *_ = fill(found['annotate'].arguments)
  trajectory, _ = found['annotate'].function(
      params, frozen, critic, coef, trajectory, reward)
  state, batch, base, _ = found['update'].arguments
  same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype,
                      batch, trajectory)
  assert all(jax.tree.leaves(same))
  found['update'].function(fill(state), trajectory, base, None)
  assert all(p.function._cache_size() == 1 for p in found.values())


@pytest.mark.parametrize('method', ['sft', 'dpo', 'kto', 'grpo'])
def test_a_step_is_planned_as_it_is_run(method):
  """It takes ones of the planned shapes, and says something of them."""
  step = programs.of_method(
      method, TINY, SHAPE, sharding.make_mesh('fsdp:8'))[-1]
  state, metrics = step.function(*jax.tree.map(_filled, step.arguments))
  assert state.step == (2 if method == 'grpo' else 1) + 1
  assert jnp.isfinite(metrics['loss'].compute())
  assert step.function._cache_size() == 1


def _filled(x):
  """Ones, or a key, of a shape."""
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.device_put(jax.random.key(0), x.sharding)
  return jax.device_put(jnp.ones(x.shape, x.dtype), x.sharding)


def test_what_is_offloaded_is_the_host_s_unless_the_host_is_the_device():
  away, here = SHAPE._replace(offload=True), plan.parse_topology('cpu:8')
  (step,) = plan.plan('sft', TINY, away, plan.parse_topology('h100:8'))
  assert step.roles['optimizer'] * plan.cost.GIB < 64  # Counts.
  assert step.host_gib == pytest.approx(2 * step.roles['policy'])
  (step,) = plan.plan('sft', TINY, away, here)
  assert step.roles['optimizer'] == pytest.approx(
      2 * step.roles['policy'], rel=0.01)
  assert step.host_gib == 0


def test_fit_finds_the_largest_batch():
  topology = plan.parse_topology('h100:8')
  config = dataclasses.replace(
      presets.PRESETS['llama-2-7b'], dtype='bfloat16', remat=True,
      scan_layers=True)
  shape = plan.Shape(rows=16, length=1024, chunk_size=128)
  found = plan.fit('dpo', config, shape, topology)
  assert found.fits and not found.changes
  more = plan.plan('dpo', config, shape._replace(
      rows=int(1.1 * found.shape.rows) // 16 * 16), topology)
  assert not all(p.peak_gib <= 0.97 * p.limit_gib for p in more)


def test_fit_makes_activations_anew_before_anything_else():
  config = dataclasses.replace(
      presets.PRESETS['llama-2-7b'], dtype='bfloat16', scan_layers=True)
  shape = plan.Shape(rows=8, length=4_096, chunk_size=128)
  found = plan.fit('sft', config, shape, plan.parse_topology('h100:4'))
  assert found.fits and found.config.remat
  assert found.changes == ['--remat']


def test_fit_changes_what_it_must_and_says_so(capsys):
  command.plan(command.Plan(model='70b', topology='h100:8', fit=True))
  said = ' '.join(capsys.readouterr().err.split())
  assert '--lora-rank 16' in said and 'the largest batch that fits' in said
  with pytest.raises(SystemExit) as stop:
    command.plan(command.Plan(model='70b', topology='v5e:2x2', fit=True,
                              method='sft'))
  assert stop.value.code == 1
  said = capsys.readouterr().err
  assert 'nothing that was tried fits v5e:2x2; v5e:' in said


def test_presets_key_heads_are_known_without_jax():
  known = {name: config.num_kv_heads
           for name, config in presets.PRESETS.items()}
  assert known == topologies.KEY_HEADS


def test_what_is_refused_needs_no_jax(tmp_path):
  """In a process of its own, which would say what it imported."""
  (tmp_path / 'config.json').write_text('{"num_attention_heads": 6}')
  script = '''
import sys
from alignjax import cli
sys.argv = ['alignjax', 'plan', '--model', '7b', *sys.argv[1:]]
try:
  cli.main()
finally:
  assert 'jax' not in sys.modules
'''
  for flags, says in ((['--topology', 'v5e:3x3'], 'v5e:2x4'),
                      (['--topology', 'v5e:4x8', '--mesh', 'fsdp:7'],
                       'fsdp:8,data:4'),
                      (['--topology', 'v5e:4x8', '--batch', '31'], 'use 64'),
                      (['--topology', 'v5e:2x4', '--mesh', 'tensor:8',
                        '--model', '135m'], '3 key heads; use tensor:3'),
                      (['--topology', 'v5e:2x4', '--mesh', 'tensor:8',
                        '--model', str(tmp_path)], '6 key heads; use tensor:6'),
                      (['--topology', 'v5e:2x4', '--mesh', 'sequence:8',
                        '--length', '100'], 'use 96 or 104'),
                      (['--topology', 'v5e:2x4', '--method', 'kto',
                        '--precompute-reference'], 'precompute_reference')):
    done = subprocess.run([sys.executable, '-c', script, *flags],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert done.stderr.count('\n') == 1


def test_what_is_planned_is_what_is_run():
  """The planned arguments have the shapes and shardings of a real state."""
  mesh = sharding.make_mesh('fsdp:8')
  program, = programs.of_method('sft', TINY, SHAPE, mesh)
  model = CausalLM(TINY)
  state, _ = train.init_state(
      model.init(jax.random.key(0)), model.axes(),
      train.make_optimizer(1e-5, 1_000), mesh=mesh, seed=0)
  planned, batch = program.arguments
  same = jax.tree.map(
      lambda a, b: a.shape == b.shape and a.dtype == b.dtype
      and a.sharding.is_equivalent_to(b.sharding, a.ndim), planned, state)
  assert all(jax.tree.leaves(same))
  full = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), batch)
  program.function(state, sharding.put(full, sharding.batch_sharding(mesh)))
  assert program.function._cache_size() == 1


def test_without_a_compiler_it_is_an_estimate_and_says_so(capsys):
  found, = plan.plan('sft', TINY, SHAPE, plan.parse_topology('h100:4'))
  assert not found.is_compiled and found.peak_gib > sum(found.roles.values())
  command.plan(command.Plan(method='sft', model='135m', topology='h100:4',
                            batch=8))
  assert 'ESTIMATED' in capsys.readouterr().err


def test_flops_of_a_forward_pass_are_twice_its_weights_and_its_attention():
  weights = presets.count_parameters(TINY)
  once = cost.matmul_flops(TINY, 3, 8)
  assert once == 2 * weights * 24 + 2 * 2 * 4 * 4 * 3 * 64
  assert cost.flops(TINY, cost.Work(3, 8, 4.0, 3.0)) == (4 * once, 3 * once)


def test_what_does_not_fit_ends_in_status_one_with_advice(capsys):
  with pytest.raises(SystemExit) as stop:
    command.plan(command.Plan(model='70b', topology='h100:8', batch=16))
  assert stop.value.code == 1
  said = ' '.join(capsys.readouterr().err.split())
  assert 'does not fit by' in said and 'adapters' in said


def test_json_is_a_list_of_programs(capsys):
  command.plan(command.Plan(model='135m', topology='h100:8', batch=16,
                            json=True))
  found = json.loads(capsys.readouterr().out)
  assert [p['name'] for p in found] == ['reference', 'train_step']
  assert {'name', 'peak_gib', 'limit_gib', 'fits'} <= found[0].keys()


def test_a_folder_s_shape_is_read_without_its_weights(tmp_path):
  config = dataclasses.replace(TINY, scan_layers=False, remat=False)
  params = CausalLM(config).init(jax.random.key(0))
  hf.save_model(tmp_path, config, params)
  (tmp_path / 'model.safetensors').unlink()
  assert command.read_config(str(tmp_path)).hidden_size == 16


@pytest.mark.parametrize('topology, says', [
    ('v5e:3x3', 'v5e:2x4'), ('v5p:4x4', 'v5p:2x2x4'), ('v7:2x2', "'v7'"),
    ('v5e:', 'no shape'), ('v5e:axb', 'no shape'), ('h100:2x4', 'h100:8'),
    ('v5e:0x4', 'no shape')])
def test_a_topology_that_does_not_exist_has_neighbours(topology, says):
  with pytest.raises(InputError, match=says):
    plan.parse_topology(topology)


@pytest.mark.parametrize('change, says', [
    (dict(batch=12), 'use 16'), (dict(batch=24), 'use 16 or 32'),
    (dict(mesh='fsdp:3'), 'does not cover 8.*fsdp:2,data:4'),
    (dict(mesh='tensor:8'), '3 key heads; use tensor:3'),
    (dict(length=9_000), '8192'), (dict(model='2b'), '135m, 1b'),
    (dict(batch=0), 'batch=0'), (dict(utilisation=1.5), 'utilisation=1.5')])
def test_what_cannot_be_laid_out_is_named_with_the_nearest(change, says):
  settings = dict(model='135m', topology='h100:8', batch=16) | change
  with pytest.raises(InputError, match=says):
    command.plan(command.Plan(**settings))
