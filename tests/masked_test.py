"""Claims about masked sums, means, variances and whitening."""

from absl.testing import parameterized
import chex
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.masked import masked_mean
from alignjax.masked import masked_sum
from alignjax.masked import masked_var
from alignjax.masked import whiten

NAN = float('nan')
X = np.array([[3.0, 5.0, 9.0], [-2.0, 40.0, 1.0]], np.float32)
MASK = np.array([[True, True, False], [True, False, True]])
# Kept: 3, 5, −2, 1. Mean 7/4, squares about it 26.75, variance 26.75/3.

FUNCTIONS = {
    'sum': masked_sum,
    'mean': masked_mean,
    'var': masked_var,
    'whiten': whiten,
}
rows = st.lists(
    st.floats(-50, 50, width=32), min_size=6, max_size=6
).map(lambda x: np.array(x, np.float32).reshape(2, 3))
masks = st.lists(st.booleans(), min_size=6, max_size=6).map(
    lambda x: np.array(x).reshape(2, 3))


def test_worked_numbers():
  np.testing.assert_allclose(masked_sum(X, MASK), 7.0)
  np.testing.assert_allclose(masked_mean(X, MASK), 1.75)
  np.testing.assert_allclose(masked_var(X, MASK), 26.75 / 3, rtol=1e-6)
  np.testing.assert_allclose(
      masked_var(X, MASK, ddof=0), 26.75 / 4, rtol=1e-6)


def test_the_docstring_row():
  x, mask = jnp.array([3.0, 5.0, NAN]), jnp.array([True, True, False])
  assert masked_sum(x, mask) == 8.0
  assert masked_mean(x, mask) == 4.0
  assert masked_var(x, mask) == 2.0
  np.testing.assert_allclose(
      whiten(x, mask), [-(0.5**0.5), 0.5**0.5, 0.0], rtol=1e-6)


def test_an_axis_reduces_each_row_alone():
  np.testing.assert_allclose(masked_sum(X, MASK, 1), [8.0, -1.0])
  np.testing.assert_allclose(masked_mean(X, MASK, 1), [4.0, -0.5])
  np.testing.assert_allclose(masked_var(X, MASK, 1), [2.0, 4.5])
  np.testing.assert_allclose(masked_mean(X, MASK, (0, 1)), 1.75)


def test_nothing_kept_gives_zero_not_nan():
  nothing = np.zeros_like(MASK)
  for fn in FUNCTIONS.values():
    np.testing.assert_array_equal(fn(X, nothing), np.zeros_like(fn(X, MASK)))


def test_one_kept_element_has_variance_zero():
  one = np.array([[False, True, False], [False, False, False]])
  assert masked_var(X, one) == 0.0
  np.testing.assert_array_equal(whiten(X, one), np.zeros_like(X))


@given(rows, masks)
def test_equals_numpy_in_float64_on_the_kept_elements(x, mask):
  kept = x[mask].astype(np.float64)
  if kept.size < 2:
    return
  np.testing.assert_allclose(masked_sum(x, mask), kept.sum(), atol=1e-4)
  np.testing.assert_allclose(masked_mean(x, mask), kept.mean(), atol=1e-4)
  np.testing.assert_allclose(
      masked_var(x, mask), kept.var(ddof=1), rtol=1e-4, atol=1e-4)


@given(rows, masks)
def test_whitened_has_mean_zero_and_variance_one(x, mask):
  if masked_var(x, mask) < 1e-2:
    return
  white = whiten(x, mask)
  np.testing.assert_allclose(masked_mean(white, mask), 0.0, atol=1e-4)
  np.testing.assert_allclose(masked_var(white, mask), 1.0, rtol=1e-4)


@given(rows, masks)
def test_unshifted_whitening_keeps_the_mean(x, mask):
  if masked_var(x, mask) < 1e-2:
    return
  white = whiten(x, mask, shift_mean=False)
  np.testing.assert_allclose(
      masked_mean(white, mask), masked_mean(x, mask), atol=1e-4)
  np.testing.assert_allclose(masked_var(white, mask), 1.0, rtol=1e-3)
  np.testing.assert_array_equal(white[~mask], 0.0)


def test_whitening_takes_all_rows_together():
  x = np.array([[0.0, 2.0], [100.0, 102.0]], np.float32)
  white = whiten(x, np.ones_like(x, bool))
  assert white[0].max() < 0 < white[1].min()


def test_variance_survives_a_large_mean():
  x = jnp.array([[10_000.0, 10_001.0, 10_002.0]])
  np.testing.assert_allclose(masked_var(x, jnp.ones_like(x, bool)), 1.0)


@pytest.mark.parametrize('fn', FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize('junk', [1e30, NAN, float('-inf')])
def test_masked_elements_change_neither_value_nor_gradient(fn, junk):
  def total(x):
    out = fn(x, MASK)
    return jnp.sum(out * jnp.cos(out)), out

  run = jax.value_and_grad(total, has_aux=True)
  (_, clean), clean_grad = run(jnp.asarray(X))
  (_, dirty), dirty_grad = run(jnp.where(MASK, X, junk))
  np.testing.assert_array_equal(clean, dirty)
  np.testing.assert_array_equal(clean_grad, dirty_grad)
  np.testing.assert_array_equal(clean_grad[~MASK], 0.0)
  assert np.any(clean_grad[MASK] != 0)


@pytest.mark.parametrize('fn', FUNCTIONS.values(), ids=FUNCTIONS)
def test_bfloat16_comes_out_as_float32_and_finite(fn):
  x = jnp.array([[50.0, -50.0, 50.0], [0.0, 0.0, -50.0]], jnp.bfloat16)
  out = fn(x, MASK)
  assert out.dtype == jnp.float32
  assert np.all(np.isfinite(out))


def test_many_bfloat16_ones_sum_exactly():
  x = jnp.ones((4, 1000), jnp.bfloat16)
  assert masked_sum(x, jnp.ones_like(x, bool)) == 4000.0


@pytest.mark.parametrize('fn', FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_mask_of_another_shape_fails_while_tracing(fn):
  x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  mask = jax.ShapeDtypeStruct((2, 1), jnp.bool_)
  with pytest.raises(AssertionError, match=r'\(2, 3\).*\(2, 1\)'):
    jax.eval_shape(fn, x, mask)


@pytest.mark.parametrize('fn', FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_mask_of_numbers_fails(fn):
  with pytest.raises(AssertionError, match='expected bool'):
    fn(jnp.asarray(X), jnp.asarray(MASK, jnp.float32))


class CompiledTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters(*FUNCTIONS.items())
  def test_compiled_equals_eager(self, fn):
    np.testing.assert_allclose(
        self.variant(fn)(X, MASK), fn(X, MASK), rtol=1e-6)
