"""Packed equals padded equals branched, for an objective of every kind.

Lengths are unequal, a prompt is cut, sides share more than their prompt, and
there is filler. The model sees a window, so that it matters where a branch
believes to be.
"""

import functools

from hypothesis import given
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from alignjax import losses
from alignjax import models
from alignjax import objectives
from alignjax import partitioning
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax import types
from alignjax.data import collate
from alignjax.data import layout
from alignjax.data import make_prompt_layout
from alignjax.data import tokenize
from alignjax.models import config

VOCAB, LENGTH, BATCH, PROMPT = 29, 12, 6, 5
MODEL = models.CausalLM(models.ModelConfig(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=1,
    num_heads=2, num_kv_heads=1, head_dim=8,
    attention=(config.Attention(window=6),)))
SCALAR = models.ScalarModel(MODEL.config)
PARAMS = jax.device_get(jax.jit(MODEL.init)(jax.random.key(0)))
SCALAR_PARAMS = jax.device_get(jax.jit(SCALAR.init)(jax.random.key(1)))
KEY = jax.random.key(9)
SIZE = dict(batch_size=BATCH, length=LENGTH)

layouts = pytest.mark.parametrize('kind', ['packed', 'branched'])


def responses(seed, lengths, count=5):
  """Per prompt a response of each length; the next to last has no prompt."""
  rng = np.random.default_rng(seed)
  ids = lambda n: rng.integers(1, VOCAB, n).astype(np.int32)
  rows = []
  for i in range(count):
    prompt = ids((1, 4, 6, 3, 5)[i])
    texts = [np.concatenate([prompt, ids(n + i % 2)]) for n in lengths]
    if i == 2:  # They begin alike, and the second is all that the first has.
      texts[1] = np.concatenate([texts[0], ids(2)])
    rows.append(tuple(tokenize.TokenizedResponse(
        text[:LENGTH], 0 if i == 3 else len(prompt)) for text in texts))
  return rows


def annotated(batch, **names):
  """The batch with made-up numbers in nats for what models said."""
  rng = np.random.default_rng(7)
  return batch.replace(**{
      name: rng.normal(-2.0, 0.5, shape).astype(np.float32)
      for name, shape in names.items()})


@functools.cache
def batch_of(kind):
  """A padded batch with filler."""
  if kind == 'demonstrations':
    rows = [row._replace(weight=1.0 + i) for i, (row, _) in enumerate(
        responses(1, (3, 5)))]
    return collate.collate_demonstrations(rows, **SIZE)
  if kind == 'pairs':
    pairs = [tokenize.TokenizedPair(*row) for row in responses(2, (2, 5))]
    return annotated(collate.collate_preferences(pairs, **SIZE),
                     ref_logprobs=(BATCH, 2, LENGTH))
  if kind == 'labels':
    rows = [tokenize.TokenizedLabel(row, i % 2 == 0)
            for i, (row, _) in enumerate(responses(3, (4, 2)))]
    return annotated(collate.collate_unpaired(rows, **SIZE),
                     ref_logprobs=BATCH, kl=BATCH)
  if kind == 'rankings':
    rows = [tokenize.TokenizedRanking(row[:3 - i % 2], (1, 0, 2)[:3 - i % 2])
            for i, row in enumerate(responses(4, (3, 1, 5)))]
    return collate.collate_rankings(rows, num_ranked=3, **SIZE)
  return trajectory()


def trajectory():
  """Three samples each of two prompts on the left; the last one is filler."""
  rng = np.random.default_rng(5)
  starts = np.repeat([0, 2], 3)[:, None]
  ends = np.array([9, 7, 12, 6, 11, 6])[:, None]
  columns = np.arange(LENGTH)
  real = (columns >= starts) & (columns < ends)
  tokens = rng.integers(1, VOCAB, real.shape, np.int32)
  tokens[:, :PROMPT] = np.repeat(tokens[::3, :PROMPT], 3, axis=0)
  shape = real.shape
  return annotated(
      types.Trajectory(
          tokens=tokens, attention_mask=real,
          response_mask=real & (columns >= PROMPT),
          weight=np.array([1, 1, 1, 1, 1, 0], np.float32),
          sampler_logprobs=np.zeros(shape, np.float32)),
      logprobs=shape, ref_logprobs=shape, values=shape, advantages=shape,
      returns=shape)


