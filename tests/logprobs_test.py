"""Claims about what is read off hidden states by chunks."""

import functools

import chex
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.logprobs import exact_kl
from alignjax.logprobs import token_collision
from alignjax.logprobs import token_entropy
from alignjax.logprobs import token_log_normalizers
from alignjax.logprobs import token_logprobs
from alignjax.losses import kl_k1
from alignjax.losses import policy_entropy
from alignjax.losses import token_kl

B, T, D, V = 2, 7, 3, 23


@functools.cache
def case():
  """Hidden states, unembedding, tokens, and a reference of another width."""
  rng = np.random.default_rng(0)
  return (
      rng.normal(size=(B, T, D)).astype(np.float32),
      rng.normal(size=(V, D)).astype(np.float32),
      rng.integers(V, size=(B, T)).astype(np.int32),
      rng.normal(size=(B, T, D + 1)).astype(np.float32),
      rng.normal(size=(V, D + 1)).astype(np.float32),
  )


def slow_log_softmax(hidden, unembedding, temperature=1.0):
  logits = np.float64(hidden) @ np.float64(unembedding).T / temperature
  return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def functions(**kwargs):
  """Each function as one of hidden and unembedding alone."""
  _, _, tokens, ref_hidden, ref_unembedding = case()
  return {
      'token_logprobs':
          lambda h, w: token_logprobs(h, w, tokens, **kwargs),
      'token_log_normalizers':
          lambda h, w: token_log_normalizers(h, w, **kwargs),
      'token_entropy':
          lambda h, w: token_entropy(h, w, **kwargs),
      'token_collision':
          lambda h, w: token_collision(h, w, **kwargs),
      'exact_kl':
          lambda h, w: exact_kl(
              h, w, ref_hidden, ref_unembedding, **kwargs),
  }


NAMES = list(functions())


def largest_array(jaxpr):
  """Elements of the largest value that a jaxpr computes, at any depth."""
  sizes = [0]
  for eqn in jaxpr.eqns:
    sizes += [v.aval.size for v in eqn.outvars if hasattr(v.aval, 'size')]
    for param in jax.tree.leaves(
        eqn.params, is_leaf=lambda x: isinstance(
            x, (core.Jaxpr, core.ClosedJaxpr))):
      if isinstance(param, core.ClosedJaxpr):
        sizes.append(largest_array(param.jaxpr))
      elif isinstance(param, core.Jaxpr):
        sizes.append(largest_array(param))
  return max(sizes)


def test_worked_numbers():
  # Two tokens, logits 0 and log 3 after any prefix: p = ¼, ¾.
  hidden, unembedding = jnp.ones((1, 3, 1)), jnp.array([[0.0], [np.log(3)]])
  logprobs = token_logprobs(hidden, unembedding, jnp.array([[1, 0, 1]]))
  np.testing.assert_allclose(
      logprobs, [[0.0, np.log(0.25), np.log(0.75)]], rtol=1e-6)
  np.testing.assert_allclose(
      token_log_normalizers(hidden, unembedding),
      [[0.0, np.log(4), np.log(4)]], rtol=1e-6)
  entropy = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
  np.testing.assert_allclose(
      token_entropy(hidden, unembedding), [[0.0, entropy, entropy]],
      rtol=1e-6)
  collision = np.log(0.25**2 + 0.75**2)
  np.testing.assert_allclose(
      token_collision(hidden, unembedding), [[0.0, collision, collision]],
      rtol=1e-6)
  kl = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
  np.testing.assert_allclose(
      exact_kl(hidden, unembedding, hidden, jnp.zeros((2, 1))),
      [[0.0, kl, kl]], rtol=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 0.7])
