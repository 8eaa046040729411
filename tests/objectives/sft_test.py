"""SFT: a mean over loss tokens, whatever rows, filler and chunks there are."""

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import models
from alignjax import objectives
from alignjax.types import TokenBatch

VOCAB = 29
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8))
PARAMS = MODEL.init(jax.random.key(0))
KEY = jax.random.key(9)

# Prompt, response, padding; the last row is filler, and lies about its masks.
BATCH = TokenBatch(
    tokens=np.random.default_rng(1).integers(1, VOCAB, (4, 6), np.int32),
    attention_mask=np.arange(6) < np.array([6, 4, 3, 6])[:, None],
    loss_mask=np.array([[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0],
                        [0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1]], bool),
    weight=np.array([1, 1, 1, 0], np.float32))

total = jax.jit(lambda params, batch: objectives.sft(MODEL)(
    params, batch, KEY)[0])
gradient = jax.jit(jax.grad(lambda params, batch: objectives.sft(MODEL)(
    params, batch, KEY)[0].total))


def test_loss_is_the_mean_over_the_tokens_of_all_rows():
  hidden = jax.jit(MODEL.hidden)(PARAMS, BATCH.tokens, BATCH.attention_mask)
  logits = hidden @ PARAMS['embed'].T
  logprobs = np.asarray(jax.nn.log_softmax(logits))
  by_hand = [-logprobs[b, t - 1, BATCH.tokens[b, t]]
             for b in range(3) for t in range(6) if BATCH.loss_mask[b, t]]
  assert len(by_hand) == 8
  loss = total(PARAMS, BATCH)
  assert float(loss.weight) == 8
  np.testing.assert_allclose(loss.compute(), np.mean(by_hand), rtol=1e-6)


def test_tokens_that_bear_no_loss_after_the_response_change_nothing():
  tokens = BATCH.tokens.copy()
  tokens[1, 4:] = tokens[2, 3:] = 5  # Padding.
  tokens[3] = 7                      # Filler.
  assert np.any(tokens != BATCH.tokens, axis=1).sum() == 3
  changed = BATCH.replace(tokens=tokens)
  np.testing.assert_array_equal(total(PARAMS, BATCH), total(PARAMS, changed))
  jax.tree.map(np.testing.assert_array_equal, gradient(PARAMS, BATCH),
               gradient(PARAMS, changed))


def test_the_prompt_is_read_though_it_bears_no_loss():
  tokens = BATCH.tokens.copy()
  tokens[0, 0] = tokens[0, 0] % (VOCAB - 1) + 1
  changed = total(PARAMS, BATCH.replace(tokens=tokens))
  assert abs(float(changed.total - total(PARAMS, BATCH).total)) > 1e-3


def test_totals_of_the_parts_add_up_to_the_whole():
  parts = [total(PARAMS, jax.tree.map(lambda x, i=i: x[i::2], BATCH))
           for i in range(2)]
  whole = total(PARAMS, BATCH)
  np.testing.assert_allclose(sum(p.total for p in parts), whole.total,
                             rtol=1e-6)
  assert parts[0].weight + parts[1].weight == whole.weight
  assert parts[0].weight != parts[1].weight


def test_chunks_change_neither_value_nor_gradient():
  chunked = objectives.sft(MODEL, chunk_size=2)  # Of 5 columns.
  value, grads = jax.jit(jax.value_and_grad(
      lambda params: chunked(params, BATCH, KEY)[0].total))(PARAMS)
  np.testing.assert_allclose(value, total(PARAMS, BATCH).total, rtol=1e-6)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
      grads, gradient(PARAMS, BATCH))


def test_a_batch_of_filler_has_loss_zero_and_no_gradient():
  filler = BATCH.replace(weight=jnp.zeros(4))
  assert total(PARAMS, filler).compute() == 0
  assert all(not np.any(g) for g in jax.tree.leaves(gradient(PARAMS, filler)))