surrogate = objectives.clip_surrogate(clip=0.2)
sampled = dict(prompt_length=PROMPT, temperature=0.7)
# Per kind of batch: parameters, and what is trained on it.
OBJECTIVES = {
    'demonstrations': (PARAMS, {'sft': objectives.sft(MODEL)}),
    'pairs': (PARAMS, {
        'dpo': objectives.dpo(MODEL, chunk_size=5),
        'wpo': objectives.dpo(MODEL, wpo=True, sft_coef=0.5),
        'ld_dpo': objectives.dpo(
            MODEL, reduce=objectives.length_desensitized(0.3)),
        'simpo': objectives.preference(
            MODEL, functools.partial(losses.simpo_loss, beta=2.0, gamma=0.5),
            reduce=scoring.mean_tokens, has_reference=False)}),
    'pairs of rewards': (SCALAR_PARAMS, {
        'reward': objectives.reward(SCALAR, centering=0.1)}),
    'labels': (PARAMS, {'kto': objectives.kto(MODEL, beta=0.3)}),
    'rankings': (SCALAR_PARAMS, {
        'ranking': objectives.reward_ranking(SCALAR)}),
    'trajectory': (PARAMS, {
        'ppo': objectives.ppo_policy(MODEL, entropy_coef=0.1, **sampled),
        'grpo': objectives.policy_gradient(
            MODEL, surrogate, aggregate=objectives.sequence_mean, kl_coef=0.1,
            **sampled)}),
    'trajectory of values': (SCALAR_PARAMS, {
        'value': objectives.ppo_value(SCALAR)}),
}


@functools.cache
def program(kind):
  """(params, batch) to a gradient, and each objective's loss and metrics.

  The gradient is of all objectives of the kind, weighed differently, together:
  one backward pass to compile.
  """

  def total(params, batch):
    said = {name: objective(params, batch, KEY)
            for name, objective in OBJECTIVES[kind][1].items()}
    losses = [loss.total for loss, _ in said.values()]
    return sum(x / (1 + i) for i, x in enumerate(losses)), said

  return jax.jit(jax.grad(total, has_aux=True))


@functools.cache
def results(kind, how):
  """What all objectives of a kind give for the batch laid out in some way."""
  batch = batch_of(kind.partition(' ')[0])
  cells = 1 if kind.startswith('trajectory') else 2
  return jax.device_get(program(kind)(
      OBJECTIVES[kind][0], laid_out(batch, how, cells)))


def laid_out(batch, how, cells=1):
  """The batch under a layout; 'sampled' and 'planned' are the rollout's."""
  if how == 'planned':
    return types.split_cells(batch.replace(rows=rollout.fill_rows(
        planned(batch).rows, batch, prompt_length=PROMPT)))
  if how != 'sampled':
    return layout.make_layout(how, num_cells=cells, num_samples=3)(batch)
  return types.split_cells(batch.replace(rows=rollout.branch_rows(
      batch, num_samples=3, prompt_length=PROMPT)))