@pytest.mark.parametrize('chunk_size', [None, 4])
def test_all_equal_their_definitions_in_float64(chunk_size, temperature):
  hidden, unembedding, tokens, ref_hidden, ref_unembedding = case()
  kwargs = {'chunk_size': chunk_size, 'temperature': temperature}
  slow = slow_log_softmax(hidden, unembedding, temperature)[:, :-1]
  slow_ref = slow_log_softmax(
      ref_hidden, ref_unembedding, temperature)[:, :-1]
  logits = np.einsum('btd,vd->btv', hidden, unembedding)[:, :-1] / temperature
  expected = {
      'token_logprobs':
          np.take_along_axis(slow, tokens[:, 1:, None], axis=-1)[..., 0],
      'token_log_normalizers': np.logaddexp.reduce(logits, axis=-1),
      'token_entropy': -np.sum(np.exp(slow) * slow, axis=-1),
      'token_collision': np.log(np.sum(np.exp(slow) ** 2, axis=-1)),
      'exact_kl': np.sum(np.exp(slow) * (slow - slow_ref), axis=-1),
  }
  for name, fn in functions(**kwargs).items():
    out = jax.jit(fn)(hidden, unembedding)
    np.testing.assert_array_equal(out[:, 0], 0.0)
    np.testing.assert_allclose(
        out[:, 1:], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


# Of 6 columns: 1 and 3 divide them, 4 does not.
@pytest.mark.parametrize('name, chunk_sizes', [
    ('token_logprobs', [1, 3, 4]),
    ('token_log_normalizers', [4]),
    ('token_entropy', [4]),
    ('token_collision', [4]),
    ('exact_kl', [4]),
])
def test_the_chunk_size_changes_neither_value_nor_gradient(name, chunk_sizes):
  hidden, unembedding = case()[:2]

  def run(chunk_size):
    fn = functions(chunk_size=chunk_size)[name]

    def total(h, w):
      out = fn(h, w)
      return jnp.sum(jnp.sin(out)), out

    (_, out), gradients = jax.jit(
        jax.value_and_grad(total, (0, 1), has_aux=True))(hidden, unembedding)
    return out, gradients

  whole = run(None)
  assert all(np.any(g != 0) for g in whole[1])
  for chunk_size in chunk_sizes:
    chex.assert_trees_all_close(run(chunk_size), whole, atol=1e-5)


@pytest.mark.parametrize('start', [1, 4, T, T + 2])
def test_start_only_silences_the_columns_before_it(start):
  hidden, unembedding = case()[:2]
  chunk_size = 2 if start == 4 else None
  late = functions(start=start, chunk_size=chunk_size)
  for name, fn in functions().items():
    whole = np.array(fn(hidden, unembedding))
    whole[:, :start] = 0.0
    np.testing.assert_allclose(
        jax.jit(late[name])(hidden, unembedding), whole, atol=1e-6)


def test_columns_before_start_are_not_unembedded():
  hidden, unembedding = case()[:2]
  for fn in functions(start=T - 2).values():
    jaxpr = jax.make_jaxpr(fn)(hidden, unembedding)
    assert largest_array(jaxpr.jaxpr) <= B * 2 * V
  for fn in functions(start=0).values():
    jaxpr = jax.make_jaxpr(fn)(hidden, unembedding)
    assert largest_array(jaxpr.jaxpr) >= B * (T - 1) * V


@pytest.mark.parametrize('name', NAMES)
def test_no_array_of_all_logits_exists_when_chunked(name):
  hidden, unembedding = case()[:2]

  def size(chunk_size):
    fn = functions(chunk_size=chunk_size)[name]
    run = jax.value_and_grad(lambda *x: jnp.sum(fn(*x)), (0, 1))
    return largest_array(jax.make_jaxpr(run)(hidden, unembedding).jaxpr)

  # What is left is two columns of logits or the gradient of [V, D].
  assert size(1) <= V * (D + 1) < B * (T - 1) * V
  assert size(2) <= max(2 * B * V, V * (D + 1)) < B * (T - 1) * V
  assert size(None) >= B * (T - 1) * V


def test_the_future_changes_no_logprob():
  hidden, unembedding, tokens = case()[:3]
  before = token_logprobs(hidden, unembedding, tokens)
  after = token_logprobs(
      jnp.asarray(hidden).at[:, 4:].set(99.0), unembedding,
      jnp.asarray(tokens).at[:, 5:].set(0))
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert np.all(before[:, 5:] != after[:, 5:])


@pytest.mark.parametrize('name', NAMES)
def test_the_last_hidden_state_has_no_gradient(name):
  hidden, unembedding = case()[:2]
  fn = functions(chunk_size=4)[name]
  gradient = jax.jit(
      jax.grad(lambda h: jnp.sum(fn(h, unembedding))))(hidden)
  np.testing.assert_array_equal(gradient[:, -1], 0.0)
  assert np.all(np.any(gradient[:, :-1] != 0, axis=-1))


def test_a_chunk_longer_than_the_row_is_the_row():
  hidden, unembedding = case()[:2]
  np.testing.assert_array_equal(
      token_entropy(hidden, unembedding, chunk_size=100),
      token_entropy(hidden, unembedding))


@pytest.mark.parametrize('chunk_size', [None, 1])
def test_a_row_of_one_column_gives_zeros(chunk_size):
  hidden, unembedding, tokens = case()[:3]
  np.testing.assert_array_equal(
      token_logprobs(
          hidden[:, :1], unembedding, tokens[:, :1], chunk_size=chunk_size),
      np.zeros((B, 1)))


def test_probabilities_of_all_tokens_sum_to_one():
  hidden, unembedding = case()[:2]
  fn = jax.jit(token_logprobs)
  total = sum(
      np.exp(fn(hidden, unembedding, np.full((B, T), v))) for v in range(V))
  np.testing.assert_allclose(total[:, 1:], 1.0, rtol=1e-5)


def test_a_target_logit_is_its_logprob_and_the_normalizer():
  hidden, unembedding, tokens = case()[:3]
  logit = (
      token_logprobs(hidden, unembedding, tokens)
      + token_log_normalizers(hidden, unembedding))
  expected = np.einsum(
      'btd,btd->bt', hidden[:, :-1], unembedding[tokens[:, 1:]])
  np.testing.assert_allclose(logit[:, 1:], expected, rtol=1e-4, atol=1e-5)


def test_kl_and_entropy_agree_with_those_of_whole_logits():
  hidden, unembedding, _, ref_hidden, ref_unembedding = case()
  logits = jnp.einsum('btd,vd->btv', hidden, unembedding)[:, :-1]
  ref_logits = jnp.einsum('btd,vd->btv', ref_hidden, ref_unembedding)[:, :-1]
  chunked = functions(chunk_size=4)
  np.testing.assert_allclose(
      chunked['exact_kl'](hidden, unembedding)[:, 1:],
      token_kl(logits, ref_logits), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
      chunked['token_entropy'](hidden, unembedding)[:, 1:],
      policy_entropy(logits), rtol=1e-5, atol=1e-6)


def test_kl_is_the_mean_of_k1_over_every_token_drawn():
  hidden, unembedding, _, ref_hidden, ref_unembedding = case()
  fn = jax.jit(token_logprobs)
  total = 0.0
  for v in range(V):
    tokens = np.full((B, T), v)
    logprobs = fn(hidden, unembedding, tokens)
    ref_logprobs = fn(ref_hidden, ref_unembedding, tokens)
    total += np.exp(logprobs) * kl_k1(logprobs, ref_logprobs)
  np.testing.assert_allclose(
      functions()['exact_kl'](hidden, unembedding), total,
      rtol=1e-4, atol=1e-5)


def test_kl_at_the_reference_is_zero_with_zero_gradient():
  hidden, unembedding = case()[:2]

  def total(h):
    return jnp.sum(exact_kl(h, unembedding, hidden, unembedding))

  kl, gradient = jax.value_and_grad(total)(hidden)
  np.testing.assert_allclose(kl, 0.0, atol=1e-5)
  np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_no_gradient_reaches_the_reference():
  hidden, unembedding, _, ref_hidden, ref_unembedding = case()
  gradients = jax.jit(jax.grad(
      lambda *x: jnp.sum(exact_kl(*x, chunk_size=4)), (2, 3)))(
          hidden, unembedding, ref_hidden, ref_unembedding)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0.0)


