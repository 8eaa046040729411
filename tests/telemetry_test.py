"""A watch names what lasts, goes on after a resume, and acts as it was told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import losses
from alignjax import telemetry
from alignjax import train
from alignjax.types import Trajectory

EOS, HACK = 0, 1
WORDS = ['<eos>', 'absolutely', *(f'w{i}' for i in range(2, 400))]


def trajectory(seed, share=0.0, rows=telemetry.WINDOW, kl=0.1):
  """Responses of four random words, a share of them with a confident one."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(2, len(WORDS), (rows, 6))
  tokens[:, 5] = EOS
  tokens[:int(share * rows), 3] = HACK
  mask = np.ones((rows, 6), bool)
  mask[:, 0] = False  # A prompt of one token.
  return Trajectory(
      tokens=jnp.asarray(tokens), attention_mask=jnp.ones((rows, 6), bool),
      response_mask=jnp.asarray(mask), weight=jnp.ones(rows),
      sampler_logprobs=jnp.zeros((rows, 6)),
      kl=jnp.full((rows, 6), kl / 5), reward=jnp.asarray(rng.normal(size=rows)))


def watch(path, **settings):
  """A watch over a file in `path`."""
  decode = lambda tokens: ' '.join(WORDS[t] for t in tokens if t != EOS)
  return telemetry.Watch(
      path / 'telemetry.jsonl', decode, eos_id=EOS, **settings)


def lines(path):
  """The lines of the file."""
  return [json.loads(line)
          for line in (path / 'telemetry.jsonl').read_text().splitlines()]


def test_an_alarm_is_what_lasts_and_is_named_once(tmp_path):
  told = []
  seen = watch(tmp_path, note=told.append)
  for step, share in enumerate([0, 0, 0.5, 0, 0.5, 0.5, 0.5, 0.5]):
    seen.observe(trajectory(step, share))
  (alarm,) = seen.alarms
  assert (alarm.name, alarm.step) == ('confidence', 7)
  assert told == [f'iteration 7: confidence: {alarm.text}']
  assert '50%' in alarm.text
  assert seen.summary()['alarms'][0]['name'] == 'confidence'


def test_metrics_are_the_measures_of_the_iteration(tmp_path):
  metrics = watch(tmp_path).observe(trajectory(0, 0.25))
  values = {name: float(mean.compute()) for name, mean in metrics.items()}
  assert values['hack_confidence'] == 0.25 and values['hack_length'] == 4.0
  assert values['hack_phrases'] == 0.0  # There is nothing to compare with yet.


def test_small_batches_share_a_look(tmp_path):
  seen = watch(tmp_path)
  sizes = [len(seen.observe(trajectory(i, rows=32))) for i in range(8)]
  assert [size > 0 for size in sizes] == [False, False, False, True] * 2
  assert ['look' in line for line in lines(tmp_path)] == [
      size > 0 for size in sizes]


@pytest.mark.parametrize('rows', [telemetry.WINDOW, telemetry.WINDOW // 4])
@pytest.mark.parametrize('cut', [1, 5, 18, 23])
def test_a_resumed_watch_is_the_uninterrupted_one(tmp_path, rows, cut):
  shares = [0.0] * 12 + [0.6] * 16
  step = lambda seen, i: seen.observe(trajectory(i, shares[i], rows))
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  whole.mkdir(), parts.mkdir()
  seen = watch(whole)
  for i in range(len(shares)):
    step(seen, i)
  first = watch(parts)
  for i in range(cut + 2):  # Two more than the checkpoint knows.
    step(first, i)
  again = watch(parts, start=cut)
  assert again.fresh == []
  for i in range(cut, len(shares)):
    step(again, i)
  assert again.alarms == seen.alarms and len(seen.alarms) == 1
  assert lines(parts) == lines(whole)


def test_reward_models_that_part_are_named(tmp_path):
  apart = [0.0]
  other = lambda t: t.reward + apart[0] * jnp.sin(jnp.arange(len(t.reward)))
  seen = watch(tmp_path, others=[other])
  for step in range(5):
    apart[0] = 0.5 if step < 2 else 9.0
    seen.observe(trajectory(step))
  assert [a.name for a in seen.alarms] == ['disagreement']


def test_the_budget_of_kl_is_watched_if_there_is_one(tmp_path):
  for budget, alarms in ((2.0, ['kl_budget']), (None, [])):
    seen = watch(tmp_path, kl_budget=budget)
    for step in range(5):
      seen.observe(trajectory(step, kl=9.0))
    assert [a.name for a in seen.alarms] == alarms


def test_observers_join_their_metrics():
  ask = telemetry.both(lambda t: {'a': t}, None, lambda t: {'b': t + 1})
  assert ask(1) == {'a': 1, 'b': 2}


# --- What is done about it.


def kl_state(coef, gain=1.0):
  """A PPO state of which only the KL coefficient matters."""
  controller = losses.adaptive_kl(
      init=coef, target=2.0, horizon=500.0, gain=gain)
  return train.PPOState(None, None, controller.init())


@pytest.mark.parametrize('gain', [0.0, 1.0])
def test_raise_kl_raises_the_coefficient_once_an_alarm(tmp_path, gain):
  seen = watch(tmp_path)
  shares = iter([0, 0, 0.5, 0.5, 0.5, 0.5])

  def iterate(state, batch):
    return state, seen.observe(trajectory(batch, next(shares)))

  act = telemetry.acting(iterate, seen, 'raise_kl')
  state, coefs = kl_state(0.3, gain), []
  before = jax.tree.map(lambda x: (x.dtype, x.sharding), state.kl)
  for step in range(6):
    state, _ = act(state, step)
    coefs.append(float(state.kl.coef))
  np.testing.assert_allclose(coefs, [0.3] * 4 + [0.6] * 2)
  assert jax.tree.map(lambda x: (x.dtype, x.sharding), state.kl) == before


def test_raise_kl_begins_where_there_was_no_penalty(tmp_path):
  seen = watch(tmp_path)
  seen.fresh = [telemetry.Alarm('phrases', 1, '')]
  act = telemetry.acting(lambda state, batch: (state, {}), seen, 'raise_kl')
  state = kl_state(0.3)
  state = state._replace(kl=jax.tree.map(jnp.zeros_like, state.kl))
  np.testing.assert_allclose(
      float(act(state, None)[0].kl.coef), telemetry.KL_FLOOR)


@pytest.mark.parametrize('on_hack, ends, advice', [
    ('note', False, ''), ('raise_kl', False, ''),
    ('stop', True, '--resume'), ('refresh', True, 'collect preferences')])
def test_only_stop_and_refresh_end_a_run(tmp_path, on_hack, ends, advice):
  seen = watch(tmp_path)
  stop = telemetry.stopping(seen, on_hack)
  assert stop(1, 'state') is None
  seen.fresh = [telemetry.Alarm('lists', 2, 'lists in 90%')]
  error = stop(2, 'state')
  assert (error is not None) is ends
  if ends:
    assert error.state == 'state' and advice in str(error)
    assert 'iteration 2' in str(error) and 'lists in 90%' in str(error)
