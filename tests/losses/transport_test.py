"""Claims about the losses that compare sorted sides of a batch.

Reference, compilation, types, settings: see preference_test.py, which claims
them for every loss of a pair and its reference.
"""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax.losses import aot_loss
from alignjax.losses import aot_unpaired_loss
from alignjax.losses import dpo_loss

quads = st.lists(
    st.floats(-50, 50, width=32), min_size=12, max_size=12
).map(lambda x: np.array(x, np.float32).reshape(4, 3))
both = pytest.mark.parametrize('loss', [aot_loss, aot_unpaired_loss])


def test_paired_worked_number():
  # Margins 3, 1 of the policy and 0, 2 of the reference: gaps 1 and 1.
  x = [np.array(v, np.float32) for v in ([3, 1], [0, 0], [0, 2], [0, 0])]
  np.testing.assert_allclose(
      aot_loss(*x, beta=0.5), np.log1p(np.exp(-0.5 * np.ones(2))), rtol=1e-6)


def test_unpaired_worked_number():
  # Log-ratios 3, 1 and 2, 0: gaps 1 and 1, whoever stands beside whom.
  zero = np.zeros(2, np.float32)
  x = [np.array(v, np.float32) for v in ([3, 1], [0, 2])]
  np.testing.assert_allclose(
      aot_unpaired_loss(*x, zero, zero, beta=0.5, label_smoothing=0.1),
      0.9 * np.log1p(np.exp(-0.5 * np.ones(2)))
      + 0.1 * np.log1p(np.exp(0.5 * np.ones(2))), rtol=1e-6)


@both
@given(quads, st.floats(0.01, 2.0), st.floats(0.0, 0.49))
def test_one_pair_has_the_loss_of_dpo(loss, x, beta, smoothing):
  one = [row[:1] for row in x]
  settings = dict(beta=beta, label_smoothing=smoothing)
  np.testing.assert_allclose(
      loss(*one, **settings), dpo_loss(*one, **settings), rtol=1e-4, atol=1e-5)


@both
@given(quads, st.permutations(range(3)))
def test_the_order_of_the_pairs_is_of_no_account(loss, x, order):
  np.testing.assert_allclose(
      loss(*x), loss(*x[:, list(order)]), rtol=1e-5, atol=1e-5)


@given(quads, st.permutations(range(3)))
def test_the_unpaired_loss_does_not_know_who_is_beside_whom(x, order):
  other = x.copy()
  other[[1, 3]] = x[[1, 3]][:, list(order)]  # The dispreferred responses.
  np.testing.assert_allclose(
      aot_unpaired_loss(*x), aot_unpaired_loss(*other), rtol=1e-5, atol=1e-5)


@both
@given(quads)
def test_total_falls_in_every_chosen_and_rises_in_every_rejected(loss, x):
  grads = jax.grad(
      lambda c, r: jnp.sum(loss(c, r, x[2], x[3])), (0, 1))(x[0], x[1])
  assert np.all(np.asarray(grads[0]) <= 0) and np.all(np.asarray(grads[1]) >= 0)
