"""What a step costs, by length, microbatches and method, and what a save does.

  python -m benchmarks.costs --model DIR --part length

    length        shorter and longer rows, the same tokens in a batch
    microbatches  a batch of the first of --lengths in 1 to 8 parts
    methods       of the same: SFT on all responses of some pairs; DPO on the
                  pairs, with the reference's pass and without; and PPO of all
                  four models, an update by two responses that it samples to
                  each pair's prompt, as long as the pair's
    saving        --interval steps of the first of --lengths, of which one is
                  saved: not at all, in the background, and waited for

Of `length`, steps without attention are timed too, since its work grows with
the square of a row: every token sees itself alone there, and all else is as it
was. Medians; what is compared takes turns, so that what else the machine does
falls on all.
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
import statistics
import tempfile
import time
from typing import Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import adapters
from alignjax import checkpoints
from alignjax import cli
from alignjax import data
from alignjax import models
from alignjax import objectives
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import train
from alignjax.errors import InputError
from alignjax.models import attention
from alignjax.types import PreferenceBatch
from alignjax.types import PromptBatch
from alignjax.types import TokenBatch

_PARTS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of the measurement."""

  model: str  # A Hugging Face folder.
  # What is measured.
  part: Literal['length', 'microbatches', 'methods', 'saving'] = 'length'
  tokens: int = 4_096  # Of a batch; a multiple of every length.
  lengths: tuple[int, ...] = (256, 512, 1_024, 2_048)  # Tokens of a row.
  interval: int = 100  # Steps from a save to the next.
  repeats: int = 3  # Of each step.
  mesh: str = 'data:-1'  # Devices by axis.
  json: str = ''  # File for the result.


def main(cfg: Config) -> None:
  """Measures; see `Config`."""
  if not cfg.lengths or min(cfg.lengths) < 4 or cfg.repeats < 1 or any(
      cfg.tokens % length for length in cfg.lengths):
    raise InputError(
        f'tokens={cfg.tokens}, lengths={cfg.lengths}, repeats={cfg.repeats}: '
        'a length must be at least 4 and divide the tokens, and repeats at '
        'least 1')
  measure = {'length': _lengths, 'microbatches': _microbatches,
             'methods': _methods, 'saving': _saving}[cfg.part]
  rows = measure(cfg, _Model(cfg))
  show(cfg, rows)
  if cfg.json:
    pathlib.Path(cfg.json).write_text(json.dumps(
        dataclasses.asdict(cfg) | {'rows': rows}, indent=2) + '\n')


class _Model:
  """A model on its mesh, and steps of it that share one state."""

  def __init__(self, cfg: Config):
    self.mesh = sharding.make_mesh(cfg.mesh)
    self.model, params, _ = runs.load_policy(cfg.model)
    self.optimizer = train.make_optimizer(1e-6, 1_000)
    self.state, self.shardings = train.init_state(
        params, self.model.axes(), self.optimizer, mesh=self.mesh, seed=0)
    self.reference = sharding.put(params, self.shardings.params)

  def step(self, objective, batch, num_microbatches=1) -> Callable[[], None]:
    """Takes a step, and waits for it."""
    run = train.make_train_step(
        objective, self.optimizer, shardings=self.shardings, mesh=self.mesh,
        num_microbatches=num_microbatches)

    def once():
      self.state, metrics = run(self.state, batch)
      jax.block_until_ready(metrics)

    return once

  def put(self, batch):
    """A batch, its rows over the mesh."""
    return sharding.put(batch, sharding.batch_sharding(self.mesh))

  def texts(self, rows: int, length: int) -> TokenBatch:
    """Rows of random tokens that all bear loss."""
    size = rows, length
    return self.put(TokenBatch(
        tokens=self.ids(size), attention_mask=np.ones(size, bool),
        loss_mask=np.ones(size, bool), weight=np.ones(rows, np.float32)))

  def ids(self, size) -> np.ndarray:
    """Random token ids."""
    return np.random.default_rng(0).integers(
        0, self.model.config.vocab_size, size).astype(np.int32)


