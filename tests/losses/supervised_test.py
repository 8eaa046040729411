"""Claims about the token losses of supervised fine-tuning."""

from absl.testing import parameterized
import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import sft_loss
from alignjax.losses import z_loss

LOSSES = {'sft': sft_loss, 'z': z_loss}
X = np.array([[-1.0, -2.5, -50.0], [-0.25, 0.0, 50.0]], np.float32)
MASK = np.array([[True, True, False], [False, True, True]])

logits = st.lists(
    st.floats(-50, 50, width=32), min_size=10, max_size=10
).map(lambda x: np.array(x, np.float32).reshape(2, 5))


def test_sft_worked_numbers():
  np.testing.assert_array_equal(
      sft_loss(X, MASK), [[1.0, 2.5, 0.0], [0.0, 0.0, -50.0]])


def test_z_worked_numbers():
  np.testing.assert_array_equal(
      z_loss(X, MASK), [[1.0, 6.25, 0.0], [0.0, 0.0, 2500.0]])


def test_sft_of_a_uniform_choice_is_log_of_the_vocabulary():
  logprobs = jax.nn.log_softmax(jnp.zeros((1, 7)))
  np.testing.assert_allclose(
      sft_loss(logprobs, jnp.ones((1, 7), bool)), np.log(7), rtol=1e-6)


@given(logits)
def test_z_is_zero_where_logits_are_normalised(x):
  log_z = jax.nn.logsumexp(jax.nn.log_softmax(x), axis=-1)[None]
  loss = z_loss(log_z, jnp.ones_like(log_z, bool))
  np.testing.assert_allclose(loss, 0.0, atol=1e-10)


@given(logits)
def test_sft_gradient_in_the_logits_is_softmax_less_one_hot(x):
  def total(x):
    logprobs = jax.nn.log_softmax(x)[:, :1]
    return jnp.sum(sft_loss(logprobs, jnp.ones((2, 1), bool)))

  wide = x.astype(np.float64)
  probs = np.exp(wide - wide.max(1, keepdims=True))
  probs /= probs.sum(1, keepdims=True)
  probs[:, 0] -= 1.0
  np.testing.assert_allclose(jax.grad(total)(x), probs, atol=1e-5)


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize('junk', [-1e30, float('-inf'), float('nan')])
def test_masked_tokens_change_neither_value_nor_gradient(loss, junk):
  run = jax.value_and_grad(lambda x: jnp.sum(loss(x, MASK)))
  clean, clean_grad = run(jnp.asarray(X))
  dirty, dirty_grad = run(jnp.where(MASK, X, junk))
  assert clean == dirty
  np.testing.assert_array_equal(clean_grad, dirty_grad)
  np.testing.assert_array_equal(clean_grad[~MASK], 0.0)
  assert np.any(clean_grad[MASK] != 0)


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_bfloat16_comes_out_as_float32(loss):
  out = loss(jnp.asarray(X, jnp.bfloat16), MASK)
  assert out.dtype == jnp.float32
  np.testing.assert_array_equal(out, loss(X, MASK))


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_wrong_inputs_fail_while_tracing(loss):
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  narrow = jax.ShapeDtypeStruct((2, 1), jnp.bool_)
  with pytest.raises(AssertionError, match=r'\(2, 3\).*\(2, 1\)'):
    jax.eval_shape(loss, x, narrow)
  with pytest.raises(AssertionError, match='expected bool'):
    jax.eval_shape(loss, x, x)
  with pytest.raises(AssertionError, match=r'rank 1 .*expected 2'):
    jax.eval_shape(loss, *[jax.ShapeDtypeStruct((3,), jnp.bool_)] * 2)
  with pytest.raises(AssertionError, match='type int32'):
    jax.eval_shape(
        loss, jax.ShapeDtypeStruct((2, 3), jnp.int32),
        jax.ShapeDtypeStruct((2, 3), jnp.bool_))


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(*LOSSES.items())
  def test_compiled_equals_eager(self, loss):
    np.testing.assert_array_equal(self.variant(loss)(X, MASK), loss(X, MASK))
