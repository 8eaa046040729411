"""A run's folder: who may write there, its config, and how it ends.

    workdir/
      config.json     the settings, defaults resolved
      metrics.jsonl   one line per step
      checkpoints/    to resume from
      model/          the result, a Hugging Face folder
      summary.json    the last file written: its presence means "done"
"""

import dataclasses
import json
import os
import pathlib
import time
from typing import Literal

import jax

from alignjax import hf
from alignjax import metrics as metrics_lib
from alignjax import sharding
from alignjax import train
from alignjax.models import CausalLM
from alignjax.types import InputError

# In a model's folder: it speaks the testbed's language.
TESTBED_MARK = 'testbed.json'

# Settings that may differ between a run and its continuation.
_FREE = ('workdir', 'resume', 'mesh', 'save_every')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """The flags that every experiment has."""

  workdir: str           # Folder of this run; made if absent.
  model: str = 'testbed'  # 'testbed', or a Hugging Face folder to start from.
  data: str = 'testbed'   # 'testbed', or a file: .jsonl or .jsonl.gz.
  resume: bool = False   # Go on where the run in --workdir stopped.
  seed: int = 0
  mesh: str = 'data:-1'  # Devices by axis: data, fsdp, tensor; -1: the rest.
  save_every: int = 0    # Steps between checkpoints; 0 saves the last only.
  long_prompts: Literal['auto', 'error', 'drop', 'left'] = 'auto'  # What to
  # do with prompts that leave no room: drop and count up to a quarter of the
  # file (auto), refuse the file, drop all, or cut them on the left.
  plain: bool = False    # Leave the folder's chat template out.


@dataclasses.dataclass(frozen=True)
class Run:
  """An opened workdir."""

  workdir: pathlib.Path
  name: str
  console: metrics_lib.Console
  mesh: jax.sharding.Mesh
  started: float
  is_testbed: bool

  @property
  def model_dir(self) -> pathlib.Path:
    """Where the result is written, as a Hugging Face folder."""
    return self.workdir / 'model'

  @property
  def num_shards(self) -> int:
    """Into how many parts each batch is split."""
    return sharding.num_batch_shards(self.mesh)

  @property
  def is_done(self) -> bool:
    """Whether an earlier call of the same command finished."""
    return (self.workdir / 'summary.json').exists()

  def summary(self) -> dict:
    """What `finish` wrote."""
    return json.loads((self.workdir / 'summary.json').read_text())

  def stage(self, cfg: 'RunConfig', **settings) -> train.Stage:
    """How long and where this run trains, from its config."""
    return train.Stage(
        name=self.name, workdir=self.workdir, mesh=self.mesh, seed=cfg.seed,
        num_steps=cfg.num_steps, save_every=cfg.save_every,
        console=self.console, **settings)

  def save_model(self, model, params, tokenizer, head=None) -> None:
    """Writes the result to `model/`; marks a testbed model as one."""
    hf.save_model(self.model_dir, model.config, params, tokenizer=tokenizer,
                  head=head)
    if self.is_testbed:
      write_json(self.model_dir / TESTBED_MARK, {'world': 0})

  def stage_summary(self, name: str) -> dict | None:
    """What a stage in a folder of this run's left; None if it left nothing."""
    path = self.workdir / name / 'summary.json'
    return json.loads(path.read_text()) if path.exists() else None

  def finish(self, summary: dict) -> dict:
    """Writes summary.json, the last file of a run, and returns it."""
    seconds = round(time.monotonic() - self.started, 1)
    summary = {'stage': self.name, 'seconds': seconds} | summary
    write_json(self.workdir / 'summary.json', summary)
    return summary


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON so that a reader sees the old file or the new, never half."""
  draft = path.with_name(path.name + '.tmp')
  draft.write_text(json.dumps(value, indent=2, allow_nan=False) + '\n')
  os.replace(draft, path)


def with_defaults(cfg: RunConfig, *, testbed: dict, folder: dict) -> RunConfig:
  """Fills the settings that are None: one set for the testbed, one for folders.

  A world of 400 words and a 135M model do not want the same learning rate.
  A folder that holds a testbed model counts as the testbed.
  """
  values = testbed if is_testbed(cfg.model) else folder
  return dataclasses.replace(cfg, **{
      name: value for name, value in values.items()
      if getattr(cfg, name) is None})


def is_testbed(model: str) -> bool:
  """Whether `--model` is the testbed or a folder that one of its runs wrote."""
  return model == 'testbed' or (pathlib.Path(model) / TESTBED_MARK).exists()


def start(cfg: RunConfig, name: str) -> Run:
  """Opens the workdir for this config, or refuses it.

  Raises:
    InputError: the folder holds another run, or one that --resume was not
      asked to continue, or files that are no run's.
  """
  workdir = pathlib.Path(cfg.workdir)
  path = workdir / 'config.json'
  config = {'experiment': name} | dataclasses.asdict(cfg)
  if path.exists():
    _check_same(config, json.loads(path.read_text()), cfg)
  elif workdir.is_dir() and any(workdir.iterdir()):
    raise InputError(
        f'workdir={cfg.workdir} holds files but no run (no config.json); '
        'choose an empty or a new folder')
  elif workdir.exists() and not workdir.is_dir():
    raise InputError(f'workdir={cfg.workdir} is a file; choose a new folder')
  mesh = sharding.make_mesh(cfg.mesh)
  workdir.mkdir(parents=True, exist_ok=True)
  write_json(path, config)
  return Run(workdir, name, metrics_lib.Console(), mesh,
             time.monotonic(), is_testbed(cfg.model))


def _check_same(config: dict, before: dict, cfg: RunConfig) -> None:
  """A workdir continues the run that it holds, with --resume, or none."""
  if not cfg.resume:
    raise InputError(
        f'workdir={cfg.workdir} already holds a run; add --resume to go on '
        'with it, or choose a new folder')
  for field in sorted((config.keys() | before.keys()) - set(_FREE)):
    if config.get(field) != before.get(field):
      raise InputError(
          f'workdir={cfg.workdir} holds a run with {field}='
          f'{before.get(field)!r}, not {config.get(field)!r}; repeat its '
          'settings to resume, or choose a new folder')


def load_policy(folder: str | os.PathLike):
  """(model, params, tokenizer) of a Hugging Face folder, in float32."""
  config, params = hf.load_model(folder)
  return CausalLM(config), params, hf.load_tokenizer(folder)