def _lengths(cfg: Config, model: _Model) -> list[dict]:
  """Steps as they are, and steps in which every token sees itself alone."""
  batches = [model.texts(cfg.tokens // length, length)
             for length in cfg.lengths]
  whole, rest = ([model.step(objectives.sft(model.model), batch)
                  for batch in batches] for _ in range(2))
  with mock.patch.object(attention, 'attend', _see_oneself):
    for step in rest:
      step()  # Is traced here.
  seconds = _in_turns(cfg.repeats, whole + rest)
  return [{'tokens a row': length, 'seconds': one, 'attention': one - other,
           'rest': other, 'tokens/s': cfg.tokens / one,
           'tokens/s of the rest': cfg.tokens / other}
          for length, one, other in zip(
              cfg.lengths, seconds, seconds[len(batches):], strict=False)]


def _see_oneself(query, key, value, seen, **settings):
  """Nearly what `attend` returns where a token sees none but itself.

  Query and key are in it by a millionth, so that they are made, and learnt.
  """
  del seen, settings
  own = jnp.moveaxis(value + 1e-6 * key, 1, 2)
  return jnp.repeat(own, query.shape[2] // own.shape[2], axis=2) + 1e-6 * query


def _microbatches(cfg: Config, model: _Model) -> list[dict]:
  length = cfg.lengths[0]
  batch = model.texts(cfg.tokens // length, length)
  seconds = _in_turns(cfg.repeats, [
      model.step(objectives.sft(model.model), batch, parts)
      for parts in _PARTS])
  return [{'microbatches': parts, 'seconds': each,
           'tokens/s': cfg.tokens / each}
          for parts, each in zip(_PARTS, seconds, strict=True)]


def _methods(cfg: Config, model: _Model) -> list[dict]:
  """Pairs of which half of each text is the prompt, which both share."""
  length = cfg.lengths[0]
  pairs = cfg.tokens // length // 2
  size = pairs, 2, length
  tokens = model.ids(size)
  tokens[:, 1, :length // 2] = tokens[:, 0, :length // 2]
  answered = np.broadcast_to(np.arange(length) >= length // 2, size)
  batch = PreferenceBatch(
      tokens=tokens, attention_mask=np.ones(size, bool), loss_mask=answered,
      weight=np.ones(pairs, np.float32))
  texts = TokenBatch(
      tokens=tokens.reshape(-1, length), loss_mask=answered.reshape(-1, length),
      attention_mask=np.ones((2 * pairs, length), bool),
      weight=np.ones(2 * pairs, np.float32))
  lay = data.make_layout(
      'branched', num_cells=sharding.num_batch_shards(model.mesh))
  texts, batch = model.put(lay(texts)), model.put(lay(batch))
  annotate = rollout.make_reference(
      model.model, model.reference, mesh=model.mesh,
      param_shardings=model.shardings.params)
  reference = lambda: jax.block_until_ready(annotate(None, batch))
  sft, dpo, asked, ppo = _in_turns(cfg.repeats, [
      model.step(objectives.sft(model.model), texts),
      model.step(objectives.dpo(model.model), reference()), reference,
      _ppo(model, tokens[:, 0, :length // 2])])
  row = lambda name, seconds: {
      'step': name, 'seconds': seconds, "of SFT's": seconds / sft}
  return [row('SFT', sft), row('DPO', dpo + asked),
          row('DPO, the reference known', dpo), row('PPO', ppo)]


def _ppo(model: _Model, prompts: np.ndarray) -> Callable[[], None]:
  """An iteration that samples two responses as long as its prompt to each."""
  prompts = np.repeat(prompts, 2, axis=0)
  rows, width = prompts.shape
  mesh, scalar = model.mesh, models.ScalarModel(model.model.config)
  policy = adapters.full(model.model, model.reference, '')
  value = adapters.full(
      scalar, scalar.init(jax.random.key(0), model.reference), '')
  config = train.PPOConfig(
      num_epochs=1, num_minibatches=1, max_new_tokens=width, num_samples=2,
      layout='branched')
  state, shardings = train.init_ppo_state(
      policy, value, model.optimizer, model.optimizer, config, mesh=mesh,
      seed=0)
  score = rollout.make_reward_fn(
      scalar, sharding.put(value.params, shardings.value.params), mesh=mesh,
      param_shardings=shardings.value.params)
  iterate = train.make_ppo_iteration(
      policy, value, score, model.optimizer, model.optimizer, config,
      shardings=shardings, mesh=mesh, prompt_length=width, eos_id=-1)
  prompt_id, sample_id = np.divmod(np.arange(rows, dtype=np.int32), 2)
  batch, held = model.put(PromptBatch(
      tokens=prompts, attention_mask=np.ones(prompts.shape, bool),
      prompt_id=prompt_id, sample_id=sample_id,
      weight=np.ones(rows, np.float32))), [state]

  def once():
    held[0], metrics = iterate(held[0], batch)
    jax.block_until_ready(metrics)

  return once


def _saving(cfg: Config, model: _Model) -> list[dict]:
  """The first of the steps is saved, so that the others are there meanwhile."""
  length = cfg.lengths[0]
  step = model.step(
      objectives.sft(model.model),
      model.texts(cfg.tokens // length, length))

  def interval(save: Callable[[pathlib.Path, checkpoints.BackgroundSaver], None]
               ) -> Callable[[], None]:
    def run():
      saver = checkpoints.BackgroundSaver()
      with tempfile.TemporaryDirectory() as folder:
        for i in range(cfg.interval):
          step()
          if not i:
            save(pathlib.Path(folder), saver)
        saver.wait()
    return run

  seconds = _in_turns(cfg.repeats, [
      interval(lambda folder, saver: None),
      interval(lambda folder, saver: saver.save(folder, 1, model.state)),
      interval(lambda folder, saver: checkpoints.save(folder, 1, model.state)),
  ])
  names = 'nothing is saved', 'in the background', 'waited for'
  return [{'steps in which': name, 'seconds': each,
           'more, %': 100 * (each / seconds[0] - 1)}
          for name, each in zip(names, seconds, strict=True)]


def _in_turns(repeats: int, functions: list[Callable]) -> list[float]:
  """Median seconds of each function, called in turns after one that compiles.
  """
  seconds = [[] for _ in functions]
  for turn in range(repeats + 1):
    for function, own in zip(functions, seconds, strict=True):
      began = time.monotonic()
      function()
      if turn:
        own.append(time.monotonic() - began)
  return [statistics.median(own) for own in seconds]


def show(cfg: Config, rows: list[dict]) -> None:
  """The table."""
  print(f'{cfg.tokens:,} tokens a batch; medians of {cfg.repeats}')
  print(''.join(f'{name:>26}' for name in rows[0]))
  for row in rows:
    print(''.join(f'{x:>26}' if isinstance(x, str) else f'{x:26,.2f}'
                  for x in row.values()))


if __name__ == '__main__':
  cli.run(main, Config)
