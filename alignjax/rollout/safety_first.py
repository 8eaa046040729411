"""Two reward models as one: helpfulness, unless safety speaks first."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

_BASE = 1_000_003  # Odd, so that no power of it is 0 in 32 bits.


def safety_first(
    helpfulness: jax.Array, safety: jax.Array, is_safety_prompt: jax.Array, *,
    threshold: float = 0.15,
) -> jax.Array:
  """The score that a policy is to be improved by.

    R_c = R_s   if the prompt is tagged as one of safety, or σ(R_s) < threshold
          R_h   else

  Touvron et al. (2023), section 3.2.3, https://arxiv.org/abs/2307.09288. The
  paper has the models' sigmoids in R_c and undoes them with a logit behind the
  choice; a score is its own logit, so nothing is squashed here. It whitens the
  result, which is the optimiser's to do (`PPOConfig.whiten_scores`).

  Args:
    helpfulness: [B] R_h, scores of the helpfulness model, any unit.
    safety: [B] R_s, of the safety model.
    is_safety_prompt: [B] bool, whether the prompt invites harm.
    threshold: probability of being safe below which safety is all that counts,
      in (0, 1); 0.15 had precision 0.89 and recall 0.55 on the paper's tests.

  Returns:
    [B] scores, each one of the two; R_h where nothing is tagged and all is
    safe.
  """
  chex.assert_equal_shape((helpfulness, safety, is_safety_prompt))
  chex.assert_rank(helpfulness, 1)
  unsafe = jax.nn.sigmoid(safety) < threshold
  return jnp.where(is_safety_prompt | unsafe, safety, helpfulness)


def prompt_hash(tokens: jax.Array, is_prompt: jax.Array) -> jax.Array:
  """[B] uint32 names of prompts, whatever their padding on the left.

  Two prompts share a name with a chance of 2⁻³². A polynomial over the tokens,
  so that a device finds a prompt in a table without asking the host.

  Args:
    tokens: [B, P] int32, prompts in the last columns.
    is_prompt: [B, P] bool, the prompts' tokens.
  """
  powers = np.cumprod(np.full(
      tokens.shape[1], _BASE, np.uint32), dtype=np.uint32)[::-1]
  terms = (tokens.astype(jnp.uint32) + 1) * powers
  return jnp.sum(jnp.where(is_prompt, terms, 0), axis=1, dtype=jnp.uint32)


def make_safety_first(
    helpfulness_fn: Callable[..., jax.Array],
    safety_fn: Callable[..., jax.Array], safety_prompts, *,
    prompt_length: int, threshold: float = 0.15,
) -> Callable[..., jax.Array]:
  """Returns `reward(tokens, attention_mask[, rows]) -> [B]` by `safety_first`.

  Args:
    helpfulness_fn: `rollout.make_reward_fn`'s of the one model.
    safety_fn: of the other.
    safety_prompts: tokens of each prompt that is tagged; may be none.
    prompt_length: P, the column at which responses begin.
    threshold: see `safety_first`.
  """
  named = jnp.asarray(sorted(
      {int(_hash_of(tokens)) for tokens in safety_prompts}), jnp.uint32)

  @jax.jit
  def combine(helpfulness, safety, tokens, attention_mask):
    names = prompt_hash(tokens[:, :prompt_length],
                        attention_mask[:, :prompt_length])
    return safety_first(helpfulness, safety, jnp.isin(names, named),
                        threshold=threshold)

  def reward(tokens, attention_mask, rows=None):
    shared = () if rows is None else (rows,)
    return combine(helpfulness_fn(tokens, attention_mask, *shared),
                   safety_fn(tokens, attention_mask, *shared),
                   tokens, attention_mask)

  return reward


def _hash_of(tokens) -> jax.Array:
  """The name of one prompt that is not padded."""
  row = jnp.asarray(tokens, jnp.int32)[None]
  return prompt_hash(row, jnp.ones(row.shape, bool))[0]