def planned(batch, **settings):
  """The trajectory's prompts, with the rows that are planned before sampling.
  """
  own = slice(PROMPT)
  plan = make_prompt_layout(
      'packed', max_new_tokens=LENGTH - PROMPT, num_samples=3, **settings)
  each = np.arange(len(batch.tokens), dtype=np.int32)
  return plan(types.PromptBatch(
      tokens=batch.tokens[:, own], attention_mask=batch.attention_mask[:, own],
      prompt_id=each // 3, sample_id=each % 3, weight=batch.weight))


def assert_same(got, expected):
  jax.tree_util.tree_map_with_path(
      lambda path, a, b: np.testing.assert_allclose(
          a, b, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path)),
      got, expected)


@pytest.mark.parametrize('kind, how', [
    *((kind, how) for kind in OBJECTIVES for how in ('packed', 'branched')),
    *(('trajectory' + of, how) for of in ('', ' of values')
      for how in ('sampled', 'planned'))])
def test_losses_metrics_and_gradients_equal_those_of_the_padded_batch(
    kind, how):
  padded = results(kind, 'padded')
  assert_same(results(kind, how), padded)
  gradient, said = padded  # There is something to compare.
  assert min(np.abs(g).max() for g in jax.tree.leaves(gradient)) > 1e-3
  for loss, _ in said.values():
    assert loss.weight > 0 and abs(loss.total) > 1e-3


def test_every_token_has_the_logprob_of_the_padded_batch():
  """Prompts' too, where all columns are asked for; else responses' only."""
  batch = trajectory()
  real = batch.attention_mask & (batch.weight > 0)[:, None]
  real[:, 1:] &= real[:, :-1]  # A row's first token is behind nothing.
  logprobs_of = jax.jit(lambda params, rows: scoring.token_logprobs(
      MODEL, params, batch.tokens, batch.attention_mask, rows=rows))
  padded = np.asarray(logprobs_of(PARAMS, None))
  for how in ('packed', 'branched', 'sampled', 'planned'):
    rows = laid_out(batch, how).rows
    got = np.asarray(logprobs_of(PARAMS, rows.replace(wanted=None)))
    np.testing.assert_allclose(got[real], padded[real], atol=1e-5)
    if how != 'sampled':
      answered = batch.response_mask & real
      got = np.asarray(logprobs_of(PARAMS, rows))
      np.testing.assert_allclose(
          got, np.where(answered, padded, 0.0), atol=1e-5)


def test_what_bears_no_loss_is_not_unembedded():
  """The largest matmul of a small model, by half of its FLOPs here."""
  batch = layout.make_layout('packed')(batch_of('demonstrations'))
  rows = batch.rows
  assert rows.wanted.shape[1] <= rows.tokens.size / 2
  objective = OBJECTIVES['demonstrations'][1]['sft']
  gradient = jax.grad(lambda params, rows: objective(
      params, batch.replace(rows=rows), KEY)[0].total)
  flops = [jax.jit(gradient).lower(PARAMS, r).compile().cost_analysis()['flops']
           for r in (rows, rows.replace(wanted=None))]
  table = 6 * VOCAB * MODEL.config.hidden_size
  saved = rows.tokens.size - rows.wanted.shape[1]
  assert flops[1] - flops[0] > 0.8 * saved * table


@pytest.mark.parametrize('kind', ['demonstrations', 'pairs', 'rankings'])
def test_fewer_tokens_are_read(kind):
  """Else this would be three names for padding."""
  packed, branched = (layout.make_layout(how)(batch_of(kind)).rows
                      for how in ('packed', 'branched'))
  assert packed.tokens.size < batch_of(kind).tokens.size
  read = [rows.attention_mask.sum() for rows in (packed, branched)]
  assert read[0] == read[1] if kind == 'demonstrations' else read[1] < read[0]


def test_rows_are_planned_before_anything_is_sampled():
  """With every response's places blank, of one shape whatever is sampled."""
  batch = trajectory()
  rows, width = planned(batch).rows, planned(batch).width
  assert width == PROMPT  # One prompt is as long; its quarters are of 2.
  short = batch.replace(attention_mask=batch.attention_mask & (
      np.arange(LENGTH) >= PROMPT - 2))
  assert planned(short).width == 2
  roomy = planned(short, like=[planned(batch)])
  assert roomy.width == PROMPT
  assert roomy.rows.tokens.shape == rows.tokens.shape
  per_prompt = PROMPT + 3 * (LENGTH - PROMPT + 1) - 1
  assert rows.tokens.shape[-1] >= per_prompt and rows.tokens.shape[0] == 1
  blank = np.flatnonzero(rows.tokens.reshape(-1) < 0)
  at = rows.index[0, batch.weight > 0, PROMPT:]
  np.testing.assert_array_equal(blank, np.unique(at))
  assert at.size == blank.size == 5 * (LENGTH - PROMPT)
  filled = rollout.fill_rows(rows, batch, prompt_length=PROMPT)
  np.testing.assert_array_equal(
      np.asarray(filled.tokens).reshape(-1)[at],
      batch.tokens[batch.weight > 0, PROMPT:])
  assert np.asarray(filled.tokens).min() >= 0
  assert np.asarray(filled.attention_mask).sum() < rows.attention_mask.sum()


def test_rows_and_prompts_are_of_one_layout():
  batch = trajectory()
  share = functools.partial(
      rollout.make_share, num_samples=3, prompt_length=PROMPT,
      mesh=sharding.make_mesh('data:1', devices=jax.devices()[:1]))
  for how, rows in (('packed', None), ('padded', planned(batch).rows)):
    with pytest.raises(types.InputError, match='make_prompt_layout'):
      share(how)(batch, rows)
  with pytest.raises(types.InputError, match='whole groups'):
    planned(batch, num_cells=4)


@functools.cache
def of_chosen(kind):
  """(tokens [B, 2, T]) to a chosen response's logprobs and their gradient."""
  batch = batch_of('pairs')

  def total(params, rows):
    logprobs = scoring.pair_token_logprobs(
        MODEL, params, batch.tokens, batch.attention_mask, batch.loss_mask,
        rows=rows)[1, 0]
    return logprobs.sum(), logprobs

  jitted = jax.jit(jax.grad(total, has_aux=True))

  def measure(tokens):
    laid_out = layout.make_layout(kind)(batch.replace(tokens=tokens))
    return jax.device_get(jitted(PARAMS, laid_out.rows))

  return measure


@layouts
@given(st.permutations(range(1, VOCAB)))
def test_a_response_sees_no_other_prompt_and_no_other_branch(kind, words):
  """Other words there change neither value nor gradient, to the last bit."""
  batch = batch_of('pairs')
  other = np.array([0, *words])[batch.tokens].astype(np.int32)
  other[1, 0] = batch.tokens[1, 0]
  # In the rejected response only what is behind its first token, lest the two
  # begin alike by chance.
  start = np.argmax(batch.loss_mask[1, 1])
  other[1, 1, :start + 1] = batch.tokens[1, 1, :start + 1]
  measure = of_chosen(kind)
  jax.tree.map(np.testing.assert_array_equal, measure(other),
               measure(batch.tokens))


def test_over_a_mesh_that_splits_rows_no_state_is_gathered_to_be_picked():
  """The loss is the same, and all columns are unembedded where they lie."""
  mesh = sharding.make_mesh('sequence:8')
  rows = layout.make_layout('packed')(batch_of('demonstrations')).rows
  batch = batch_of('demonstrations')
  logprobs_of = lambda params, rows: scoring.token_logprobs(
      MODEL, params, batch.tokens, batch.attention_mask, rows=rows)
  wanted = batch.loss_mask & (batch.weight > 0)[:, None]
  wanted[:, 0] = False
  alone = np.asarray(jax.jit(logprobs_of)(PARAMS, rows))
  split = np.asarray(partitioning.jit(logprobs_of, mesh)(PARAMS, rows))
  np.testing.assert_allclose(split[wanted], alone[wanted], atol=1e-5)
  prompts = batch.attention_mask & ~wanted & (batch.weight > 0)[:, None]
  prompts[:, 0] = False
  assert (split[prompts] < 0).any() and not alone[prompts].any()
