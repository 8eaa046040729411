"""A model as somebody to talk to: replies to prompts, and choices of a label.

Constitutional AI, judges and multiple choice ask in texts; these put the texts
through the model's chat template, sample or read it, and give texts or numbers
back.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import data
from alignjax import hf
from alignjax import rollout
from alignjax import scoring
from alignjax import sharding
from alignjax.evaluation.responses import Response
from alignjax.evaluation.responses import sample_responses
from alignjax.models import CausalLM
from alignjax.types import InputError

Prompt = str | Sequence[dict[str, str]]


def make_reply(
    model: CausalLM, params, tokenizer: hf.Tokenizer, *, max_new_tokens: int,
    max_length: int, mesh: jax.sharding.Mesh, batch_size: int = 256,
    temperature: float = 1.0, seed: int = 0,
) -> Callable[[Sequence[Prompt], int], list[tuple[str, bool]]]:
  """Returns `reply(prompts, turn) -> [(text, whether it ended by itself)]`.

  Args:
    model: the decoder.
    params: its parameters, on the mesh.
    tokenizer: with its chat template.
    max_new_tokens: of a reply, EOS included.
    max_length: tokens of prompt and reply.
    mesh: whose batch axes split the rows.
    batch_size: rows sampled at one time.
    temperature: of sampling; 0 takes the likeliest.
    seed: of the samples. `turn` is folded in, so that the turns of a
      conversation draw independently.
  """
  width = max_length - max_new_tokens
  generate = rollout.make_generate(
      model, max_new_tokens=max_new_tokens, eos_id=tokenizer.eos_id, mesh=mesh,
      temperature=temperature)

  def reply(prompts, turn=0):
    rows = tokenize(prompts, tokenizer, width)
    groups, _ = sample_responses(
        generate, params, rows, width=width, eos_id=tokenizer.eos_id, mesh=mesh,
        batch_size=_whole(batch_size, len(rows), mesh),
        seed=int(np.random.SeedSequence([seed, turn]).generate_state(1)[0] >> 1)
    )
    return [_text(group[0], tokenizer) for group in groups]

  return reply


def make_label_logprobs(
    model: CausalLM, params, tokenizer: hf.Tokenizer, labels: Sequence[str], *,
    max_length: int, mesh: jax.sharding.Mesh, batch_size: int = 256,
) -> Callable[[Sequence[Prompt]], np.ndarray]:
  """Returns `label_logprobs(prompts) -> [N, L]`, in nats.

  The log-probability that the answer begins with each label's first token.

  Args:
    model: the decoder.
    params: its parameters, on the mesh.
    tokenizer: with its chat template.
    labels: [L] such as 'A' and 'B'; no two may begin with the same token.
    max_length: tokens of a prompt, at most.
    mesh: whose batch axes split the rows.
    batch_size: rows read at one time.

  Raises:
    InputError: labels that one token does not tell apart.
  """
  firsts = [tokenizer.encode(label)[0] for label in labels]
  if len(set(firsts)) < len(labels):
    raise InputError(
        f'labels={", ".join(labels)} begin with the same token in this '
        'tokenizer; use others, such as A and B')

  def last_logprobs(params, batch):
    hidden = model.hidden(params, batch.tokens, batch.attention_mask)[:, -1]
    logits = jnp.einsum('bd,vd->bv', hidden, model.unembedding(params),
                        preferred_element_type=jnp.float32)
    cap = model.config.logit_softcap
    logits = logits if cap is None else cap * jnp.tanh(logits / cap)
    return jax.nn.log_softmax(logits)[:, np.array(firsts)]

  read = jax.jit(last_logprobs)

  def label_logprobs(prompts):
    rows = tokenize(prompts, tokenizer, max_length)
    size = _whole(batch_size, len(rows), mesh)
    found = []
    for batch in data.prompt_batches(
        rows, batch_size=size, max_length=max_length, num_epochs=1,
        num_samples=1, shuffle=False):
      batch = sharding.put(batch, sharding.batch_sharding(mesh))
      found.append(sharding.to_host(read(params, batch)))
    return np.concatenate(found)[:len(rows)]

  return label_logprobs


def make_response_logprobs(
    model: CausalLM, params, tokenizer: hf.Tokenizer, *, max_length: int,
    mesh: jax.sharding.Mesh, batch_size: int = 64, chunk_size: int = 128,
) -> Callable[[Sequence[Prompt], Sequence[str]],
              tuple[np.ndarray, np.ndarray]]:
  """Returns `response_logprobs(prompts, responses) -> ([N] nats, [N] tokens)`.

  Sums over the responses' tokens, the EOS that ends each among them, given the
  prompts: Σ logprobs / Σ tokens is the mean whose negative's exponential is the
  perplexity.

  Args:
    model: the decoder.
    params: its parameters, on the mesh.
    tokenizer: with its chat template.
    max_length: tokens of prompt and response; longer ones are refused.
    mesh: whose batch axes split the rows.
    batch_size: rows read at one time.
    chunk_size: columns unembedded at one time.
  """
  read = jax.jit(lambda params, batch: scoring.response_logprobs(
      model, params, batch.tokens, batch.attention_mask, batch.loss_mask,
      chunk_size=chunk_size))

  def response_logprobs(prompts, responses):
    rows = _answered(prompts, responses, tokenizer, max_length)
    found = [sharding.to_host(read(params, batch)) for batch in _batches(
        rows, batch_size, max_length, tokenizer.pad_id, mesh)]
    return (np.concatenate(found)[:len(rows)],
            np.array([len(r.tokens) - r.prompt_length for r in rows]))

  return response_logprobs


def make_score(
    reward_fn: Callable, tokenizer: hf.Tokenizer, *, max_length: int,
    mesh: jax.sharding.Mesh, batch_size: int = 64,
) -> Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]:
  """Returns `score(prompts, responses) -> [N]`, a reward model's rewards.

  Args:
    reward_fn: `(tokens, attention_mask) -> [B]`, of `rollout.make_reward_fn`.
    tokenizer: the reward model's.
    max_length: tokens of prompt and response; longer ones are refused.
    mesh: whose batch axes split the rows.
    batch_size: rows read at one time.
  """

  def score(prompts, responses):
    rows = _answered(prompts, responses, tokenizer, max_length)
    found = [sharding.to_host(reward_fn(batch.tokens, batch.attention_mask))
             for batch in _batches(
                 rows, batch_size, max_length, tokenizer.pad_id, mesh)]
    return np.concatenate(found)[:len(rows)]

  return score


def _answered(prompts, responses, tokenizer, max_length):
  """Rows of prompts with their responses."""
  rows = []
  for prompt, response in zip(
      tokenize(prompts, tokenizer, max_length), responses, strict=True):
    tokens = np.concatenate([
        prompt.tokens, tokenizer.response_tokens(response)]).astype(np.int32)
    if len(tokens) > max_length:
      raise InputError(
          f'prompt {prompt.prompt_id} with its response has {len(tokens)} '
          f'tokens and there is room for {max_length}; raise --max-length')
    rows.append(data.TokenizedResponse(tokens, len(prompt.tokens)))
  return rows


def _batches(rows, batch_size, max_length, pad_id, mesh):
  """The rows on the mesh, all batches of one shape."""
  size = _whole(batch_size, len(rows), mesh)
  for start in range(0, len(rows), size):
    batch = data.collate_demonstrations(
        rows[start:start + size], batch_size=size, length=max_length,
        pad_id=pad_id)
    yield sharding.put(batch, sharding.batch_sharding(mesh))


def tokenize(
    prompts: Sequence[Prompt], tokenizer: hf.Tokenizer, width: int,
) -> list[data.TokenizedPrompt]:
  """Prompts as tokens.

  Raises:
    InputError: one is longer than `width`; it is shown with its length.
  """
  rows = []
  for number, prompt in enumerate(prompts):
    tokens = np.asarray(tokenizer.prompt_tokens(prompt), np.int32)
    if len(tokens) > width:
      shown = prompt if isinstance(prompt, str) else prompt[-1]['content']
      raise InputError(
          f'prompt {number}, which ends in {shown[-60:]!r}, has {len(tokens)} '
          f'tokens and there is room for {width}; raise --max-length')
    rows.append(data.TokenizedPrompt(tokens, number))
  return rows


def _text(response: Response, tokenizer: hf.Tokenizer) -> tuple[str, bool]:
  return tokenizer.decode(response.tokens).strip(), response.is_complete


def _whole(batch_size: int, count: int, mesh: jax.sharding.Mesh) -> int:
  """Rows at one time: no more than there are, and a whole share per device."""
  shards = sharding.num_batch_shards(mesh)
  return max(1, -(-min(batch_size, count) // shards)) * shards
