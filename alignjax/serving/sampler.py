"""Requests that wait together are sampled together.

One thread owns the device. It takes the requests that wait, those of one
temperature and length at a time, and pads them to few shapes, so that few
programs compile. A response is a function of its prompt and its seed.
"""

import concurrent.futures
import queue
import threading
import time
from typing import NamedTuple

import jax
import numpy as np

from alignjax import evaluation
from alignjax import hf
from alignjax import rollout
from alignjax import sharding
from alignjax.models import CausalLM
from alignjax.types import InputError
from alignjax.types import PromptBatch

_PAUSE = 0.005  # Seconds in which requests join the first.


class Draw(NamedTuple):
  """What is to be sampled."""

  prompt: tuple[int, ...]
  seed: int
  max_tokens: int
  temperature: float


class Sampler:
  """A model, and the thread that samples from it."""

  def __init__(self, folder: str, *, dtype: str, mesh: jax.sharding.Mesh,
               max_batch: int = 128):
    """Loads a Hugging Face folder and starts the thread.

    Args:
      folder: of the model and its tokenizer.
      dtype: of weights and matmuls.
      mesh: that the rows are split over.
      max_batch: requests that are sampled together at most.
    """
    self._dtype, self._mesh = dtype, mesh
    self._max_batch = max_batch
    self.tokenizer = hf.load_tokenizer(folder)
    self.config, self._params = self._read(folder)
    self._programs = {}
    self._waiting = queue.Queue()
    self._lock = threading.Lock()  # Of the parameters.
    threading.Thread(target=self._work, daemon=True).start()

  def draw(self, request: Draw) -> concurrent.futures.Future:
    """A future of (tokens, logprobs)."""
    future = concurrent.futures.Future()
    self._waiting.put((request, future))
    return future

  def load(self, folder: str) -> None:
    """Samples by another folder's weights from now on.

    Raises:
      InputError: the folder is none, or of another shape.
    """
    config, params = self._read(folder)
    if config != self.config:
      raise InputError(f'folder={folder} is a model of another shape than the '
                       'one that is served; start a server with it')
    with self._lock:
      self._params = params

  def _read(self, folder: str):
    """(config, parameters on the mesh)."""
    config, params = hf.load_model(
        folder, dtype=self._dtype, param_dtype=self._dtype,
        scan_layers=False)
    return config, sharding.put(params, sharding.replicated(self._mesh))

  def _work(self) -> None:
    """Samples what waits, for ever."""
    while True:
      batch = [self._waiting.get()]
      time.sleep(_PAUSE)
      while len(batch) < self._max_batch and not self._waiting.empty():
        batch.append(self._waiting.get())
      kinds = {}
      for request, future in batch:
        kinds.setdefault((request.max_tokens, request.temperature), []).append(
            (request, future))
      for kind, items in kinds.items():
        try:
          answers = self._sample([r for r, _ in items], *kind)
        except Exception as error:  # The one who asked is told; we go on.
          for _, future in items:
            future.set_exception(error)
        else:
          for (_, future), answer in zip(items, answers, strict=True):
            future.set_result(answer)

  def _sample(self, requests: list[Draw], max_tokens: int, temperature: float):
    """[(tokens, logprobs)] of requests of one kind."""
    # One program for lengths up to a power of two; what is longer is cut off.
    longest = _power(max_tokens)
    kind = longest, temperature
    if kind not in self._programs:
      self._programs[kind] = rollout.make_generate(
          CausalLM(self.config), max_new_tokens=longest, mesh=self._mesh,
          eos_id=self.tokenizer.eos_id, temperature=temperature)
    with self._lock:
      params = self._params
    rows = sharding.put(
        self._rows(requests), sharding.batch_sharding(self._mesh))
    # The seed names the prompt, so that nothing else decides the draws.
    with jax.default_matmul_precision('highest'):  # See `commands.common`.
      trajectory = self._programs[kind](params, rows, jax.random.key(0))
    responses = evaluation.read_responses(
        trajectory, eos_id=self.tokenizer.eos_id)
    logprobs, mask = jax.device_get(
        (trajectory.sampler_logprobs, trajectory.response_mask))
    return [(r.tokens[:max_tokens], x[m].tolist()[:max_tokens])
            for r, x, m in zip(responses, logprobs, mask)]

  def _rows(self, requests: list[Draw]) -> PromptBatch:
    """The prompts, padded on the left, in one of few shapes."""
    width = _power(max(len(r.prompt) for r in requests))
    shards = sharding.num_batch_shards(self._mesh)
    count = -(-_power(len(requests)) // shards) * shards
    tokens = np.full((count, width), self.tokenizer.pad_id, np.int32)
    mask = np.zeros((count, width), bool)
    for i, request in enumerate(requests):
      tokens[i, width - len(request.prompt):] = request.prompt
      mask[i, width - len(request.prompt):] = True
    mask[len(requests):, -1] = True  # Filler reads one token.
    fill = count - len(requests)
    return PromptBatch(
        tokens=tokens, attention_mask=mask,
        prompt_id=np.array([r.seed for r in requests] + [0] * fill, np.int32),
        sample_id=np.zeros(count, np.int32),
        weight=np.array([1.0] * len(requests) + [0.0] * fill, np.float32))


def _power(count: int) -> int:
  """The next power of two, 8 at least."""
  return max(8, 1 << (count - 1).bit_length())
