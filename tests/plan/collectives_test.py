"""What a step sends is what the mesh implies, every turn of a loop counted."""

import dataclasses

import pytest

from alignjax import plan
from alignjax import sharding
from alignjax.models import presets
from alignjax.plan import collectives
from alignjax.plan import programs
from tests.plan.plan_test import TINY

CONFIG = dataclasses.replace(TINY, num_layers=3)
SHAPE = plan.Shape(rows=32, length=64, chunk_size=None)
LAYER = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32  # A layer's matrices.
TABLE = 64 * 16


def sent(spec: str, method: str = 'sft') -> dict:
  program = programs.of_method(
      method, CONFIG, SHAPE, sharding.make_mesh(spec))[-1]
  return collectives.count(
      program.function.lower(*program.arguments).compile().as_text())


def test_a_loop_s_collectives_count_as_often_as_it_turns():
  text = '''
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} all-reduce(%x), to_apply=%add
  ROOT %t = (s32[], f32[8]) tuple(%i, %r)
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %inner = (s32[], f32[8]{0}) while(%p), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %g = f32[32]{0} all-gather(%y), dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%init), condition=%c, body=%outer, \
backend_config={"known_trip_count":{"n":"3"}}
  %s = ((f32[8]{0}), f32[64]{0}) all-gather-start(%z), dimensions={0}
  ROOT %d = f32[64]{0} all-gather-done(%s)
}
'''
  assert collectives.count(text) == {
      'all-gather': (4, 3 * 32 * 4 + 64 * 4), 'all-reduce': (15, 15 * 8 * 4)}


def test_where_the_compiler_does_not_say_it_the_condition_does():
  text = '''
%to.four (p: (s32[], f32[8])) -> pred[] {
  %four.1 = s32[]{:T(128)} constant(4)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%i, %four.1), direction=LT
}

%to.the_end (p: (s32[], f32[8])) -> pred[] {
  %nine = s32[] constant(9)
  %small = pred[] compare(%i, %nine), direction=LT
  ROOT %both = pred[] and(%small, %open)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%t), condition=%to.four, body=%body
  %v = (s32[], f32[8]{0}) while(%t), condition=%to.the_end, body=%body
}
'''
  assert collectives.count(text) == {'all-reduce': (5, 5 * 8 * 4)}


def test_what_is_begun_and_ended_in_two_fusions_is_sent_once():
  text = '''
%begin (p: f32[1]) -> f32[8] {
  %g.1 = f32[8]{0} all-gather(%p), channel_id=4, dimensions={0}
}

%end (p: f32[1]) -> f32[8] {
  %g.2 = f32[8]{0} all-gather(%p), channel_id=4, dimensions={0}
}

%other (p: f32[1]) -> f32[8] {
  %g.3 = f32[8]{0} all-gather(%p), channel_id=5, dimensions={0}
}

ENTRY %main (p: f32[1]) -> f32[8] {
  %a = f32[8]{0} fusion(%p), kind=kCustom, calls=%begin
  %b = f32[8]{0} fusion(%p), kind=kLoop, calls=%other
  %c = f32[8]{0} fusion(%p), kind=kCustom, calls=%end
}
'''
  assert collectives.count(text) == {'all-gather': (2, 2 * 8 * 4)}


def test_data_parallel_reduces_each_gradient_once_and_nothing_else():
  """The tied table twice: as embedding and as unembedding."""
  found = sent('data:8')
  assert set(found) == {'all-reduce'}
  gradients = 4 * (presets.count_parameters(CONFIG) + TABLE)
  assert found['all-reduce'].bytes == pytest.approx(gradients, abs=16)


def test_fsdp_gathers_each_layer_twice_and_reduces_gradients():
  """Forward, and again where the backward pass makes the layer anew."""
  found = sent('fsdp:8')
  layers = 2 * CONFIG.num_layers * LAYER * 4
  assert 7 * 2 * CONFIG.num_layers <= found['all-gather'].times <= (
      7 * 2 * CONFIG.num_layers + 4)
  assert layers <= found['all-gather'].bytes <= layers + 4 * TABLE * 4
  reduced = sum(found[kind].bytes for kind in ('all-reduce', 'reduce-scatter')
                if kind in found)
  assert reduced <= 4 * (presets.count_parameters(CONFIG) + 2 * TABLE)


def test_rows_in_parts_gather_their_keys_and_values_and_nothing_as_wide():
  """Beside the weights, which lie in parts on those devices too."""
  found, alone = sent('sequence:8'), sent('fsdp:8')
  kinds = 2 * CONFIG.num_kv_heads * CONFIG.head_dim  # Keys and values.
  tokens = SHAPE.rows * SHAPE.length
  kept = 4 * tokens * kinds * 2 * CONFIG.num_layers
  assert kept == pytest.approx(
      found['all-gather'].bytes - alone['all-gather'].bytes, rel=0.1)
  # Their gradients are summed over the parts, once.
  moved = sum(each.bytes for kind, each in found.items()
              if kind != 'all-gather')
  assert moved <= kept + 4 * (
      presets.count_parameters(CONFIG) + 4 * TABLE + 2 * tokens * 16)


def test_the_reference_gathers_once():
  program = programs.of_method(
      'dpo', CONFIG, SHAPE, sharding.make_mesh('fsdp:8'))[0]
  assert program.name == 'reference'
  found = collectives.count(
      program.function.lower(*program.arguments).compile().as_text())
  layers = CONFIG.num_layers * LAYER * 4
  assert layers <= found['all-gather'].bytes <= layers + 4 * TABLE * 4


@pytest.mark.parametrize('spec', ['data:8', 'fsdp:8', 'data:2,fsdp:4',
                                  'fsdp:4,tensor:2', 'data:2,sequence:4',
                                  'fsdp:2,sequence:2,tensor:2'])
@pytest.mark.parametrize('method', ['sft', 'dpo', 'ppo'])
def test_nothing_is_rematerialised_involuntarily(method, spec):
  found = plan.plan(method, CONFIG, SHAPE, plan.parse_topology('cpu:8'), spec)
  assert not [line for program in found for line in program.warnings]