@settings(max_examples=8)
@given(st.floats(0.05, 20.0))
def test_temperature_divides_the_hidden_states(temperature):
  hidden, unembedding, tokens = case()[:3]
  np.testing.assert_allclose(
      token_logprobs(hidden, unembedding, tokens, temperature=temperature),
      token_logprobs(
          hidden / np.float32(temperature), unembedding, tokens),
      rtol=1e-4, atol=1e-4)


def test_uniform_entropy_and_collision_are_log_of_the_vocabulary():
  hidden, unembedding = case()[:2]
  np.testing.assert_allclose(
      token_entropy(hidden * 0, unembedding)[:, 1:], np.log(V), rtol=1e-6)
  np.testing.assert_allclose(
      token_collision(hidden * 0, unembedding)[:, 1:], -np.log(V), rtol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_states_at_fifty_nats_are_finite_float32(name):
  hidden, unembedding = case()[:2]
  hidden = jnp.where(hidden > 0, 50.0, -50.0).astype(jnp.bfloat16)
  fn = functions(chunk_size=4)[name]

  def total(*x):
    out = fn(*x)
    return jnp.sum(out), out

  (_, out), gradients = jax.jit(
      jax.value_and_grad(total, (0, 1), has_aux=True))(hidden, unembedding)
  assert out.dtype == jnp.float32
  assert gradients[0].dtype == jnp.bfloat16
  assert gradients[1].dtype == jnp.float32
  for x in (out, *gradients):
    assert np.all(np.isfinite(x.astype(jnp.float32)))


def test_bfloat16_products_are_summed_in_float32():
  # 256 + 1 is 256 in bfloat16.
  hidden = jnp.array([[[256.0, 1.0]] * 2], jnp.bfloat16)
  unembedding = jnp.array([[1.0, 1.0], [1.0, 0.0]], jnp.bfloat16)
  logprobs = token_logprobs(hidden, unembedding, jnp.array([[0, 0]]))
  np.testing.assert_allclose(
      logprobs[0, 1], -np.log1p(np.exp(-1.0)), rtol=1e-5)


def test_gradient_of_a_float32_unembedding_is_summed_in_float32():
  # 600 equal columns: in bfloat16 a running sum of ones sticks at 256.
  hidden = jnp.ones((1, 601, 1), jnp.bfloat16)
  unembedding = jnp.zeros((2, 1))
  tokens = jnp.zeros((1, 601), jnp.int32)
  gradient = jax.jit(jax.grad(lambda w: jnp.sum(
      token_logprobs(hidden, w, tokens, chunk_size=1))))(unembedding)
  np.testing.assert_allclose(gradient, [[300.0], [-300.0]])


def test_wrong_inputs_fail_while_tracing():
  hidden = jax.ShapeDtypeStruct((2, 7, 3), jnp.float32)
  unembedding = jax.ShapeDtypeStruct((11, 3), jnp.float32)
  tokens = jax.ShapeDtypeStruct((2, 7), jnp.int32)
  short = jax.ShapeDtypeStruct((2, 6), jnp.int32)
  floats = jax.ShapeDtypeStruct((2, 7), jnp.float32)
  wide = jax.ShapeDtypeStruct((11, 4), jnp.float32)
  fewer = jax.ShapeDtypeStruct((2, 6, 3), jnp.float32)
  smaller = jax.ShapeDtypeStruct((10, 3), jnp.float32)
  for fn, inputs, message in (
      (token_logprobs, (hidden, wide, tokens), r'\(11, 4\).*\(None, 3\)'),
      (token_logprobs, (hidden, unembedding, short), r'\(2, 6\).*\(2, 7\)'),
      (token_logprobs, (hidden, unembedding, floats), 'type float32'),
      (token_entropy, (tokens, unembedding), r'\(2, 7\).* expected 3'),
      (token_collision, (hidden, wide), r'\(11, 4\).*\(None, 3\)'),
      (exact_kl, (hidden, unembedding, fewer, unembedding), r'7\).*6\)'),
      (exact_kl, (hidden, unembedding, hidden, smaller), r'11,\).*10,\)'),
  ):
    with pytest.raises(AssertionError, match=message):
      jax.eval_shape(fn, *inputs)


@pytest.mark.parametrize(
    'setting', [{'temperature': 0.0}, {'chunk_size': 0}], ids=str)
def test_a_setting_of_zero_fails(setting):
  hidden, unembedding = case()[:2]
  with pytest.raises(AssertionError, match='must be positive'):
    token_entropy(hidden, unembedding, **setting)


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_compiled_equals_eager(self):
    hidden, unembedding = case()[:2]
    for fn in functions(chunk_size=4).values():
      np.testing.assert_allclose(
          self.variant(fn)(hidden, unembedding), fn(hidden, unembedding),
          rtol=1e-5, atol=1e-6)
