"""A bench where TRL's own trainers and our losses meet the same logits.

A trainer of TRL is made without its __init__ and given the attributes that its
loss reads; its model is one that says given logits. On our side those logits
are hidden states under an unembedding that is the identity.
"""

from collections import defaultdict
from collections.abc import Callable
import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignjax import logprobs

# Of float32 values and gradients; nowhere is it looser.
TOLERANCE = dict(rtol=1e-5, atol=1e-5)


class Rows(NamedTuple):
  """Token rows, and what two models say of them."""

  tokens: np.ndarray  # [B, T]
  mask: np.ndarray  # [B, T] booleans, the responses.
  attention: np.ndarray  # [B, T] booleans, prompts and responses.
  logits: np.ndarray  # [B, T, V]
  ref_logits: np.ndarray  # [B, T, V]


class Bench:
  """Trainers without __init__, models that say given logits, and the check."""

  def __init__(self, torch, accelerator):
    self.torch = torch
    self._accelerator = accelerator

  def trainer(self, trainer_class: type, **attributes) -> Any:
    """An instance of TRL's class that knows only what its loss reads."""
    trainer = object.__new__(trainer_class)
    trainer.__dict__.update(dict(
        accelerator=self._accelerator, aux_loss_enabled=False, _tp_size=1,
        _metrics={'train': defaultdict(list), 'eval': defaultdict(list)},
        _total_train_tokens=0) | attributes)
    return trainer

  def says(self, *logits, temperature: float = 1.0, outputs=()) -> Any:
    """A model of which each call says the next of some logits, in a cycle."""
    torch = self.torch
    turns = itertools.cycle([torch.as_tensor(x) for x in logits])

    def next_logits(*args, **kwargs):
      said = next(turns)
      asked = args[0] if args else kwargs['input_ids']
      assert asked.shape == said.shape[:2]
      return said

    class Says(torch.nn.Module):
      """As much of a transformers model as TRL's fused head looks at."""

      config = SimpleNamespace(get_text_config=SimpleNamespace)
      is_gradient_checkpointing = False

      def __init__(self):
        super().__init__()
        width = logits[0].shape[-1]
        self.head = torch.nn.Linear(width, width, bias=False)
        self.head.weight = torch.nn.Parameter(
            torch.eye(width), requires_grad=False)

      def base_model(self, *args, **kwargs):
        return SimpleNamespace(last_hidden_state=next_logits(*args, **kwargs))

      def forward(self, *args, **kwargs):
        return SimpleNamespace(logits=next_logits(*args, **kwargs))

      def get_output_embeddings(self):
        return self.head

    model = Says()
    if outputs:
      from trl.trainer.utils import add_fused_lm_head

      add_fused_lm_head(model, temperature=temperature, outputs=outputs)
    return model

  def tensors(self, **arrays) -> dict[str, Any]:
    """The arrays as TRL has them: masks are ints, the rest as it is."""
    return {
        name: self.torch.tensor(x.astype(np.int64) if x.dtype == bool else x)
        for name, x in arrays.items()}

  def check(
      self, ours: Callable, theirs: Callable, x: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Both losses of `x` have one value and one gradient, which it returns."""
    value, grad = jax.jit(jax.value_and_grad(ours))(x)
    due, due_grad = self.loss_and_grad(theirs, x)
    np.testing.assert_allclose(value, due, **TOLERANCE)
    np.testing.assert_allclose(grad, due_grad, **TOLERANCE)
    assert np.abs(due_grad).max() > 1e-2  # Zeros would agree whatever we do.
    return np.asarray(value), np.asarray(grad)

  def loss_and_grad(
      self, theirs: Callable, x: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """TRL's loss of `x` and its gradient."""
    leaf = self.torch.tensor(x, requires_grad=True)
    loss = theirs(leaf)
    loss.backward()
    assert loss.dtype == self.torch.float32
    return loss.detach().numpy(), leaf.grad.numpy()

  @staticmethod
  def logprobs(logits, tokens, temperature: float = 1.0) -> jax.Array:
    """[B, T] of the tokens, by our function for hidden states."""
    return logprobs.token_logprobs(
        logits, jnp.eye(logits.shape[-1]), tokens, temperature=temperature)


@pytest.fixture(scope='session')
def bench() -> Bench:
  """The bench, or a skip where TRL or torch is missing."""
  torch = pytest.importorskip('torch', reason='torch is not installed')
  accelerate = pytest.importorskip(
      'accelerate', reason='accelerate is not installed')
  return Bench(torch, accelerate.Accelerator(cpu=True))


@pytest.fixture(scope='session')
def rows() -> Rows:
  """Eight rows of unlike responses, some behind which padding lies."""
  rng = np.random.default_rng(0)
  starts = np.array([2, 1, 3, 2, 2, 1, 3, 2])[:, None]
  ends = np.array([7, 4, 6, 5, 5, 7, 7, 3])[:, None]
  column = np.arange(7)
  return Rows(
      tokens=rng.integers(0, 11, (8, 7)),
      mask=(starts <= column) & (column < ends),
      attention=column < ends,
      logits=rng.normal(0, 2, (8, 7, 11)).astype(np.float32),
      ref_logits=rng.normal(0, 2, (8, 7, 11)).astype(np.float32))
